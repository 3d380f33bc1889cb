"""The matrix product of arrays, its rows or columns shared among the workers."""

from .cost import NS
from .gemm.product import ZEROS, gemm
from .gemm.tile import ROWS
from .runtime.jit import Op, kernel
from .runtime.layout import Floats, Int
from .runtime.simd import offset
from .runtime.team import run


@kernel
def product(
    n: Int, k: Int, a: Floats, rsa: Int, csa: Int, b: Floats, rsb: Int, csb: Int,
    init: Floats, ldi: Int, csi: Int, c: Floats, ldc: Int, also: Int, start, stop, scratch,
):  # fmt: skip
    """Rows [start, stop) of C = init + A @ B; the operands are those of `gemm`."""
    a, init, c = offset(a, start * rsa), offset(init, start * ldi), offset(c, start * ldc)
    gemm(stop - start, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, also, scratch)


@kernel
def product_columns(
    m: Int, k: Int, a: Floats, rsa: Int, csa: Int, b: Floats, rsb: Int, csb: Int,
    init: Floats, ldi: Int, csi: Int, c: Floats, ldc: Int, start, stop, scratch,
):  # fmt: skip
    """Columns [start, stop) of the same."""
    b, init, c = offset(b, start * csb), offset(init, start * csi), offset(c, start)
    gemm(m, stop - start, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, 0, scratch)


def product_op(a, b, out, add=None, quantum: int = ROWS, also: int = 0) -> Op:
    """out = add + a @ b, dealt out by rows. a and b may have any strides, out and add are C-contiguous and may be one.

    `also` tells how many elements behind `out` a matrix lies that will be written next (see `gemm`), or is 0.
    """
    (m, k), n, size = a.shape, b.shape[1], a.itemsize
    (rsa, csa), (rsb, csb) = a.strides, b.strides
    init, ldi, csi = (ZEROS[size], 0, 0) if add is None else (add, n, 1)
    return product.op(
        a.dtype, m, quantum=quantum, work=m * n * (NS["product"] * k + NS["product, element"]),
        n=n, k=k, a=a, rsa=rsa // size, csa=csa // size, b=b, rsb=rsb // size, csb=csb // size,
        init=init, ldi=ldi, csi=csi, c=out, ldc=n, also=also,
    )  # fmt: skip


def product_columns_op(a, b, out, add=None, quantum: int = 1) -> Op:
    """The same, dealt out by columns; other workers may have written a, and will read out."""
    (m, k), n, size = a.shape, b.shape[1], a.itemsize
    (rsa, csa), (rsb, csb) = a.strides, b.strides
    init, ldi, csi = (ZEROS[size], 0, 0) if add is None else (add, n, 1)
    return product_columns.op(
        a.dtype, n, quantum=quantum,
        m=m, k=k, a=a, rsa=rsa // size, csa=csa // size, b=b, rsb=rsb // size, csb=csb // size,
        init=init, ldi=ldi, csi=csi, c=out, ldc=n,
    )._replace(apart=True)  # fmt: skip


def matmul(a, b, out, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a and b may have any strides, out is C-contiguous and overlaps neither."""
    run(product_op(a, b, out, out if accumulate else None))
