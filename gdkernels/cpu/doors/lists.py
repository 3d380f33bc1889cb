"""Calls for several arrays of each kind, such as all parameters of a network: one native call for all items.

Every item is checked, and all arrays against each other, before anything is written.
"""

from ..runtime import objects as python
from ..runtime.jit import inlined, native
from ..runtime.objects import drop, keep, release_lock, take_lock
from ..runtime.scratch import SCRATCH_BYTES, give_back, own_scratch, reserve
from ..runtime.simd import address_of, float64_at, int64_at, offset, stack
from . import words as at
from .admission import admit, asked_of, carry_out, cost, outcome_words, view_of
from .sight import items_of, same, see, word

# What is kept of an item behind the views of all: what its letters stand for, and its record.
ITEM_WORDS = at.LETTERS + at.MOST_RECORD_WORDS
RANGE_WORDS = 3  # where an array begins and ends, and whether it is written

_arguments = stack(at.MOST_ARGUMENTS)


@native("i8*, i8, i8, i8, i8")
def put_range(ranges, place, begin, end, written):
    """Put a range of addresses among the `place` ranges before it, which stand in the order of where they begin."""
    while place > 0 and ranges[RANGE_WORDS * (place - 1)] > begin:
        for part in range(RANGE_WORDS):
            ranges[RANGE_WORDS * place + part] = ranges[RANGE_WORDS * (place - 1) + part]
        place -= 1
    here = offset(ranges, RANGE_WORDS * place)
    here[0], here[1], here[2] = begin, end, written


@native("i8*, i8 -> i8")
def are_apart(ranges, count):
    """Whether no range that is written overlaps another one."""
    far, far_written = 0, 0
    for place in range(count):
        here = offset(ranges, RANGE_WORDS * place)
        if here[0] < (far if here[2] != 0 else far_written):
            return 0
        far = max(far, here[1])
        if here[2] != 0:
            far_written = max(far_written, here[1])
    return 1


@inlined
def memory_for(table, count):
    """Bytes behind `SCRATCH_BYTES` for the items of a call: their views, ITEM_WORDS for each, and ranges."""
    return 8 * count * (table[at.COUNT] * (at.VIEW_WORDS + RANGE_WORDS) + ITEM_WORDS)


@native("i8*, i8*, i8, i8* -> i8")
def admit_all(table, views, count, memory):
    """Check all items, whose views follow each other; `memory` is for what is kept of them, and then for ranges."""
    arguments = table[at.COUNT]
    ranges, known = offset(memory, count * ITEM_WORDS), 0
    for index in range(count):
        here, kept = offset(views, index * arguments * at.VIEW_WORDS), offset(memory, index * ITEM_WORDS)
        fault = admit(table, here, kept, offset(kept, at.LETTERS))
        if fault != 0:
            return index * at.ITEM_FAULTS + fault
        for place in range(arguments):
            asked = asked_of(table, place)
            view = view_of(here, place)
            if asked[at.KIND] == at.ARRAY and view[at.PRESENT] != 0 and view[at.BEGIN] < view[at.END]:
                put_range(ranges, known, view[at.BEGIN], view[at.END], asked[at.ASKS] & at.WRITTEN)
                known += 1
    return 0 if are_apart(ranges, known) != 0 else at.OVERLAP


@native("i8*, i8, i8*, i8 -> i8")
def carry_out_all(table, count, memory, scratch):
    """Run the kernel for all admitted items; the fault of the last one that has any."""
    outcome, fault = outcome_words(), 0
    for index in range(count):
        kept = offset(memory, index * ITEM_WORDS)
        here = carry_out(table, kept, offset(kept, at.LETTERS), outcome, scratch)
        fault = here if here != 0 else fault
    return fault


@native("i8*, i8*, i8 -> i8")
def perform_all(table, views, count):
    """A call from compiled code, as `admission.perform`, for several items."""
    scratch = own_scratch(SCRATCH_BYTES + memory_for(table, count))
    if scratch == 0:
        return -1
    memory = int64_at(scratch + SCRATCH_BYTES)
    fault = admit_all(table, views, count, memory)
    return fault if fault != 0 else carry_out_all(table, count, memory, scratch)


# ---------------------------------------------------------------------------------------------- lists of Python


@inlined
def _pick(door, table, given, index, picked):
    """The arguments of one item of lists: an array of every list, and what is no list; 0 where a list is too short."""
    length = word(given[0] + python.LENGTH)
    for place in range(table[at.COUNT]):
        picked[place] = given[place]
        kind = asked_of(table, place)[at.KIND]
        if kind != at.ARRAY or given[place] == door[at.NONE]:
            continue
        items = items_of(door, given[place])
        if address_of(items) == 0 or word(given[place] + python.LENGTH) != length:
            return 0
        picked[place] = items[index]
        if picked[place] == door[at.NONE]:
            return 0
    return 1


@native("i8*, i8 -> i8")
def hold(views, count):
    """Keep the objects of views, which other threads may take out of their lists; where they are noted, or 0."""
    held = reserve(8 * (count + 1))
    if held == 0:
        return 0
    notes, known = int64_at(held), 0
    for index in range(count):
        thing = views[index * at.VIEW_WORDS + at.PRESENT]
        if thing != 0:
            keep(thing)
            known += 1
            notes[known] = thing
    notes[0] = known
    return held


@native("i8")
def let_go(held):
    """Let go of what `hold` keeps."""
    notes = int64_at(held)
    for index in range(notes[0]):
        drop(notes[index + 1])
    give_back(held)


@native("i8*, i8*, i8* -> i8")
def call_each(door, table, given):
    """A call from Python for lists of arrays: True, or 0 where it cannot be done here."""
    count, arguments, each = word(given[0] + python.LENGTH), _arguments(), table[at.COUNT] * at.VIEW_WORDS
    if count > at.MOST_ITEMS:
        return 0
    scratch = own_scratch(SCRATCH_BYTES + memory_for(table, count))
    if scratch == 0:
        return 0
    views = int64_at(scratch + SCRATCH_BYTES)
    memory, work = offset(views, count * each), 0.0
    for index in range(count):
        here = offset(views, index * each)
        if _pick(door, table, given, index, arguments) == 0 or see(door, table, arguments, here) == 0:
            return 0
    if admit_all(table, views, count, memory) != 0:
        return 0
    for index in range(count):
        work += cost(table, offset(memory, index * ITEM_WORDS))
    if work > float64_at(door[at.MOST_WORK])[0]:
        return 0
    if work <= at.LET_OTHERS_RUN:
        fault = carry_out_all(table, count, memory, scratch)
        return 0 if fault != 0 else same(door[at.TRUE])
    held = hold(views, count * table[at.COUNT])
    if held == 0:
        return 0
    state = release_lock()
    fault = carry_out_all(table, count, memory, scratch)
    take_lock(state)
    let_go(held)
    return 0 if fault != 0 else same(door[at.TRUE])
