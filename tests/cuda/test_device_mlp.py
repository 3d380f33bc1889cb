"""`gd.cuda.device.Mlp` in kernels of numba-cuda: the layout of its parameters, one thread a sample, one block a tile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdkernels as gd
from gdkernels.ops.activation import KINDS
from reference.rounding import relative_to_largest
from tests.cuda.mutation import mutant

pytestmark = pytest.mark.filterwarnings("ignore:Grid size")
pytest.importorskip("numba.cuda", reason="device functions need numba-cuda")

# Widths of 1, of whole groups of four and not, no hidden layer, layers of more weights than are written out.
SIZES = (
    ([1, 1], "float32"), ([4, 16, 2], "float32"), ([3, 5, 7, 1], "float32"), ([3, 5, 7, 1], "float64"),
    ([6, 3], "float64"), ([8, 35, 33, 2], "float32"), ([36, 40, 3], "float64"),
)  # fmt: skip


def functions():
    """The room of device functions, and numba-cuda."""
    from numba import cuda

    from gdkernels.cuda import device

    return device, cuda


def network(sizes, kind, dtype, seed=1):
    """A network whose biases are not zero."""
    net = gd.mlp(sizes, kind, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name, values in net.params.items():
        if name.endswith("b"):
            values[:] = 0.5 * rng.standard_normal(values.shape)
    return net


def assert_near(found, exact, dtype, sizes, what="", steps=1):
    """Equal up to the error of a formula of sums, once for each layer there and back, relative to the largest element."""
    ulps = 2 * (len(sizes) - 1) * relative_to_largest(max(sizes)) * steps
    bound = ulps * np.finfo(dtype).eps * max(np.abs(exact).max(), 1e-3)
    worst = np.abs(found - exact).max()
    assert worst <= bound, f"{what}: {worst:.3g}, {bound:.3g} allowed"  # a NaN is no better


def exact_passes(net, x, dy):
    """(y, dx, flat gradients) of the same network in float64."""
    double = gd.Network(net.layers, dtype="float64")
    double.flat[:] = net.flat
    y = double.forward(x.astype("f8"), train=True)
    dx = double.backward(dy.astype("f8"))
    return y, dx, double._flat_grads


# ---------------------------------------------------------------------------------------------- layout


@given(st.lists(st.integers(1, 70), min_size=2, max_size=6))
def test_parameters_lie_as_in_a_network(sizes):
    from gdkernels.cuda.device.layout import layers_of

    net, (layers, size) = gd.mlp(sizes), layers_of(tuple(sizes))
    places = {parameter.name: (parameter.offset, parameter.shape) for parameter in net._plan.parameters}
    expected = {}
    for number, layer in enumerate(layers):
        expected[f"{number}.w"] = layer.w, (layer.n_in, layer.n_out)
        expected[f"{number}.b"] = layer.b, (layer.n_out,)
    assert places == expected
    assert net.flat.size == size == functions()[0].Mlp(sizes).size


def test_params_are_views_of_flat():
    net = gd.mlp([3, 5, 2])
    net.flat[:] = np.arange(net.flat.size)
    assert net.params["0.w"][0, 0] == 0 and net.params["1.b"][0] == 48


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([4],), "Mlp: sizes is [4], expected at least two numbers, of inputs and outputs"),
        (([4, 0, 2],), "Mlp: sizes is 0, expected"),
        (([4, 2], "relo"), "Mlp: activation is 'relo', expected one of identity, "),
        (([4, 2], "relu", "adamm"), "Mlp: optimizer is 'adamm', expected one of descent, "),
    ],
)
def test_what_is_no_network_is_refused(arguments, said):
    with pytest.raises(ValueError) as refusal:
        functions()[0].Mlp(*arguments)
    assert str(refusal.value).startswith(said)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 70))
def test_the_matrices_of_a_tile_lie_apart(sizes, rows):
    from gdkernels.cuda.device.layout import columns_of, pitch_of

    columns = columns_of(tuple(sizes))
    taken = [
        column
        for start, width in (
            *zip(columns.outputs, sizes, strict=True),
            *zip(columns.slopes, sizes[1:-1], strict=True),
        )
        for column in range(start, start + width)
    ]
    assert sorted(taken) == list(range(columns.total))
    assert rows <= pitch_of(rows) <= rows + 7 and pitch_of(rows) % 8 == 4
    mlp = functions()[0].Mlp(sizes)
    assert mlp.shared_bytes(rows, 3, 8) == 8 * (3 * mlp.size + columns.total * pitch_of(rows))


# ---------------------------------------------------------------------------------------------- by thread


def by_thread(mlp, cuda):
    """A kernel: y, dx and the gradients of a sample a thread."""

    @cuda.jit
    def kernel(params, x, y, dy, dx, grads):
        i = cuda.grid(1)
        if i < len(x):
            mlp.predict(params, x[i], y[i])
            mlp.vjp(params, x[i], dy[i], dx[i], grads[i])

    return kernel


def assert_thread(device, mlp, sizes, kind, dtype, count=5):
    _, cuda = functions()
    net, rng = network(sizes, kind, dtype), np.random.default_rng(3)
    x, dy = (rng.standard_normal((count, n)).astype(dtype) for n in (sizes[0], sizes[-1]))
    y, dx = device.empty(dy.shape, dtype), device.empty(x.shape, dtype)
    grads = device.put(np.ones((count, mlp.size), dtype))
    there = [device.put(each) for each in (net.flat, x, dy)]
    by_thread(mlp, cuda)[1, 32](
        there[0].owner, there[1].owner, y.owner, there[2].owner, dx.owner, grads.owner
    )
    exact_y, exact_dx, exact_grads = exact_passes(net, x, dy)
    assert_near(y.to_numpy(), exact_y, dtype, sizes, "y")
    assert_near(dx.to_numpy(), exact_dx, dtype, sizes, "dx")
    assert_near(grads.to_numpy().sum(axis=0) - count, exact_grads, dtype, sizes, "grads", steps=2)


@pytest.mark.every_kernel
@pytest.mark.parametrize(("sizes", "dtype"), SIZES, ids=str)
def test_a_thread_goes_there_and_back(device, sizes, dtype):
    """Against Network.backward: outputs, input gradient, and gradients of the parameters, which are added to ones."""
    kind = KINDS[sum(sizes) % len(KINDS)]
    assert_thread(device, functions()[0].Mlp(sizes, kind), sizes, kind, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_with_every_activation(device, kind):
    assert_thread(device, functions()[0].Mlp([3, 6, 2], kind), [3, 6, 2], kind, "float32")


def test_either_gradient_may_be_left_out(device):
    room, cuda = functions()
    mlp, net = room.Mlp([3, 4, 2], "silu"), network([3, 4, 2], "silu", "float32")

    @cuda.jit
    def kernel(params, x, dy, dx, grads):
        for i in range(2):
            mlp.vjp(params, x[i], dy[i], None, grads)
            mlp.vjp(params, x[i], dy[i], dx[i], None)

    rng = np.random.default_rng(3)
    x, dy = (rng.standard_normal((2, n)).astype("f4") for n in (3, 2))
    dx, grads = device.empty(x.shape, "float32"), device.put(np.zeros(mlp.size, "f4"))
    kernel[1, 1](*(device.put(each).owner for each in (net.flat, x, dy)), dx.owner, grads.owner)
    _, exact_dx, exact_grads = exact_passes(net, x, dy)
    assert_near(dx.to_numpy(), exact_dx, "float32", [3, 4, 2], "dx")
    assert_near(grads.to_numpy(), exact_grads, "float32", [3, 4, 2], "grads")


def test_arguments_may_be_local_arrays_and_strided(device):
    """x that the thread has made, y and dy beside it, columns of a matrix."""
    room, cuda = functions()
    mlp = room.Mlp([2, 4, 3], "tanh")
    net = network([2, 4, 3], "tanh", "float32")
    from numba import float32

    @cuda.jit
    def kernel(params, columns, out):
        i = cuda.grid(1)
        if i < columns.shape[1]:
            x, y = cuda.local.array(2, float32), cuda.local.array(3, float32)
            x[0], x[1] = columns[0, i], columns[1, i]
            mlp.predict(params, x, y)
            mlp.predict(params, columns[:, i], out[:, i])
            for j in range(3):
                if out[j, i] != y[j]:
                    out[j, i] = np.nan

    x = np.random.default_rng(0).standard_normal((9, 2)).astype("f4")
    out = device.empty((3, 9), "float32")
    kernel[1, 32](device.put(net.flat).owner, device.put(np.ascontiguousarray(x.T)).owner, out.owner)
    assert_near(out.to_numpy().T, exact_passes(net, x, np.zeros((9, 3)))[0], "float32", [2, 4, 3])


def test_parameters_of_another_kind_are_refused(device):
    from numba.core.errors import TypingError

    room, cuda = functions()
    mlp = room.Mlp([2, 3])
    x, y = device.empty((1, 2), "float32").owner, device.empty((1, 3), "float32").owner
    for params in (
        device.empty((mlp.size,), np.int32).owner,
        device.empty((2 * mlp.size,), "float32").owner[::2],
    ):

        @cuda.jit
        def kernel(params, x, y):
            mlp.predict(params, x[0], y[0])

        with pytest.raises(TypingError, match="expected one of float32 or float64 that is C-contiguous"):
            kernel[1, 1](params, x, y)


def test_names_that_an_mlp_lacks_are_refused(device):
    from numba.cuda.core.errors import TypingError

    room, cuda = functions()
    mlp = room.Mlp([2, 3])

    @cuda.jit
    def kernel(out):
        out[0] = mlp.sizes

    with pytest.raises(TypingError, match="Unknown attribute 'sizes'"):
        kernel[1, 1](device.empty((1,), np.int64).owner)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("d[j] *= slope(z[j] if reads_z else a[j])", "d[j] *= -slope(z[j] if reads_z else a[j])"),
        ("g[at_b + j] += dz[j]\n\n    @device", "g[at_b + j] = dz[j]\n\n    @device"),
        ("z[j] = p[at_b + j]", "z[j] = p[at_w + j]"),
    ],
    ids=["sign", "not added", "bias"],
)
def test_a_mistake_by_thread_is_caught(device, monkeypatch, old, new):
    from gdkernels.cuda.device import mlp, thread

    monkeypatch.setattr(mlp, "thread", mutant(thread, old, new))
    mlp._type.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"(y|dx|grads): "):
            assert_thread(device, mlp.Mlp([3, 6, 2], "tanh"), [3, 6, 2], "tanh", "float32")
    finally:
        mlp._type.cache_clear()
