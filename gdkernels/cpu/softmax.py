"""Softmax of rows, and what cross-entropy shares with it: the maximum of each row and its exponentials.

    p = e / total,  e = exp(z − peak),  peak = max z,  total = Σ e        log p = z − peak − log(total)

Every exponent is at most 0 and one of them is 0: nothing overflows, and total lies in [1, n].

Rows come in blocks. Wide rows are vectorised along the row. In narrow rows (ten classes) such loops would be tails
only; there a block is transposed, so that the rows stand side by side in a vector. Each row is added up in its own
order in both cases, so that its bits depend on n alone.
"""

from ..scalar.elementary import log
from .cost import work
from .runtime.elementary import lifted_exp, scale_down
from .runtime.emit import lanes
from .runtime.jit import Op, inlined, kernel, native
from .runtime.layout import Floats, Int
from .runtime.simd import address_of, noalias, offset, typed
from .runtime.stream import is_large, settle, write_block
from .runtime.team import run
from .runtime.vectors import add_columns, columns_of_rows, peak_of_row, rows_of_columns, subtract_peaks

MOST_ROWS = 32  # that are taken together, at most
BLOCK_ELEMENTS = 2048  # of the rows that are taken together
NARROW_COLUMNS = 64  # rows up to this length are turned
CHUNK_COLUMNS = 2048  # of a wide row, that are added up in one go

# Places in a worker's scratch, in bytes.
PEAK, TOTAL, LOG_TOTAL, FACTOR, PAIR = (8 * MOST_ROWS * slot for slot in range(5))
# Of a narrow block, turned; or of a chunk of a wide row that nobody wants.
EXPONENTIALS = 40 * MOST_ROWS
MOST_STAGED = 1 << 15  # elements of a row that is put together before it goes past the caches
STAGED = EXPONENTIALS + 8 * 2 * BLOCK_ELEMENTS


@native("F*, i8")
def exponentials(x, count):
    """x = exp(x), lifted."""
    for i in range(count):
        x[i] = lifted_exp(x[i])


@native("F*")
def lower(values):
    """values = values, scaled down, for a block."""
    for r in range(MOST_ROWS):
        values[r] = scale_down(values[r])


@native("F*, F*, F*, F*, i8, i8")
def narrow_exponentials(z, e, peak, total, rows, n):
    """e[j, r] = exp(z[r, j] − peak[r]), lifted, and total[r] = Σ_j exp(z[r, j] − peak[r]), side by side as many rows as a
    vector has lanes."""
    noalias()
    side = lanes(z)
    for r in range(0, rows, side):
        columns = offset(e, r * n)
        columns_of_rows(offset(z, r * n), n, rows - r, columns, offset(peak, r))
        subtract_peaks(columns, n, offset(peak, r))
    exponentials(e, (rows + side - 1) // side * side * n)
    for r in range(0, rows, side):
        add_columns(offset(e, r * n), n, offset(total, r))
    lower(total)


@native("F*, F*, F*, i8, i8")
def narrow_product(e, factor, out, rows, n):
    """out[r, j] = e[j, r] factor[r]."""
    noalias()
    side = lanes(e)
    for r in range(0, rows, side):
        rows_of_columns(offset(e, r * n), offset(factor, r), offset(out, r * n), n, rows - r)


@native("F*, i8 -> F")
def row_peak(z, n):
    """max z; a NaN need not count, because its exponential does."""
    return peak_of_row(z, n)


@native("F*, F*, i8, F -> F", reorder_sums=True)
def row_exponentials(z, e, n, peak):
    """e = exp(z − peak), lifted; gives Σ exp(z − peak)."""
    noalias()
    total = type(peak)(0)
    for j in range(n):
        one = lifted_exp(z[j] - peak)
        e[j] = one
        total += one
    return scale_down(total)


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
    for r in range(MOST_ROWS):
        log_total[r] = log(total[r])


@inlined
def together(n):
    """Rows of a block: so few that they stay in the first cache."""
    return max(1, min(MOST_ROWS, BLOCK_ELEMENTS // n))


@inlined
def block_exponentials(z, e, memory, rows, n, keep):
    """Fill PEAK and TOTAL for some rows. exp(z − peak) goes to EXPONENTIALS (narrow) or, to be kept, to `e` (wide)."""
    peak, total = typed(memory + PEAK, z), typed(memory + TOTAL, z)
    spare = typed(memory + EXPONENTIALS, z)
    if n <= NARROW_COLUMNS:
        narrow_exponentials(z, spare, peak, total, rows, n)
        return
    for r in range(rows):
        row = offset(z, r * n)
        peak[r] = row_peak(row, n)
        added = 0.0
        for j in range(0, n, CHUNK_COLUMNS):
            into = offset(e, r * n + j) if keep else spare
            added += row_exponentials(offset(row, j), into, min(CHUNK_COLUMNS, n - j), peak[r])
        total[r] = added


@inlined
def block_product(e, memory, rows, n):
    """e = exp(z − peak) FACTOR for the rows of the last `block_exponentials`, which were kept in `e`."""
    factor = typed(memory + FACTOR, e)
    lower(factor)
    if n <= NARROW_COLUMNS:
        narrow_product(typed(memory + EXPONENTIALS, e), factor, e, rows, n)
        return
    for r in range(rows):
        row_product(offset(e, r * n), n, factor[r])


@kernel
def softmax_rows(x: Floats, out: Floats, n: Int, start, stop, scratch):
    """out = softmax(x) on rows [start, stop). out may be x."""
    block = together(n)
    staged = is_large((stop - start) * n, x) and n <= MOST_STAGED and address_of(x) != address_of(out)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z, into = offset(x, first * n), offset(out, first * n)
        p = typed(scratch + STAGED, x) if staged else into
        block_exponentials(z, p, scratch, rows, n, True)
        total, factor = typed(scratch + TOTAL, x), typed(scratch + FACTOR, x)
        for r in range(rows):
            factor[r] = type(total[r])(1) / total[r]
        block_product(p, scratch, rows, n)
        if staged:
            write_block(p, into, offset(z, rows * n), rows * n)
    if staged:
        settle()


@kernel
def log_softmax_rows(x: Floats, out: Floats, n: Int, start, stop, scratch):
    """out = log(softmax(x)) on rows [start, stop). out may be x."""
    block = together(n)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z = offset(x, first * n)
        block_exponentials(z, z, scratch, rows, n, False)
        peak, log_total = typed(scratch + PEAK, x), typed(scratch + LOG_TOTAL, x)
        logarithms(typed(scratch + TOTAL, x), log_total)
        for r in range(rows):
            row_log_softmax(offset(z, r * n), offset(out, (first + r) * n), n, peak[r], log_total[r])


# ---------------------------------------------------------------------------------------------- ops


def softmax_op(x, out) -> Op:
    """out = softmax(x) over the last axis. out may be x."""
    n = x.shape[-1]
    return softmax_rows.op(x.dtype, x.size // max(n, 1), work=work("softmax", x), x=x, out=out, n=n)


def log_softmax_op(x, out) -> Op:
    """out = log(softmax(x)) over the last axis. out may be x."""
    n = x.shape[-1]
    return log_softmax_rows.op(x.dtype, x.size // max(n, 1), work=work("softmax", x), x=x, out=out, n=n)


def softmax(x, out) -> None:
    """See `softmax_op`."""
    run(softmax_op(x, out))


def log_softmax(x, out) -> None:
    """See `log_softmax_op`."""
    run(log_softmax_op(x, out))
