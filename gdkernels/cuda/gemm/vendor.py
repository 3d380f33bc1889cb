"""The matrix product by cuBLAS, through CuPy, followed by one kernel for what is asked for besides.

CuPy is not needed by anything else in this folder, and imported by the first product.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..runtime import driver, strided
from ..runtime.jit import Launch
from ..runtime.pointer import BYTES
from .epilogue import sum_launches


class Product(NamedTuple):
    """out (m, n) = A (m, k) @ B (k, n), all dense: a launch like those of our own kernels (`jit.Launch`).

    `a_turned` says that A lies as (k, m), `b_turned` that B lies as (n, k).
    """

    storage: str
    m: int
    n: int
    k: int
    a: int
    a_turned: bool
    b: int
    b_turned: bool
    out: int
    tf32: bool

    @property
    def capturable(self) -> bool:
        """CuPy refuses to call cuBLAS while a stream is captured."""
        return False

    def load(self) -> None:
        """Let cuBLAS make its handle and load its kernel, by a product of what lies around: a capture may do neither."""
        from ..runtime.arrays import default_library, read

        driver.use()
        library, sizes = default_library(), (self.m * self.k, self.k * self.n, self.m * self.n)
        memory = read(library.empty((sum(sizes) * BYTES[self.storage],), np.dtype(np.uint8)))
        a = memory.address
        b = a + sizes[0] * BYTES[self.storage]
        multiply(self._replace(a=a, b=b, out=b + sizes[1] * BYTES[self.storage]), library.stream())

    def run(self, stream: int) -> None:
        """Launch on a stream."""
        multiply(self, stream)


def multiply(product: Product, stream: int) -> None:
    """Launch the product on a stream."""
    import cupy

    m, n, k = product.m, product.n, product.k
    a = _matrix(product.storage, product.a, *((k, m) if product.a_turned else (m, k)))
    b = _matrix(product.storage, product.b, *((n, k) if product.b_turned else (k, n)))
    out = _matrix(product.storage, product.out, m, n)
    with _current(stream), _tf32(product.tf32):
        cupy.matmul(a.T if product.a_turned else a, b.T if product.b_turned else b, out=out)


def _matrix(storage: str, address: int, rows: int, columns: int):
    """The CuPy array at an address."""
    import cupy

    if storage == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(storage)
    memory = cupy.cuda.UnownedMemory(address, rows * columns * dtype.itemsize, None, driver.use())
    return cupy.ndarray((rows, columns), dtype, cupy.cuda.MemoryPointer(memory, 0))


class _Handle(NamedTuple):
    """A stream as CuPy takes it from others."""

    stream: int

    def __cuda_stream__(self):
        return 0, self.stream


def _current(stream: int):
    """The context in which CuPy launches on a stream."""
    from cupy.cuda import ExternalStream, Stream

    if stream == 0:
        return Stream.null
    if hasattr(Stream, "from_external"):  # CuPy 14
        return Stream.from_external(_Handle(stream))
    return ExternalStream(stream)


@contextmanager
def _tf32(wanted: bool):
    """CuPy's products of float32 on tensor cores."""
    if not wanted:
        yield
        return
    from cupy._core import _routines_linalg as routines

    before = routines.get_compute_type(np.float32)
    routines.set_compute_type(np.float32, routines.COMPUTE_TYPE_TF32)
    try:
        yield
    finally:
        routines.set_compute_type(np.float32, before)


def launches(
    room, storage: str, *, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0, tf32=False,
) -> list[Launch | Product]:  # fmt: skip
    """As `product.launches`, for m, n, k > 0 and an `out` of the operands' type."""
    first, a, a_turned = _dense(room, storage, a, m, k, rsa, csa)
    second, b, b_turned = _dense(room, storage, b, k, n, rsb, csb)
    product = Product(storage, m, n, k, a, a_turned, b, b_turned, out, tf32)
    more = accumulate or bias or z or add or activation != "identity"
    if not more and ldo == n:
        return [*first, *second, product]
    part = room(m * n * BYTES[storage])
    rest = sum_launches(
        storage, part=part, count=1, m=m, n=n, out=out, ldo=ldo, accumulate=accumulate, bias=bias,
        activation=activation, z=z, add=add, ldadd=ldadd, parts="F*" if BYTES[storage] == 2 else "R*",
    )  # fmt: skip
    return [*first, *second, product._replace(out=part), *rest]


def _dense(room, storage: str, address: int, rows: int, columns: int, stride: int, stride_column: int):
    """(launches, address, turned) of a matrix without gaps, copied where it has some; an axis of one has no stride."""
    by_row = (stride_column == 1 or columns == 1) and (stride == columns or rows == 1)
    by_column = (stride == 1 or rows == 1) and (stride_column == rows or columns == 1)
    if by_row or by_column:
        return [], address, not by_row
    target = room(rows * columns * BYTES[storage])
    shape, strides = (rows, columns), (stride, stride_column)
    return [strided.copy(BYTES[storage], shape, address, strides, target, (columns, 1))], target, False
