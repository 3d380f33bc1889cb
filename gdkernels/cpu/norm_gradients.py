"""The kernels of the gradients of gamma and beta: sums over the batch.

In training each column is summed by itself, in the order of the rows. An op sums blocks of rows in the same pass as dx, and
then the blocks, where the work is worth sharing. Neither depends on the number of threads. As in `norm_rows`, a null pointer
stands for a residual that is not there.
"""

from .norm_rows import add, input_gradient, part
from .runtime.jit import kernel, native
from .runtime.layout import Floats, Int, OptionalFloats
from .runtime.simd import address_of, noalias, offset, typed
from .runtime.vectors import clear


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


@kernel
def layernorm_gradients(
    dy: Floats,
    x: Floats,
    residual: OptionalFloats,
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
    residual: OptionalFloats,
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
    residual: OptionalFloats,
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


@kernel
def sum_blocks(partial: Floats, dgamma: Floats, dbeta: OptionalFloats, blocks: Int, n: Int, start, stop):
    """Columns [start, stop) of dgamma and, unless it is null, dbeta: the blocks of `partial` in their order."""
    width = stop - start
    add_blocks(offset(partial, start), offset(dgamma, start), blocks, width, 2 * n)
    if address_of(dbeta) != 0:
        add_blocks(offset(partial, n + start), offset(dbeta, start), blocks, width, 2 * n)
