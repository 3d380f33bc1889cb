"""The norm of a gradient, and clipping by it.

Squares are summed within blocks of fixed size, then over the blocks in their order: the norm does not depend on the number
of threads.
"""

import math

import numpy as np

from .cost import work
from .runtime.jit import Op, kernel, native
from .runtime.layout import Double, Doubles, Floats, Int
from .runtime.machine import VECTOR_BITS
from .runtime.memory import QUANTUM
from .runtime.simd import offset
from .runtime.team import run_all
from .runtime.vectors import SQUARES, square_vectors

BLOCK_ELEMENTS = 4096  # whose squares are one sum


@native("F*, i8 -> f8", reorder_sums=True)
def square_sum(g, count):
    """Σ g², in float64, where no square of a float32 overflows."""
    step = SQUARES * VECTOR_BITS // 64
    whole = count // step
    total = square_vectors(g, whole)
    for i in range(whole * step, count):
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
def shrink(g, count, factor):
    factor_ = type(g[0])(factor)
    for i in range(count):
        g[i] *= factor_


@kernel
def square_sums(g: Floats, count: Int, sums: Doubles, start, stop):
    """sums[block] = Σ g² over each block of BLOCK_ELEMENTS in [start, stop); the last block of g may be shorter."""
    for block in range(start, stop):
        sums[block] = square_sum(
            offset(g, block * BLOCK_ELEMENTS), min(BLOCK_ELEMENTS, count - block * BLOCK_ELEMENTS)
        )


@kernel
def gradient_squares(g: Floats, count: Int, size: Int, sums: Doubles, start, stop):
    """sums[block] = Σ g² over each block of `size` elements in [start, stop); the last block of g may be shorter.

    In the element type where that will do: to a relative error of some dozens of eps.
    """
    for block in range(start, stop):
        added, end = 0.0, min(count, (block + 1) * size)
        for at in range(block * size, end, BLOCK_ELEMENTS):
            first, length = offset(g, at), min(BLOCK_ELEMENTS, end - at)
            total = np.float64(square_sum_in_kind(first, length))
            if not 1e-20 < total < 1e30:  # too small or too large for float32, or not finite
                total = square_sum(first, length)
            added += total
        sums[block] = added


@kernel
def shrink_elements(g: Floats, factor: Double, start, stop):
    """g = factor g on elements [start, stop)."""
    shrink(offset(g, start), stop - start, factor)


# ---------------------------------------------------------------------------------------------- ops


def squares_ops(arrays: list, sums) -> list[Op]:
    """`sums` receives Σ g² over each block of BLOCK_ELEMENTS of C-contiguous arrays, one array after the other."""
    ops, first = [], 0
    for array in arrays:
        blocks = -(-array.size // BLOCK_ELEMENTS)
        ops.append(
            square_sums.op(
                array.dtype, blocks, work=work("squares", array), g=array, count=array.size, sums=sums[first:]
            )
        )
        first += blocks
    return ops


def gradient_squares_op(g, size: int, sums) -> Op:
    """`sums` receives Σ g² over each block of `size` elements, summed in the element type where that will do."""
    blocks = -(-g.size // size)
    return gradient_squares.op(g.dtype, blocks, g=g, count=g.size, size=size, sums=sums)


def shrink_op(g, factor: float) -> Op:
    """g = factor g, for a C-contiguous array."""
    return shrink_elements.op(g.dtype, g.size, quantum=QUANTUM, work=work("clip", g), g=g, factor=factor)


def norm(arrays: list) -> float:
    """√(Σ g²) over C-contiguous arrays: squares within blocks of BLOCK_ELEMENTS, then over the blocks in their order."""
    sums = np.zeros(sum(-(-array.size // BLOCK_ELEMENTS) for array in arrays))
    run_all(squares_ops(arrays, sums))
    return math.sqrt(np.add.accumulate(sums)[-1]) if sums.size else 0.0


def clip(max_norm: float, arrays: list) -> float:
    """Scale C-contiguous arrays by min(1, max_norm / (norm + 1e-6)); the norm before."""
    size = norm(arrays)
    factor = max_norm / (size + 1e-6)
    if not factor >= 1.0:
        run_all(shrink_op(array, factor) for array in arrays)
    return size
