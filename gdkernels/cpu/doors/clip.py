"""The doors of the norm of a gradient and of clipping by it, for any number of arrays or one list of them."""

import math

import numpy as np

from ..clip import BLOCK_ELEMENTS, shrink, square_sum
from ..cost import NS
from ..runtime import objects as python
from ..runtime.jit import inlined, kernel, native
from ..runtime.layout import Double, Doubles, Floats, Int
from ..runtime.memory import aligned_zeros
from ..runtime.objects import new_float, release_lock, take_lock
from ..runtime.scratch import SCRATCH_BYTES, own_scratch
from ..runtime.simd import address_of, bits, float64_at, int64_at, invoke, offset, stack
from . import words as at
from .admission import view_of
from .door import Opening
from .lists import RANGE_WORDS, are_apart, hold, let_go, put_range
from .overlap import reach
from .sight import items_of, same, see_array, see_number, table_of, word

TINY = 1e-6  # what clipping adds to the norm, as PyTorch does
EACH_SQUARE, EACH_CLIP = NS["squares"], NS["clip"]


@kernel
def add_squares(g: Floats, size: Int, added: Doubles, start, stop):
    """added += Σ g², within blocks and then over the blocks."""
    for first in range(0, size, BLOCK_ELEMENTS):
        added[0] += square_sum(offset(g, first), min(BLOCK_ELEMENTS, size - first))


@kernel
def shrink_all(g: Floats, size: Int, factor: Double, start, stop):
    """g = factor g."""
    shrink(g, size, factor)


SHRINK = at.OTHERWISE  # where the head of a table has its second kernel
SIZE = at.HOW_MANY
_number = stack(at.VIEW_WORDS)
_record = stack(3)
_sum = stack(1)


@inlined
def _see_all(door, table, arrays, count, written, views):
    """The views of the arrays; 0 where one is unusual."""
    needed = at.IN_ORDER | at.IN_PLACE | at.OF_ELEMENTS | (at.MAY_WRITE if written != 0 else 0)
    for index in range(count):
        view = view_of(views, index)
        if word(arrays[index] + python.TYPE) != door[at.NDARRAY]:
            return 0
        see_array(door, table, arrays[index], view)
        if view[at.IS] & needed != needed:
            return 0
    return 1


@native("i8*, i8*, i8, i8, i8* -> i8")
def _measure(table, views, count, written, ranges):
    """Learn how many elements each array has; whether those that are written have memory of their own."""
    known = 0
    for index in range(count):
        view = view_of(views, index)
        size, shape = 1, int64_at(view[at.SHAPE])
        for axis in range(view[at.DIMENSIONS]):
            size *= shape[axis]
        view[SIZE] = size
        if size > 0:
            reach(view, table[at.ITEM])
            put_range(ranges, known, view[at.BEGIN], view[at.END], written)
            known += 1
    return are_apart(ranges, known)


@native("i8*, i8*, i8, i8, f8, i8 -> f8")
def _clip(table, views, count, clips, limit, scratch):
    """The norm, with the arrays scaled down to `limit` afterwards where they are to be clipped."""
    total, record = _sum(), _record()
    added = float64_at(address_of(total))
    added[0] = 0.0
    for index in range(count):
        view = view_of(views, index)
        record[0], record[1], record[2] = view[at.PLACE], view[SIZE], address_of(total)
        invoke(table[at.ENTRY], address_of(record), 0, 1, scratch)
    norm = math.sqrt(added[0])
    if clips == 0:
        return norm
    factor = limit / (norm + TINY)
    if not factor >= 1.0:
        for index in range(count):
            view = view_of(views, index)
            record[0], record[1], record[2] = view[at.PLACE], view[SIZE], bits(factor)
            invoke(table[SHRINK], address_of(record), 0, 1, scratch)
    return norm


@native("i8*, i8*, i8, i8, f8* -> i8")
def perform_norm(table, views, count, clips, number):
    """A call from compiled code: `number` is the limit and receives the norm; 0, or a fault, or -1 without memory."""
    scratch = own_scratch(SCRATCH_BYTES + 8 * count * RANGE_WORDS)
    if scratch == 0:
        return -1
    if _measure(table, views, count, clips, int64_at(scratch + SCRATCH_BYTES)) == 0:
        return at.OVERLAP
    if not number[0] >= 0.0:
        return at.VALUE_RANGE
    number[0] = _clip(table, views, count, clips, number[0], scratch)
    return 0


@native("i8, i8, i8 -> i8")
def enter_norm(self, arguments, count):
    """A call of `global_norm`, or of `clip_by_global_norm` where the door says so; as `front.enter`."""
    door, arrays = int64_at(word(self + python.DATA)), int64_at(arguments)
    clips, limit = door[at.CLIPS], math.inf
    if clips != 0:
        view = _number()
        if count == 0 or see_number(door, arrays[0], view) == 0:
            return same(door[at.NONE])
        limit = bits(view[at.VALUE])
        if not limit >= 0.0:
            return same(door[at.NONE])
        arrays, count = offset(arrays, 1), count - 1
    if count == 1 and address_of(items_of(door, arrays[0])) != 0:
        count = word(arrays[0] + python.LENGTH)
        arrays = items_of(door, arrays[0])
    which = table_of(door, arrays[0]) if 0 < count <= at.MOST_ITEMS else 0
    if which == 0 or door[which] == 0:
        return same(door[at.NONE])
    table, scratch = (
        int64_at(door[which]),
        own_scratch(SCRATCH_BYTES + 8 * count * (at.VIEW_WORDS + RANGE_WORDS)),
    )
    if scratch == 0:
        return same(door[at.NONE])
    views = int64_at(scratch + SCRATCH_BYTES)
    if _see_all(door, table, arrays, count, clips, views) == 0:
        return same(door[at.NONE])
    if _measure(table, views, count, clips, view_of(views, count)) == 0:
        return same(door[at.NONE])
    work = 0.0
    for index in range(count):
        work += (EACH_SQUARE + EACH_CLIP * clips) * views[index * at.VIEW_WORDS + SIZE] * table[at.ITEM] / 4
    if work > float64_at(door[at.MOST_WORK])[0]:
        return same(door[at.NONE])
    if work <= at.LET_OTHERS_RUN:
        return new_float(_clip(table, views, count, clips, limit, scratch))
    held = hold(views, count)
    if held == 0:
        return same(door[at.NONE])
    state = release_lock()
    norm = _clip(table, views, count, clips, limit, scratch)
    take_lock(state)
    let_go(held)
    return new_float(norm)


class NormDoor(Opening):
    """The door of a function of any number of arrays: it gives their norm and, where it `clips`, scales them."""

    def __init__(self, name: str, clips: bool):
        super().__init__(name, enter_norm)
        self.clips = clips

    def open(self):
        made = super().open()
        self.memory[at.CLIPS] = self.clips
        return made

    def kernels(self):
        return [add_squares, shrink_all]

    def table(self, dtype):
        """The table for an element type: its two kernels."""
        dtype = np.dtype(dtype)
        if dtype.name not in self.tables:
            table = self.tables[dtype.name] = aligned_zeros(at.HEAD_WORDS, np.int64)
            table[at.ENTRY], table[SHRINK] = add_squares.address(dtype.name), shrink_all.address(dtype.name)
            table[at.ELEMENT], table[at.ITEM] = id(dtype), dtype.itemsize
        return self.tables[dtype.name]


DOORS = {door.name: door for door in (NormDoor("global_norm", False), NormDoor("clip_by_global_norm", True))}
