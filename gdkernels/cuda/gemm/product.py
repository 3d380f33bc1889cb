"""The matrix product: what computes it.

float32 and float64 go to the ordinary units (`simt`), bfloat16 and float16 to the tensor cores (`tensorcore`), as does
float32 in the precision of tf32 where that is wanted; or everything goes to cuBLAS (`vendor`). `choice` knows what is
wanted. Bias, a second summand and the activation cost no pass over memory of their own (`epilogue`).
"""

from ..runtime import driver, strided
from ..runtime.pointer import BYTES
from ..runtime.storages import HALVES
from . import choice, simt, vendor
from .epilogue import sum_launches


def launches(
    room, storage: str, *, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, out_storage=None, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
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
        return sum_launches(out_storage or storage, part=0, count=0, m=m, n=n, out=out, ldo=ldo, **tail)
    engine, tf32 = choice.get_gemm_engine()
    tf32 = tf32 and storage == "float32"
    asked = {
        "m": m, "n": n, "k": k, "a": a, "rsa": rsa, "csa": csa, "b": b, "rsb": rsb, "csb": csb, "out": out, "ldo": ldo,
        "tf32": tf32, **tail,
    }  # fmt: skip
    if out_storage not in (None, storage):
        return _own(room, storage, **asked, out_storage=out_storage)
    if engine == "auto":
        engine = _faster(storage, m, n, k, csa == 1, rsb == 1, tf32, tail)
    make = _own if engine == "own" else vendor.launches
    return make(room, storage, **asked)


def _own(room, storage: str, *, tf32: bool, out_storage: str | None = None, **asked) -> list:
    """The launches of our own kernels."""
    if tf32 or storage in HALVES:
        from . import tensorcore

        return tensorcore.launches(room, storage, **asked, out_storage=out_storage)
    m, n, k = asked["m"], asked["n"], asked["k"]
    first, a, rsa, csa = _with_unit_stride(room, storage, m, k, asked["a"], asked["rsa"], asked["csa"])
    second, b, csb, rsb = _with_unit_stride(room, storage, n, k, asked["b"], asked["csb"], asked["rsb"])
    asked |= {"a": a, "rsa": rsa, "csa": csa, "b": b, "rsb": rsb, "csb": csb}
    processors = driver.processors(driver.use())
    return [*first, *second, *simt.launches(room, storage, **asked, processors=processors)]


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
    name = choice.product_class("tf32" if tf32 else storage, form, m, n, k, more)
    size = BYTES[storage]

    def build(engine, room):
        rsa, csa = (k, 1) if a_along_k else (1, m)
        rsb, csb = (1, k) if b_along_k else (n, 1)
        arrays = {name: room(m * n * size) for name in ("bias", "z", "add") if tail[name]}
        make = _own if engine == "own" else vendor.launches
        return make(
            room, storage, m=m, n=n, k=k, a=room(m * k * size), rsa=rsa, csa=csa, b=room(k * n * size), rsb=rsb,
            csb=csb, out=room(m * n * size), ldo=n, tf32=tf32, **{**tail, **arrays, "ldadd": n},
        )  # fmt: skip

    return choice.faster(name, build)
