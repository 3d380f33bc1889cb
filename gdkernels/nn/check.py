"""What networks and trainers ask of their arguments, and the words in which they complain."""

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def whole(op: str, name: str, value: object, at_least: int) -> int:
    """An integer (NumPy's too), `at_least` or more."""
    expected = {0: "an integer from 0 on", 1: "a positive integer"}[at_least]
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{op}: {name} is {value!r}, expected {expected}") from None
    if number < at_least:
        raise ValueError(f"{op}: {name} is {number}, expected {expected}")
    return number


def number(op: str, name: str, value: object, lowest: float, highest: float, expected: str) -> float:
    """A number in [lowest, highest]; `expected` says so in words."""
    try:
        if isinstance(value, str):
            raise TypeError
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} is {value!r}, expected {expected}") from None
    if not lowest <= found <= highest:
        raise ValueError(f"{op}: {name} is {value!r}, expected {expected}")
    return found


def truth(op: str, name: str, value: object) -> None:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} is {value!r}, expected True or False")


def choice(op: str, name: str, value: object, known: Iterable[object]) -> None:
    """One of the known values."""
    known = tuple(known)
    if not isinstance(value, str | None) or value not in known:
        raise ValueError(f"{op}: {name} is {value!r}, expected one of {', '.join(map(str, known))}")


def matrix(op: str, name: str, value: Array, dtype: np.dtype[Any], columns: int) -> Array:
    """A matrix (n, columns) of this dtype as the engine wants it, C-contiguous and aligned: a copy at most."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a NumPy array")
    if value.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype} like the network")
    if value.ndim != 2 or value.shape[1] != columns:
        raise ValueError(f"{op}: {name} has shape {value.shape}, expected (n, {columns})")
    flags = value.flags
    if flags.c_contiguous and flags.aligned:
        return value
    return np.array(value, order="C")
