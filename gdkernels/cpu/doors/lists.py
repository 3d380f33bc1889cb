"""Calls for lists of arrays, such as all parameters of a network: one native call, in which every item is checked first."""

from ..runtime import objects as python
from ..runtime.jit import native
from ..runtime.objects import release_lock, take_lock
from ..runtime.scratch import SCRATCH_BYTES, own_scratch
from ..runtime.simd import address_of, float64_at, int64_at, offset, stack
from . import words as at
from .admission import admit, carry_out, cost, outcome_words
from .sight import items_of, same, see, word


@native("i8*, i8, i8, i8, i8")
def put_range(ranges, place, begin, end, written):
    """Put a range of addresses among the `place` ranges before it, which stand in the order of where they begin."""
    while place > 0 and ranges[3 * place - 3] > begin:
        for part in range(3):
            ranges[3 * place + part] = ranges[3 * place - 3 + part]
        place -= 1
    ranges[3 * place], ranges[3 * place + 1], ranges[3 * place + 2] = begin, end, written


@native("i8*, i8 -> i8")
def are_apart(ranges, count):
    """Whether no range that is written overlaps another one."""
    far, far_written = 0, 0
    for place in range(count):
        begin, end, written = ranges[3 * place], ranges[3 * place + 1], ranges[3 * place + 2]
        if begin < (far if written != 0 else far_written):
            return 0
        far = max(far, end)
        if written != 0:
            far_written = max(far_written, end)
    return 1


_arguments = stack(at.MOST_ARGUMENTS)
# Of each item of lists: its views, what its letters stand for, its record.
ITEM_WORDS = at.MOST_ARGUMENTS * at.VIEW_WORDS + at.LETTERS + at.MOST_RECORD_WORDS
ITEM_DIMS = at.MOST_ARGUMENTS * at.VIEW_WORDS
ITEM_RECORD = ITEM_DIMS + at.LETTERS


@native("i8*, i8*, i8*, i8, i8* -> i8")
def _pick(door, table, given, index, picked):
    """The arguments of one item of lists: an array of every list, and what is no list; 0 where a list is too short."""
    length = word(given[0] + python.LENGTH)
    for place in range(table[at.COUNT]):
        picked[place] = given[place]
        if (
            table[at.HEAD_WORDS + place * at.ARGUMENT_WORDS + at.KIND] != at.ARRAY
            or given[place] == door[at.NONE]
        ):
            continue
        items = items_of(door, given[place])
        if address_of(items) == 0 or word(given[place] + python.LENGTH) != length:
            return 0
        picked[place] = items[index]
    return 1


@native("i8*, i8*, i8* -> i8")
def call_each(door, table, given):
    """A call for lists of arrays: every item is checked before anything is written; 0 where it cannot be done here."""
    count, arguments, outcome = word(given[0] + python.LENGTH), _arguments(), outcome_words()
    arrays = count * table[at.COUNT]
    scratch = own_scratch(SCRATCH_BYTES + 8 * (count * ITEM_WORDS + 3 * arrays))
    if scratch == 0:
        return 0
    items = int64_at(scratch + SCRATCH_BYTES)
    ranges, known = offset(items, count * ITEM_WORDS), 0
    work = 0.0
    for index in range(count):
        views = offset(items, index * ITEM_WORDS)
        dims, record = offset(views, ITEM_DIMS), offset(views, ITEM_RECORD)
        if _pick(door, table, given, index, arguments) == 0 or see(door, table, arguments, views) == 0:
            return 0
        if admit(table, views, dims, record) != 0:
            return 0
        work += cost(table, dims)
        for place in range(table[at.COUNT]):
            asked, view = (
                offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS),
                offset(views, place * at.VIEW_WORDS),
            )
            if asked[at.KIND] == at.ARRAY and view[at.PRESENT] != 0 and view[at.BEGIN] < view[at.END]:
                put_range(ranges, known, view[at.BEGIN], view[at.END], asked[at.ASKS] & at.WRITTEN)
                known += 1
    if work > float64_at(door[at.MOST_WORK])[0] or are_apart(ranges, known) == 0:
        return 0
    state = release_lock() if work > at.LET_OTHERS_RUN else 0
    wrong = 0
    for index in range(count):
        views = offset(items, index * ITEM_WORDS)
        wrong += carry_out(table, offset(views, ITEM_DIMS), offset(views, ITEM_RECORD), outcome, scratch)
    if state != 0:
        take_lock(state)
    return 0 if wrong != 0 else same(door[at.TRUE])
