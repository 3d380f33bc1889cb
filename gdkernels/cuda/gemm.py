"""The matrix product: what it takes and which kernels do it.

float32 and float64 go to the ordinary units (`gemm_simt`), bfloat16 and float16 to the tensor cores (`gemm_tensorcore`).
Bias, a second summand and the activation are applied while the sums are in registers (`gemm_epilogue`).
"""

from . import driver, gemm_epilogue, gemm_simt
from .jit import Launch, run
from .pointer import BYTES
from .strided import blocks, copy_elements


def launches(
    room, storage: str, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, *, out_storage=None, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list[Launch]:  # fmt: skip
    """out (m, n) = act(A @ B + bias + add), or out += it.

    Parameters
    ----------
    room : function
        ``room(bytes)`` gives the address of temporary memory.
    storage : str
        The storage type of all matrices.
    a, rsa, csa : int
        A[i, p] lies at ``a + i·rsa + p·csa``, strides in elements; (m, k). Unless a stride is 1, A is copied first.
    b, rsb, csb : int
        B[p, j], (k, n), likewise.
    out, ldo : int
        Rows of `ldo` elements; overlaps no operand, but may be `add`.
    out_storage : str, optional
        "float32" writes that from 16-bit operands (gradients of weights).
    accumulate : bool
        Add to `out`.
    bias : int
        (n,), or 0.
    activation : str
    z : int
        Receives A @ B + bias + add in rows of `ldo` elements, or 0.
    add, ldadd : int
        (m, n) in rows of `ldadd` elements, or 0.
    """
    if m == 0 or n == 0:
        return []
    tail = {
        "accumulate": accumulate, "bias": bias, "activation": activation, "z": z, "add": add, "ldadd": ldadd,
    }  # fmt: skip
    if k == 0:
        return gemm_epilogue.launches(out_storage or storage, 0, 0, m, n, out, ldo, **tail)
    first, a, rsa, csa = _with_unit_stride(room, storage, m, k, a, rsa, csa)
    second, b, csb, rsb = _with_unit_stride(room, storage, n, k, b, csb, rsb)
    operands = m, n, k, a, rsa, csa, b, rsb, csb, out, ldo
    if storage in ("bfloat16", "float16"):
        from . import gemm_tensorcore

        product = gemm_tensorcore.launches(room, storage, *operands, out_storage=out_storage, **tail)
    else:
        assert out_storage in (None, storage)
        processors = driver.processors(driver.use())
        product = gemm_simt.launches(room, storage, *operands, processors=processors, **tail)
    return [*first, *second, *product]


_CARRIERS = {2: "int16", 4: "int32", 8: "int64"}


def _with_unit_stride(room, storage: str, rows: int, k: int, address: int, stride: int, stride_k: int):
    """(launches, address, stride, stride along k) of an operand of which one stride is 1, copied where none is.

    The stride along an axis of one element means nothing.
    """
    if stride_k == 1 or stride == 1:
        return [], address, stride, stride_k
    if k == 1:
        return [], address, stride, 1
    if rows == 1:
        return [], address, 1, stride_k
    size = BYTES[storage]
    target = room(rows * k * size)
    count = rows * k
    operands = (
        address, target, 1, 1, 1, 1, rows, k, 0, 0, 0, 0, stride, stride_k, 0, 0, 0, 0, k, 1, count
    )  # fmt: skip
    return [Launch(copy_elements, _CARRIERS[size], blocks(count), operands)], target, k, 1


def of_arrays(a, b, out, **tail) -> list[Launch]:
    """The launches for arrays: a (m, k) and b (k, n) of any strides, out (m, n) C-contiguous."""
    (m, k), n, size = a.shape, b.shape[1], a.itemsize
    return launches(
        out.workspace, a.dtype.name, m, n, k, a.address, *(step // size for step in a.strides),
        b.address, *(step // size for step in b.strides), out.address, n, **tail,
    )  # fmt: skip


def matmul(a, b, out, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a and b may have any strides, out is C-contiguous and overlaps neither."""
    run(of_arrays(a, b, out, accumulate=accumulate), out.stream)
