"""Copies between arrays of any strides."""

import numpy as np

from .arrays import BFLOAT16, Array
from .jit import Launch, kernel, run
from .target import cuda

AXES = 6
BLOCK = 256
_CARRIERS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}  # integers that carry the bits
_SIZES = ", ".join(["i8"] * AXES)
_SIGNATURE = f"{_SIZES}, {_SIZES}, {_SIZES}, i8"


@kernel(f"F*, F*, {_SIGNATURE}", variants=tuple(_CARRIERS.values()))
def copy_elements(
    source, target, n0, n1, n2, n3, n4, n5, s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5, count
):
    """target[i…] = source[i…]; strides in elements."""
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
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
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if place < count:
        target[place] = source[place]


def blocks(count: int, size: int = BLOCK) -> tuple[int, int, int]:
    """A grid of one thread for each element."""
    return -(-count // size), 1, 1


def copy(source: Array, target: Array) -> None:
    """target[...] = source, of one shape and element type."""
    assert source.shape == target.shape and source.dtype == target.dtype
    if source.ndim > AXES:
        raise ValueError(
            f"gdkernels: a strided array of shape {source.shape} on the GPU, expected at most {AXES} axes"
        )
    step = source.itemsize
    lead = AXES - source.ndim
    sizes = (1,) * lead + source.shape
    strides = [(0,) * lead + tuple(s // step for s in array.strides) for array in (source, target)]
    operands = (source.address, target.address, *sizes, *strides[0], *strides[1], source.size)
    run([Launch(copy_elements, _CARRIERS[step], blocks(source.size), operands)], target.stream)


def matrix_copy(
    size: int, source: int, target: int, rows: int, columns: int, stride: int, stride_column: int
) -> Launch:
    """target (rows, columns; C-contiguous) = a matrix of elements of `size` bytes, strides in elements."""
    lead = (0,) * (AXES - 2)
    operands = (
        source, target, *(1,) * (AXES - 2), rows, columns, *lead, stride, stride_column, *lead, columns, 1, rows * columns
    )  # fmt: skip
    return Launch(copy_elements, _CARRIERS[size], blocks(rows * columns), operands)


def convert(source: Array, target: Array) -> None:
    """Labels of 32 bits into 64; otherwise a copy."""
    if source.dtype == target.dtype or source.dtype is BFLOAT16:
        copy(source, target)
        return
    assert source.dtype == np.int32 and target.dtype == np.int64
    contiguous = source if source.flags.c_contiguous else source.copy()
    operands = (contiguous.address, target.address, source.size)
    run([Launch(widen_integers, "int32", blocks(source.size), operands)], target.stream)
