"""What the implementations of operations need of arrays: copies in order, new results, and results with strides.

All of it is decided when a call is compiled: a C-contiguous array costs nothing.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .call import is_absent


def _has_strides(kind) -> bool:
    return isinstance(kind, types.Array) and kind.layout != "C"


def in_order(array):
    """An input as a C-contiguous array: itself, or a copy where it may have strides. None stays None."""


@overload(in_order)
def _in_order(array):
    if _has_strides(array):
        return lambda array: np.ascontiguousarray(array)
    return lambda array: array


def landing(array):
    """Where a result that was asked for is written: the given array, or a copy of one with strides. None stays None."""


@overload(landing)
def _landing(array):
    if _has_strides(array):
        return lambda array: array.copy()
    return lambda array: array


def deliver(array, landed):
    """Bring a result to the array that was given, where it landed elsewhere."""


@overload(deliver)
def _deliver(array, landed):
    if _has_strides(array):

        def bring(array, landed):
            array[...] = landed

        return bring
    return lambda array, landed: None


def place(array, shape, like):
    """Where a result is written: as `landing`, or a new array of this shape, of the element type of `like`."""


@overload(place)
def _place(array, shape, like):
    if is_absent(array):
        return lambda array, shape, like: np.empty(shape, like.dtype)
    return lambda array, shape, like: landing(array)


def placed(array, landed):
    """What is returned for a result: the array that was given, with the result in it, or the new one."""


@overload(placed)
def _placed(array, landed):
    if is_absent(array):
        return lambda array, landed: landed

    def brought(array, landed):
        deliver(array, landed)
        return array

    return brought
