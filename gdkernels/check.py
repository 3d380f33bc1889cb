"""What public functions ask of their arguments, and the words in which they complain.

A message names the operation, the argument, what was found, what was expected and, where that is not plain, why:
``linear: w has shape (64, 10), expected (128, n) because x has shape (32, 128)``. What has the wrong type is a TypeError,
what is wrong otherwise a ValueError.

Arrays are NumPy's, or `DeviceArray`s where `ops.wings` has found arrays on a GPU. A check costs a small part of a
microsecond, because it stands in front of kernels that take three.
"""

import operator
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, Protocol, TypeGuard

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from .ranges import Range, integers

Array = NDArray[Any]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
FLOATS = {FLOAT32, FLOAT64}
HALVES = ("float16", "bfloat16")


class DeviceArray(Protocol):
    """An array on a GPU as operations see it: shape, strides, dtype, ndim, size, itemsize, flags and T as NumPy has them.

    Rows are taken by a slice and are the same memory; ``a[...] = b`` and ``a[start:stop] = b`` copy, for any strides.
    """

    @property
    def address(self) -> int:
        """Of the first element."""

    def overlaps(self, other: Any) -> bool:
        """Whether an element of this array is one of the other."""

    def same_memory(self, other: Any) -> bool:
        """Whether the elements are those of the other, in the same order."""

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """A new array of the same library, of the same element type unless another is named."""

    def copy(self) -> Any:
        """A C-contiguous copy."""

    def astype(self, dtype: Any, order: str = "C") -> Any:
        """A C-contiguous copy of another element type."""

    def __getitem__(self, rows: slice) -> Any: ...

    def __setitem__(self, rows: Any, source: Any) -> None: ...


def is_on_device(value: object) -> TypeGuard[DeviceArray]:
    """Whether this is a `DeviceArray`. Asks for one thing that NumPy's arrays lack: to ask for all would take longer."""
    return hasattr(type(value), "overlaps")


# ---------------------------------------------------------------------------------------------- arrays


def float_dtype(op: str, name: str, value: Array, halves: bool = False) -> np.dtype[Any]:
    """The element type of the array that decides it: float32 or float64, and on the GPU, with `halves`, 16 bits.

    Such an array needs no more checks than `contiguous`.
    """
    if type(value) is not ndarray:
        _must_be_array(op, name, value)
    dtype = value.dtype
    if dtype is FLOAT32 or dtype is FLOAT64 or dtype in FLOATS:
        return dtype
    kinds = "float32 or float64"
    if halves and is_on_device(value):
        if dtype.name in HALVES:
            return dtype
        kinds = "float32, float64, float16 or bfloat16"
    raise TypeError(f"{op}: {name} has dtype {dtype}, expected {kinds}")


def array(
    op: str,
    name: str,
    value: Array,
    dtype: np.dtype[Any],
    shape: tuple[int, ...] | None = None,
    why: str = "",
) -> Array:
    """An input as a C-contiguous, aligned array (a copy at most) of this dtype and, when given, this shape."""
    if type(value) is not ndarray:
        _must_be_array(op, name, value)
    if value.dtype is not dtype and value.dtype != dtype:
        _wrong_dtype(op, name, value, dtype, why)
    if shape is not None and value.shape != shape:
        _wrong_shape(op, name, value, shape, why)
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else copied(value)


def writable(
    op: str, name: str, value: Array, dtype: np.dtype[Any], shape: tuple[int, ...], why: str = ""
) -> None:
    """An array that is to be written must have this dtype and shape, and must not be read-only."""
    if type(value) is not ndarray:
        _must_be_array(op, name, value)
    if value.dtype is not dtype and value.dtype != dtype:
        _wrong_dtype(op, name, value, dtype, why)
    if value.shape != shape:
        _wrong_shape(op, name, value, shape, why)
    if not value.flags.writeable:
        raise ValueError(f"{op}: {name} is read-only, expected a writable array")


def dimensions(op: str, name: str, value: Array, ndim: int) -> None:
    """An input must have `ndim` dimensions."""
    if value.ndim != ndim:
        raise ValueError(
            f"{op}: {name} has shape {value.shape}, expected {ndim} dimension{'s' * (ndim != 1)}"
        )


def matrix(op: str, name: str, value: Array, dtype: np.dtype[Any], columns: int) -> Array:
    """A NumPy matrix (n, columns) of a network's dtype as the engine wants it, C-contiguous and aligned: a copy at most."""
    if not isinstance(value, ndarray):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a NumPy array")
    if value.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype} like the network")
    if value.ndim != 2 or value.shape[1] != columns:
        raise ValueError(f"{op}: {name} has shape {value.shape}, expected (n, {columns})")
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else copied(value)


def labels_in_range(op: str, name: str, labels: NDArray[np.int64], classes: int, ignore_index: int) -> bool:
    """Whether every label is a class; ValueError that names the first one that is not, unless it is to be ignored."""
    # As unsigned numbers negative labels are the largest: one look at the maximum tells.
    if labels.size == 0 or np.maximum.reduce(labels.view(UINT64)) < classes:
        return True
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{op}: {name}[{row}] is {labels[row]}, expected a class in [0, {classes})")
    return False


def contiguous(value: Array) -> Array:
    """The array itself where it is C-contiguous and aligned, else a copy that is."""
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else copied(value)


def copied(value: Array) -> Array:
    """A C-contiguous, aligned copy."""
    return np.array(value, order="C") if isinstance(value, ndarray) else value.copy()


def empty(like: Array, shape: tuple[int, ...]) -> Array:
    """A new array where `like` is, of its element type."""
    if isinstance(like, ndarray):
        return np.empty(shape, like.dtype)
    made: Array = like.empty(shape)
    return made


def address(value: Array) -> int:
    """Of the first element."""
    if isinstance(value, ndarray):
        found: int = value.__array_interface__["data"][0]
        return found
    return value.address


def overlap(left: Array, right: Array) -> bool:
    """Whether two arrays, both in NumPy or both on a GPU, have an element in common."""
    if type(left) is not ndarray and is_on_device(left):
        return left.overlaps(right)
    return np.may_share_memory(left, right) and np.shares_memory(left, right)


def apart(op: str, names: Sequence[str], arrays: Sequence[Array], only_read: Collection[int] = ()) -> None:
    """Refuse arrays, all in NumPy or all on a GPU, of which two have an element in common.

    Those whose places are `only_read` may have elements in common with each other.
    """
    # In the order of their addresses, an array can only overlap those that begin before its predecessors end.
    places = sorted((*_bytes(one), index) for index, one in enumerate(arrays) if one.size)
    open_: list[tuple[int, int, int]] = []
    wrong = []
    for start, stop, index in places:
        open_ = [place for place in open_ if place[1] > start]
        for _, _, other in open_:
            both_read = index in only_read and other in only_read
            if not both_read and overlap(arrays[index], arrays[other]):
                wrong.append((max(index, other), min(index, other)))
        open_.append((start, stop, index))
    if wrong:
        second, first = min(wrong)
        raise ValueError(f"{op}: {names[second]} overlaps {names[first]}, expected memory of its own")


def _bytes(one: Array) -> tuple[int, int]:
    """Between which addresses an array's elements lie."""
    start = address(one)
    spans = [(n - 1) * stride for n, stride in zip(one.shape, one.strides, strict=True)]
    below, above = sum(min(span, 0) for span in spans), sum(max(span, 0) for span in spans)
    return start + below, start + above + one.itemsize


def same_memory(left: Array, right: Array) -> bool:
    """Whether two arrays are the same elements in the same order."""
    if type(left) is not ndarray and is_on_device(left):
        return left.same_memory(right)
    return address(left) == address(right) and left.strides == right.strides and left.shape == right.shape


def listed(op: str, name: str, value: object, first: str, count: int) -> Sequence[Array]:
    """A list or a tuple of as many arrays as the list `first` has."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a list like {first}")
    if len(value) != count:
        raise ValueError(f"{op}: {name} has {len(value)} arrays, expected {count} like {first}")
    return value


# ---------------------------------------------------------------------------------------------- results


class Output:
    """Where a result goes, and what the caller gets.

    array : what a kernel writes, C-contiguous and aligned
    given : the caller's array, or None
    """

    __slots__ = ("array", "given")
    array: Any
    given: Any

    def fill(self) -> None:
        """Let `array` have the values that the caller gave, where the result is to be added to them."""
        if self.array is not self.given:
            self.array[...] = self.given

    def deliver(self) -> Any:
        """The caller's array, with the result in it, or the new one."""
        given = self.given
        if given is None or given is self.array:
            return self.array
        given[...] = self.array
        return given


ABSENT = Output()  # a result that nobody asked for
ABSENT.array = ABSENT.given = None


def output(
    op: str,
    name: str,
    given: Array | None,
    like: Array,
    shape: tuple[int, ...],
    why: str = "",
    apart_from: tuple[Array | None, ...] = (),
    in_place: tuple[Array | None, ...] = (),
) -> Output:
    """A new array for a result, or `given` after its checks, or a contiguous stand-in where that is strided.

    It lies where `like` does and has its element type. `given` must not overlap the arrays of `apart_from`; those of
    `in_place` it may be, element for element, but not overlap otherwise. Both are arrays as the caller gave them.
    """
    result = Output()  # without an __init__, which would take as long as all that follows
    result.given = given
    if given is None:
        result.array = np.empty(shape, like.dtype) if type(like) is ndarray else empty(like, shape)
        return result
    writable(op, name, given, like.dtype, shape, why)
    for other in apart_from:
        if other is not None and overlap(given, other):
            raise ValueError(f"{op}: {name} overlaps another argument, expected memory of its own")
    for other in in_place:
        if other is not None and overlap(given, other) and not same_memory(given, other):
            raise ValueError(
                f"{op}: {name} partly overlaps an input, expected the same array or memory of its own"
            )
    flags = given.flags
    result.array = given if flags.c_contiguous and flags.aligned else empty(like, shape)
    return result


# ---------------------------------------------------------------------------------------------- numbers and names


def number(op: str, name: str, value: object, among: Range) -> float:
    """A number (Python's, NumPy's or what else converts to one) of this range."""
    found = value if type(value) is float else _real(op, name, value, among)
    if not among.low <= found <= among.high:
        raise ValueError(f"{op}: {name} is {value!r}, expected {among.words}")
    return found


def whole(op: str, name: str, value: object, at_least: int | None = None) -> int:
    """An integer (NumPy's too), `at_least` or more. True and False are not."""
    found = value if type(value) is int else _integer(op, name, value, at_least)
    if at_least is not None and found < at_least:
        raise ValueError(f"{op}: {name} is {found}, expected {integers(at_least)}")
    return found


def truth(op: str, name: str, value: object) -> None:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} {_seen(value)}, expected True or False")


def choice(op: str, name: str, value: object, names: Collection[str | None]) -> None:
    """One of these names."""
    if not (isinstance(value, str) or value is None) or value not in names:
        raise ValueError(f"{op}: {name} is {value!r}, expected one of {', '.join(map(str, names))}")


# ---------------------------------------------------------------------------------------------- complaints


def _must_be_array(op: str, name: str, value: object) -> None:
    if not isinstance(value, ndarray) and not is_on_device(value):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a NumPy or CUDA array")


def _wrong_dtype(op: str, name: str, value: Array, dtype: np.dtype[Any], why: str) -> NoReturn:
    raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype}{why and f' because {why}'}")


def _wrong_shape(op: str, name: str, value: Array, shape: tuple[int, ...], why: str) -> NoReturn:
    raise ValueError(f"{op}: {name} has shape {value.shape}, expected {shape}{why and f' because {why}'}")


def _real(op: str, name: str, value: Any, among: Range) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{op}: {name} {_seen(value)}, expected {among.words}") from None


def _integer(op: str, name: str, value: Any, at_least: int | None) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} {_seen(value)}, expected {integers(at_least)}") from None


def _seen(value: object) -> str:
    """A wrong argument as a message shows it: short values as they are written, others by their type."""
    if value is None or isinstance(value, str | bytes | int | float | complex):
        return f"is {value!r}"
    return f"is of type {type(value).__name__}"
