"""Copies of memory with any strides: what arrays are made contiguous by. It knows addresses, not arrays."""

import math
from collections.abc import Sequence

from .jit import Launch, kernel
from .target import cuda

Strides = Sequence[int]
AXES = 6
_CARRIERS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}  # integers that carry the bits
_SIZES, _FROM, _TO = ([f"{letter}{axis}" for axis in range(AXES)] for letter in "nst")


@kernel(f"F*, F*, {'i8, ' * (3 * AXES)}i8", variants=tuple(_CARRIERS.values()))
def copy_elements(
    source, target, n0, n1, n2, n3, n4, n5, s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5, count
):
    """target[i…] = source[i…]; strides in elements."""
    place = cuda.grid(1)
    if place < count:
        rest, j5 = place // n5, place % n5
        rest, j4 = rest // n4, rest % n4
        rest, j3 = rest // n3, rest % n3
        rest, j2 = rest // n2, rest % n2
        j0, j1 = rest // n1, rest % n1
        to = j0 * t0 + j1 * t1 + j2 * t2 + j3 * t3 + j4 * t4 + j5 * t5
        target[to] = source[j0 * s0 + j1 * s1 + j2 * s2 + j3 * s3 + j4 * s4 + j5 * s5]


@kernel("i4*, i8*, i8", variants=("int32",))
def widen_integers(source, target, count):
    """int32 to int64."""
    place = cuda.grid(1)
    if place < count:
        target[place] = source[place]


def copy(
    size: int, shape: tuple[int, ...], source: int, source_strides: Strides, target: int, target_strides: Strides
) -> Launch:  # fmt: skip
    """target[...] = source, of elements of `size` bytes at these addresses; strides in elements.

    ValueError where there are more than `AXES` axes.
    """
    if len(shape) > AXES:
        raise ValueError(
            f"gdkernels: a strided array of shape {shape} on the GPU, expected at most {AXES} axes"
        )
    lead, count = AXES - len(shape), math.prod(shape)
    axes = (
        (_SIZES, (1,) * lead + tuple(shape)),
        (_FROM, (0,) * lead + tuple(source_strides)),
        (_TO, (0,) * lead + tuple(target_strides)),
    )
    named = {name: number for names, numbers in axes for name, number in zip(names, numbers, strict=True)}
    grid = copy_elements.grid(count)
    return copy_elements.on(_CARRIERS[size], grid, source=source, target=target, **named, count=count)


def widen(source: int, target: int, count: int) -> Launch:
    """Labels of 32 bits into 64, both contiguous."""
    return widen_integers.on("int32", widen_integers.grid(count), source=source, target=target, count=count)
