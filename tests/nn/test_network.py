"""A network: its parameters, its passes against the interpreter of the plan, its files."""

import copy
import json
import pickle
import re
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reference as ref
from gdkernels.nn.layers import Activation, Dropout, LayerNorm, Linear, Residual, RMSNorm
from gdkernels.nn.network import Network, load, mlp
from tests.layouts import LAYOUTS, laid_out
from tests.nn.networks import NETWORKS
from tests.nn.plan_interpreter import Interpreter

SMALL = [Linear(4, 5, "tanh"), LayerNorm(5), Residual(Linear(5, 5, "gelu"), Dropout(0.3)), Linear(5, 3)]


def bound(dtype, *arrays):
    """How far a pass may be from the interpreter.

    A chain of at most 6 layers, each of which sums at most 10 products (relative error 10 eps), takes an activation
    and normalises (some 10 eps more), and passes on the error before it, at most three times as large (1 / std of a
    row): 6 * 20 * 3^2 eps, relative to the largest number.
    """
    return 1000 * np.finfo(dtype).eps * max(1.0, *(float(np.abs(a).max(initial=0.0)) for a in arrays))


def oracle(net):
    """The interpreter with the network's parameters, in float64."""
    params = net._flat_params.astype(np.float64)
    return Interpreter(net._plan, params, np.zeros_like(params))


def perturbed(layers, dtype="float64", seed=0):
    """A network whose biases, shifts and scales are not the initial zeros and ones."""
    net = Network(layers, seed, dtype)
    rng = np.random.default_rng(100 + seed)
    for values in net.params.values():
        values += (0.3 * rng.standard_normal(values.shape)).astype(dtype)
    return net


# ---------------------------------------------------------------------------------------------- parameters


def test_parameters_are_aligned_views_of_one_buffer(dtype):
    net = Network(SMALL, dtype=dtype)
    assert {name: values.shape for name, values in net.params.items()} == {
        "0.w": (4, 5), "0.b": (5,), "1.gamma": (5,), "1.beta": (5,), "2.0.w": (5, 5), "2.0.b": (5,), "3.w": (5, 3),
        "3.b": (3,),
    }  # fmt: skip
    assert net.grads.keys() == net.params.keys()
    for views, flat in ((net.params, net._flat_params), (net.grads, net._flat_grads)):
        for values in views.values():
            assert values.dtype == dtype
            assert values.ctypes.data % 64 == 0
            assert np.shares_memory(values, flat)
    assert net._flat_params.any()
    for values in net.params.values():
        values[...] = 0.0
    assert not net._flat_params.any()


def test_parameters_are_written_in_place_and_cannot_be_replaced(rng):
    net = Network([Linear(4, 3)])
    with pytest.raises(TypeError):
        net.params["0.w"] = np.zeros((4, 3), np.float32)
    net.params["0.w"][...] = 0.0
    net.params["0.b"][...] = [1, 2, 3]
    y = net.forward(rng.standard_normal((2, 4)).astype(np.float32))
    np.testing.assert_array_equal(y, [[1, 2, 3], [1, 2, 3]])


def test_weights_are_drawn_in_layer_order_from_the_seed():
    net = Network(SMALL, seed=5, dtype="float64")
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(net.params["0.w"], ref.init.xavier_uniform((4, 5), rng, "float64"))
    np.testing.assert_array_equal(net.params["2.0.w"], ref.init.he_normal((5, 5), rng, "float64"))
    np.testing.assert_array_equal(net.params["3.w"], ref.init.xavier_uniform((5, 3), rng, "float64"))
    assert not net.params["0.b"].any() and not net.params["1.beta"].any()
    assert (net.params["1.gamma"] == 1.0).all()


def test_both_dtypes_and_two_runs_start_from_the_same_numbers():
    single, double, again = (Network(SMALL, 3, dtype) for dtype in ("float32", "float64", "float32"))
    for name, values in double.params.items():
        np.testing.assert_array_equal(single.params[name], values.astype(np.float32))
        np.testing.assert_array_equal(single.params[name], again.params[name])
    assert (Network(SMALL, 4).params["0.w"] != single.params["0.w"]).any()


# ---------------------------------------------------------------------------------------------- passes


@pytest.mark.parametrize("name", ["dropout", "pre_norm", "post_norm", "nested"])
def test_passes_equal_the_interpreter(name, dtype, rng):
    net = perturbed(NETWORKS[name], dtype)
    judge = oracle(net)
    x = rng.standard_normal((7, net.n_in)).astype(dtype)
    dy = rng.standard_normal((7, net.n_out)).astype(dtype)
    y = judge.forward(x)
    np.testing.assert_allclose(net.forward(x), y, rtol=0, atol=bound(dtype, y))
    net.samples = 5
    y = judge.forward(x, train=True, samples=5)
    np.testing.assert_allclose(net.forward(x, train=True), y, rtol=0, atol=bound(dtype, y))
    dx = judge.backward(dy)
    np.testing.assert_allclose(net.backward(dy), dx, rtol=0, atol=bound(dtype, dx))
    np.testing.assert_allclose(net._flat_grads, judge.grads, rtol=0, atol=bound(dtype, judge.grads))
    net.backward(dy, accumulate=True)
    np.testing.assert_allclose(net._flat_grads, 2 * judge.grads, rtol=0, atol=2 * bound(dtype, judge.grads))


@pytest.mark.parametrize("rows", [0, 1, 2, 33])
def test_any_number_of_rows(rows, rng):
    net = perturbed(SMALL)
    judge = oracle(net)
    x, dy = rng.standard_normal((rows, 4)), rng.standard_normal((rows, 3))
    y = judge.forward(x, train=True)
    np.testing.assert_allclose(net.forward(x, train=True), y, rtol=0, atol=bound("float64", y))
    net._flat_grads[...] = np.nan
    dx, grads = net.backward(dy), net._flat_grads
    np.testing.assert_allclose(dx, judge.backward(dy), rtol=0, atol=bound("float64", dx))
    for name, values in net.grads.items():
        start = next(p.offset for p in net._plan.parameters if p.name == name)
        wanted = judge.grads[start : start + values.size].reshape(values.shape)
        np.testing.assert_allclose(values, wanted, rtol=0, atol=bound("float64", wanted), err_msg=str(grads))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits_and_inputs_stay_as_they_are(layout, rng):
    net = perturbed(SMALL, "float32")
    x, dy = rng.standard_normal((6, 4)).astype("float32"), rng.standard_normal((6, 3)).astype("float32")
    y, dx = net.forward(x, train=True), net.backward(dy)
    grads = net._flat_grads.copy()
    net.samples = 0
    other_x, other_dy = laid_out(x, layout), laid_out(dy, layout)
    np.testing.assert_array_equal(net.forward(other_x, train=True), y)
    np.testing.assert_array_equal(net.backward(other_dy), dx)
    np.testing.assert_array_equal(net._flat_grads, grads)
    np.testing.assert_array_equal(other_x, x)
    np.testing.assert_array_equal(other_dy, dy)


def test_results_are_arrays_of_their_own(rng):
    net = Network(SMALL, dtype="float64")
    x, dy = rng.standard_normal((3, 4)), rng.standard_normal((3, 3))
    y = net.forward(x, train=True)
    dx = net.backward(dy)
    kept = y.copy(), dx.copy()
    net.forward(2 * x, train=True)
    net.backward(2 * dy)
    np.testing.assert_array_equal(y, kept[0])
    np.testing.assert_array_equal(dx, kept[1])


def test_x_may_change_between_forward_and_backward(rng):
    net = Network([Linear(4, 3)], dtype="float64")
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    wanted = x.T @ dy
    net.forward(x, train=True)
    x[...] = np.nan
    net.backward(dy)
    # A product of 5 terms: 5 eps, relative to the sum of their sizes.
    np.testing.assert_allclose(net.grads["0.w"], wanted, rtol=0, atol=50 * np.finfo(np.float64).eps)


def test_backward_twice_gives_the_same(rng):
    net = Network(SMALL, dtype="float64")
    net.forward(rng.standard_normal((5, 4)), train=True)
    dy = rng.standard_normal((5, 3))
    once = net.backward(dy), net._flat_grads.copy()
    np.testing.assert_array_equal(net.backward(dy), once[0])
    np.testing.assert_array_equal(net._flat_grads, once[1])


@pytest.mark.parametrize("batch_size", [None, 1, 3, 100])
def test_predict_has_the_bits_of_forward_for_every_batch_size(batch_size, rng):
    net = perturbed(SMALL, "float32")
    x = rng.standard_normal((50, 4)).astype(np.float32)
    np.testing.assert_array_equal(net.predict(x, batch_size), net.forward(x))
    assert net.predict(x[:0], batch_size).shape == (0, 3)


def test_not_a_number_passes_through_its_row_alone(rng):
    net = Network(SMALL, dtype="float64")
    x = rng.standard_normal((4, 4))
    y = net.forward(x)
    x[2, 1] = np.nan
    bad = net.forward(x)
    assert np.isnan(bad[2]).all()
    np.testing.assert_array_equal(np.delete(bad, 2, 0), np.delete(y, 2, 0))


def test_dropout_acts_in_training_alone_and_never_repeats(rng):
    net = Network([Linear(4, 64, "tanh"), Dropout(0.5), Linear(64, 3)])
    x = rng.standard_normal((8, 4)).astype(np.float32)
    still, again = net.forward(x), net.forward(x)
    np.testing.assert_array_equal(still, again)
    assert net.samples == 0
    first, second = net.forward(x, train=True), net.forward(x, train=True)
    assert net.samples == 16
    assert (first != second).any() and (first != still).any()
    twin = Network([Linear(4, 64, "tanh"), Dropout(0.5), Linear(64, 3)])
    np.testing.assert_array_equal(twin.forward(x, train=True), first)
    # The masks belong to samples, not to batches.
    twin.samples = 4
    np.testing.assert_array_equal(twin.forward(x[4:], train=True), first[4:])


# ---------------------------------------------------------------------------------------------- errors


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def after_forward(net, rows=2):
    net.forward(zeros(rows, 4), train=True)
    return net


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda net: net.forward(zeros(2, 5)), ValueError, "forward: x has shape (2, 5), expected (n, 4)"),
        (lambda net: net.forward(zeros(4)), ValueError, "forward: x has shape (4,), expected (n, 4)"),
        (
            lambda net: net.forward(zeros(2, 4, dtype=np.float64)),
            TypeError,
            "forward: x has dtype float64, expected float32 like the network",
        ),
        (lambda net: net.predict([[0.0] * 4]), TypeError, "predict: x is of type list, expected a NumPy array"),
        (lambda net: net.predict(zeros(2, 4), 0), ValueError, "batch_size is 0, expected a positive integer"),
        (lambda net: net.backward(zeros(2, 3)), RuntimeError, "call forward(x, train=True) first"),
        (
            lambda net: after_forward(net).backward(zeros(3, 3)),
            ValueError,
            "backward: dy has shape (3, 3), expected (2, 3) because x had 2 rows",
        ),
        (lambda net: after_forward(net).backward(zeros(2, 4)), ValueError, "dy has shape (2, 4), expected (n, 3)"),
        (lambda net: net.to("tpu"), ValueError, "device is 'tpu', expected 'cpu' or 'cuda'"),
        (lambda net: Network([]), ValueError, "Network: layers is empty"),
        (lambda net: Network([Linear(4, 3), "relu"]), TypeError, "Network: layer 1 is 'relu', expected one of"),
        (lambda net: Network(Linear(4, 3)), TypeError, "expected a sequence of layers"),
        (lambda net: Network([Linear(4, 3)], seed=-1), ValueError, "Network: seed is -1, expected an integer"),
        (lambda net: Network([Linear(4, 3)], dtype="float16"), ValueError, "dtype is float16, expected float32 or"),
        (lambda net: Network([Linear(4, 3)], dtype="single?"), ValueError, "dtype is single?, expected float32 or"),
        (lambda net: mlp([64]), ValueError, "mlp: sizes is [64], expected at least two numbers"),
        (lambda net: mlp([64, 32, 2], norm="batch"), ValueError, "mlp: norm is 'batch', expected one of None, layer"),
        (lambda net: mlp([64, 0, 2]), ValueError, "Linear: n_out is 0, expected a positive integer"),
    ],
)  # fmt: skip
def test_wrong_use_is_named(use, error, message):
    with pytest.raises(error, match=re.escape(message)):
        use(Network(SMALL))


def test_backward_after_an_evaluation_is_refused(rng):
    net = after_forward(Network(SMALL))
    net.predict(zeros(2, 4))
    with pytest.raises(RuntimeError, match="there is no forward pass to go back through"):
        net.backward(zeros(2, 3))


def test_to_cpu_is_the_network_itself():
    net = Network(SMALL)
    assert net.to("cpu") is net


# ---------------------------------------------------------------------------------------------- mlp, repr


def test_mlp_builds_pre_norm_blocks():
    net = mlp([4, 8, 8, 3], activation="gelu", norm="layer", residual=True, dropout=0.1, init="he_uniform")
    assert net.layers == (
        LayerNorm(4),
        Linear(4, 8, "gelu", init="he_uniform"),
        Dropout(0.1),
        Residual(LayerNorm(8), Linear(8, 8, "gelu", init="he_uniform"), Dropout(0.1)),
        Linear(8, 3, init="he_uniform"),
    )
    assert mlp([4, 3]).layers == (Linear(4, 3),)
    assert mlp([4, 8, 3], norm="rms").layers == (RMSNorm(4), Linear(4, 8, "relu"), Linear(8, 3))


def test_repr_shows_the_layers_and_the_number_of_parameters():
    text = repr(Network([Linear(64, 128, "relu"), Residual(Activation("tanh")), Linear(128, 10)]))
    assert text.startswith("Network of 9,610 parameters, float32:\n  0: Linear(n_in=64, n_out=128")
    assert "\n  1: Residual(Activation(kind='tanh'))\n  2: Linear(" in text


# ---------------------------------------------------------------------------------------------- copies, files


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_is_equal_and_independent(duplicate, rng):
    net = perturbed(SMALL)
    x = rng.standard_normal((3, 4))
    net.forward(x, train=True)
    twin = duplicate(net)
    assert twin.samples == 3
    np.testing.assert_array_equal(twin.forward(x), net.forward(x))
    twin.params["0.w"][...] = 0.0
    assert net.params["0.w"].all()
    assert (twin.forward(x) != net.forward(x)).any()


@pytest.mark.parametrize("name", ["pre_norm", "nested", "no_bias"])
def test_load_gives_back_what_was_saved(name, dtype, tmp_path, rng):
    net = perturbed(NETWORKS[name], dtype, seed=9)
    x = rng.standard_normal((3, net.n_in)).astype(dtype)
    net.forward(x, train=True)
    net.save(tmp_path / "net.safetensors")
    twin = load(str(tmp_path / "net.safetensors"))
    assert twin.layers == net.layers
    assert (twin.seed, twin.dtype, twin.samples) == (9, net.dtype, 3)
    np.testing.assert_array_equal(twin._flat_params, net._flat_params)
    np.testing.assert_array_equal(twin.forward(x, train=True), net.forward(x, train=True))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_the_file_is_read_by_safetensors_alone(tmp_path):
    net = Network(SMALL)
    net.save(tmp_path / "net.safetensors")
    tensors = load_file(tmp_path / "net.safetensors")
    assert tensors.keys() == net.params.keys()
    np.testing.assert_array_equal(tensors["2.0.w"], net.params["2.0.w"])


def test_save_replaces_a_file_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    Network(SMALL, seed=1).save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Network(SMALL, seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged(path, change):
    """A saved network with one thing changed: `change(tensors, metadata, description)`."""
    from safetensors import safe_open

    Network(SMALL).save(path)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    description = json.loads(metadata["network"])
    change(tensors, metadata, description)
    if "network" in metadata:
        metadata["network"] = json.dumps(description)
    save_file(tensors, path, metadata)


DAMAGES = {
    "another format": (lambda t, m, d: m.update(format="pt"), "its format is 'pt', expected 'gdkernels.network.1'"),
    "no description": (lambda t, m, d: m.pop("network"), "description of the network lacks 'network'"),
    "no layers": (lambda t, m, d: d.pop("layers"), "description of the network lacks 'layers'"),
    "unknown layer": (lambda t, m, d: d["layers"][0].update(layer="Conv"), "layer 'Conv' is unknown, expected one of"),
    "unknown option": (lambda t, m, d: d["layers"][0].update(groups=2), "unexpected keyword argument 'groups'"),
    "wrong width": (lambda t, m, d: d["layers"][0].update(n_out=6), "layer 1 (LayerNorm) expects 5 inputs"),
    "wrong dtype": (lambda t, m, d: d.update(dtype="float64"), "0.w has dtype F32, expected F64"),
    "no list": (lambda t, m, d: d.update(layers=3), "description of the network is wrong"),
    "missing": (lambda t, m, d: t.pop("1.beta"), "1.beta is missing"),
    "surplus": (lambda t, m, d: t.update({"9.w": t["0.w"].copy()}), "9.w belongs to no layer"),
    "wrong shape": (lambda t, m, d: t.update({"0.w": t["0.w"].T.copy()}), "0.w has shape (5, 4), expected (4, 5)"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_with_its_name_and_the_defect(damage, tmp_path):
    change, message = DAMAGES[damage]
    path = tmp_path / "net.safetensors"
    damaged(path, change)
    with pytest.raises(ValueError, match=re.escape(f"load: {path}: ") + ".*" + re.escape(message)):
        load(path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_file_cut_short_is_refused(kept, tmp_path):
    path = tmp_path / "net.safetensors"
    Network(SMALL).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"load: {path} cannot be read as safetensors")):
        load(path)


def test_text_is_refused_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no network in here, but some text that is long enough\n" * 10)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"load: there is no file .*none\.safetensors"):
        load(tmp_path / "none.safetensors")


def test_save_into_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Network(SMALL).save(tmp_path / "none" / "net.safetensors")


def test_several_threads_may_predict_at_once():
    net = mlp([64, 256, 8])
    inputs = [np.random.default_rng(seed).standard_normal((300, 64)).astype("f4") for seed in range(2)]
    expected = [net.predict(x).tobytes() for x in inputs]
    wrong = []

    def predict(caller):
        for _ in range(200):
            if net.predict(inputs[caller]).tobytes() != expected[caller]:
                wrong.append(caller)

    callers = [threading.Thread(target=predict, args=(caller,)) for caller in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_mlp_checks_its_options_also_without_a_hidden_layer():
    with pytest.raises(ValueError, match="Activation: kind is 'swish', expected one of identity, sigmoid"):
        mlp([4, 2], activation="swish")
    with pytest.raises(ValueError, match="Dropout: p is 2"):
        mlp([4, 2], dropout=2.0)
