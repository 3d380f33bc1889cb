"""The door of the matrix product."""

from ..cost import NS
from ..gemm.product import gemm
from ..runtime.emit import lanes
from ..runtime.jit import inlined, kernel
from ..runtime.layout import Floats, Int
from ..runtime.simd import offset, typed
from .arguments import Truth, given, result
from .door import Door

ZEROS = (
    32 << 10
)  # where in the scratch of a worker they stand: the region that products use before their panels is shorter


@inlined
def zeros(scratch, like):
    """What products without an initial value begin with: as many zeros as a panel is wide."""
    row = typed(scratch + ZEROS, like)
    for j in range(2 * lanes(like)):
        row[j] = 0
    return row


@kernel
def product(
    a: Floats, rsa: Int, csa: Int, b: Floats, rsb: Int, csb: Int, out: Floats, accumulate: Int, m: Int, k: Int, n: Int,
    start, stop, scratch,
):  # fmt: skip
    """Rows [start, stop) of out (+)= a @ b."""
    rows, a, out = stop - start, offset(a, start * rsa), offset(out, start * n)
    if accumulate != 0:
        gemm(rows, n, k, a, rsa, csa, b, rsb, csb, out, n, 1, out, n, 0, scratch)
    else:
        gemm(rows, n, k, a, rsa, csa, b, rsb, csb, zeros(scratch, a), 0, 0, out, n, 0, scratch)


matmul = Door(
    "matmul",
    product,
    {
        "a": given("m", "k", strided=True, swapped_by="trans_a"),
        "b": given("k", "n", strided=True, swapped_by="trans_b"),
        "trans_a": Truth(),
        "trans_b": Truth(),
        "out": result("m", "n", needed_if="accumulate"),
        "accumulate": Truth(),
    },
    total="m",
    costs=((NS["product"], "m k n"), (NS["product, element"], "m n")),
)

DOORS = {door.name: door for door in (matmul,)}
