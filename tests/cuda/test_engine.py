"""Networks and training on the GPU: the same plan, the same numbers as on the CPU."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gdkernels as gd
from gdkernels.nn.plan import lower
from tests import jitted
from tests.nn.networks import NETWORKS

OPTIMIZERS = {
    "sgd": gd.SGD(lr=0.05),
    "momentum": gd.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "rmsprop": gd.RMSProp(lr=0.003),
    "adagrad": gd.AdaGrad(lr=0.05),
    "adam": gd.Adam(lr=0.01, weight_decay=0.01),
    "adamw": gd.AdamW(lr=0.01),
    "amsgrad": gd.AMSGrad(lr=0.01),
    "nadam": gd.NAdam(lr=0.01),
    "lion": gd.Lion(lr=0.001, weight_decay=0.01),
}


@pytest.fixture
def digits():
    """Images of digits in [0, 1], and what they show."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("f4"), y


def parameters(net) -> dict[str, np.ndarray]:
    return {name: net.place.to_numpy(values).copy() for name, values in net.params.items()}


def assert_close(left: dict, right: dict, tolerance: float) -> None:
    """Equal up to `tolerance` times the largest element of each array."""
    for name, values in left.items():
        assert np.abs(values - right[name]).max() <= tolerance * max(np.abs(values).max(), 1e-3), name


@pytest.mark.every_kernel
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
def test_a_step_of_training(device, loss, dtype):
    """Every kernel that stands around a plan, and most of those in it."""
    rng = np.random.default_rng(7)
    real = "float32" if dtype == "bfloat16" else dtype
    x, values = rng.standard_normal((6, 5)).astype(real), rng.standard_normal((6, 3)).astype(real)
    y = values if loss == "mse" else rng.integers(0, 3, 6)
    losses = []
    for place, storage in (("cpu", real), ("cuda", dtype)):
        net = gd.mlp(
            [5, 8, 8, 3], "gelu", norm="layer", residual=True, dropout=0.3, seed=1, dtype=storage
        ).to(place)
        trainer = gd.Trainer(net, loss, clip_norm=1.0)
        history = trainer.fit(x, y, epochs=2, batch_size=4, progress=False, grad_norms=True)
        losses.append(history.loss)
    tolerance = {"float32": 1e-4, "float64": 1e-11, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("activation_")])
def test_passes_of_every_network_equal_the_cpus(device, name):
    """Every neighbourhood of layers; sums of a few dozen terms in another order differ by some 1e-6."""
    net = gd.Network(NETWORKS[name], seed=5)
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal((7, n)).astype("f4") for n in (net.n_in, net.n_out))
    results = {}
    for place in ("cpu", "cuda"):
        net.samples = 0
        net.to(place)
        out = {"evaluation": net.forward(x), "y": net.forward(x, train=True), "dx": net.backward(dy)}
        out |= {f"d{key}": net.place.to_numpy(values).copy() for key, values in net.grads.items()}
        net.backward(dy, accumulate=True)
        out |= {f"2 d{key}": net.place.to_numpy(values).copy() for key, values in net.grads.items()}
        results[place] = out
    assert_close(results["cpu"], results["cuda"], 2e-5)


def test_passes_take_arrays_of_the_gpu_and_of_numpy(device):
    net = gd.mlp([5, 8, 3]).to("cuda")
    x = np.random.default_rng(0).standard_normal((6, 5)).astype("f4")
    from_numpy = net.forward(x)
    assert isinstance(from_numpy, np.ndarray)
    there = net.forward(device.put(x).owner)
    assert hasattr(there, "__cuda_array_interface__")
    np.testing.assert_array_equal(gd.cuda.to_numpy(there), from_numpy)
    np.testing.assert_array_equal(net.predict(x, batch_size=4), from_numpy)
    assert net.forward(x[:0]).shape == (0, 3)


def test_digits_are_learned_as_on_the_cpu(device, digits):
    """Two epochs: 1e-4 is the goal for the losses; what float32 leaves is some 1e-6."""
    x, y = digits
    curves, accuracies = [], []
    for place in ("cpu", "cuda"):
        net = gd.mlp([64, 32, 10], seed=3).to(place)
        trainer = gd.Trainer(net, optimizer=gd.AdamW(lr=3e-3))
        history = trainer.fit(x[:1200], y[:1200], epochs=2, batch_size=64, progress=False)
        curves.append(history.loss)
        accuracies.append(trainer.evaluate(x[1200:], y[1200:])["accuracy"])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)
    assert curves[0][-1] < 0.8 * curves[0][0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_as_on_the_cpu(device, name, dtype):
    """With dropout, norms, clipping, decay of the weights alone, a schedule and a last batch that is smaller."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((50, 6)).astype(dtype), rng.integers(0, 4, 50)
    trained, curves, norms = [], [], []
    for place in ("cpu", "cuda"):
        net = gd.mlp([6, 8, 8, 4], "tanh", norm="layer", residual=True, dropout=0.2, seed=1, dtype=dtype).to(
            place
        )
        trainer = gd.Trainer(
            net, optimizer=OPTIMIZERS[name], clip_norm=0.7, decay="weights",
            schedule=gd.schedules.WarmupCosine(OPTIMIZERS[name].lr, warmup=2, total=8),
        )  # fmt: skip
        history = trainer.fit(x, y, epochs=2, batch_size=16, progress=False, grad_norms=True)
        trained.append(parameters(net))
        curves.append(history.loss)
        norms.append(history.grad_norms)
        assert trainer.steps == 8 and net.samples == 100
    # Eight steps of some hundred roundings; RMSprop's division by small roots magnifies them.
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(curves[1], curves[0], rtol=tolerance)
    np.testing.assert_allclose(norms[1], norms[0], rtol=10 * tolerance, atol=tolerance)
    if name != "lion" or dtype == "float64":  # the sign of a gradient near 0 is a matter of rounding
        assert_close(trained[0], trained[1], 10 * tolerance)


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "huber",
        "log_cosh",
        "binary_cross_entropy",
        gd.SoftmaxCrossEntropy(label_smoothing=0.1, class_weight=[1.0, 2.0, 0.5]),
        gd.SoftmaxCrossEntropy(ignore_index=1),
    ],
)
def test_every_loss_trains_as_on_the_cpu(device, loss):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 4)).astype("f4")
    labels = isinstance(loss, gd.SoftmaxCrossEntropy)
    y = rng.integers(0, 3, 20) if labels else rng.uniform(0, 1, (20, 3)).astype("f4")
    curves = []
    for place in ("cpu", "cuda"):
        trainer = gd.Trainer(gd.mlp([4, 6, 3], seed=1).to(place), loss=loss)
        curves.append(trainer.fit(x, y, epochs=2, batch_size=8, progress=False).loss)
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-5)


def test_single_steps_equal_an_epoch(device):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((24, 5)).astype("f4"), rng.integers(0, 3, 24)
    one, two = (gd.Trainer(gd.mlp([5, 7, 3], dropout=0.3, seed=2).to("cuda")) for _ in range(2))
    history = one.fit(x, y, epochs=1, batch_size=8, shuffle=False, progress=False)
    there = device.put(x).owner, device.put(y).owner
    steps = [two.step(*(part[start : start + 8] for part in there)) for start in (0, 8, 16)]
    np.testing.assert_array_equal(history.loss, np.array(steps))
    for name, values in parameters(one.net).items():
        np.testing.assert_array_equal(values, parameters(two.net)[name])


def test_epochs_that_share_a_call_equal_those_that_do_not(device, monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((20, 5)).astype("f4"), rng.integers(0, 3, 20)
    found = []
    for seconds in (None, 100.0):
        trainer = gd.Trainer(gd.mlp([5, 7, 3], dropout=0.3, seed=2).to("cuda"))
        monkeypatch.setattr(type(trainer.net.place), "call_seconds", seconds)
        history = trainer.fit(x, y, epochs=6, batch_size=8, progress=False)
        found.append((history.loss.tobytes(), trainer.epochs, trainer.net.samples, parameters(trainer.net)))
    assert found[0][:3] == found[1][:3]
    for name, values in found[0][3].items():
        np.testing.assert_array_equal(values, found[1][3][name])


def test_two_runs_give_the_same_bits(device, digits):
    x, y = digits[0][:128], digits[1][:128]
    runs = []
    for _ in range(2):
        net = gd.mlp([64, 24, 10], "gelu", norm="rms", dropout=0.1).to("cuda")
        gd.Trainer(net, clip_norm=1.0).fit(x, y, epochs=2, batch_size=32, progress=False)
        runs.append(parameters(net))
    for name, values in runs[0].items():
        np.testing.assert_array_equal(values, runs[1][name])


def test_a_trainer_follows_its_network(device):
    """Half of the training on each device ends where the CPU alone ends."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((32, 5)).astype("f4"), rng.integers(0, 3, 32)
    alone, moved = (gd.Trainer(gd.mlp([5, 7, 3], seed=2)) for _ in range(2))
    for trainer in (alone, moved):
        trainer.fit(x, y, epochs=1, batch_size=8, progress=False)
    moved.net.to("cuda")
    for trainer in (alone, moved):
        trainer.fit(x, y, epochs=1, batch_size=8, progress=False)
    moved.net.to("cpu")
    for trainer in (alone, moved):
        trainer.fit(x, y, epochs=1, batch_size=8, progress=False)
    assert_close(parameters(alone.net), parameters(moved.net), 1e-4)
    assert moved.steps == 12 and moved.net.samples == 96


def test_views_for_compiled_code_are_of_the_cpu_and_refuse_when_their_network_leaves(device):
    net = gd.mlp([5, 7, 3], seed=2)
    trainer = gd.Trainer(net, "mse")
    view, training = net.jitted(), trainer.jitted()
    x, y = np.ones((4, 5), "f4"), np.ones((4, 3), "f4")
    before = jitted.predict(view, x)
    net.to("cuda")
    for make, op in ((net.jitted, "Network.jitted"), (trainer.jitted, "Trainer.jitted")):
        with pytest.raises(
            RuntimeError, match=rf"^{op}: the network is on the GPU, expected it on the CPU; call net"
        ):
            make()
    trainer.step(x, y)
    net.to("cpu")
    for run in (lambda: jitted.predict(view, x), lambda: jitted.step(training, x, y)):
        with pytest.raises(RuntimeError, match="the parameters have moved since the view was made"):
            run()
    assert (jitted.predict(net.jitted(), x) != before).any()
    np.testing.assert_array_equal(jitted.predict(net.jitted(), x), net.predict(x))
    assert jitted.step(trainer.jitted(), x, y) > 0 and trainer.steps == 2


def test_a_loss_that_is_not_finite_stops_and_keeps_the_parameters(device):
    x, y = np.ones((32, 3), "f4"), np.zeros((32, 1), "f4")
    x[17] = np.inf
    net = gd.mlp([3, 4, 1], seed=1).to("cuda")
    good = gd.Trainer(gd.mlp([3, 4, 1], seed=1).to("cuda"), "mse")
    good.fit(x[:16], y[:16], epochs=1, batch_size=8, shuffle=False, progress=False)
    trainer = gd.Trainer(net, "mse")
    with pytest.raises(
        FloatingPointError, match="step 3 is not finite; the parameters are those after step 2"
    ):
        trainer.fit(x, y, epochs=1, batch_size=8, shuffle=False, progress=False)
    for name, values in parameters(net).items():
        np.testing.assert_array_equal(values, parameters(good.net)[name])
    assert trainer.steps == 2
    with pytest.raises(FloatingPointError, match=r"Trainer\.step"):
        trainer.step(x[16:24], y[16:24])


def test_networks_are_saved_and_copied_from_the_gpu(device, tmp_path):
    net = gd.mlp([5, 7, 3], seed=2).to("cuda")
    x = np.random.default_rng(0).standard_normal((4, 5)).astype("f4")
    y = net.forward(x)
    net.save(tmp_path / "net.safetensors")
    loaded = gd.load(tmp_path / "net.safetensors")
    assert loaded.device == "cpu"
    np.testing.assert_array_equal(loaded.to("cuda").forward(x), y)
    copied = pickle.loads(pickle.dumps(net))
    assert copied.device == "cuda"
    np.testing.assert_array_equal(copied.forward(x), y)
    with pytest.raises(TypeError, match="Engine: it holds addresses"):
        pickle.dumps(net._own_engine())


def test_what_is_wrong_is_named(device):
    net = gd.mlp([5, 7, 3]).to("cuda")
    with pytest.raises(TypeError, match=r"Network.forward: x has dtype float64, expected float32"):
        net.forward(device.put(np.zeros((2, 5))).owner)
    with pytest.raises(ValueError, match=r"Network.forward: x has shape \(2, 4\), expected \(n, 5\)"):
        net.forward(device.put(np.zeros((2, 4), "f4")).owner)
    with pytest.raises(
        TypeError, match=r"Network\.forward: x is of type list, expected a NumPy or CUDA array"
    ):
        net.forward([[0.0] * 5])
    with pytest.raises(TypeError, match=r"Network\.forward: x is of type .*, expected a NumPy array"):
        gd.mlp([5, 7, 3]).forward(device.put(np.zeros((2, 5), "f4")).owner)
    with pytest.raises(ValueError, match=r"Trainer.step: y\[1\] is 3, expected a class in \[0, 3\)"):
        gd.Trainer(net).step(np.zeros((2, 5), "f4"), np.array([0, 3]))


def test_several_threads_may_predict_at_once(device):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        net = gd.mlp([6, 8, 2]).to("cuda")
        inputs = [np.random.default_rng(seed).standard_normal((9, 6)).astype("f4") for seed in range(2)]
        expected = [net.predict(x).tobytes() for x in inputs]
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(net.predict, inputs[turn % 2]) for turn in range(60)]
            assert all(run.result().tobytes() == expected[turn % 2] for turn, run in enumerate(runs))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_an_engine_without_room_stays_as_it_was(device, monkeypatch, fails):
    net = gd.mlp([5, 7, 3]).to("cuda")
    x = np.random.default_rng(0).standard_normal((40, 5)).astype("f4")
    few = net.forward(x[:4])
    arena = net._own_engine().arena
    allocate, calls = arena.bytes, []

    def scarce(size):
        calls.append(size)
        if len(calls) == fails:
            raise MemoryError("full")
        return allocate(size)

    monkeypatch.setattr(arena, "bytes", scarce)
    with pytest.raises(MemoryError):
        net.forward(x)
    np.testing.assert_array_equal(net.forward(x[:4]), few)
    np.testing.assert_array_equal(net.forward(x)[:4], few)


def test_steps_that_an_interrupt_leaves_behind_are_counted(device, monkeypatch):
    from gdkernels.cuda.runtime import driver

    x, y = np.random.default_rng(0).standard_normal((24, 5)).astype("f4"), np.arange(24) % 3
    stopped, whole = (gd.Trainer(gd.mlp([5, 7, 3], dropout=0.2, seed=1).to("cuda")) for _ in range(2))
    replay, calls = driver.Graph.replay, []

    def interrupted(self, stream):
        calls.append(stream)
        if len(calls) == 3:
            raise KeyboardInterrupt
        replay(self, stream)

    monkeypatch.setattr(driver.Graph, "replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(x, y, epochs=1, batch_size=8, shuffle=False, progress=False)
    monkeypatch.undo()
    assert (stopped.steps, stopped.net.samples) == (2, 16)
    whole.fit(x[:16], y[:16], epochs=1, batch_size=8, shuffle=False, progress=False)
    for name, values in parameters(stopped.net).items():
        np.testing.assert_array_equal(values, parameters(whole.net)[name])


@pytest.mark.parametrize("there", ["cpu", "cuda"])
def test_a_callback_may_not_move_the_network(device, there):
    trainer = gd.Trainer(gd.mlp([5, 7, 3]).to("cuda" if there == "cpu" else "cpu"))
    x, y = np.zeros((8, 5), "f4"), np.zeros(8, np.int64)
    with pytest.raises(RuntimeError, match=f"a callback moved the network to {there}"):
        trainer.fit(
            x, y, epochs=2, batch_size=8, progress=False, callbacks=[lambda t, r: t.net.to(there) and None]
        )
    assert trainer.steps == 1
    trainer.step(x, y)


def test_a_network_in_use_heeds_another_gemm_engine(device):
    net = gd.mlp([16, 32, 8]).to("cuda")
    x = np.random.default_rng(0).standard_normal((8, 16)).astype("f4")
    before = net.forward(x)
    gd.cuda.set_gemm_engine("own", tf32=True)
    try:
        assert 1e-6 < np.abs(net.forward(x) - before).max() < 0.05
    finally:
        gd.cuda.set_gemm_engine("own")
    np.testing.assert_array_equal(net.forward(x), before)


def test_memory_of_the_host_is_refused(device):
    """Its address would be taken for one of the GPU, whose context such a launch destroys."""

    class Host:
        """An array that lies about where it is."""

        def __init__(self):
            self.memory = np.ones((2, 5), "f4")
            self.__cuda_array_interface__ = {
                "shape": (2, 5), "strides": None, "typestr": "<f4", "data": (self.memory.ctypes.data, False), "version": 3,
            }  # fmt: skip

    with pytest.raises(
        ValueError, match=r"an array of shape \(2, 5\) lies outside GPU memory, expected GPU 0"
    ):
        gd.activation(Host(), "relu")
    with pytest.raises(ValueError, match="outside GPU memory"):
        gd.mlp([5, 7, 3]).to("cuda").forward(Host())


# ---------------------------------------------------------------------------------------------- bfloat16


def test_bfloat16_learns_the_digits(device, digits):
    """Matrices in bfloat16, parameters in float32: losses within what 8 bits leave, and it learns."""
    x, y = digits[0][:640], digits[1][:640]
    curves = []
    for dtype in ("float32", "bfloat16"):
        net = gd.mlp([64, 32, 10], "gelu", norm="layer", residual=True, dropout=0.1, seed=3, dtype=dtype).to(
            "cuda"
        )
        history = gd.Trainer(net, optimizer=gd.AdamW(lr=5e-3), clip_norm=1.0).fit(
            x, y, epochs=3, batch_size=64, progress=False
        )
        curves.append(history.loss)
        assert net.params["0.gamma"].dtype == np.float32
    assert curves[1][-5:].mean() < 0.5 * curves[1][0]
    np.testing.assert_allclose(curves[1], curves[0], atol=0.1)


def test_bfloat16_computes_on_the_gpu_only(device):
    net = gd.mlp([4, 8, 3], dtype="bfloat16")
    x = np.random.default_rng(0).standard_normal((6, 4)).astype("f4")
    with pytest.raises(
        RuntimeError, match=r"a bfloat16 network computes on the GPU only; call net.to\('cuda'\)"
    ):
        net.forward(x)
    y = net.to("cuda").forward(x)
    assert y.dtype == np.float32
    exact = gd.mlp([4, 8, 3])
    for name, values in parameters(net).items():
        exact.params[name][...] = values
    # every matrix and product is rounded to 8 bits: a few 2^-8 of what is added up
    np.testing.assert_allclose(y, exact.forward(x), atol=0.05)


def test_a_written_parameter_is_heeded_by_the_bfloat16_copy(device):
    net = gd.mlp([4, 3], dtype="bfloat16").to("cuda")
    x = np.ones((2, 4), "f4")
    before = net.forward(x)
    net.place.fill(net.params["0.b"], np.full(3, 8.0, "f4"))
    np.testing.assert_allclose(net.forward(x), before + 8.0, atol=0.1)


def test_the_plan_of_training_binds_to_few_kernels(device):
    """One graph for a batch: what is launched is bounded by the plan's calls, not by the batch."""
    net = gd.mlp([64, 32, 10]).to("cuda")
    trainer = gd.Trainer(net)
    trainer.step(np.zeros((8, 64), "f4"), np.zeros(8, np.int64))
    launches = trainer._trainings[1]._launches(8, True, False)
    calls = lower(net.layers, input_gradient=False)
    assert len(launches) <= 8 + 3 * (len(calls.forward) + len(calls.backward) + len(calls.gradients))
