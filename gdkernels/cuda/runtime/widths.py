"""Kernels for two widths from one body: what is done to groups of elements, for groups of four and for groups of one.

A group is a tuple of neighbours. A body is written over groups, with the functions of a `Width`:

    @both_widths("F*, F*, R, i8")
    def scaled(width):
        load, store, times, size = width.load, width.store, width.each(multiply, 1), width.size

        def body(x, y, factor, groups):
            place = cuda.grid(1)
            if place < groups:
                store(y, size * place, times(load(x, size * place), factor))

        return body

makes ``scaled.by_four``, whose accesses are of four elements, and ``scaled.by_one``, which takes any address.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .intrinsics import load4, store4, transposed
from .jit import Kernel, kernel
from .target import device


class Width(NamedTuple):
    """How a body takes its elements.

    size : of a group
    load : ``load(p, i)``, the group that begins with p[i]
    store : ``store(p, i, group)``
    fill : ``fill(value)``, a group of equal elements
    total : ``total(group)``, their sum, by pairs
    each : ``each(f, groups)``, a device function: the results of f, by element, whose first arguments are elements of so
        many groups; what follows these it hands on as it is
    """

    size: int
    load: Any
    store: Any
    fill: Any
    total: Any
    each: Callable[[Any, int], Any]


def _each_of_four(f, groups: int):
    @device
    def each(*arguments):
        first, second, third, fourth = transposed(arguments[:groups])
        rest = arguments[groups:]
        return f(*(first + rest)), f(*(second + rest)), f(*(third + rest)), f(*(fourth + rest))

    return each


def _each_of_one(f, groups: int):
    @device
    def each(*arguments):
        (first,) = transposed(arguments[:groups])
        return (f(*(first + arguments[groups:])),)

    return each


@device
def _load1(p, i):
    return (p[i],)


@device
def _store1(p, i, group):
    p[i] = group[0]


@device
def _fill4(value):
    return value, value, value, value


@device
def _fill1(value):
    return (value,)


@device
def _total4(group):
    return (group[0] + group[1]) + (group[2] + group[3])


@device
def _total1(group):
    return group[0]


FOUR = Width(4, load4, store4, _fill4, _total4, _each_of_four)
ONE = Width(1, _load1, _store1, _fill1, _total1, _each_of_one)


class Pair(NamedTuple):
    """A kernel for both widths."""

    by_four: Kernel
    by_one: Kernel


def both_widths(signature: str, **options):
    """Make a `Pair` of ``make(width)``, a function that gives the body for a `Width`; arguments are those of `kernel`.

    The kernels have the name of `make`, followed by their width, and its docstring.
    """

    def decorate(make) -> Pair:
        made = []
        for width in (FOUR, ONE):
            body = make(width)
            body.__module__, body.__name__ = make.__module__, f"{make.__name__}{width.size}"
            body.__doc__ = make.__doc__
            made.append(kernel(signature, **options)(body))
        return Pair(*made)

    return decorate
