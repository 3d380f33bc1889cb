"""The kernels of layer and RMS normalisation that work on rows: forward, and the gradient of the input.

RMS norm is layer norm with the mean left at 0 and no beta, and runs through the same loops. A null pointer (0) stands for a
residual that is not there.
"""

import math

from .runtime.jit import inlined, kernel, native
from .runtime.layout import Double, Floats, Int, OptionalFloats
from .runtime.simd import address_of, noalias, offset, typed
from .runtime.vectors import normalised_row, squares_of_row, sum_of_row

BLOCK_ELEMENTS = 512  # of rows that are normalised together: the long way to 1/std is gone for all at once


@native("F*, F*, F*, i8")
def add(a, b, out, n):
    """out = a + b."""
    noalias()
    for j in range(n):
        out[j] = a[j] + b[j]


@native("F*, i8 -> F", reorder_sums=True)
def total(x, n):
    """Σ x."""
    return sum_of_row(x, n)


@native("F*, i8, F -> F", reorder_sums=True)
def square_total(x, n, mean):
    """Σ (x − mean)²: the second pass. Σ x² − n mean² would cancel where the mean is large."""
    return squares_of_row(x, n, mean)


@native("F*, F*, F*, F*, i8, F, F")
def normalise(x, gamma, beta, out, n, mean, rstd):
    """out = gamma (x − mean) rstd + beta; beta may be null."""
    if address_of(beta) == 0:
        normalised_row(x, gamma, None, out, n, mean, rstd)
    else:
        normalised_row(x, gamma, beta, out, n, mean, rstd)


@native("F*, F*, F*, F*, F*, i8, F, F, i8", reorder_sums=True)
def input_gradient(dy, x, residual, gamma, dx, n, mean, rstd, centred):
    """One row of dx; without `centred` the mean of g = gamma dy stays (RMS norm). dx may be dy."""
    noalias()
    zero = type(rstd)(0)
    along_ones, along_h = zero, zero
    with_residual = address_of(residual) != 0
    if with_residual:
        for j in range(n):
            g = dy[j] * gamma[j]
            along_ones += g
            along_h += g * (x[j] + residual[j] - mean)
    else:
        for j in range(n):
            g = dy[j] * gamma[j]
            along_ones += g
            along_h += g * (x[j] - mean)
    count = type(rstd)(n)
    slope = along_h / count * rstd * rstd  # h mean(g h) = (x − mean) slope
    shift = along_ones / count if centred else zero
    if with_residual:
        for j in range(n):
            dx[j] = rstd * (dy[j] * gamma[j] - shift - (x[j] + residual[j] - mean) * slope)
    else:
        for j in range(n):
            dx[j] = rstd * (dy[j] * gamma[j] - shift - (x[j] - mean) * slope)


@inlined
def part(pointer, count):
    """pointer + count elements; a null pointer stays null."""
    return pointer if address_of(pointer) == 0 else offset(pointer, count)


@inlined
def summed(x, residual, out, n):
    """One row of what is to be normalised: x, or x + residual, which is put into `out`."""
    if address_of(residual) == 0:
        return x
    add(x, residual, out, n)
    return out


@kernel
def layernorm_rows(
    x: Floats, residual: OptionalFloats, gamma: Floats, beta: Floats, out: Floats, stats: Floats, n: Int, eps: Double,
    start, stop,
):  # fmt: skip
    """y and stats (mean, rstd) of rows [start, stop)."""
    given = x if address_of(residual) == 0 else out
    few = max(1, BLOCK_ELEMENTS // n)
    for first in range(start, stop, few):
        last = min(stop, first + few)
        for r in range(first, last):
            row = summed(offset(x, r * n), part(residual, r * n), offset(out, r * n), n)
            stats[2 * r] = total(row, n) / n
        for r in range(first, last):
            stats[2 * r + 1] = square_total(offset(given, r * n), n, stats[2 * r])
        for r in range(first, last):
            stats[2 * r + 1] = 1.0 / math.sqrt(stats[2 * r + 1] / n + eps)
        for r in range(first, last):
            at = r * n
            normalise(offset(given, at), gamma, beta, offset(out, at), n, stats[2 * r], stats[2 * r + 1])


@kernel
def rmsnorm_rows(
    x: Floats, residual: OptionalFloats, gamma: Floats, out: Floats, stats: Floats, n: Int, eps: Double, start, stop,
):  # fmt: skip
    """y and stats (rstd) of rows [start, stop)."""
    no_beta = typed(0, x)
    given = x if address_of(residual) == 0 else out
    few = max(1, BLOCK_ELEMENTS // n)
    for first in range(start, stop, few):
        last = min(stop, first + few)
        for r in range(first, last):
            row = summed(offset(x, r * n), part(residual, r * n), offset(out, r * n), n)
            stats[r] = square_total(row, n, 0.0)
        for r in range(first, last):
            stats[r] = 1.0 / math.sqrt(stats[r] / n + eps)
        for r in range(first, last):
            normalise(offset(given, r * n), gamma, no_beta, offset(out, r * n), n, 0.0, stats[r])


@kernel
def layernorm_dx_rows(
    dy: Floats, x: Floats, residual: OptionalFloats, gamma: Floats, stats: Floats, dx: Floats, n: Int, start, stop,
):  # fmt: skip
    """dx of rows [start, stop)."""
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            stats[2 * r], stats[2 * r + 1], 1,
        )  # fmt: skip


@kernel
def rmsnorm_dx_rows(
    dy: Floats, x: Floats, residual: OptionalFloats, gamma: Floats, stats: Floats, dx: Floats, n: Int, start, stop,
):  # fmt: skip
    """dx of rows [start, stop)."""
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            0.0, stats[r], 0,
        )  # fmt: skip
