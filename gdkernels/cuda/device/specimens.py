"""Kernels as users write them, over the functions of this room: what the static gate reads and the benchmark measures."""

from typing import NamedTuple

from ..runtime.jit import Kernel, kernel
from ..runtime.pointer import offset, real, shared
from ..runtime.storages import REALS
from ..runtime.target import cuda
from .elements import FUNCTIONS
from .mlp import Mlp
from .philox import is_kept
from .reductions import block_max, block_sum, thread_count, thread_number, turns

THREADS = 256  # of a block that trains
TILE = 32  # rows that it takes at a time
SINGLE = ("float32",)  # where float64 would need more registers, or shared memory, than there are


@kernel("F*, F*, i8", variants=REALS)
def reduced(x, out, count):
    """Each block's sum and largest number."""
    i = cuda.grid(1)
    value = x[i] if i < count else real(x, 0)
    total, largest = block_sum(value), block_max(value)
    if thread_number() == 0:
        out[2 * cuda.blockIdx.x] = total
        out[2 * cuda.blockIdx.x + 1] = largest


gelu, gelu_grad = FUNCTIONS["gelu"], FUNCTIONS["gelu_grad"]
huber, adamw_step = FUNCTIONS["huber"], FUNCTIONS["adamw_step"]


@kernel("F*, F*, F*, F*, R*, i8, i8", variants=REALS)
def elements(p, target, m, v, row, seed, count):
    """A step of AdamW on p, down huber(gelu(p), target), with dropout."""
    i = cuda.grid(1)
    if i < count and is_kept(0.5, seed, i):
        _, slope = huber(gelu(p[i]), target[i], real(p, 1))
        p[i], m[i], v[i] = adamw_step(p[i], slope * gelu_grad(p[i]), m[i], v[i], row)


class ByThread(NamedTuple):
    """The functions of a network in one thread, over rows."""

    predict: Kernel
    vjp: Kernel


def by_thread(sizes: list[int], activation: str) -> ByThread:
    """Kernels of a thread for each row."""
    mlp, name = Mlp(sizes, activation), "_".join(map(str, sizes))
    n_in, n_out, size = mlp.n_in, mlp.n_out, mlp.size

    def predict(params, x, y, rows):
        row = cuda.grid(1)
        if row < rows:
            mlp.predict(params, offset(x, n_in * row), offset(y, n_out * row))

    def vjp(params, x, dy, dx, grads, rows):
        row = cuda.grid(1)
        if row < rows:
            at, out = n_in * row, n_out * row
            mlp.vjp(params, offset(x, at), offset(dy, out), offset(dx, at), offset(grads, size * row))

    predict.__name__, vjp.__name__ = f"predict_{name}_{activation}", f"vjp_{name}_{activation}"
    return ByThread(
        kernel("F*, F*, F*, i8", variants=SINGLE)(predict),
        kernel("F*, F*, F*, F*, F*, i8", variants=SINGLE)(vjp),
    )


def by_block(sizes: list[int], activation: str, variants: tuple[str, ...] = REALS) -> Kernel:
    """A kernel: each block trains a network of its own with Adam and the squared error, in shared memory."""
    mlp, name = Mlp(sizes, activation, "adam"), "_".join(map(str, sizes))
    n_in, n_out, size = mlp.n_in, mlp.n_out, mlp.size
    count = mlp.shared_bytes(TILE, 4, itemsize=1)
    mse = FUNCTIONS["mse"]

    def train(flat, x, target, rows_of_steps, rows, steps):
        memory = shared(flat, count)
        params, grads, m, v = memory, offset(memory, size), offset(memory, 2 * size), offset(memory, 3 * size)
        tile, mine = offset(memory, 4 * size), offset(flat, size * cuda.blockIdx.x)
        thread, threads = thread_number(), thread_count()
        i, left = thread, turns(size)
        while left > 0:
            params[i], grads[i], m[i], v[i] = mine[i], real(flat, 0), real(flat, 0), real(flat, 0)
            i, left = i + threads, left - 1
        scale = real(flat, 1) / real(flat, rows * n_out)
        step = 0
        while step < steps:
            start = 0
            while start < rows:
                taken = min(TILE, rows - start)
                row, left = thread, turns(taken)
                while left > 0:
                    for column in range(n_in):
                        tile[mlp.block_x(row, column, taken)] = x[n_in * (start + row) + column]
                    row, left = row + threads, left - 1
                mlp.block_forward(params, tile, taken)
                row, left = thread, turns(taken)
                while left > 0:
                    for column in range(n_out):
                        at = mlp.block_y(row, column, taken)
                        _, slope = mse(tile[at], target[n_out * (start + row) + column])
                        tile[at] = scale * slope
                    row, left = row + threads, left - 1
                mlp.block_backward(params, grads, tile, taken)
                start += taken
            mlp.block_update(params, grads, (m, v), offset(rows_of_steps, 8 * step))
            step += 1
        cuda.syncthreads()
        i, left = thread, turns(size)
        while left > 0:
            mine[i] = params[i]
            i, left = i + threads, left - 1

    train.__name__ = f"train_{name}_{activation}"
    return kernel("F*, F*, F*, R*, i8, i8", threads=THREADS, variants=variants)(train)


SMALL, MIDDLE, LARGE = (by_thread(sizes, "tanh") for sizes in ([4, 16, 2], [8, 16, 16, 1], [8, 32, 32, 1]))
TRAINED = by_block([13, 32, 3], "tanh"), by_block([8, 32, 32, 1], "relu", SINGLE)
