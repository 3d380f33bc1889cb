"""Arrays on the device, whoever owns them, as the operations see them.

An `Array` has the look of a NumPy array (shape, strides, dtype, flags, T) over memory of the device. CuPy, PyTorch and
Numba arrays are taken as they are, anything else through ``__cuda_array_interface__`` or DLPack. Results are allocated by
the library of the first array of a call, on whose current stream everything is launched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import numpy as np

from . import driver, strided
from .target import cuda


class BFloat16:
    """The element type that NumPy lacks: the upper half of a float32."""

    name, itemsize, kind = "bfloat16", 2, "f"

    def __repr__(self) -> str:
        return "bfloat16"


BFLOAT16 = BFloat16()
_STORAGES = {np.dtype(name): name for name in ("float32", "float64", "float16")}  # NumPy is slow to tell
_BITS = np.dtype(np.uint16)  # what stands for bfloat16 in a shadow


class _Memory:
    """What NumPy is told about memory of the device, so that it computes shapes, strides and overlaps."""

    def __init__(self, address: int, shape: tuple, strides: tuple | None, dtype: np.dtype, read_only: bool):
        self.__array_interface__ = {
            "data": (address, read_only), "shape": shape, "strides": strides, "typestr": dtype.str, "version": 3,
        }  # fmt: skip


class Array:
    """An array of the device, a `check.DeviceArray`.

    `shadow` is a NumPy array at the same address: good for shapes, strides and overlaps; its elements cannot be read.
    `owner` is the array that the user knows, `library` what it belongs to.
    """

    __slots__ = ("__dict__", "dtype", "library", "owner", "shadow")

    def __init__(self, shadow: np.ndarray, dtype: Any, library: "type[Library]", owner: Any):
        self.shadow, self.dtype, self.library, self.owner = shadow, dtype, library, owner

    @cached_property
    def address(self) -> int:
        return self.shadow.__array_interface__["data"][0]

    def overlaps(self, other: "Array") -> bool:
        """Whether the two have an element in common."""
        return np.may_share_memory(self.shadow, other.shadow) and np.shares_memory(self.shadow, other.shadow)

    def same_memory(self, other: "Array") -> bool:
        """Whether the two are the same elements in the same order."""
        return self.address == other.address and self.strides == other.strides and self.shape == other.shape

    @property
    def storage(self) -> str:
        """The name of the element type, as kernels take it."""
        return _STORAGES.get(self.dtype) or self.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shadow.shape

    @property
    def strides(self) -> tuple[int, ...]:
        return self.shadow.strides

    @property
    def steps(self) -> list[int]:
        """The strides in elements."""
        size = self.shadow.itemsize
        return [stride // size for stride in self.shadow.strides]

    @property
    def ndim(self) -> int:
        return self.shadow.ndim

    @property
    def size(self) -> int:
        return self.shadow.size

    @property
    def nbytes(self) -> int:
        return self.shadow.nbytes

    @property
    def itemsize(self) -> int:
        return self.shadow.itemsize

    @property
    def flags(self) -> Any:
        return self.shadow.flags

    @property
    def T(self) -> "Array":
        return Array(self.shadow.T, self.dtype, self.library, self.owner)

    @property
    def stream(self) -> int:
        """The current stream of the library."""
        return self.library.stream()

    def __len__(self) -> int:
        return len(self.shadow)

    def __repr__(self) -> str:
        return f"<{self.dtype} {self.shape} on the GPU, {self.library.__name__.lower()}>"

    def reshape(self, *shape: int) -> "Array":
        """The same memory with another shape, of a C-contiguous array."""
        assert self.shadow.flags.c_contiguous
        return Array(self.shadow.reshape(*shape), self.dtype, self.library, self.owner)

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> "Array":
        """A new array of the same library."""
        return read(self.library.empty(shape, self.dtype if dtype is None else dtype))

    def copy(self) -> "Array":
        """A C-contiguous copy."""
        target = self.empty(self.shape)
        target[...] = self
        return target

    def astype(self, dtype: Any, order: str = "C") -> "Array":
        """A C-contiguous copy of another element type: labels of 32 bits to 64, or the same type."""
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        assert self.dtype == np.int32 and dtype == np.int64
        source, target = (
            self if self.flags.c_contiguous else self.copy(),
            self.empty(self.shape, np.dtype(dtype)),
        )
        strided.widen(source.address, target.address, self.size).run(self.stream)
        return target

    def __getitem__(self, rows: slice) -> "Array":
        """A range of rows, the same memory."""
        return Array(self.shadow[rows], self.dtype, self.library, self.owner)

    def __setitem__(self, rows: Any, source: "Array") -> None:
        """``target[...] = source`` or ``target[start:stop] = source``, for any strides."""
        into = self if rows is Ellipsis else self[rows]
        assert source.shape == into.shape and source.dtype == into.dtype
        copy = strided.copy(self.itemsize, into.shape, source.address, source.steps, into.address, into.steps)
        copy.run(self.stream)

    def to_numpy(self) -> np.ndarray:
        """A copy on the host; bfloat16 becomes float32."""
        source = self if self.flags.c_contiguous else self.copy()
        values = np.empty(self.shape, _BITS if self.dtype is BFLOAT16 else self.dtype)
        driver.to_host(values, source.address, self.stream)
        if self.dtype is BFLOAT16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def fill_from(self, values: np.ndarray) -> "Array":
        """Copy a NumPy array of the same shape and element type to the device."""
        if values.dtype.name == "bfloat16":
            values = values.view(_BITS)
        assert self.flags.c_contiguous and values.shape == self.shape and values.dtype == self.shadow.dtype
        driver.to_device(self.address, np.ascontiguousarray(values), self.stream)
        return self

    def workspace(self, size: int) -> int:
        """The address of `size` bytes that last as long as this array: temporaries of a call."""
        memory = self.empty((max(1, -(-size // 8)),), np.dtype(np.float64))
        if driver.is_capturing(self.stream):
            _CAPTURED.append(memory)
        self.__dict__.setdefault("kept", []).append(memory)
        return memory.address


def address_of(array: Array | None) -> int:
    """The address, or 0 for what is absent: what kernels take."""
    return 0 if array is None else array.address


# ---------------------------------------------------------------------------------------------- libraries


# Temporaries of operations that were captured into a user's graph: it uses them whenever it is replayed.
_CAPTURED: list[Array] = []


class Library:
    """Where results are allocated and which stream is current."""

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def stream() -> int:
        raise NotImplementedError


class CuPy(Library):
    @staticmethod
    def empty(shape, dtype):
        import cupy

        try:
            return cupy.empty(shape, dtype if dtype is not BFLOAT16 else _ml_bfloat16())
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise _no_room(shape, dtype) from error

    @staticmethod
    def stream():
        import cupy

        return cupy.cuda.get_current_stream().ptr


class Torch(Library):
    @staticmethod
    def empty(shape, dtype):
        import torch

        try:
            return torch.empty(shape, dtype=getattr(torch, dtype.name), device="cuda")
        except torch.cuda.OutOfMemoryError as error:
            raise _no_room(shape, dtype) from error

    @staticmethod
    def stream():
        import torch

        return torch.cuda.current_stream().cuda_stream


class Numba(Library):
    @staticmethod
    def empty(shape, dtype):
        driver.use()
        try:
            return cuda.device_array(shape, dtype if dtype is not BFLOAT16 else _ml_bfloat16())
        except cuda.cudadrv.driver.CudaAPIError as error:
            if "OUT_OF_MEMORY" in str(error):
                raise _no_room(shape, dtype) from error
            raise

    @staticmethod
    def stream():
        return 0


def _no_room(shape, dtype) -> MemoryError:
    free, total = driver.memory()
    size = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    return MemoryError(
        f"gdkernels: an array of shape {tuple(shape)} needs {size / 2**20:,.1f} MiB on the GPU, which has "
        f"{free / 2**20:,.0f} of {total / 2**20:,.0f} MiB free"
    )


def _ml_bfloat16():
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


@cache
def default_library() -> type[Library]:
    """CuPy where it is installed and finds a device, else Numba."""
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:  # a CuPy for another CUDA fails in many ways
        return Numba
    return CuPy


# ---------------------------------------------------------------------------------------------- reading


def read(value: Any) -> Array:
    """Any array of the device as an `Array`; TypeError for anything else."""
    if type(value) is Array:
        return value
    package = type(value).__module__.partition(".")[0]
    if package == "torch":
        return _read_torch(value)
    if hasattr(value, "__cuda_array_interface__"):
        library = {"cupy": CuPy, "numba": Numba}.get(package) or default_library()
        return _read_interface(value, library, package)
    return _read_dlpack(value)


def _read_torch(value: Any) -> Array:
    if not value.is_cuda:
        raise TypeError(f"gdkernels: a tensor lies on {value.device}, expected one on the GPU")
    name = str(value.dtype).removeprefix("torch.")
    dtype = BFLOAT16 if name == "bfloat16" else np.dtype(name)
    strides = tuple(step * dtype.itemsize for step in value.stride())
    return _array(value.data_ptr(), tuple(value.shape), strides, dtype, False, Torch, value)


def _read_interface(value: Any, library: type[Library], package: str) -> Array:
    facts = value.__cuda_array_interface__
    if facts.get("mask") is not None:
        raise NotImplementedError("gdkernels: an array with a mask, expected one without")
    address, read_only = facts["data"]
    name = getattr(getattr(value, "dtype", None), "name", "")
    dtype = BFLOAT16 if name == "bfloat16" else np.dtype(facts["typestr"])
    array = _array(address, facts["shape"], facts.get("strides"), dtype, read_only, library, value)
    producer = facts.get("stream")
    if producer is not None and int(producer) != array.stream and package != "cupy":
        driver.synchronize(int(producer))  # what the producer still does must be done
    return array


def _read_dlpack(value: Any) -> Array:
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(value, stream_ptr=default_library().stream() or 1)
    name = str(view.dtype)
    dtype = BFLOAT16 if name == "bfloat16" else np.dtype(view.dtype)
    strides = None if view.strides is None else tuple(step * dtype.itemsize for step in view.strides)
    array = _array(view.ptr, tuple(view.shape), strides, dtype, view.readonly, default_library(), value)
    array.__dict__["view"] = view  # what the producer lent lives as long as this
    return array


def _array(address, shape, strides, dtype, read_only, library, owner) -> Array:
    if 0 not in shape:
        current, home = driver.use(), driver.device_of(address)
        if home != current:
            where = "outside GPU memory" if home is None else f"on GPU {home}"
            raise ValueError(
                f"gdkernels: an array of shape {tuple(shape)} lies {where}, expected GPU {current}, the current one"
            )
    seen = _BITS if dtype is BFLOAT16 else dtype
    shadow = np.asarray(_Memory(address, tuple(shape), strides, seen, bool(read_only)))
    return Array(shadow, dtype, library, owner)


@contextmanager
def in_order(arrays: list[Array]) -> Iterator[None]:
    """Work on the stream of the first array begins when the streams of other libraries are done, and these go on after it.

    Within a library this is its user's business.
    """
    streams = {array.library: array.stream for array in arrays[1:] if array.library is not arrays[0].library}
    for stream in streams.values():
        driver.wait(arrays[0].stream, stream)
    yield
    for stream in streams.values():
        driver.wait(stream, arrays[0].stream)


def release(value: Any) -> Any:
    """What the user gets for an `Array`: the array of the library."""
    return value.owner if type(value) is Array else value
