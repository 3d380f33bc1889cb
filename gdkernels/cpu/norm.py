"""Layer normalisation and RMS normalisation of rows, forward and backward, optionally of a sum x + residual.

    layer norm   h = (x − mean) rstd    y = gamma h + beta    dx = rstd (g − mean(g) − h mean(g h)),  g = gamma dy
    RMS norm     h = x rstd             y = gamma h           dx = rstd (g − h mean(g h))

RMS norm is layer norm with the mean left at 0, and runs through the same loops. The derivation is in the reference.

The forward pass and dx work on rows. The gradients of gamma and beta are sums over all rows: in training each column is
summed by itself, in the order of the rows; an op sums blocks of rows in the same pass as dx, and then the blocks, where
the work is worth sharing. Neither depends on the number of threads. A null pointer (0) stands for a residual that is not
there.
"""

import math

import numpy as np

from .runtime.jit import device, kernel, native
from .runtime.simd import address_of, noalias, offset, typed, unpack
from .runtime.team import SCRATCH_BYTES, WORTH_SHARING, address, float_bits, launch
from .runtime.vectors import normalised_row, squares_of_row, sum_of_row

FEW = 512  # elements of the rows that are normalised together: the long way to 1/std is gone for all of them at once


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


@native("F*, F*, F*, F*, i8, F, F")
def gamma_gradient(dy, x, residual, dgamma, n, mean, rstd):
    """dgamma += dy h on a part of one row."""
    noalias()
    if address_of(residual) == 0:
        for j in range(n):
            dgamma[j] += dy[j] * ((x[j] - mean) * rstd)
    else:
        for j in range(n):
            dgamma[j] += dy[j] * ((x[j] + residual[j] - mean) * rstd)


@device
def part(pointer, count):
    """pointer + count elements; a null pointer stays null."""
    return pointer if address_of(pointer) == 0 else offset(pointer, count)


@device
def summed(x, residual, out, n):
    """One row of what is to be normalised: x, or x + residual, which is put into `out`."""
    if address_of(residual) == 0:
        return x
    add(x, residual, out, n)
    return out


@kernel
def add_rows(record, start, stop, worker):
    """out = a + b on rows [start, stop)."""
    scratch, a, b, out, n = unpack(record, "i8, F*, F*, F*, i8")
    add(offset(a, start * n), offset(b, start * n), offset(out, start * n), (stop - start) * n)


@kernel
def layernorm_rows(record, start, stop, worker):
    """y and stats (mean, rstd) of rows [start, stop)."""
    scratch, x, residual, gamma, beta, out, stats, n, eps = unpack(
        record, "i8, F*, F*, F*, F*, F*, F*, i8, f8"
    )
    given = x if address_of(residual) == 0 else out
    few = max(1, FEW // n)
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
def rmsnorm_rows(record, start, stop, worker):
    """y and stats (rstd) of rows [start, stop)."""
    scratch, x, residual, gamma, out, stats, n, eps = unpack(record, "i8, F*, F*, F*, F*, F*, i8, f8")
    no_beta = typed(0, x)
    given = x if address_of(residual) == 0 else out
    few = max(1, FEW // n)
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
def layernorm_dx_rows(record, start, stop, worker):
    """dx of rows [start, stop)."""
    scratch, dy, x, residual, gamma, stats, dx, n = unpack(record, "i8, F*, F*, F*, F*, F*, F*, i8")
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            stats[2 * r], stats[2 * r + 1], 1,
        )  # fmt: skip


@kernel
def rmsnorm_dx_rows(record, start, stop, worker):
    """dx of rows [start, stop)."""
    scratch, dy, x, residual, gamma, stats, dx, n = unpack(record, "i8, F*, F*, F*, F*, F*, F*, i8")
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            0.0, stats[r], 0,
        )  # fmt: skip


@kernel
def layernorm_gradients(record, start, stop, worker):
    """Columns [start, stop) of dgamma (+)= Σ dy h and dbeta (+)= Σ dy, row after row."""
    scratch, dy, x, residual, stats, dgamma, dbeta, batch, n, accumulate = unpack(
        record, "i8, F*, F*, F*, F*, F*, F*, i8, i8, i8"
    )
    width = stop - start
    if not accumulate:
        for j in range(start, stop):
            dgamma[j] = 0
            dbeta[j] = 0
    for r in range(batch):
        first = r * n + start
        gamma_gradient(
            offset(dy, first), offset(x, first), part(residual, first), offset(dgamma, start), width,
            stats[2 * r], stats[2 * r + 1],
        )  # fmt: skip
        add(offset(dbeta, start), offset(dy, first), offset(dbeta, start), width)


@kernel
def rmsnorm_gradients(record, start, stop, worker):
    """Columns [start, stop) of dgamma (+)= Σ dy h, row after row."""
    scratch, dy, x, residual, stats, dgamma, batch, n, accumulate = unpack(
        record, "i8, F*, F*, F*, F*, F*, i8, i8, i8"
    )
    if not accumulate:
        for j in range(start, stop):
            dgamma[j] = 0
    for r in range(batch):
        first = r * n + start
        gamma_gradient(
            offset(dy, first), offset(x, first), part(residual, first), offset(dgamma, start), stop - start,
            0.0, stats[r],
        )  # fmt: skip


@native("F*, F*, F*, F*, F*, i8, F, F, F*", reorder_sums=True)
def row_sums(dy, x, gamma, dgamma, dbeta, n, mean, rstd, sums):
    """dgamma += dy h and dbeta += dy, and sums = Σ g, Σ g (x − mean)."""
    noalias()
    along_ones, along_h = type(rstd)(0), type(rstd)(0)
    for j in range(n):
        distance = x[j] - mean
        g = dy[j] * gamma[j]
        along_ones += g
        along_h += g * distance
        dgamma[j] += dy[j] * (distance * rstd)
        dbeta[j] += dy[j]
    sums[0], sums[1] = along_ones, along_h


@native("F*, F*, F*, F*, i8, F, F, F, F")
def scaled_gradient(dy, x, gamma, dx, n, mean, rstd, shift, slope):
    """dx = rstd (dy gamma − shift − (x − mean) slope)."""
    noalias()
    for j in range(n):
        dx[j] = rstd * (dy[j] * gamma[j] - shift - (x[j] - mean) * slope)


@native("F*, F*, i8, i8, i8")
def add_blocks(partial, out, blocks, width, stride):
    """out = Σ of the rows of `partial`, one after the other."""
    noalias()
    for j in range(width):
        out[j] = partial[j]
    for block in range(1, blocks):
        row = offset(partial, block * stride)
        for j in range(width):
            out[j] += row[j]


@kernel
def backward_blocks(record, start, stop, worker):
    """dx of blocks [start, stop) of rows, and for each block its dgamma and dbeta, 2n further on than for the last.

    Everything is done with a row while it is in the first cache, so that memory is read once. Without `centred` stats
    hold no mean (RMS norm).
    """
    scratch, dy, x, residual, gamma, stats, dx, to_gamma, to_beta, batch, n, together, centred = unpack(
        record, "i8, F*, F*, F*, F*, F*, F*, F*, F*, i8, i8, i8, i8"
    )
    sums = typed(scratch + worker * SCRATCH_BYTES, dy)
    zero, count = type(sums[0])(0), type(sums[0])(n)
    for block in range(start, stop):
        dgamma, dbeta = offset(to_gamma, 2 * block * n), offset(to_beta, 2 * block * n)
        clear(dgamma, n)
        clear(dbeta, n)
        for r in range(block * together, min(batch, (block + 1) * together)):
            first = r * n
            row, slope, into = offset(x, first), offset(dy, first), offset(dx, first)
            mean, rstd = (stats[2 * r], stats[2 * r + 1]) if centred else (zero, stats[r])
            if address_of(residual) != 0:
                also = offset(residual, first)
                gamma_gradient(slope, row, also, dgamma, n, mean, rstd)
                add(dbeta, slope, dbeta, n)
                input_gradient(slope, row, also, gamma, into, n, mean, rstd, centred)
                continue
            row_sums(slope, row, gamma, dgamma, dbeta, n, mean, rstd, sums)
            shift = sums[0] / count if centred else zero
            along_h = sums[1] / count * rstd * rstd
            scaled_gradient(slope, row, gamma, into, n, mean, rstd, shift, along_h)


@native("F*, i8")
def clear(values, count):
    """values = 0."""
    for j in range(count):
        values[j] = 0


@kernel
def sum_blocks(record, start, stop, worker):
    """Columns [start, stop) of dgamma and, unless it is null, dbeta: the blocks of `partial` in their order."""
    scratch, partial, dgamma, dbeta, blocks, n = unpack(record, "i8, F*, F*, F*, i8, i8")
    width = stop - start
    add_blocks(offset(partial, start), offset(dgamma, start), blocks, width, 2 * n)
    if address_of(dbeta) != 0:
        add_blocks(offset(partial, n + start), offset(dbeta, start), blocks, width, 2 * n)


COLUMNS = 16  # the columns of a parameter gradient are dealt out in multiples of this
FORWARD_WORK, BACKWARD_WORK, ADD_WORK = 0.15, 0.4, 0.1  # nanoseconds an element on one core, about
BLOCK_ROWS, MOST_BLOCKS = 16, 64  # parameter gradients are summed over blocks of at least so many rows


def _at(array) -> int:
    return 0 if array is None else address(array)


def _work(x, nanoseconds: float) -> float:
    return x.size * x.itemsize / 4 * nanoseconds


def layernorm(x, residual, gamma, beta, out, stats, eps: float) -> None:
    """out = y, stats = (mean, rstd) of every row. out may be x or residual."""
    operands = (
        address(x), _at(residual), address(gamma), address(beta), address(out), address(stats), x.shape[1],
        float_bits(eps),
    )  # fmt: skip
    launch(layernorm_rows, x.dtype, operands, x.shape[0], work=_work(x, FORWARD_WORK))


def rmsnorm(x, residual, gamma, out, stats, eps: float) -> None:
    """out = y, stats = rstd of every row. out may be x or residual."""
    operands = (
        address(x), _at(residual), address(gamma), address(out), address(stats), x.shape[1], float_bits(eps)
    )  # fmt: skip
    launch(rmsnorm_rows, x.dtype, operands, x.shape[0], work=_work(x, FORWARD_WORK))


def _backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta, centred: int) -> None:
    """dx, and dgamma and dbeta by way of blocks of rows that depend on the shape alone."""
    (batch, n), dtype = x.shape, x.dtype
    work = _work(x, BACKWARD_WORK)
    together = batch if work < WORTH_SHARING else max(BLOCK_ROWS, -(-batch // MOST_BLOCKS))
    blocks = -(-batch // together) if batch else 1
    if blocks == 1:
        partial = np.empty(n, dtype) if dbeta is None else dbeta  # nobody asks for the sum of dy
        into = address(dgamma), address(partial)
    else:
        partial = np.empty((blocks, 2 * n), dtype)
        into = address(partial), address(partial) + n * x.itemsize
    operands = (
        address(dy), address(x), _at(residual), address(gamma), address(stats), address(dx), *into, batch, n, together,
        centred,
    )  # fmt: skip
    launch(backward_blocks, dtype, operands, blocks, work=work)
    if blocks > 1:
        sums = (address(partial), address(dgamma), _at(dbeta), blocks, n)
        launch(sum_blocks, dtype, sums, n, COLUMNS, _work(partial, ADD_WORK))


def layernorm_backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    """dx, dgamma, dbeta. dx may be dy (or x, or residual)."""
    _backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta, 1)


def rmsnorm_backward(dy, x, residual, gamma, stats, dx, dgamma) -> None:
    """dx, dgamma. dx may be dy (or x, or residual)."""
    _backward(dy, x, residual, gamma, stats, dx, dgamma, None, 0)
