"""The doors of the dense layer: its forward pass and its backward pass are one native call each."""

from ..cost import NS
from ..gemm.product import gemm
from ..linear import forward as forward_rows
from ..runtime.jit import kernel
from ..runtime.layout import Code, Floats, Int, Ints, OptionalFloats
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import address_of, offset, typed
from . import words as at
from .activation import IDENTITY, LOOPS, SLOPES, backward
from .arguments import Truth, filled, given, result
from .door import Door
from .matmul import zeros

rows_of_layer = forward_rows.source
MISSING_SAVED = 3 * at.FAULTS + at.MISSING


@kernel
def forward(
    x: Floats, rsx: Int, csx: Int, w: Floats, rsw: Int, csw: Int, b: OptionalFloats, activation: Code,
    activation_number: Int, out: Floats, z: OptionalFloats, k: Int, n: Int, start, stop, scratch,
):  # fmt: skip
    """Rows [start, stop) of z = x @ w + b and out = act(z)."""
    act = 0 if activation_number == IDENTITY and address_of(z) == 0 else activation
    before = out if address_of(z) == 0 else z
    csi = 0 if address_of(b) == 0 else 1
    init = zeros(scratch, x) if address_of(b) == 0 else b
    rows_of_layer(x, rsx, csx, w, rsw, csw, init, csi, before, act, out, k, n, start, stop, scratch)


@kernel
def backward_call(
    da: Floats, x: Floats, rsx: Int, csx: Int, w: Floats, rsw: Int, csw: Int, saved: OptionalFloats, activation: Code,
    activation_number: Int, dx: OptionalFloats, dw: Floats, db: Floats, need_dx: Int, accumulate: Int,
    m: Int, k: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """dz = da ⊙ act′ in working memory; dw (+)= xᵀ dz, db (+)= Σ_rows dz, dx = dz wᵀ."""
    dz, before = typed(scratch + SCRATCH_BYTES, da), saved
    partial = offset(dz, m * n)  # of at most a sixteenth of the rows, and one
    if activation_number == IDENTITY:
        dz = before = da
    elif address_of(saved) == 0:
        fault[0] = MISSING_SAVED
        return
    backward(da, before, activation, activation_number, dz, db, partial, m, n, accumulate)
    if accumulate != 0:
        gemm(k, n, m, x, csx, rsx, dz, n, 1, dw, n, 1, dw, n, 0, scratch)
    else:
        gemm(k, n, m, x, csx, rsx, dz, n, 1, zeros(scratch, da), 0, 0, dw, n, 0, scratch)
    if need_dx != 0:
        gemm(m, k, n, dz, n, 1, w, csw, rsw, zeros(scratch, da), 0, 0, dx, k, 0, scratch)


linear = Door(
    "linear",
    forward,
    {
        "x": given("m", "k", strided=True),
        "w": given("k", "n", strided=True),
        "b": given("n", optional=True),
        "activation": LOOPS,
        "out": result("m", "n"),
        "z": filled("m", "n"),
    },
    total="m",
    costs=((NS["product"], "m k n"), (NS["linear, element"], "m n")),
)

linear_backward = Door(
    "linear_backward",
    backward_call,
    {
        "da": given("m", "n"),
        "x": given("m", "k", strided=True),
        "w": given("k", "n", strided=True),
        "saved": given("m", "n", optional=True),
        "activation": SLOPES,
        "dx": result("m", "k", unless_false="need_dx"),
        "dw": result("k", "n", needed_if="accumulate"),
        "db": result("n", needed_if="accumulate"),
        "need_dx": Truth(),
        "accumulate": Truth(),
    },
    costs=((2 * NS["product"], "m k n"), (NS["activation"] + NS["product, element"], "m n")),
    gives=at.RESULTS,
    memory=(0, 3, "m n"),
)

DOORS = {door.name: door for door in (linear, linear_backward)}
