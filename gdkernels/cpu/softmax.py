"""Softmax of rows, and what cross-entropy shares with it: the maximum of each row and its exponentials.

    p = e / total,  e = exp(z − peak),  peak = max z,  total = Σ e        log p = z − peak − log(total)

Every exponent is at most 0 and one of them is 0: nothing overflows, and total lies in [1, n].

Rows come in blocks. Wide rows are vectorised along the row. In narrow rows (ten classes) such loops would be tails
only; there a block is transposed, so that the rows stand side by side in a vector. Each row is added up in its own
order in both cases, so that its bits depend on n alone.
"""

from ..scalar.elementary import exp, log
from . import vmath  # noqa: F401  (vector code for exp and log)
from .jit import device, kernel, native
from .simd import maximum, noalias, offset, typed, unpack
from .team import SCRATCH_BYTES, address, launch

BLOCK = 32  # rows taken together
NARROW = 64  # rows up to this length are transposed
CHUNK = 2048  # elements of a wide row that are added up in one go

# Places in a worker's scratch, in bytes.
PEAK, TOTAL, LOG_TOTAL, FACTOR, PAIR = (8 * BLOCK * slot for slot in range(5))
EXPONENTIALS = 40 * BLOCK  # of a narrow block, transposed; or of a chunk of a wide row that nobody wants


@native("F*, F*, F*, F*, i8, i8")
def narrow_exponentials(z, e, peak, total, rows, n):
    """e[j, r] = exp(z[r, j] − peak[r]) and total[r] = Σ_j e[j, r]; lanes r beyond `rows` hold nothing of meaning."""
    noalias()
    for j in range(n):
        column = offset(e, j * BLOCK)
        for r in range(rows):
            column[r] = z[r * n + j]
        for r in range(rows, BLOCK):
            column[r] = 0
    for r in range(BLOCK):
        peak[r] = e[r]
        total[r] = 0
    for j in range(1, n):
        column = offset(e, j * BLOCK)
        for r in range(BLOCK):
            peak[r] = (
                column[r] if column[r] > peak[r] else peak[r]
            )  # a NaN need not count: its exponential does
    for j in range(n):
        column = offset(e, j * BLOCK)
        for r in range(BLOCK):
            one = exp(column[r] - peak[r])
            column[r] = one
            total[r] += one


@native("F*, F*, F*, i8, i8")
def narrow_product(e, factor, out, rows, n):
    """out[r, j] = e[j, r] factor[r]."""
    noalias()
    for j in range(n):
        column = offset(e, j * BLOCK)
        for r in range(rows):
            out[r * n + j] = column[r] * factor[r]


@native("F*, i8 -> F", reorder_sums=True)
def row_peak(z, n):
    """max z; NaN where there is one."""
    peak = z[0]
    for j in range(1, n):
        peak = maximum(peak, z[j])
    return peak


@native("F*, F*, i8, F -> F", reorder_sums=True)
def row_exponentials(z, e, n, peak):
    """e = exp(z − peak); gives Σ e."""
    noalias()
    total = type(peak)(0)
    for j in range(n):
        one = exp(z[j] - peak)
        e[j] = one
        total += one
    return total


@native("F*, i8, F")
def row_product(e, n, factor):
    """e = e factor."""
    for j in range(n):
        e[j] *= factor


@native("F*, F*, i8, F, F")
def row_log_softmax(z, out, n, peak, log_total):
    """out = z − peak − log(total)."""
    noalias()
    for j in range(n):
        out[j] = z[j] - peak - log_total


@native("F*, F*")
def logarithms(total, log_total):
    """log_total = log(total) for a block."""
    noalias()
    for r in range(BLOCK):
        log_total[r] = log(total[r])


@device
def block_exponentials(z, e, memory, rows, n, keep):
    """Fill PEAK and TOTAL for some rows. exp(z − peak) goes to EXPONENTIALS (narrow) or, to be kept, to `e` (wide)."""
    peak, total = typed(memory + PEAK, z), typed(memory + TOTAL, z)
    spare = typed(memory + EXPONENTIALS, z)
    if n <= NARROW:
        narrow_exponentials(z, spare, peak, total, rows, n)
        return
    for r in range(rows):
        row = offset(z, r * n)
        peak[r] = row_peak(row, n)
        added = 0.0
        for j in range(0, n, CHUNK):
            into = offset(e, r * n + j) if keep else spare
            added += row_exponentials(offset(row, j), into, min(CHUNK, n - j), peak[r])
        total[r] = added


@device
def block_product(e, memory, rows, n):
    """e = exp(z − peak) FACTOR for the rows of the last `block_exponentials`, which were kept in `e`."""
    factor = typed(memory + FACTOR, e)
    if n <= NARROW:
        narrow_product(typed(memory + EXPONENTIALS, e), factor, e, rows, n)
        return
    for r in range(rows):
        row_product(offset(e, r * n), n, factor[r])


@kernel
def softmax_rows(record, start, stop, worker):
    """out = softmax(x) on rows [start, stop). out may be x."""
    scratch, x, out, n = unpack(record, "i8, F*, F*, i8")
    memory = scratch + worker * SCRATCH_BYTES
    for first in range(start, stop, BLOCK):
        rows = min(BLOCK, stop - first)
        p = offset(out, first * n)
        block_exponentials(offset(x, first * n), p, memory, rows, n, True)
        total, factor = typed(memory + TOTAL, x), typed(memory + FACTOR, x)
        for r in range(rows):
            factor[r] = type(total[r])(1) / total[r]
        block_product(p, memory, rows, n)


@kernel
def log_softmax_rows(record, start, stop, worker):
    """out = log(softmax(x)) on rows [start, stop). out may be x."""
    scratch, x, out, n = unpack(record, "i8, F*, F*, i8")
    memory = scratch + worker * SCRATCH_BYTES
    for first in range(start, stop, BLOCK):
        rows = min(BLOCK, stop - first)
        z = offset(x, first * n)
        block_exponentials(z, z, memory, rows, n, False)
        peak, log_total = typed(memory + PEAK, x), typed(memory + LOG_TOTAL, x)
        logarithms(typed(memory + TOTAL, x), log_total)
        for r in range(rows):
            row_log_softmax(offset(z, r * n), offset(out, (first + r) * n), n, peak[r], log_total[r])


SOFTMAX_WORK = 0.8  # nanoseconds an element of float32 on one core, about


def _run(rows_kernel, x, out) -> None:
    n = x.shape[-1]
    work = x.size * x.itemsize / 4 * SOFTMAX_WORK
    launch(rows_kernel, x.dtype, (address(x), address(out), n), x.size // max(n, 1), work=work)


def softmax(x, out) -> None:
    """out = softmax(x) over the last axis. out may be x."""
    _run(softmax_rows, x, out)


def log_softmax(x, out) -> None:
    """out = log(softmax(x)) over the last axis. out may be x."""
    _run(log_softmax_rows, x, out)
