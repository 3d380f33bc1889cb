"""Activations over memory: forward, backward, and the column sums that are the bias gradient.

For each kind a forward and a backward loop is compiled from the formulas of `scalar.activation`; the kernels take
the address of such a loop as an operand. All of them may work in place.

A column is summed over all rows in their order or, where the work is worth sharing, over blocks of rows and then over
the blocks. Which it is, and the blocks, depend on the arrays alone: db has the same bits for any number of threads.
"""

import numpy as np

from ..scalar.activation import ACTIVATIONS
from .runtime.emit import lanes
from .runtime.jit import kernel, native
from .runtime.simd import apply, noalias, offset, unpack
from .runtime.team import WORTH_SHARING, address, launch
from .runtime.vectors import CHAINS, add_chains, add_some

QUANTUM = 64  # elements; ranges of elements are dealt out in multiples of a cache line or more
COLUMNS = 16  # columns of a range of columns, likewise
FUSED = 4096  # elements of dz that are summed while they are in the first cache
BLOCK_ROWS, MOST_BLOCKS = 16, 64  # a shared sum is one of blocks of at least so many rows


def _forward(kind):
    act = ACTIVATIONS[kind].act

    def forward(z, a, count):
        noalias()
        for i in range(count):
            a[i] = act(z[i])

    forward.__name__, forward.__doc__ = f"{kind}_forward", f"a = {kind}(z); a may be z."
    return native("F*, F*, i8")(forward)


def _backward(kind):
    _, slope, saved_is, _ = ACTIVATIONS[kind]

    def backward(da, saved, dz, count):
        noalias()
        for i in range(count):
            dz[i] = da[i] * slope(saved[i])

    backward.__name__ = f"{kind}_backward"
    backward.__doc__ = f"dz = da ⊙ {kind}′, from the {saved_is}; dz may be da or saved."
    return native("F*, F*, F*, i8")(backward)


FORWARD = {kind: _forward(kind) for kind in ACTIVATIONS}
BACKWARD = {kind: _backward(kind) for kind in ACTIVATIONS}


@kernel
def forward_rows(record, start, stop, worker):
    """Rows [start, stop) of a = act(z), where `act` is the address of a loop of `FORWARD`."""
    _, act, z, a, n = unpack(record, "i8, i8, F*, F*, i8")
    first = start * n
    apply(act, offset(z, first), offset(a, first), (stop - start) * n)


@kernel
def backward_rows(record, start, stop, worker):
    """Rows [start, stop) of dz = da ⊙ act′, where `slope` is the address of a loop of `BACKWARD`."""
    _, slope, da, saved, dz, n = unpack(record, "i8, i8, F*, F*, F*, i8")
    first = start * n
    apply(slope, offset(da, first), offset(saved, first), offset(dz, first), (stop - start) * n)


@native("F*, F*, i8, i8, i8")
def add_rows(dz, db, rows, width, stride):
    """db += Σ rows of dz, one after the other.

    Few are summed in registers, columns side by side. Many are read along the rows, as memory likes it, four at a time,
    because db is read and written once for them.
    """
    noalias()
    if rows * width <= FUSED:
        side = lanes(dz)
        whole = width // (CHAINS * side) * CHAINS * side
        for j in range(0, whole, CHAINS * side):
            add_chains(offset(dz, j), offset(db, j), rows, stride)
        for j in range(whole, width, side):
            add_some(offset(dz, j), offset(db, j), rows, stride, min(side, width - j))
        return
    fours = rows // 4
    for four in range(fours):
        first = offset(dz, 4 * four * stride)
        second, third, fourth = offset(first, stride), offset(first, 2 * stride), offset(first, 3 * stride)
        for j in range(width):
            db[j] = db[j] + first[j] + second[j] + third[j] + fourth[j]
    for row in range(4 * fours, rows):
        last = offset(dz, row * stride)
        for j in range(width):
            db[j] += last[j]


@native("F*, i8")
def clear(db, count):
    """db = 0."""
    for j in range(count):
        db[j] = type(db[j])(0)


@kernel
def column_sums(record, start, stop, worker):
    """Columns [start, stop) of db (+)= Σ_rows dz: the gradient of a bias."""
    _, dz, db, batch, n, accumulate = unpack(record, "i8, F*, F*, i8, i8, i8")
    sums = offset(db, start)
    if accumulate == 0:
        clear(sums, stop - start)
    add_rows(offset(dz, start), sums, batch, stop - start, n)


@kernel
def backward_columns(record, start, stop, worker):
    """Columns [start, stop) of dz = da ⊙ act′ and of db (+)= Σ_rows dz, in one pass over memory."""
    _, slope, da, saved, dz, db, batch, n, accumulate = unpack(record, "i8, i8, F*, F*, F*, F*, i8, i8, i8")
    width, sums = stop - start, offset(db, start)
    if accumulate == 0:
        clear(sums, width)
    block = max(1, FUSED // width)
    for first in range(0, batch, block):
        rows, corner = min(block, batch - first), first * n + start
        if width == n:
            apply(slope, offset(da, corner), offset(saved, corner), offset(dz, corner), rows * n)
        else:
            for row in range(rows):
                left = corner + row * n
                apply(slope, offset(da, left), offset(saved, left), offset(dz, left), width)
        add_rows(offset(dz, corner), sums, rows, width, n)


@kernel
def backward_blocks(record, start, stop, worker):
    """Blocks [start, stop) of rows of dz = da ⊙ act′, and for each the row of `partial` that is its Σ_rows dz.

    Memory is read along the rows, in one pass. Without a `slope` dz is given.
    """
    _, slope, da, saved, dz, partial, batch, n, together = unpack(
        record, "i8, i8, F*, F*, F*, F*, i8, i8, i8"
    )
    few = max(1, FUSED // n)
    for block in range(start, stop):
        sums, last = offset(partial, block * n), min(batch, (block + 1) * together)
        clear(sums, n)
        for first in range(block * together, last, few):
            rows, corner = min(few, last - first), first * n
            if slope != 0:
                apply(slope, offset(da, corner), offset(saved, corner), offset(dz, corner), rows * n)
            add_rows(offset(dz, corner), sums, rows, n, n)


def _work(kind: str, array) -> float:
    """Estimated nanoseconds of one core."""
    return (0.02 if kind in ("identity", "relu", "leaky_relu") else 0.1) * array.nbytes


def forward(z, kind: str, out) -> None:
    """out = act(z), for C-contiguous arrays of any one shape; out may be z."""
    operands = (FORWARD[kind].address(z.dtype), address(z), address(out), 1)
    launch(forward_rows, z.dtype, operands, z.size, QUANTUM, _work(kind, z))


def backward(da, saved, kind: str, dz, db=None, accumulate: bool = False) -> None:
    """dz = da ⊙ act′, and db (+)= its sums over the rows if db is given; dz may be da or saved.

    All arrays are C-contiguous. The identity reads no `saved`, and writes nothing where dz is da.
    """
    work = _work(kind, da)
    still = kind == "identity" and address(dz) == address(da)
    slope = 0 if still else BACKWARD[kind].address(da.dtype)
    arrays = (slope, address(da), address(da if kind == "identity" else saved), address(dz))
    if db is None:
        if not still:
            launch(backward_rows, da.dtype, (*arrays, 1), da.size, QUANTUM, work)
        return
    batch, n = da.shape
    if work < WORTH_SHARING:
        in_order = (address(db), batch, n, int(accumulate))
        if still:
            launch(column_sums, da.dtype, (address(dz), *in_order), n, COLUMNS)
        else:
            launch(backward_columns, da.dtype, (*arrays, *in_order), n, COLUMNS)
        return
    together = max(BLOCK_ROWS, -(-batch // MOST_BLOCKS))
    blocks = -(-batch // together)
    partial = np.empty((blocks, n), da.dtype)
    launch(backward_blocks, da.dtype, (*arrays, address(partial), batch, n, together), blocks, work=work)
    sums = (address(partial), address(db), blocks, n, int(accumulate))
    launch(column_sums, da.dtype, sums, n, COLUMNS, 0.05 * partial.nbytes)
