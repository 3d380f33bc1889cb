"""The arguments of a call as Numba's types: what is known of them when it is compiled, and how a message shows them."""

from typing import Any

import numpy as np
from numba import types

FLOATS = {types.float32: np.dtype(np.float32), types.float64: np.dtype(np.float64)}
OUR_KIND = "an array of float32 or float64"


class Refused(Exception):
    """What is wrong with the types of a call."""


def is_absent(kind: Any) -> bool:
    """Whether an argument is None, given or left out."""
    return (
        kind is None
        or isinstance(kind, types.NoneType)
        or (isinstance(kind, types.Omitted) and kind.value is None)
    )


def constant(kind: Any) -> Any:
    """What is known of an argument when the call is compiled: its value, or `UNKNOWN`."""
    if isinstance(kind, types.Omitted):
        return kind.value
    if isinstance(kind, types.Literal):
        return kind.literal_value
    return UNKNOWN if isinstance(kind, types.Type) else kind  # a default comes as it is


UNKNOWN = object()


def told(kind: Any) -> str:
    """An argument as a message shows it."""
    value = constant(kind)
    if value is not UNKNOWN:
        return f"is {value!r}"
    if is_absent(kind):
        return "is None"
    if isinstance(kind, types.Array):
        return f"has dtype {kind.dtype}" if kind.ndim else f"is an array of {kind.dtype} without dimensions"
    return f"is of type {kind}"


def is_number(kind: Any, wanted: Any) -> bool:
    """Whether an argument is a number of this kind of Numba types, or a default that is one."""
    value = constant(kind)
    if value is not UNKNOWN:
        real = int if wanted is types.Integer else (int, float)
        return isinstance(value, real) and not isinstance(value, bool)
    return isinstance(kind, wanted) and not isinstance(kind, types.Boolean | types.Complex)
