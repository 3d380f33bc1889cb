"""The matrix product of arrays; `gemm.product` says what computes it."""

from .gemm.product import launches
from .runtime.jit import run


def of_arrays(a, b, out, **tail) -> list:
    """The launches for arrays: a (m, k) and b (k, n) of any strides, out (m, n) C-contiguous."""
    (m, k), n, (rsa, csa), (rsb, csb) = a.shape, b.shape[1], a.steps, b.steps
    return launches(
        out.workspace, a.storage, m=m, n=n, k=k, a=a.address, rsa=rsa, csa=csa, b=b.address, rsb=rsb, csb=csb,
        out=out.address, ldo=n, **tail,
    )  # fmt: skip


def matmul(a, b, out, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a and b may have any strides, out is C-contiguous and overlaps neither."""
    run(of_arrays(a, b, out, accumulate=accumulate), out.stream)
