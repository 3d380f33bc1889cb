"""What an operation asks of its arguments, as data: native code checks it (`admission`) at every call.

An array is described by its dimensions, which are letters that all arrays of a call share, or numbers: ``given("m", "k")``
and ``given("k", "n")`` are the operands of a product, ``filled("m", 2)`` a result of two columns. An array without
dimensions has any shape, but all such arrays of a call have the same.
"""

from dataclasses import dataclass, field
from typing import Any

from ...ranges import Range

Dims = tuple[str | int, ...]


@dataclass(frozen=True)
class Tensor:
    """An array, C-contiguous and aligned.

    Attributes
    ----------
    dims : of a vector or a matrix; () for any shape, that of all others of which nothing is said
    optional : whether it may be absent
    strided : whether it may have any strides of whole elements
    written : whether it must be writable, with memory of its own; `like` names the arrays that it may be all the same
    allocated : whether a new one is made, and returned, where it is absent
    labels : whether it holds int64 instead of the call's element type
    swapped_by : the truth value that turns its rows into columns
    unless_false : the truth value without which it is not wanted
    needed_if : the truth value with which it must be given
    """

    dims: Dims = ()
    optional: bool = False
    strided: bool = False
    written: bool = False
    allocated: bool = False
    labels: bool = False
    like: tuple[str, ...] = ()
    swapped_by: str = ""
    unless_false: str = ""
    needed_if: str = ""


def given(*dims: str | int, **more: Any) -> Tensor:
    """An input."""
    return Tensor(dims, **more)


def result(*dims: str | int, **more: Any) -> Tensor:
    """What is returned; it is made where it is not given."""
    return Tensor(dims, optional=True, written=True, allocated=True, **more)


def filled(*dims: str | int) -> Tensor:
    """A further result, only where it is given."""
    return Tensor(dims, optional=True, written=True)


def changed(optional: bool = False) -> Tensor:
    """What is read and written: a parameter, or the state of an optimizer."""
    return Tensor(written=True, optional=optional)


@dataclass(frozen=True)
class Number:
    """A number of this range, as float64."""

    among: Range


@dataclass(frozen=True)
class Whole:
    """An integer, `least` or more."""

    least: int = -(2**63)


@dataclass(frozen=True)
class Truth:
    """True or False, as 1 or 0."""


@dataclass(frozen=True)
class Name:
    """One of these names, as an integer or as the address of the loop of that name for the call's element type."""

    values: dict[str, Any] = field(hash=False)


Argument = Tensor | Number | Whole | Truth | Name
