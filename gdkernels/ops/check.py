"""What every public operation asks of its arguments, and the words in which it complains.

A check costs well under a microsecond, because it stands in front of kernels that take not much more.
"""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_NAMES = {FLOAT32: "float32", FLOAT64: "float64"}
_HALVES = ("float16", "bfloat16")


def _must_be_array(op: str, name: str, value: object) -> None:
    """NumPy's arrays are, and `cuda.runtime.arrays.Array`, which `wings.everywhere` has made of arrays on the GPU."""
    if isinstance(value, np.ndarray) or hasattr(type(value), "shadow"):
        return
    raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a NumPy or CUDA array")


def float_dtype(op: str, name: str, value: Array, halves: bool = False) -> np.dtype[Any]:
    """The element type of the array that decides it: float32 or float64, and on the GPU, with `halves`, 16 bits."""
    if type(value) is not np.ndarray:
        _must_be_array(op, name, value)
    dtype = value.dtype
    if dtype not in _NAMES:
        on_device = not isinstance(value, np.ndarray)
        if on_device and halves and dtype.name in _HALVES:
            return dtype
        kinds = "float32, float64, float16 or bfloat16" if on_device and halves else "float32 or float64"
        raise TypeError(f"{op}: {name} has dtype {dtype}, expected {kinds}")
    return dtype


def contiguous(value: Array) -> Array:
    """The array itself where it is C-contiguous and aligned, else a copy that is."""
    flags = value.flags
    if flags.c_contiguous and flags.aligned:
        return value
    return np.array(value, order="C", copy=True) if isinstance(value, np.ndarray) else value.copy()


def empty(like: Array, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None) -> Array:
    """A new array where `like` is, of its element type unless another is named."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, like.dtype if dtype is None else dtype)
    made: Array = like.empty(shape, dtype)
    return made


def overlap(left: Array, right: Array) -> bool:
    """Whether two arrays have an element in common."""
    if type(left) is not np.ndarray and not isinstance(left, np.ndarray):
        left, right = left.shadow, right.shadow
    return np.may_share_memory(left, right) and np.shares_memory(left, right)


def array(
    op: str,
    name: str,
    value: Array,
    dtype: np.dtype[Any],
    shape: tuple[int, ...] | None = None,
    why: str = "",
) -> Array:
    """An input as a C-contiguous, aligned array (a copy at most) of this dtype and, when given, this shape."""
    if type(value) is not np.ndarray:
        _must_be_array(op, name, value)
    if value.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype}{why and f' because {why}'}")
    if shape is not None and value.shape != shape:
        raise ValueError(f"{op}: {name} has shape {value.shape}, expected {shape}{why and f' because {why}'}")
    return contiguous(value)


def dimensions(op: str, name: str, value: Array, ndim: int) -> None:
    """An input must have so many dimensions."""
    if value.ndim != ndim:
        raise ValueError(
            f"{op}: {name} has shape {value.shape}, expected {ndim} dimension{'s' * (ndim != 1)}"
        )


def writable(
    op: str, name: str, value: Array, dtype: np.dtype[Any], shape: tuple[int, ...], why: str = ""
) -> None:
    """An array that is to be written must be a writable NumPy array of this dtype and shape."""
    if type(value) is not np.ndarray:
        _must_be_array(op, name, value)
    if value.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype}{why and f' because {why}'}")
    if value.shape != shape:
        raise ValueError(f"{op}: {name} has shape {value.shape}, expected {shape}{why and f' because {why}'}")
    if not value.flags.writeable:
        raise ValueError(f"{op}: {name} is read-only, expected a writable array")


def number(op: str, name: str, value: object) -> float:
    """An option must be a real number."""
    if not isinstance(value, Real):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a number")
    return float(value)


def same_memory(left: Array, right: Array) -> bool:
    """Whether two arrays are the same elements in the same order."""
    if not isinstance(left, np.ndarray):
        left, right = left.shadow, right.shadow
    return (
        left.__array_interface__["data"][0] == right.__array_interface__["data"][0]
        and left.strides == right.strides
        and left.shape == right.shape
    )


def output(
    op: str,
    name: str,
    out: Array | None,
    like: Array,
    shape: tuple[int, ...],
    why: str = "",
    apart_from: tuple[Array | None, ...] = (),
    in_place: tuple[Array | None, ...] = (),
) -> Array:
    """Where a result goes: a new array, or `out` after its checks, or a contiguous stand-in for a strided `out`.

    It lies where `like` does and has its element type. `out` must not overlap the arrays of `apart_from`; those of
    `in_place` it may be, element for element, but not overlap otherwise. What a stand-in receives is copied by `deliver`.
    """
    if out is None:
        return empty(like, shape)
    writable(op, name, out, like.dtype, shape, why)
    for other in apart_from:
        if other is not None and overlap(out, other):
            raise ValueError(f"{op}: {name} overlaps another argument, expected memory of its own")
    for other in in_place:
        if other is not None and overlap(out, other) and not same_memory(out, other):
            raise ValueError(
                f"{op}: {name} partly overlaps an input, expected the same array or memory of its own"
            )
    flags = out.flags
    return out if flags.c_contiguous and flags.aligned else empty(like, shape)


def deliver(result: Array, out: Array | None) -> Array:
    """The array that the caller gets: `out` where it was given, filled from the stand-in if there was one."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


def known(op: str, name: str, value: object, names: tuple[str, ...] | list[str]) -> None:
    """A choice must be one of the known names."""
    if value not in names:
        raise ValueError(f"{op}: {name} is {value!r}, expected one of {', '.join(names)}")
