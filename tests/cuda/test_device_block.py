"""`gd.cuda.device.Mlp` by block: a block trains a network as a Trainer does; ragged tiles, wide layers, one row."""

from functools import cache

import numpy as np
import pytest

import gdkernels as gd
from gdkernels.ops.activation import KINDS
from gdkernels.scalar.optim import OPTIMIZERS, PLAIN, ROWS, RULES
from gdkernels.train import optim
from tests.cuda.mutation import mutant
from tests.cuda.test_device_mlp import assert_near, exact_passes, functions, network
from tests.rules import OPTIONS

pytestmark = pytest.mark.filterwarnings("ignore:Grid size")
pytest.importorskip("numba.cuda", reason="device functions need numba-cuda")

LR = 0.01
THREADS = 96


def trainer(mlp, cuda, room, dtype, states, tile_rows):
    """A kernel: each block trains a network of its own on all rows, in tiles, with the squared error.

    Everything is in shared memory. `first_y` and `first_grads` are what the first step has found.
    """
    from numba import float32, float64

    real = float32 if dtype == "float32" else float64
    buffers = 2 + states
    own = cuda.jit(device=True)(
        {
            0: lambda memory, size: (),
            1: lambda memory, size: (memory[2 * size : 3 * size],),
            2: lambda memory, size: (memory[2 * size : 3 * size], memory[3 * size : 4 * size]),
            3: lambda memory, size: (
                memory[2 * size : 3 * size], memory[3 * size : 4 * size], memory[4 * size : 5 * size],
            ),
        }[states]
    )  # fmt: skip

    def kernel(flat, x, target, rows_of_steps, first_y, first_grads):
        memory = cuda.shared.array(0, real, alignment=16)
        size, block = mlp.size, cuda.blockIdx.x
        params, grads, tile = memory[:size], memory[size : 2 * size], memory[buffers * size :]
        thread, threads = room.thread_number(), room.thread_count()
        for i in range(thread, buffers * size, threads):
            memory[i] = flat[block, i] if i < size else 0
        for step in range(len(rows_of_steps)):
            start = 0
            while start < len(x):
                rows = min(tile_rows, len(x) - start)
                for i in range(thread, rows * mlp.n_in, threads):
                    row, column = i // mlp.n_in, i % mlp.n_in
                    tile[mlp.block_x(row, column, rows)] = x[start + row, column]
                mlp.block_forward(params, tile, rows)
                for i in range(thread, rows * mlp.n_out, threads):
                    row, column = i // mlp.n_out, i % mlp.n_out
                    at = mlp.block_y(row, column, rows)
                    if step == 0:
                        first_y[block, start + row, column] = tile[at]
                    _, slope = room.mse(tile[at], target[start + row, column])
                    tile[at] = slope / real(len(x) * mlp.n_out)
                mlp.block_backward(params, grads, tile, rows)
                start += rows
            if step == 0:
                for i in range(thread, size, threads):
                    first_grads[block, i] = grads[i]
                cuda.syncthreads()
            mlp.block_update(params, grads, own(memory, size), rows_of_steps[step])
        cuda.syncthreads()
        for i in range(thread, size, threads):
            flat[block, i] = params[i]

    return kernel


@cache
def compiled(mlp, dtype, tile_rows):
    """The kernel of `trainer`, once for launches of several sizes."""
    room, cuda = functions()
    return cuda.jit(trainer(mlp, cuda, room, dtype, len(RULES[mlp.optimizer].states), tile_rows))


def trained(device, mlp, net, x, target, tile_rows, table, threads=THREADS, blocks=1):
    """(flat, y, gradients) of `blocks` blocks that begin with the same network."""
    room, _ = functions()
    dtype = net.dtype.name
    kernel = compiled(mlp, dtype, tile_rows)
    flat = device.put(np.tile(net.flat, (blocks, 1)))
    y, grads = device.empty((blocks, *target.shape), dtype), device.empty((blocks, mlp.size), dtype)
    arguments = [
        flat.owner, device.put(x).owner, device.put(target).owner, device.put(table).owner, y.owner, grads.owner,
    ]  # fmt: skip
    buffers = 2 + len(RULES[mlp.optimizer].states)
    shared = mlp.shared_bytes(tile_rows, buffers, net.dtype.itemsize)
    if shared > 48 * 1024:
        room.allow_shared(kernel, shared, *arguments)
    kernel[blocks, threads, 0, shared](*arguments)
    return flat.to_numpy(), y.to_numpy(), grads.to_numpy()


def problem(sizes, rows, dtype):
    rng = np.random.default_rng(5)
    return tuple(rng.standard_normal((rows, n)).astype(dtype) for n in (sizes[0], sizes[-1]))


def table_of(name, steps, lr=LR, decay=0.0):
    options = tuple(map(float, () if name == PLAIN else OPTIONS[name].values()))
    return np.array([ROWS[name](float(step), lr, decay, options) for step in range(1, steps + 1)])


def assert_first_step(device, sizes, kind, rows, tile_rows, dtype, threads=THREADS, **modules):
    """y and the gradients of the first step, of two blocks that do the same."""
    mlp = modules.get("mlp") or functions()[0].Mlp(sizes, kind, PLAIN)
    net = network(sizes, kind, dtype)
    x, target = problem(sizes, rows, dtype)
    flat, y, grads = trained(device, mlp, net, x, target, tile_rows, table_of(PLAIN, 1), threads, blocks=2)
    exact_y, _, _ = exact_passes(net, x, np.zeros_like(target))
    dy = 2 * (exact_y - target) / target.size
    _, _, exact_grads = exact_passes(net, x, dy)
    for block in range(2):
        assert_near(y[block], exact_y, dtype, sizes, "y")
        assert_near(grads[block], exact_grads, dtype, [*sizes, rows], "grads")
        assert_near(flat[block], net.flat - LR * exact_grads, dtype, [*sizes, rows], "params")
    np.testing.assert_array_equal(grads[0], grads[1])


# One row, ragged groups of four, more rows than a tile has, several ragged tiles; each width of products.
SHAPES = [
    ([1, 1], 1, 1, "float32"),
    ([4, 16, 2], 1, 1, "float64"),
    ([3, 5, 7, 1], 13, 13, "float32"),
    ([6, 3], 30, 32, "float32"),
    ([13, 64, 66, 3], 21, 8, "float32"),
    ([5, 26, 25, 4], 18, 7, "float64"),
    ([5, 26, 25, 4], 18, 7, "float32"),
    ([12, 68, 10], 40, 40, "float32"),
]


@pytest.mark.every_kernel
@pytest.mark.parametrize(("sizes", "rows", "tile_rows", "dtype"), SHAPES, ids=str)
def test_a_block_goes_there_and_back(device, sizes, rows, tile_rows, dtype):
    kind = KINDS[sum(sizes) % len(KINDS)]
    assert_first_step(device, sizes, kind, rows, tile_rows, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_with_every_activation(device, kind):
    assert_first_step(device, [3, 6, 5, 2], kind, 6, 4, "float32")


@pytest.mark.parametrize("threads", [1, 31, 200])
def test_any_number_of_threads_gives_the_same_bits(device, threads):
    sizes, kind = [3, 26, 2], "tanh"
    mlp, net = functions()[0].Mlp(sizes, kind, "adam"), network(sizes, kind, "float32")
    x, target = problem(sizes, 11, "float32")
    usual = trained(device, mlp, net, x, target, 11, table_of("adam", 3))
    found = trained(device, mlp, net, x, target, 11, table_of("adam", 3), threads)
    for one, other in zip(usual, found, strict=True):
        np.testing.assert_array_equal(one, other)


ONE_OF_EACH = "sgd", "adam", "amsgrad"  # one, two and three states


@pytest.mark.every_kernel
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_OF_EACH else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_a_block_trains_as_a_trainer_does(device, name):
    """Five steps in float64, where training magnifies no rounding beyond what is allowed."""
    sizes, steps = [3, 8, 2], 5
    mlp, net = functions()[0].Mlp(sizes, "tanh", name), network(sizes, "tanh", "float64")
    x, target = problem(sizes, 10, "float64")
    flat, _, _ = trained(device, mlp, net, x, target, 4, table_of(name, steps, decay=0.1))
    (optimizer,) = (getattr(optim, each) for each in optim.__all__ if each.lower() == name)
    alone = gd.Trainer(net, "mse", optimizer(lr=LR, weight_decay=0.1, **OPTIONS[name]))
    for _ in range(steps):
        alone.step(x, target)
    # an update is a quotient with a root of squares below, whose relative error an element of any size has
    assert np.abs(flat[0] - net.flat).max() <= 1e-11


@pytest.mark.every_kernel
@pytest.mark.parametrize("sizes", [[20, 300, 7], [20, 7]], ids=str)
def test_parameters_may_stay_in_global_memory(device, sizes):
    """A layer may be too wide for shared memory: only the tile lies there. The input has a gradient, too."""
    room, cuda = functions()
    from numba import float32

    rows = 6
    mlp, net = room.Mlp(sizes, "gelu", PLAIN), network(sizes, "gelu", "float32")

    @cuda.jit
    def kernel(params, grads, x, y, dy, dx, row):
        tile = cuda.shared.array(0, float32, alignment=16)
        for i in range(room.thread_number(), rows * 20, room.thread_count()):
            tile[mlp.block_x(i // 20, i % 20, rows)] = x[i // 20, i % 20]
        mlp.block_forward(params, tile, rows)
        for i in range(room.thread_number(), rows * 7, room.thread_count()):
            at = mlp.block_y(i // 7, i % 7, rows)
            y[i // 7, i % 7], tile[at] = tile[at], dy[i // 7, i % 7]
        mlp.block_backward(params, grads, tile, rows)
        mlp.block_input_gradient(params, tile, rows)
        mlp.block_update(params, grads, (), row)
        for i in range(room.thread_number(), rows * 20, room.thread_count()):
            dx[i // 20, i % 20] = tile[mlp.block_x(i // 20, i % 20, rows)]

    x, dy = problem(sizes, rows, "float32")
    params, grads = device.put(net.flat), device.put(np.zeros(mlp.size, "f4"))
    y, dx = device.empty(dy.shape, "float32"), device.empty(x.shape, "float32")
    kernel[1, 128, 0, mlp.shared_bytes(rows)](
        params.owner, grads.owner, device.put(x).owner, y.owner, device.put(dy).owner, dx.owner,
        room.descent_row(1, LR),
    )  # fmt: skip
    exact_y, exact_dx, exact_grads = exact_passes(net, x, dy)
    assert_near(y.to_numpy(), exact_y, "float32", sizes, "y")
    assert_near(dx.to_numpy(), exact_dx, "float32", sizes, "dx")
    assert_near(params.to_numpy(), net.flat - LR * exact_grads, "float32", sizes, "params")
    assert not grads.to_numpy().any()


def test_more_shared_memory_must_be_asked_for(device):
    room, cuda = functions()
    kernel = cuda.jit(lambda out: None)
    with pytest.raises(ValueError, match="allow_shared: kernel is not compiled, expected the arguments"):
        room.allow_shared(kernel, 64 * 1024)
    with pytest.raises(TypeError, match="allow_shared: size is 'much', expected an integer"):
        room.allow_shared(kernel, "much")
    sizes = [40, 64, 5]
    assert room.Mlp(sizes, "relu", PLAIN).shared_bytes(64, 2) > 48 * 1024
    assert_first_step(device, sizes, "relu", 70, 64, "float32")


# ---------------------------------------------------------------------------------------------- mistakes

FIRST = "        cuda.syncthreads()\n        first(*arguments)\n"


@pytest.mark.parametrize("missing", [False, True])
def test_a_missing_barrier_is_caught(device, monkeypatch, missing):
    """Between one layer and the next: by the race detector."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda.device import block, mlp

    if missing:
        monkeypatch.setattr(mlp, "block", mutant(block, FIRST, "        first(*arguments)\n"))
    mlp._type.cache_clear()
    room, cuda = functions()
    sizes = [3, 6, 2]
    network_of, net = mlp.Mlp(sizes, "tanh", PLAIN), network(sizes, "tanh", "float32")
    kernel = trainer(network_of, cuda, room, "float32", 0, 8)
    x, target = problem(sizes, 8, "float32")
    arrays = (
        net.flat[None].copy(),
        x,
        target,
        table_of(PLAIN, 2),
        np.zeros((1, 8, 2), "f4"),
        np.zeros((1, 80), "f4"),
    )
    assert network_of.size == 80
    shared = network_of.shared_bytes(8, 2)
    try:
        if missing:
            with pytest.raises(ptxemu.PtxError, match="race"):
                ptxemu.launch(kernel, None, 1, 64, *arrays, shared_bytes=shared, race=True, uninit=False)
        else:
            ptxemu.launch(kernel, None, 1, 64, *arrays, shared_bytes=shared, race=True, uninit=True)
    finally:
        mlp._type.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gradient = multiplied(_group(j, sums), known)", "gradient = multiplied(known, known)"),
        ("group[3] if row + 3 < rows else zero", "group[3]"),
        ("g[at_b + j] += total", "g[at_b + j] -= total"),
    ],
    ids=["slope", "rows beyond the last", "sign"],
)
def test_a_mistake_by_block_is_caught(device, monkeypatch, old, new):
    from gdkernels.cuda.device import block, mlp

    monkeypatch.setattr(mlp, "block", mutant(block, old, new))
    mlp._type.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"(y|grads|params): "):
            assert_first_step(device, [3, 6, 2], "tanh", 7, 7, "float32")
    finally:
        mlp._type.cache_clear()
