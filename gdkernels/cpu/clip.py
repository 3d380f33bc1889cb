"""The norm of a gradient, and clipping by it.

Squares are summed within blocks of fixed size, then over the blocks in their order: the norm does not depend on the number
of threads.
"""

import math

import numpy as np

from .runtime.jit import kernel, native
from .runtime.simd import offset, unpack
from .runtime.team import address, float_bits, launch

BLOCK = 4096  # elements whose squares are one sum
QUANTUM = 64  # elements; a range of them is dealt out in multiples of this


@native("F*, i8 -> f8", reorder_sums=True)
def square_sum(g, count):
    """Σ g², in float64, where no square of a float32 overflows."""
    total = 0.0
    for i in range(count):
        value = np.float64(g[i])
        total += value * value
    return total


@native("F*, i8 -> F", reorder_sums=True)
def square_sum_in_kind(g, count):
    """Σ g² in the element type: four times as fast in float32, right while nothing over- or underflows."""
    total = type(g[0])(0)
    for i in range(count):
        total += g[i] * g[i]
    return total


@native("F*, i8, f8")
def multiply(g, count, factor):
    factor_ = type(g[0])(factor)
    for i in range(count):
        g[i] *= factor_


@kernel
def square_sums(record, start, stop, worker):
    """sums[block] = Σ g² over each block of BLOCK elements in [start, stop); the last block of g may be shorter."""
    scratch, g, count, sums = unpack(record, "i8, F*, i8, f8*")
    for block in range(start, stop):
        sums[block] = square_sum(offset(g, block * BLOCK), min(BLOCK, count - block * BLOCK))


@kernel
def gradient_squares(record, start, stop, worker):
    """sums[block] = Σ g² over each block of `size` elements in [start, stop); the last block of g may be shorter.

    In the element type where that will do: to a relative error of some dozens of eps.
    """
    scratch, g, count, size, sums = unpack(record, "i8, F*, i8, i8, f8*")
    for block in range(start, stop):
        added, end = 0.0, min(count, (block + 1) * size)
        for at in range(block * size, end, BLOCK):
            first, length = offset(g, at), min(BLOCK, end - at)
            total = np.float64(square_sum_in_kind(first, length))
            if not 1e-20 < total < 1e30:  # too small or too large for float32, or not finite
                total = square_sum(first, length)
            added += total
        sums[block] = added


@kernel
def scale_elements(record, start, stop, worker):
    """g = factor g on elements [start, stop)."""
    scratch, g, factor = unpack(record, "i8, F*, f8")
    multiply(offset(g, start), stop - start, factor)


# ---------------------------------------------------------------------------------------------- host

SQUARES_COST, SCALE_COST = (
    0.02,
    0.02,
)  # nanoseconds for each byte of an array, on one core and from its caches


def _dtype(array: np.ndarray) -> str:
    return "float32" if array.itemsize == 4 else "float64"


def norm(arrays: list) -> float:
    """√(Σ g²) over C-contiguous arrays: squares within blocks of BLOCK elements, then over the blocks in their order."""
    counts = [-(-array.size // BLOCK) for array in arrays]
    sums = np.zeros(sum(counts))
    first = address(sums)
    for array, blocks in zip(arrays, counts, strict=True):
        operands = (address(array), array.size, first)
        launch(square_sums, _dtype(array), operands, blocks, 1, SQUARES_COST * array.nbytes)
        first += 8 * blocks
    return math.sqrt(np.add.accumulate(sums)[-1]) if sums.size else 0.0


def clip(max_norm: float, arrays: list) -> float:
    """Scale C-contiguous arrays by min(1, max_norm / (norm + 1e-6)); the norm before."""
    size = norm(arrays)
    factor = max_norm / (size + 1e-6)
    if not factor >= 1.0:
        for array in arrays:
            operands = (address(array), float_bits(factor))
            launch(scale_elements, _dtype(array), operands, array.size, QUANTUM, SCALE_COST * array.nbytes)
    return size
