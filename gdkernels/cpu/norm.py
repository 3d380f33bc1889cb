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
from typing import assert_never

import numpy as np

from ..plan import (
    Add,
    LayerNormDx,
    LayerNormForward,
    LayerNormGradients,
    NormCall,
    RMSNormDx,
    RMSNormForward,
    RMSNormGradients,
)
from .binding import Binding
from .cost import work
from .runtime.jit import Op, inlined, kernel, native
from .runtime.layout import Double, Floats, Int
from .runtime.simd import address_of, noalias, offset, typed
from .runtime.team import WORTH_SHARING, run, run_all
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
def add_elements(a: Floats, b: Floats, out: Floats, start, stop):
    """Elements [start, stop) of out = a + b."""
    add(offset(a, start), offset(b, start), offset(out, start), stop - start)


@kernel
def layernorm_rows(
    x: Floats,
    residual: Floats,
    gamma: Floats,
    beta: Floats,
    out: Floats,
    stats: Floats,
    n: Int,
    eps: Double,
    start,
    stop,
):
    """y and stats (mean, rstd) of rows [start, stop)."""
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
def rmsnorm_rows(
    x: Floats, residual: Floats, gamma: Floats, out: Floats, stats: Floats, n: Int, eps: Double, start, stop
):
    """y and stats (rstd) of rows [start, stop)."""
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
def layernorm_dx_rows(
    dy: Floats, x: Floats, residual: Floats, gamma: Floats, stats: Floats, dx: Floats, n: Int, start, stop
):
    """dx of rows [start, stop)."""
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            stats[2 * r], stats[2 * r + 1], 1,
        )  # fmt: skip


@kernel
def rmsnorm_dx_rows(
    dy: Floats, x: Floats, residual: Floats, gamma: Floats, stats: Floats, dx: Floats, n: Int, start, stop
):
    """dx of rows [start, stop)."""
    for r in range(start, stop):
        first = r * n
        input_gradient(
            offset(dy, first), offset(x, first), part(residual, first), gamma, offset(dx, first), n,
            0.0, stats[r], 0,
        )  # fmt: skip


@kernel
def layernorm_gradients(
    dy: Floats,
    x: Floats,
    residual: Floats,
    stats: Floats,
    dgamma: Floats,
    dbeta: Floats,
    batch: Int,
    n: Int,
    accumulate: Int,
    start,
    stop,
):
    """Columns [start, stop) of dgamma (+)= Σ dy h and dbeta (+)= Σ dy, row after row."""
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
def rmsnorm_gradients(
    dy: Floats,
    x: Floats,
    residual: Floats,
    stats: Floats,
    dgamma: Floats,
    batch: Int,
    n: Int,
    accumulate: Int,
    start,
    stop,
):
    """Columns [start, stop) of dgamma (+)= Σ dy h, row after row."""
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
def backward_blocks(
    dy: Floats,
    x: Floats,
    residual: Floats,
    gamma: Floats,
    stats: Floats,
    dx: Floats,
    to_gamma: Floats,
    to_beta: Floats,
    batch: Int,
    n: Int,
    together: Int,
    centred: Int,
    start,
    stop,
    scratch,
):
    """dx of blocks [start, stop) of rows, and for each block its dgamma and dbeta, 2n further on than for the last.

    Everything is done with a row while it is in the first cache, so that memory is read once. Without `centred` stats
    hold no mean (RMS norm).
    """
    sums = typed(scratch, dy)
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
def sum_blocks(partial: Floats, dgamma: Floats, dbeta: Floats, blocks: Int, n: Int, start, stop):
    """Columns [start, stop) of dgamma and, unless it is null, dbeta: the blocks of `partial` in their order."""
    width = stop - start
    add_blocks(offset(partial, start), offset(dgamma, start), blocks, width, 2 * n)
    if address_of(dbeta) != 0:
        add_blocks(offset(partial, n + start), offset(dbeta, start), blocks, width, 2 * n)


# ---------------------------------------------------------------------------------------------- ops

QUANTUM = 64  # elements; ranges of elements are dealt out in multiples of a cache line or more
COLUMNS = 16  # the columns of a parameter gradient are dealt out in multiples of this
BLOCK_ROWS, MOST_BLOCKS = 16, 64  # parameter gradients are summed over blocks of at least so many rows


def add_op(a, b, out) -> Op:
    """out = a + b, for C-contiguous arrays of any one shape; out may be a or b."""
    return add_elements.op(a.dtype, a.size, quantum=QUANTUM, a=a, b=b, out=out)


def layernorm_op(x, residual, gamma, beta, out, stats, eps: float) -> Op:
    """out = y, stats = (mean, rstd) of every row. out may be x or residual."""
    return layernorm_rows.op(
        x.dtype, x.shape[0], work=work("norm", x),
        x=x, residual=residual, gamma=gamma, beta=beta, out=out, stats=stats, n=x.shape[1], eps=eps,
    )  # fmt: skip


def rmsnorm_op(x, residual, gamma, out, stats, eps: float) -> Op:
    """out = y, stats = rstd of every row. out may be x or residual."""
    return rmsnorm_rows.op(
        x.dtype, x.shape[0], work=work("norm", x),
        x=x, residual=residual, gamma=gamma, out=out, stats=stats, n=x.shape[1], eps=eps,
    )  # fmt: skip


def layernorm_dx_op(dy, x, residual, gamma, stats, dx) -> Op:
    """dx alone, which may be dy (or x, or residual)."""
    return layernorm_dx_rows.op(
        x.dtype, x.shape[0], dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, n=x.shape[1]
    )


def rmsnorm_dx_op(dy, x, residual, gamma, stats, dx) -> Op:
    """dx alone, which may be dy (or x, or residual)."""
    return rmsnorm_dx_rows.op(
        x.dtype, x.shape[0], dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, n=x.shape[1]
    )


def layernorm_gradients_op(dy, x, residual, stats, dgamma, dbeta, accumulate: bool) -> Op:
    """dgamma (+)= Σ dy h and dbeta (+)= Σ dy alone, each column in the order of the rows."""
    batch, n = x.shape
    return layernorm_gradients.op(
        x.dtype, n, quantum=COLUMNS,
        dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma, dbeta=dbeta, batch=batch, n=n,
        accumulate=int(accumulate),
    )  # fmt: skip


def rmsnorm_gradients_op(dy, x, residual, stats, dgamma, accumulate: bool) -> Op:
    """dgamma (+)= Σ dy h alone, each column in the order of the rows."""
    batch, n = x.shape
    return rmsnorm_gradients.op(
        x.dtype, n, quantum=COLUMNS,
        dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma, batch=batch, n=n, accumulate=int(accumulate),
    )  # fmt: skip


def _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta, centred: int) -> list[Op]:
    """dx, and dgamma and dbeta by way of blocks of rows that depend on the shape alone."""
    (batch, n), dtype = x.shape, x.dtype
    cost = work("norm backward", x)
    together = batch if cost < WORTH_SHARING else max(BLOCK_ROWS, -(-batch // MOST_BLOCKS))
    blocks = -(-batch // together) if batch else 1
    if blocks == 1:
        partial = np.empty(n, dtype) if dbeta is None else dbeta  # nobody asks for the sum of dy
        to_gamma, to_beta = dgamma, partial
    else:
        partial = np.empty((blocks, 2 * n), dtype)
        to_gamma, to_beta = partial, partial[0, n:]
    ops = [
        backward_blocks.op(
            dtype, blocks, work=cost, keeps=(partial,),
            dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, to_gamma=to_gamma, to_beta=to_beta,
            batch=batch, n=n, together=together, centred=centred,
        )
    ]  # fmt: skip
    if blocks > 1:
        ops.append(
            sum_blocks.op(
                dtype, n, quantum=COLUMNS, work=work("norm, blocks", partial),
                partial=partial, dgamma=dgamma, dbeta=dbeta, blocks=blocks, n=n,
            )
        )  # fmt: skip
    return ops


def layernorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> list[Op]:
    """dx, dgamma, dbeta. dx may be dy (or x, or residual)."""
    return _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta, 1)


def rmsnorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma) -> list[Op]:
    """dx, dgamma. dx may be dy (or x, or residual)."""
    return _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, None, 0)


def layernorm(x, residual, gamma, beta, out, stats, eps: float) -> None:
    """See `layernorm_op`."""
    run(layernorm_op(x, residual, gamma, beta, out, stats, eps))


def rmsnorm(x, residual, gamma, out, stats, eps: float) -> None:
    """See `rmsnorm_op`."""
    run(rmsnorm_op(x, residual, gamma, out, stats, eps))


def layernorm_backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    """See `layernorm_backward_ops`."""
    run_all(layernorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta))


def rmsnorm_backward(dy, x, residual, gamma, stats, dx, dgamma) -> None:
    """See `rmsnorm_backward_ops`."""
    run_all(rmsnorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma))


def bind(call: NormCall, at: Binding) -> Op:
    """The op of a call of a plan."""
    given = at.operands(call)
    match call:
        case LayerNormForward():
            return at.by_rows(layernorm_op(**given))
        case LayerNormDx():
            return at.by_rows(layernorm_dx_op(**given))
        case LayerNormGradients():
            return at.of_parameter(layernorm_gradients_op(**given, accumulate=at.accumulate), given["dgamma"])
        case RMSNormForward():
            return at.by_rows(rmsnorm_op(**given))
        case RMSNormDx():
            return at.by_rows(rmsnorm_dx_op(**given))
        case RMSNormGradients():
            return at.of_parameter(rmsnorm_gradients_op(**given, accumulate=at.accumulate), given["dgamma"])
        case Add():
            return at.by_rows(add_op(**given))
        case _:
            assert_never(call)
