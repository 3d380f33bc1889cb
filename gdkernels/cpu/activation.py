"""Activations over memory: forward, backward, and the column sums that are the bias gradient.

For each kind a forward and a backward loop is compiled from the formulas of `scalar.activation`; the kernels take
such a loop as an operand. All of them may work in place.

A column is summed over all rows in their order or, where the work is worth sharing, over blocks of rows and then over
the blocks. Which it is, and the blocks, depend on the arrays alone: db has the same bits for any number of threads.
"""

from typing import assert_never

import numpy as np

from ..plan import ActivationBackward, ActivationCall, ActivationForward, BiasGradient
from ..scalar.activation import ACTIVATIONS
from .binding import Binding
from .cost import rows_of_block, work
from .runtime.dispatch import address
from .runtime.emit import lanes
from .runtime.jit import Op, kernel, native
from .runtime.layout import Code, Floats, Int, OptionalCode
from .runtime.memory import COLUMN_QUANTUM, QUANTUM
from .runtime.simd import address_of, apply, noalias, offset
from .runtime.stream import before_line, is_large, piece, room, settle, write
from .runtime.team import WORTH_SHARING, run, run_all
from .runtime.vectors import CHAINS, add_chains, add_some, clear

FUSED_ELEMENTS = 4096  # of dz, that are summed while they are in the first cache


def _forward(kind):
    act = ACTIVATIONS[kind].act

    def forward(z, a, count):
        noalias()
        if address_of(z) == address_of(a) or not is_large(count, z):
            for i in range(count):
                a[i] = act(z[i])
            return
        some, first, length = piece(z), 0, before_line(a)
        while first < count:
            for i in range(length):
                some[i] = act(z[first + i])
            write(some, offset(a, first), offset(z, first), length)
            first += length
            length = min(room(z), count - first)
        settle()

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
def forward_elements(act: Code, z: Floats, a: Floats, start, stop):
    """Elements [start, stop) of a = act(z), where `act` is a loop of `FORWARD`."""
    apply(act, offset(z, start), offset(a, start), stop - start)


@kernel
def backward_elements(slope: Code, da: Floats, saved: Floats, dz: Floats, start, stop):
    """Elements [start, stop) of dz = da ⊙ act′, where `slope` is a loop of `BACKWARD`."""
    apply(slope, offset(da, start), offset(saved, start), offset(dz, start), stop - start)


@native("F*, F*, i8, i8, i8")
def add_rows(dz, db, rows, width, stride):
    """db += Σ rows of dz, one after the other.

    Few are summed in registers, columns side by side. Many are read along the rows, as memory likes it, four at a time,
    because db is read and written once for them.
    """
    noalias()
    if rows * width <= FUSED_ELEMENTS:
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


@kernel
def column_sums(dz: Floats, db: Floats, batch: Int, n: Int, accumulate: Int, start, stop):
    """Columns [start, stop) of db (+)= Σ_rows dz: the gradient of a bias."""
    sums = offset(db, start)
    if accumulate == 0:
        clear(sums, stop - start)
    add_rows(offset(dz, start), sums, batch, stop - start, n)


@kernel
def backward_columns(
    slope: Code,
    da: Floats,
    saved: Floats,
    dz: Floats,
    db: Floats,
    batch: Int,
    n: Int,
    accumulate: Int,
    start,
    stop,
):
    """Columns [start, stop) of dz = da ⊙ act′ and of db (+)= Σ_rows dz, in one pass over memory."""
    width, sums = stop - start, offset(db, start)
    if accumulate == 0:
        clear(sums, width)
    block = max(1, FUSED_ELEMENTS // width)
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
def backward_blocks(
    slope: OptionalCode,
    da: Floats,
    saved: Floats,
    dz: Floats,
    partial: Floats,
    batch: Int,
    n: Int,
    together: Int,
    start,
    stop,
):
    """Blocks [start, stop) of rows of dz = da ⊙ act′, and for each the row of `partial` that is its Σ_rows dz.

    Memory is read along the rows, in one pass. Without a `slope` dz is given.
    """
    few = max(1, FUSED_ELEMENTS // n)
    for block in range(start, stop):
        sums, last = offset(partial, block * n), min(batch, (block + 1) * together)
        clear(sums, n)
        for first in range(block * together, last, few):
            rows, corner = min(few, last - first), first * n
            if slope != 0:
                apply(slope, offset(da, corner), offset(saved, corner), offset(dz, corner), rows * n)
            add_rows(offset(dz, corner), sums, rows, n, n)


# ---------------------------------------------------------------------------------------------- ops

CHEAP = ("identity", "relu", "leaky_relu")  # take no longer than their memory


def _work(kind: str, array) -> float:
    return work("activation, cheap" if kind in CHEAP else "activation", array)


def forward_op(z, kind: str, out) -> Op:
    """out = act(z), for C-contiguous arrays of any one shape; out may be z."""
    return forward_elements.op(
        z.dtype, z.size, quantum=QUANTUM, work=_work(kind, z), act=FORWARD[kind], z=z, a=out
    )


def backward_op(da, saved, kind: str, dz) -> Op:
    """dz = da ⊙ act′; dz may be da or saved."""
    return backward_elements.op(
        da.dtype, da.size, quantum=QUANTUM, work=_work(kind, da),
        slope=BACKWARD[kind], da=da, saved=saved, dz=dz,
    )  # fmt: skip


def column_sums_op(dz, db, accumulate: bool) -> Op:
    """db (+)= Σ_rows dz, each column in the order of the rows."""
    batch, n = dz.shape
    return column_sums.op(
        dz.dtype, n, quantum=COLUMN_QUANTUM, dz=dz, db=db, batch=batch, n=n, accumulate=int(accumulate)
    )


def backward_ops(da, saved, kind: str, dz, db=None, accumulate: bool = False) -> list[Op]:
    """dz = da ⊙ act′, and db (+)= its sums over the rows if db is given; dz may be da or saved.

    All arrays are C-contiguous. The identity reads no `saved`, and writes nothing where dz is da.
    """
    dtype, cost = da.dtype, _work(kind, da)
    still = kind == "identity" and address(dz) == address(da)
    if kind == "identity":
        saved = da
    if db is None:
        return [] if still else [backward_op(da, saved, kind, dz)]
    batch, n = da.shape
    slope = None if still else BACKWARD[kind]
    if cost < WORTH_SHARING:
        if still:
            return [column_sums_op(dz, db, accumulate)]
        return [
            backward_columns.op(
                dtype, n, quantum=COLUMN_QUANTUM,
                slope=slope, da=da, saved=saved, dz=dz, db=db, batch=batch, n=n, accumulate=int(accumulate),
            )
        ]  # fmt: skip
    together = rows_of_block(batch)
    blocks = -(-batch // together)
    partial = np.empty((blocks, n), dtype)
    return [
        backward_blocks.op(
            dtype, blocks, work=cost,
            slope=slope, da=da, saved=saved, dz=dz, partial=partial, batch=batch, n=n, together=together,
        ),
        column_sums.op(
            dtype, n, quantum=COLUMN_QUANTUM, work=work("column sums", partial),
            dz=partial, db=db, batch=blocks, n=n, accumulate=int(accumulate),
        ),
    ]  # fmt: skip


def forward(z, kind: str, out) -> None:
    """out = act(z); see `forward_op`."""
    run(forward_op(z, kind, out))


def backward(da, saved, kind: str, dz, db=None, accumulate: bool = False) -> None:
    """dz = da ⊙ act′ and db (+)= Σ_rows dz; see `backward_ops`."""
    run_all(backward_ops(da, saved, kind, dz, db, accumulate))


def bind(call: ActivationCall, at: Binding) -> Op:
    """The op of a call of a plan."""
    given = at.operands(call)
    match call:
        case ActivationForward():
            return at.by_rows(forward_op(given["z"], call.kind, out=given["a"]))
        case ActivationBackward():
            return at.by_rows(backward_op(**given))
        case BiasGradient():
            return at.of_parameter(column_sums_op(**given, accumulate=at.accumulate), given["db"])
        case _:
            assert_never(call)
