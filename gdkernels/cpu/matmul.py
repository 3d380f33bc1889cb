"""The matrix product of arrays, its rows or columns shared among the workers."""

from .gemm.product import ZEROS, gemm
from .gemm.tile import ROWS
from .runtime.jit import kernel
from .runtime.simd import offset, unpack
from .runtime.team import SCRATCH_BYTES, address, launch


@kernel
def product(record, start, stop, worker):
    """Rows [start, stop) of C = init + A @ B."""
    scratch, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, also = unpack(
        record, "i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8"
    )
    a, init, c = offset(a, start * rsa), offset(init, start * ldi), offset(c, start * ldc)
    own = scratch + worker * SCRATCH_BYTES
    gemm(stop - start, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, also, own)


@kernel
def product_columns(record, start, stop, worker):
    """Columns [start, stop) of the same, for m rows."""
    scratch, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, _, m = unpack(
        record, "i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, i8"
    )
    b, init, c = offset(b, start * csb), offset(init, start * csi), offset(c, start)
    own = scratch + worker * SCRATCH_BYTES
    gemm(m, stop - start, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, 0, own)


def matmul(a, b, out, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a and b may have any strides, out is C-contiguous and overlaps neither."""
    (m, k), n, itemsize = a.shape, b.shape[1], a.itemsize
    init = (address(out), n, 1) if accumulate else (address(ZEROS), 0, 0)
    operands = (
        n, k, address(a), a.strides[0] // itemsize, a.strides[1] // itemsize,
        address(b), b.strides[0] // itemsize, b.strides[1] // itemsize, *init, address(out), n, 0,
    )  # fmt: skip
    launch(product, a.dtype, operands, m, ROWS, m * n * (0.02 * k + 0.2))
