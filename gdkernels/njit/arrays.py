"""What calls of doors need of arrays: new results, their views, and copies where a kernel wants elements in order.

What an array is, is known when a call is compiled: for one that is C-contiguous nothing is copied.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import overload

from ..cpu.doors import words as at
from ..cpu.doors.arguments import Tensor
from .kinds import is_absent
from .mark import I64

LABELS = (types.int32, types.int64)


def place(array, shape, like):
    """Where a result goes, and what is returned: the given array, or a new one of this shape and the type of `like`."""


@overload(place)
def _place(array, shape, like):
    if is_absent(array):
        return lambda array, shape, like: np.empty(shape, like.dtype)
    return lambda array, shape, like: array


# ---------------------------------------------------------------------------------------------- copies


@dataclass(frozen=True)
class Copy:
    """A copy of an argument for the kernel: types and native values of both, and whether the kernel writes it."""

    of_kind: Any
    of: Any
    kind: Any
    array: Any
    written: bool


def _in_order(array):
    copy = np.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _widened(array):
    copy = np.empty(array.shape, np.int64)
    copy[...] = array
    return copy


def _deliver(array, copy):
    array[...] = copy


def _copied(context, builder, kind, value, asked: Tensor) -> Copy:
    made = types.Array(types.int64 if asked.labels else kind.dtype, kind.ndim, "C")
    how = _widened if asked.labels else _in_order
    return Copy(
        kind, value, made, context.compile_internal(builder, how, made(kind), (value,)), asked.written
    )


def bring(context, builder, fault, copies: list[Copy]) -> None:
    """Bring results to the arrays that were given, where there was no fault, and let go of all copies."""
    if any(copy.written for copy in copies):
        with builder.if_then(builder.icmp_unsigned("==", fault, I64(0))):
            for copy in copies:
                if copy.written:
                    done = types.none(copy.of_kind, copy.kind)
                    context.compile_internal(builder, _deliver, done, (copy.of, copy.array))
    for copy in copies:
        context.nrt.decref(builder, copy.kind, copy.array)


# ---------------------------------------------------------------------------------------------- views


def put_array(context, builder, put, kind, value, asked: Tensor) -> list[Copy]:
    """Fill the view of an array, or of None; the copy that the kernel gets in its place, if it gets one."""
    if not isinstance(kind, types.Array):
        put(at.PRESENT, I64(0))
        return []
    narrow = asked.labels and kind.dtype != types.int64
    copies = []
    if narrow or not kind.aligned or (kind.layout != "C" and not asked.strided):
        copies = [_copied(context, builder, kind, value, asked)]
    array = context.make_array(kind)(context, builder, value)
    within = context.make_array(copies[0].kind)(context, builder, copies[0].array) if copies else array
    put(at.PRESENT, I64(1))
    # Labels that were converted are an array of their own; all other arguments are seen where the caller has them.
    put(at.DATA, builder.ptrtoint((within if narrow else array).data, I64))
    put(at.PLACE, builder.ptrtoint(within.data, I64))
    put(at.DIMENSIONS, I64(kind.ndim))
    for word, numbers in ((at.SHAPE, array.shape), (at.STRIDES, (within if narrow else array).strides)):
        where = cgutils.alloca_once(builder, numbers.type)
        builder.store(numbers, where)
        put(word, builder.ptrtoint(where, I64))
    seen = at.OF_LABELS if asked.labels else at.OF_ELEMENTS
    seen |= at.IN_ORDER * bool(copies or kind.layout == "C") | at.IN_PLACE | at.MAY_WRITE * kind.mutable
    put(at.IS, I64(seen))
    return copies
