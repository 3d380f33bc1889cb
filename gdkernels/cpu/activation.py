"""Activations over memory: forward, backward, and the column sums that are the bias gradient.

For each kind a forward and a backward loop is compiled from the formulas of `scalar.activations`; the kernels take
the address of such a loop as an operand. All of them may work in place.

A column is always summed over all rows in their order, by one thread. So db has the same bits for any number of
threads, and whether it is summed in one pass with dz or afterwards.
"""

from ..scalar.activations import ACTIVATIONS
from . import vmath  # noqa: F401  (exp, tanh, … for the CPU)
from .jit import kernel, native
from .simd import apply, noalias, offset, unpack
from .team import WORTH_SHARING, address, launch

QUANTUM = 64  # elements; ranges of elements are dealt out in multiples of a cache line or more
COLUMNS = 16  # columns of a range of columns, likewise
FUSED = 4096  # elements of dz that are summed while they are in the first cache
WIDE = 256  # columns from which a part of a row is worth a call of its own


def _forward(kind):
    act, _, _ = ACTIVATIONS[kind]

    def forward(z, a, count):
        noalias()
        for i in range(count):
            a[i] = act(z[i])

    forward.__name__, forward.__doc__ = f"{kind}_forward", f"a = {kind}(z); a may be z."
    return native("F*, F*, i8")(forward)


def _backward(kind):
    _, slope, saved_is = ACTIVATIONS[kind]

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
    """db += Σ rows of dz, one after the other. Four at a time, because db is read and written once for them."""
    noalias()
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
    sums = (address(db), *da.shape, int(accumulate))
    if not still and (work < WORTH_SHARING or db.size >= WIDE):
        launch(backward_columns, da.dtype, (*arrays, *sums), db.size, COLUMNS, work)
        return
    if not still:
        launch(backward_rows, da.dtype, (*arrays, db.size), len(da), 1, work)
    launch(column_sums, da.dtype, (address(dz), *sums), db.size, COLUMNS, 0.02 * da.nbytes)
