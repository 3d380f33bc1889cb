"""The doors of the activations."""

from ...scalar.activation import ACTIVATIONS
from ..activation import (
    BACKWARD,
    CHEAP,
    FORWARD,
    backward_blocks,
    backward_columns,
    backward_elements,
    column_sums,
    forward_elements,
)
from ..cost import NS, rows_of_block
from ..runtime.emit import lanes
from ..runtime.jit import inlined, kernel, native
from ..runtime.layout import Code, Floats, Int, Ints, OptionalFloats
from ..runtime.machine import VECTOR_BITS
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import address_of, typed
from ..runtime.team import WORTH_SHARING
from . import words as at
from .arguments import Name, filled, given, result
from .door import Door

LOOPS, SLOPES = Name(FORWARD), Name(BACKWARD)
IDENTITY = [*ACTIVATIONS].index("identity")
EACH = tuple(NS["activation, cheap" if kind in CHEAP else "activation"] for kind in ACTIVATIONS)
MOST_COLUMNS_COST = float(WORTH_SHARING)
MISSING_SAVED, NO_MATRIX = 1 * at.FAULTS + at.MISSING, 0 * at.FAULTS + at.DIMENSION  # of saved, of da

together = inlined(rows_of_block)
of_elements, of_columns, of_blocks, sums_of_columns = (
    one.source for one in (backward_elements, backward_columns, backward_blocks, column_sums)
)
forward_of_elements = forward_elements.source


@inlined
def nanoseconds(number, values, count):
    """What an activation over `count` elements costs one core, as `cost.work` tells."""
    return EACH[number] * count * (VECTOR_BITS // lanes(values)) / 32


@native("F*, F*, i8, i8, F*, F*, F*, i8, i8, i8")
def backward(da, saved, slope, number, dz, db, partial, batch, n, accumulate):
    """dz = da ⊙ act′ and db (+)= Σ_rows dz, as `activation.backward_ops` do it; `number` is that of the activation.

    Whether rows are summed in blocks, whose sums `partial` holds, depends on the arrays alone.
    """
    still = number == IDENTITY and address_of(dz) == address_of(da)
    if nanoseconds(number, da, batch * n) < MOST_COLUMNS_COST:
        if still:
            sums_of_columns(dz, db, batch, n, accumulate, 0, n)
        else:
            of_columns(slope, da, saved, dz, db, batch, n, accumulate, 0, n)
        return
    rows = together(batch)
    blocks = (batch + rows - 1) // rows
    of_blocks(0 if still else slope, da, saved, dz, partial, batch, n, rows, 0, blocks)
    sums_of_columns(partial, db, blocks, n, accumulate, 0, n)


@kernel
def forward(z: Floats, kind: Code, out: Floats, start, stop):
    """Elements [start, stop) of out = act(z)."""
    forward_of_elements(kind, z, out, start, stop)


@kernel
def backward_call(
    da: Floats, saved: OptionalFloats, kind: Code, kind_number: Int, out: Floats, db: OptionalFloats,
    size: Int, last: Int, axes: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """out = da ⊙ act′, and db = Σ_rows out of a matrix."""
    before = da if kind_number == IDENTITY else saved
    if address_of(before) == 0:
        fault[0] = MISSING_SAVED
    elif address_of(db) == 0:
        if kind_number != IDENTITY or address_of(da) != address_of(out):
            of_elements(kind, da, before, out, 0, size)
    elif axes != 2:
        fault[0] = NO_MATRIX
    elif last > 0:
        partial = typed(scratch + SCRATCH_BYTES, da)
        backward(da, before, kind, kind_number, out, db, partial, size // last, last, 0)


activation = Door(
    "activation",
    forward,
    {"z": given(), "kind": LOOPS, "out": result(like=("z",))},
    total="size",
    costs=((NS["activation"], "size"),),
)

activation_backward = Door(
    "activation_backward",
    backward_call,
    {
        "da": given(),
        "saved": given(optional=True),
        "kind": SLOPES,
        "out": result(like=("da", "saved")),
        "db": filled("last"),
    },
    costs=((NS["activation"], "size"),),
    memory=(0, 1, "size"),  # there are no more blocks than rows
)

DOORS = {door.name: door for door in (activation, activation_backward)}
