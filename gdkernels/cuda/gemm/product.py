"""The matrix product: who computes it.

float32 and float64 go to the ordinary units (`gemm_simt`), bfloat16 and float16 to the tensor cores (`gemm_tensorcore`), as
does float32 in the precision of tf32 where that is wanted; or everything goes to cuBLAS (`gemm_vendor`). `gemm_engine` knows
what is wanted. Bias, a second summand and the activation cost no pass over memory of their own (`gemm_epilogue`).
"""

from ..runtime import driver, strided
from ..runtime.pointer import BYTES
from . import choice as gemm_engine
from . import epilogue as gemm_epilogue
from . import simt as gemm_simt
from . import vendor as gemm_vendor


def launches(
    room, storage: str, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, *, out_storage=None, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list:  # fmt: skip
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
    engine, tf32 = gemm_engine.get_gemm_engine()
    tf32 = tf32 and storage == "float32"
    operands = a, rsa, csa, b, rsb, csb, out, ldo
    if out_storage not in (None, storage):
        return _own(room, storage, m, n, k, *operands, tf32=tf32, out_storage=out_storage, **tail)
    if engine == "auto":
        engine = _faster(storage, m, n, k, csa == 1, rsb == 1, tf32, tail)
    make = _own if engine == "own" else gemm_vendor.launches
    return make(room, storage, m, n, k, *operands, tf32=tf32, **tail)


def _own(
    room, storage, m, n, k, a, rsa, csa, b, rsb, csb, out, ldo, *, tf32, out_storage=None, **tail
) -> list:  # fmt: skip
    """The launches of our own kernels."""
    operands = a, rsa, csa, b, rsb, csb, out, ldo
    if tf32 or storage in ("bfloat16", "float16"):
        from . import tensorcore as gemm_tensorcore

        return gemm_tensorcore.launches(room, storage, m, n, k, *operands, out_storage=out_storage, **tail)
    first, *left = _with_unit_stride(room, storage, m, k, a, rsa, csa)
    second, b, csb, rsb = _with_unit_stride(room, storage, n, k, b, csb, rsb)
    operands = *left, b, rsb, csb, out, ldo
    processors = driver.processors(driver.use())
    product = gemm_simt.launches(room, storage, m, n, k, *operands, processors=processors, **tail)
    return [*first, *second, *product]


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
    target = room(rows * k * BYTES[storage])
    copy = strided.copy(BYTES[storage], (rows, k), address, (stride, stride_k), target, (k, 1))
    return [copy], target, k, 1


def _faster(storage, m, n, k, a_along_k, b_along_k, tf32, tail) -> str:
    """The faster engine for such products, of whose class one is timed in memory of its own."""
    form = f"{'N' if a_along_k else 'T'}{'T' if b_along_k else 'N'}"
    more = any(tail[name] for name in ("accumulate", "bias", "z", "add")) or tail["activation"] != "identity"
    name = gemm_engine.product_class("tf32" if tf32 else storage, form, m, n, k, more)
    size = BYTES[storage]

    def build(engine, room):
        a = (room(m * k * size), *((k, 1) if a_along_k else (1, m)))
        b = (room(k * n * size), *((1, k) if b_along_k else (n, 1)))
        arrays = {name: room(m * n * size) for name in ("bias", "z", "add") if tail[name]}
        make = _own if engine == "own" else gemm_vendor.launches
        rest = {**tail, **arrays, "ldadd": n}
        return make(room, storage, m, n, k, *a, *b, room(m * n * size), n, tf32=tf32, **rest)

    return gemm_engine.faster(name, build)
