"""A call from Python: what stands between the interpreter and `admission`.

`enter` is a function of the interpreter's cheapest calling convention. It reads the arguments where the interpreter keeps
them, checks them, makes the results that are not given, runs the kernel and gives what the operation returns. At anything
unusual it touches nothing and gives None: the caller then goes the way of `gdkernels.ops`, which finds the words for what
is wrong, or does what is right but rare.
"""

from ..runtime import objects as python
from ..runtime.jit import inlined, native
from ..runtime.objects import drop, forget_error, new_array, new_float, new_tuple, release_lock, take_lock
from ..runtime.scratch import SCRATCH_BYTES, own_scratch
from ..runtime.simd import address_of, bits, float64_at, int64_at, stack
from . import words as at
from .admission import (
    admit,
    asked_of,
    carry_out,
    cost,
    letters,
    memory_of,
    outcome_words,
    record_words,
    view_of,
)
from .lists import call_each
from .sight import items_of, same, see, table_of, word

_views = stack(at.MOST_ARGUMENTS * at.VIEW_WORDS)
_made = stack(at.MOST_ARGUMENTS)


@inlined
def _make(door, table, views, dims, record, made, number):
    """Make the results that were not given, for which `made` has a place each; 0 where there is no memory."""
    shape = letters()
    for place in range(table[at.COUNT]):
        asked, view = asked_of(table, place), view_of(views, place)
        made[place] = 0
        wanted = asked[at.KIND] == at.ARRAY and asked[at.ASKS] & at.ALLOCATED != 0
        if not wanted or view[at.PRESENT] != 0 or (asked[at.UNLESS] >= 0 and _refused(views, asked)):
            continue
        ndim, where = asked[at.NDIM], address_of(shape)
        if ndim == at.ANY_SHAPE:
            ndim, where = views[at.DIMENSIONS], views[at.SHAPE]
        else:
            for axis in range(ndim):
                letter = asked[at.FIRST_DIM + axis]
                shape[axis] = -1 - letter if letter < 0 else dims[letter]
        array = new_array(door[at.NDARRAY], ndim, where, number)
        if array == 0:
            for earlier in range(place):
                if made[earlier] != 0:
                    drop(made[earlier])
            forget_error()
            return 0
        made[place] = array
        record[asked[at.SLOT]] = word(array + python.DATA)
    return 1


@inlined
def _refused(views, asked):
    """Whether a result is not wanted: its truth value, such as `need_dx`, is False."""
    return views[asked[at.UNLESS] * at.VIEW_WORDS + at.VALUE] == 0


@inlined
def _give(door, table, given, views, made, outcome, results):
    """What the operation returns, as a new reference; `results` is an empty tuple where that is one."""
    kind = table[at.RETURNS]
    if kind == at.LOSS:
        loss = new_float(bits(outcome[0]))
        if loss == 0:
            forget_error()
        return loss
    if kind == at.NOTHING:
        return same(door[at.TRUE])
    into, count = int64_at(results + python.TUPLE_ITEMS), 0
    for place in range(table[at.COUNT]):
        asked = asked_of(table, place)
        if asked[at.KIND] == at.ARRAY and asked[at.ASKS] & at.ALLOCATED != 0:
            if kind == at.RESULT:
                return made[place] if made[place] != 0 else same(given[place])
            if asked[at.UNLESS] >= 0 and _refused(views, asked):
                into[count] = same(door[at.NONE])
            else:
                into[count] = made[place] if made[place] != 0 else same(given[place])
            count += 1
    return results


@inlined
def _tuple_for(table):
    """An empty tuple for all results, where they are returned as one; 0 without memory, and 1 where none is needed."""
    if table[at.RETURNS] != at.RESULTS:
        return 1
    count = 0
    for place in range(table[at.COUNT]):
        asked = asked_of(table, place)
        count += asked[at.KIND] == at.ARRAY and asked[at.ASKS] & at.ALLOCATED != 0
    results = new_tuple(count)
    if results == 0:
        forget_error()
    return results


@inlined
def run_in_turn(table, dims, record, outcome, work):
    """Carry out a call, and let other Python threads run meanwhile where it takes long; the fault of the kernel."""
    scratch = own_scratch(memory_of(table, dims))
    if scratch == 0:
        return at.FAULTS
    if work == 0:
        return carry_out(table, dims, record, outcome, scratch)
    state = release_lock()
    wrong = carry_out(table, dims, record, outcome, scratch)
    take_lock(state)
    return wrong


@inlined
def _call(door, table, given, number):
    """One call by one table: what it returns, or 0 where it cannot be done here."""
    views, dims, record, outcome = _views(), letters(), record_words(), outcome_words()
    made = _made()
    if see(door, table, given, views) == 0 or admit(table, views, dims, record) != 0:
        return 0
    work, further = cost(table, dims), memory_of(table, dims) - SCRATCH_BYTES
    if work > float64_at(door[at.MOST_WORK])[0] or not 0 <= further <= at.MOST_MEMORY:
        return 0
    if _make(door, table, views, dims, record, made, number) == 0:
        return 0
    results = _tuple_for(table)
    long = 1 if work > at.LET_OTHERS_RUN else 0
    if results == 0 or run_in_turn(table, dims, record, outcome, long) != 0:
        for place in range(table[at.COUNT]):
            if made[place] != 0:
                drop(made[place])
        if results > 1:
            drop(results)
        return 0
    return _give(door, table, given, views, made, outcome, results)


@native("i8, i8, i8 -> i8")
def enter(self, arguments, count):
    """A call of the operation whose door is the memory of the array `self`; see the module."""
    door, given = int64_at(word(self + python.DATA)), int64_at(arguments)
    items = items_of(door, given[0])
    lists = address_of(items) != 0
    if lists and word(given[0] + python.LENGTH) == 0:
        return same(door[at.NONE])
    which = table_of(door, items[0] if lists else given[0])
    table = 0 if which == 0 else door[which]
    number = python.NPY_FLOAT64 if which == at.TABLE_FLOAT64 else python.NPY_FLOAT32
    while table != 0:
        here = int64_at(table)
        if not lists:
            result = _call(door, here, given, number)
        else:
            result = call_each(door, here, given) if here[at.RETURNS] == at.NOTHING else 0
        if result != 0:
            return result
        table = here[at.OTHERWISE]
    return same(door[at.NONE])
