"""Views of networks in compiled code: the bits of the network, no memory, no compilation, errors in our words."""

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from numba import njit, prange, typeof
from numba.core.runtime import _nrt_python, rtsys

import gdkernels as gd
from gdkernels import cache
from gdkernels.nn.layers import Dropout, LayerNorm, Linear, Residual
from gdkernels.nn.network import Network, mlp
from gdkernels.nn.place import Cuda
from tests.cpu.test_team import runs_in_a_forked_child
from tests.jitted import predict, predict_into, vjp, vjp_into
from tests.nn.networks import NETWORKS

ROOT = Path(__file__).resolve().parents[2]

# More rows than a view predicts in one chunk, and more than it has room for at first.
MANY = 40_000
LAYERS = [
    Linear(3, 12, "tanh"),
    Residual(LayerNorm(12), Linear(12, 12, "gelu"), Dropout(0.3)),
    Linear(12, 2),
]


def values(rng, *shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", NETWORKS)
def test_a_view_has_the_bits_of_its_network(name, rng):
    net, twin = Network(NETWORKS[name], seed=4), Network(NETWORKS[name], seed=4)
    view = net.jitted()
    for rows in (5, 1, 0, 67, 2):
        x, dy = values(rng, rows, net.n_in), values(rng, rows, net.n_out)
        np.testing.assert_array_equal(predict(view, x), twin.predict(x))
        twin.forward(x, train=True)
        np.testing.assert_array_equal(vjp(view, x, dy), twin.backward(dy))
        for name, gradient in twin.grads.items():
            np.testing.assert_array_equal(net.grads[name], gradient)
        assert net.samples == twin.samples


def test_any_batch_size_will_do(dtype, rng):
    net, twin = Network(LAYERS, dtype=dtype), Network(LAYERS, dtype=dtype)
    view = net.jitted()
    for rows in (1, MANY, 3, 2 * MANY, MANY - 1):
        x, dy = values(rng, rows, 3, dtype=dtype), values(rng, rows, 2, dtype=dtype)
        np.testing.assert_array_equal(predict(view, x), twin.predict(x))
        twin.forward(x, train=True)
        np.testing.assert_array_equal(vjp(view, x, dy), twin.backward(dy))
        np.testing.assert_array_equal(net._flat_grads, twin._flat_grads)


def test_a_sample_by_itself_is_a_batch_of_one(rng):
    net = Network(LAYERS)
    view = net.jitted()
    x, dy = values(rng, 3), values(rng, 2)
    y = predict(view, x)
    assert y.shape == (2,)
    np.testing.assert_array_equal(y, net.predict(x[None])[0])
    net.samples = 0
    net.forward(x[None], train=True)
    dx = net.backward(dy[None])[0]
    net.samples = 0
    np.testing.assert_array_equal(vjp(view, x, dy), dx)


def test_arrays_may_have_any_strides_and_results_are_returned(rng):
    net = Network(LAYERS)
    view = net.jitted()
    x, dy = values(rng, 24, 6)[::-2, ::2], values(rng, 2, 12).T
    out, dx = np.zeros((12, 4), np.float32)[:, ::-2], np.zeros((3, 12), np.float32).T
    y, slope = predict_into(view, x, out), vjp_into(view, x, dy, dx)
    assert np.shares_memory(y, out) and np.shares_memory(slope, dx)
    np.testing.assert_array_equal(out, net.predict(x))
    net.samples = 0
    net.forward(x, train=True)
    np.testing.assert_array_equal(dx, net.backward(dy))


def test_a_result_may_be_the_input(rng):
    net = mlp([3, 8, 3])
    x = values(rng, MANY, 3)
    y = net.predict(x)
    np.testing.assert_array_equal(predict_into(net.jitted(), x, x), y)


def test_a_view_sees_what_training_does_to_the_parameters(rng):
    net = Network(LAYERS)
    view, x = net.jitted(), values(rng, 4, 3)
    before = predict(view, x)
    net.params["2.b"][...] += 1.0
    np.testing.assert_array_equal(predict(view, x), net.predict(x))
    assert (predict(view, x) != before).all()


def test_a_view_leaves_the_passes_of_its_network_alone(rng):
    net, twin = Network(NETWORKS["nested"]), Network(NETWORKS["nested"])
    view = net.jitted()
    x, dy, other = values(rng, 4, 4), values(rng, 4, 2), values(rng, 9, 4)
    net.forward(x, train=True)
    twin.forward(x, train=True)
    predict(view, other)
    vjp(view, other, values(rng, 9, 2))
    np.testing.assert_array_equal(net.backward(dy), twin.backward(dy))


@njit
def own_training(view, x, target, m, v, steps):
    """A loss that no trainer has: Σ (y − target)⁴ / 4."""
    for step in range(1, steps + 1):
        view.vjp(x, (view.predict(x) - target) ** 3)
        gd.adam_step(view.flat_params, view.flat_grads, m, v, step, 1e-2)
    return view.flat_params


def test_a_loss_of_ones_own_is_trained_by_the_flat_buffers(rng):
    net, twin = mlp([3, 8, 2], "tanh"), mlp([3, 8, 2], "tanh")
    view, x, target = net.jitted(), values(rng, 6, 3), values(rng, 6, 2)
    assert view.flat_params is net._flat_params and view.flat_grads is net._flat_grads
    mine, his = ([np.zeros_like(view.flat_params) for _ in range(2)] for _ in range(2))
    params = own_training(view, x, target, *mine, 20)
    for step in range(1, 21):
        error = twin.forward(x, train=True) - target
        twin.backward((error * error * error).astype(np.float32))
        gd.adam_step(twin._flat_params, twin._flat_grads, *his, step, 1e-2)
    # The cube may be rounded in another way: some ulp of a gradient, each step of Adam within 1e-2 of it.
    np.testing.assert_allclose(net._flat_params, twin._flat_params, rtol=0, atol=1e-4)
    assert np.shares_memory(params, net._flat_params)
    expected, gone = net._flat_params.copy(), weakref.ref(view)
    del net, view
    gc.collect()
    assert gone() is None
    np.testing.assert_array_equal(params, expected)  # an array outlives the view


def test_a_wrong_sign_would_be_caught(rng):
    """The gradient of another dy is another gradient, also by one bit."""
    net = Network(LAYERS)
    view, x, dy = net.jitted(), values(rng, 4, 3), values(rng, 4, 2)
    net.samples = 0
    right = vjp(view, x, dy)
    net.samples = 0
    dy[2, 1] = np.nextafter(dy[2, 1], np.float32(9))
    assert (vjp(view, x, dy) != right).any()


# ---------------------------------------------------------------------------------------------- costs


@pytest.fixture
def allocations():
    """How many pieces of memory compiled code has asked for so far."""
    _nrt_python.memsys_enable_stats()
    yield lambda: rtsys.get_allocation_stats().alloc
    _nrt_python.memsys_disable_stats()


@njit
def many(view, x, out, dy, dx, times):
    for _ in range(times):
        view.predict(x, out)
        view.vjp(x, dy, dx)


@njit
def many_new(view, x, dy, times):
    for _ in range(times):
        view.vjp(x, view.predict(x) + dy)


def test_nothing_is_allocated_where_results_are_given(allocations, rng):
    view, x, dy = Network(LAYERS).jitted(), values(rng, 5, 3), values(rng, 5, 2)
    given = view, x, np.empty_like(dy), dy, np.empty_like(x)
    many(*given, 1)
    many_new(view, x, dy, 1)
    counts = []
    for times in (1, 1000):
        before = allocations()
        many(*given, times)
        counts.append(allocations() - before)
    assert counts[0] == counts[1]  # what holds the arguments of the call
    before = allocations()
    many_new(view, x, dy, 1000)
    assert allocations() - before >= 2000  # it would show


def test_calls_from_python_leave_nothing_behind(rng):
    view, x, dy = Network(LAYERS).jitted(), values(rng, 5, 3), values(rng, 5, 2)
    given = view, x, np.empty_like(dy), dy, np.empty_like(x), 1
    tracemalloc.start()
    try:
        many(*given)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            many(*given)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 8 * 10_000  # less than one address a call


def test_a_function_is_compiled_once_for_all_networks_of_a_dtype(rng):
    @njit
    def function(view, x):
        return view.predict(x)

    for sizes in ([3, 2], [3, 8, 8, 1], [3, 16, 5]):
        function(mlp(sizes, norm="layer").jitted(), values(rng, 2, 3))
    assert len(function.signatures) == 1
    function(mlp([3, 2], dtype="float64").jitted(), values(rng, 2, 3, dtype="float64"))
    assert len(function.signatures) == 2


CACHED = """
import sys
import numpy as np
from numba import njit
import gdkernels as gd

@njit(cache=True)
def simulate(view, trainer, x, y):
    view.vjp(x, view.predict(x))
    return trainer.step(x, y)

width = int(sys.argv[1])
net, twin = (gd.mlp([3, width, 2], seed=width) for _ in range(2))
x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
loss = simulate(net.jitted(), gd.Trainer(net, "mse").jitted(), x, y)
assert loss == gd.Trainer(twin, "mse").step(x, y)
print(sum(simulate.stats.cache_hits.values()), sum(simulate.stats.cache_misses.values()))
"""


def test_a_function_that_takes_views_is_kept_on_disk(tmp_path):
    """The second process finds it, for another network, at other addresses."""
    (tmp_path / "simulation.py").write_text(CACHED)
    found = []
    for width in ("8", "33"):
        done = subprocess.run(
            [sys.executable, "simulation.py", width], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "0"]]


def test_a_kept_function_is_compiled_again_where_our_sources_have_changed(monkeypatch):
    kept = pickle.dumps(typeof(Network(LAYERS).jitted()))
    assert pickle.loads(kept) == typeof(Network(LAYERS).jitted())
    monkeypatch.setattr(cache, "fingerprint", lambda: "changed")
    assert pickle.loads(kept) != typeof(Network(LAYERS).jitted())


# ---------------------------------------------------------------------------------------------- copies


@njit(parallel=True)
def shared_out(views, x, y, dx):
    workers = len(views)
    for worker in prange(workers):
        view = views[worker]
        for i in range(worker, len(x), workers):
            view.predict(x[i], y[i])
            view.vjp(x[i], y[i], dx[i])


def test_copies_compute_side_by_side_what_one_view_computes_alone(rng):
    """Batches of many sizes at once, two hundred times; dx and y are what they are without threads."""
    net = mlp([3, 16, 2], "tanh", norm="layer")
    alone, copies = net.jitted(), net.jitted(copies=3)
    x = values(rng, 300, 4, 3)
    y, dx = np.empty((300, 4, 2), np.float32), np.empty_like(x)
    for i in range(len(x)):
        predict_into(alone, x[i], y[i])
        vjp_into(alone, x[i], y[i], dx[i])
    for _ in range(200):
        y_now, dx_now = np.zeros_like(y), np.zeros_like(dx)
        shared_out(copies, x, y_now, dx_now)
        np.testing.assert_array_equal(y_now, y)
        np.testing.assert_array_equal(dx_now, dx)


def test_copies_grow_side_by_side(rng):
    """Each asks Python for room, from threads that Python does not know, while the one that it knows waits for them."""
    net = mlp([3, 16, 2], "tanh")
    alone, copies = net.jitted(), net.jitted(copies=3)
    x = values(rng, 3, 9_000, 3)
    y, dx = np.empty((3, 9_000, 2), np.float32), np.empty_like(x)
    shared_out(copies, x, y, dx)
    for i in range(len(x)):
        np.testing.assert_array_equal(predict(alone, x[i]), y[i])
        np.testing.assert_array_equal(vjp(alone, x[i], y[i]), dx[i])


def test_copies_have_gradients_of_their_own(rng):
    net = mlp([3, 8, 2])
    x, dy = values(rng, 6, 3), values(rng, 6, 2)
    first, second = net.jitted(copies=2)
    vjp(first, x[:3], dy[:3])
    vjp(second, x[3:], dy[3:])
    assert not net._flat_grads.any()
    vjp(net.jitted(), x[3:], dy[3:])
    for name, gradient in net.grads.items():
        np.testing.assert_array_equal(second.grads[name], gradient)
        assert (first.grads[name] != gradient).any()


def test_copies_drop_out_by_sequences_of_their_own(rng):
    net = Network([Dropout(0.5), Linear(64, 1)])
    x, dy = values(rng, 1, 64), np.ones((1, 1), np.float32)
    views = (net.jitted(), *net.jitted(copies=2))
    masks = {(vjp(view, x, dy) != 0).tobytes() for view in views for _ in range(3)}
    assert len(masks) == 9
    assert net.samples == 3


def test_threads_of_python_may_use_copies_at_once(rng):
    net = mlp([3, 64, 64, 2])
    x = values(rng, 500, 3)
    y = net.predict(x)
    run = njit(nogil=True)(predict.py_func)
    wrong = []

    def work(view):
        wrong.extend(i for i in range(200) if (run(view, x) != y).any())

    threads = [threading.Thread(target=work, args=(view,)) for view in net.jitted(copies=3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------------------------------------- lives


frozen = ()


@njit
def of_globals(x):
    return frozen[0].predict(x) + frozen[1].predict(x)


def test_views_that_are_globals_live_as_long_as_the_code(monkeypatch, rng):
    net = Network(LAYERS)
    monkeypatch.setitem(globals(), "frozen", (net.jitted(), *net.jitted(copies=1)))
    x = values(rng, 5, 3)
    expected = 2 * net.predict(x)
    np.testing.assert_array_equal(of_globals(x), expected)
    monkeypatch.undo()
    gc.collect()
    np.testing.assert_array_equal(of_globals(x), expected)


def test_a_view_keeps_the_parameters_alive_and_dies_by_itself(rng):
    net = Network(LAYERS)
    x, view = values(rng, 5, 3), net.jitted()
    y = net.predict(x)
    flat, net = weakref.ref(net._flat_params.base), None
    gc.collect()
    np.testing.assert_array_equal(predict(view, x), y)
    gone, view = weakref.ref(view), None
    assert gone() is None  # without the collector: nothing goes in a circle
    assert flat() is None


def test_a_view_is_refused_when_the_parameters_have_moved(rng):
    net = Network(LAYERS)
    view, x = net.jitted(), values(rng, 5, 3)
    net._settle(net.place)
    message = "the parameters have moved since the view was made, expected them to stay; make a new view"
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'Network.jitted().predict: {message}')}$"):
        predict(view, x)
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'Network.jitted().vjp: {message}')}$"):
        vjp(view, x, values(rng, 5, 2))
    np.testing.assert_array_equal(predict(net.jitted(), x), net.predict(x))


def test_a_network_on_the_gpu_has_no_view():
    net = Network(LAYERS)
    net.place = Cuda.__new__(Cuda)  # which needs no GPU to refuse
    with pytest.raises(
        RuntimeError, match=r"^Network\.jitted: the network is on the GPU, expected it on the CPU"
    ):
        net.jitted()
    with pytest.raises(RuntimeError, match=r"^Network\.jitted: a bfloat16 network computes on the GPU only"):
        Network(LAYERS, dtype="bfloat16").jitted()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_view_is_not_copied(way):
    with pytest.raises(
        TypeError, match=r"^NetworkView: it holds addresses of memory and cannot be copied or pickled"
    ):
        way(Network(LAYERS).jitted())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_view_works_in_a_forked_child(rng):
    net = Network(LAYERS)
    view, x = net.jitted(), values(rng, 5, 3)
    y = predict(view, x)
    runs_in_a_forked_child(lambda: (predict(view, x) == y).all())


def test_a_batch_without_room_is_refused(monkeypatch, capsys, rng):
    net = Network(LAYERS)
    view, x, dy = net.jitted(), values(rng, 5, 3), values(rng, 5, 2)
    dx = vjp(view, x, dy)

    def none(rows):
        raise MemoryError

    monkeypatch.setattr(view._arena, "reserve", none)
    with pytest.raises(
        MemoryError, match=r"^Network\.jitted\(\)\.vjp: x has 40000 rows, for which there is no memory$"
    ):
        vjp(view, values(rng, MANY, 3), values(rng, MANY, 2))
    monkeypatch.undo()
    net.samples = 0
    np.testing.assert_array_equal(vjp(view, x, dy), dx)


# ---------------------------------------------------------------------------------------------- complaints


def refuses(kind, message, function, *arguments):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        function(*arguments)


def test_arguments_of_predict_are_checked(rng):
    view, x, out = Network(LAYERS).jitted(), values(rng, 5, 3), np.empty((5, 2), np.float32)
    op = "Network.jitted().predict: "
    refuses(
        TypeError,
        f"{op}x has dtype float64, expected float32 like the network",
        predict,
        view,
        x.astype(float),
    )
    refuses(TypeError, f"{op}x is of type float64, expected an array of float32", predict, view, 1.5)
    refuses(TypeError, f"{op}x has 3 dimensions, expected 1 or 2", predict, view, x[None])
    refuses(ValueError, f"{op}x has shape (5, 2), expected (n, 3)", predict, view, out)
    refuses(ValueError, f"{op}x has shape (5,), expected (3,)", predict, view, x[:, 0].copy())
    refuses(
        ValueError,
        f"{op}out has shape (4, 2), expected (5, 2) because x has 5 rows",
        predict_into,
        view,
        x,
        out[:4],
    )
    refuses(TypeError, f"{op}out has 1 dimensions, expected 2", predict_into, view, x, out[0])
    frozen = out.copy()
    frozen.flags.writeable = False
    refuses(TypeError, f"{op}out is read-only, expected a writable array", predict_into, view, x, frozen)


@njit
def through_another(view, x):
    return predict(view, x)


def test_complaints_are_the_same_through_other_functions(rng):
    view, x = Network(LAYERS).jitted(), values(rng, 5, 3)
    op = "Network.jitted().predict: "
    refuses(
        TypeError, f"{op}x has dtype float64, expected float32 like the network",
        through_another, view, x.astype(float),
    )  # fmt: skip
    refuses(ValueError, f"{op}x has shape (5, 2), expected (n, 3)", through_another, view, x[:, :2].copy())


def test_arguments_of_vjp_are_checked(rng):
    net = Network(LAYERS)
    view, x, dy = net.jitted(), values(rng, 5, 3), values(rng, 5, 2)
    op = "Network.jitted().vjp: "
    refuses(ValueError, f"{op}x has shape (5, 2), expected (n, 3)", vjp, view, dy, dy)
    refuses(ValueError, f"{op}dy has shape (5, 3), expected (5, 2) because x has 5 rows", vjp, view, x, x)
    refuses(
        ValueError,
        f"{op}dx has shape (5, 2), expected (5, 3) because x has 5 rows",
        vjp_into,
        view,
        x,
        dy,
        dy,
    )
    refuses(TypeError, f"{op}dy has 1 dimensions, expected 2", vjp, view, x, dy[0])
    refuses(
        TypeError, f"{op}dy has dtype int64, expected float32 like the network", vjp, view, x, dy.astype(int)
    )
    assert net.samples == 0 and not net._flat_grads.any()


def test_the_number_of_copies_is_checked():
    with pytest.raises(ValueError, match=r"^Network\.jitted: copies is 0, expected a positive integer$"):
        Network(LAYERS).jitted(copies=0)


def test_an_exception_in_a_parallel_loop_is_the_cause_of_numbas(rng):
    views, x = Network(LAYERS).jitted(copies=2), values(rng, 3, 4, 2)
    with pytest.raises(SystemError) as caught:
        shared_out(views, x, x, x)
    assert str(caught.value.__cause__) == "Network.jitted().predict: x has shape (4, 2), expected (n, 3)"
