"""The doors of the norms and of the scale of columns."""

from ...ranges import NOT_NEGATIVE
from ..cost import NS, rows_of_block
from ..norm import scale_gradient, scale_rows
from ..norm_gradients import backward_blocks, sum_blocks
from ..norm_rows import layernorm_rows, rmsnorm_rows
from ..runtime.emit import lanes
from ..runtime.jit import inlined, kernel, native
from ..runtime.layout import Double, Floats, Int, Ints, OptionalFloats
from ..runtime.machine import VECTOR_BITS
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import address_of, offset, typed
from ..runtime.team import WORTH_SHARING
from . import words as at
from .arguments import Number, filled, given, result
from .door import Door

EACH = NS["norm backward"]
MOST_COST = float(WORTH_SHARING)

together = inlined(rows_of_block)
layernorm_of_rows, rmsnorm_of_rows, scale_of_rows, gradient_of_scale, of_blocks, sums_of_blocks = (
    one.source
    for one in (layernorm_rows, rmsnorm_rows, scale_rows, scale_gradient, backward_blocks, sum_blocks)
)


@native("F*, F*, F*, F*, F*, F*, F*, F*, F*, i8, i8, i8, i8")
def backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta, partial, batch, n, centred, scratch):
    """dx, dgamma and dbeta, as `norm._backward_ops` does it: in blocks of rows that depend on the shape alone.

    dbeta is null where nobody asks for the sum of dy.
    """
    wide = EACH * batch * n * (VECTOR_BITS // lanes(x)) / 32 >= MOST_COST
    rows = together(batch) if wide else batch
    blocks = (batch + rows - 1) // rows if batch > 0 else 1
    if blocks == 1:
        unwanted = partial if batch > 0 else dgamma  # both are zeros then, and there is no further memory
        to_beta = unwanted if address_of(dbeta) == 0 else dbeta
        of_blocks(dy, x, residual, gamma, stats, dx, dgamma, to_beta, batch, n, rows, centred, 0, 1, scratch)
        return
    of_blocks(
        dy,
        x,
        residual,
        gamma,
        stats,
        dx,
        partial,
        offset(partial, n),
        batch,
        n,
        rows,
        centred,
        0,
        blocks,
        scratch,
    )
    sums_of_blocks(partial, dgamma, dbeta, blocks, n, 0, n)


NO_COLUMN = at.DIMENSION  # of the first argument
NO_COLUMN_OF_X = 1 * at.FAULTS + at.DIMENSION


@kernel
def layernorm_call(
    x: Floats, gamma: Floats, beta: Floats, eps: Double, residual: OptionalFloats, out: Floats, stats: OptionalFloats,
    m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """out = layernorm(x); statistics that nobody asks for go to working memory."""
    if n == 0:
        fault[0] = NO_COLUMN
        return
    into = typed(scratch + SCRATCH_BYTES, x) if address_of(stats) == 0 else stats
    layernorm_of_rows(x, residual, gamma, beta, out, into, n, eps, 0, m)


@kernel
def rmsnorm_call(
    x: Floats, gamma: Floats, eps: Double, residual: OptionalFloats, out: Floats, stats: OptionalFloats,
    m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """out = rmsnorm(x), likewise."""
    if n == 0:
        fault[0] = NO_COLUMN
        return
    into = typed(scratch + SCRATCH_BYTES, x) if address_of(stats) == 0 else stats
    rmsnorm_of_rows(x, residual, gamma, out, into, n, eps, 0, m)


@kernel
def layernorm_backward_call(
    dy: Floats, x: Floats, gamma: Floats, stats: Floats, residual: OptionalFloats, dx: Floats, dgamma: Floats,
    dbeta: Floats, m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """dx, dgamma, dbeta."""
    if n == 0:
        fault[0] = NO_COLUMN_OF_X
        return
    partial = typed(scratch + SCRATCH_BYTES, x)
    backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta, partial, m, n, 1, scratch)


@kernel
def rmsnorm_backward_call(
    dy: Floats, x: Floats, gamma: Floats, stats: Floats, residual: OptionalFloats, dx: Floats, dgamma: Floats,
    m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """dx, dgamma."""
    if n == 0:
        fault[0] = NO_COLUMN_OF_X
        return
    partial = typed(scratch + SCRATCH_BYTES, x)
    backward(dy, x, residual, gamma, stats, dx, dgamma, typed(0, x), partial, m, n, 0, scratch)


@kernel
def scale_call(x: Floats, gamma: Floats, out: Floats, m: Int, n: Int, fault: Ints, start, stop):
    """out = gamma ⊙ x."""
    if n == 0:
        fault[0] = NO_COLUMN
        return
    scale_of_rows(x, gamma, out, n, 0, m)


@kernel
def scale_backward_call(
    dy: Floats, x: Floats, gamma: Floats, dx: Floats, dgamma: Floats, m: Int, n: Int, fault: Ints, start, stop
):
    """dgamma, then dx, which may be dy or x."""
    if n == 0:
        fault[0] = NO_COLUMN_OF_X
        return
    gradient_of_scale(dy, x, dgamma, m, n, 0, 0, n)
    scale_of_rows(dy, gamma, dx, n, 0, m)


_X, _RESIDUAL, _COLUMN, _EPS = (
    given("m", "n"),
    given("m", "n", optional=True),
    given("n"),
    Number(NOT_NEGATIVE),
)
_BLOCKS = (0, 3, "m n")  # of two rows each, for a sixteenth of the rows, and one

layernorm = Door(
    "layernorm",
    layernorm_call,
    {
        "x": _X,
        "gamma": _COLUMN,
        "beta": _COLUMN,
        "eps": _EPS,
        "residual": _RESIDUAL,
        "out": result("m", "n", like=("x", "residual")),
        "stats": filled("m", 2),
    },
    costs=((NS["norm"], "m n"),),
    memory=(0, 2, "m"),
)

rmsnorm = Door(
    "rmsnorm",
    rmsnorm_call,
    {
        "x": _X,
        "gamma": _COLUMN,
        "eps": _EPS,
        "residual": _RESIDUAL,
        "out": result("m", "n", like=("x", "residual")),
        "stats": filled("m"),
    },
    costs=((NS["norm"], "m n"),),
    memory=(0, 1, "m"),
)

layernorm_backward = Door(
    "layernorm_backward",
    layernorm_backward_call,
    {
        "dy": _X,
        "x": _X,
        "gamma": _COLUMN,
        "stats": given("m", 2),
        "residual": _RESIDUAL,
        "dx": result("m", "n", like=("dy", "x", "residual")),
        "dgamma": result("n"),
        "dbeta": result("n"),
    },
    costs=((NS["norm backward"], "m n"),),
    gives=at.RESULTS,
    memory=_BLOCKS,
)

rmsnorm_backward = Door(
    "rmsnorm_backward",
    rmsnorm_backward_call,
    {
        "dy": _X,
        "x": _X,
        "gamma": _COLUMN,
        "stats": given("m"),
        "residual": _RESIDUAL,
        "dx": result("m", "n", like=("dy", "x", "residual")),
        "dgamma": result("n"),
    },
    costs=((NS["norm backward"], "m n"),),
    gives=at.RESULTS,
    memory=_BLOCKS,
)

scale = Door(
    "scale",
    scale_call,
    {"x": _X, "gamma": _COLUMN, "out": result("m", "n", like=("x",))},
    costs=((NS["activation, cheap"], "m n"),),
)

scale_backward = Door(
    "scale_backward",
    scale_backward_call,
    {
        "dy": _X,
        "x": _X,
        "gamma": _COLUMN,
        "dx": result("m", "n", like=("dy", "x")),
        "dgamma": result("n"),
    },
    costs=((NS["norm"] + NS["activation, cheap"], "m n"),),
    gives=at.RESULTS,
)

DOORS = {
    door.name: door
    for door in (layernorm, layernorm_backward, rmsnorm, rmsnorm_backward, scale, scale_backward)
}
