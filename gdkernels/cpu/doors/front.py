"""A call from Python: what stands between the interpreter and `admission`.

`enter` is a function of the interpreter's cheapest calling convention. It reads the arguments where the interpreter keeps
them, checks them, makes the results that are not given, runs the kernel and gives what the operation returns. At anything
unusual it touches nothing and gives None: the caller then goes the way of `gdkernels.ops`, which finds the words for what
is wrong, or does what is right but rare.
"""

from ..runtime import objects as python
from ..runtime.jit import inlined, native
from ..runtime.objects import (
    drop,
    float_of_int,
    forget_error,
    int_of_int,
    keep,
    new_array,
    new_float,
    new_tuple,
    release_lock,
    take_lock,
)
from ..runtime.scratch import own_scratch
from ..runtime.simd import address_of, bits, float64_at, int32_at, int64_at, offset, stack
from . import words as at
from .admission import admit, carry_out, cost, letters, memory_of, outcome_words, record_words

MOST_ARGUMENTS = 12
LET_OTHERS_RUN = 20_000.0  # nanoseconds of work from which other Python threads may run meanwhile

_views = stack(MOST_ARGUMENTS * at.VIEW_WORDS)


@inlined
def word(place):
    """The int64 at an address."""
    return int64_at(place)[0]


@native("i8*, i8*, i8, i8*")
def _see_array(door, table, array, view):
    """The view of a NumPy array."""
    view[at.PRESENT] = 1
    view[at.DATA] = word(array + python.DATA)
    view[at.DIMENSIONS] = int32_at(array + python.NDIM)[0]
    view[at.SHAPE] = word(array + python.DIMS)
    view[at.STRIDES] = word(array + python.STRIDES)
    flags, kind = int32_at(array + python.FLAGS)[0], word(array + python.DESCR)
    seen = at.IN_ORDER if flags & python.C_CONTIGUOUS != 0 else 0
    seen |= at.IN_PLACE if flags & python.ALIGNED != 0 else 0
    seen |= at.MAY_WRITE if flags & python.WRITEABLE != 0 else 0
    seen |= at.OF_ELEMENTS if kind == table[at.ELEMENT] else 0
    seen |= at.OF_LABELS if kind == door[at.DTYPE_LABELS] else 0
    view[at.IS] = seen


@native("i8*, i8*, i8, i8* -> i8")
def _see_other(door, asked, given, view):
    """The view of an argument that is no array; whether it is of an expected type."""
    kind, what = word(given + python.TYPE), asked[at.KIND]
    if what == at.NUMBER:
        if kind == door[at.FLOAT] or kind == door[at.FLOAT64]:
            view[at.VALUE] = word(given + python.VALUE)
            return 1
        if kind != door[at.INT]:
            return 0
        number = float_of_int(given)
        if number == -1.0:  # perhaps an error
            forget_error()
            return 0
        view[at.VALUE] = bits(number)
        return 1
    if what == at.WHOLE:
        if kind != door[at.INT]:
            return 0
        overflow = outcome_words()
        view[at.VALUE] = int_of_int(given, address_of(overflow))
        return 1 if int32_at(address_of(overflow))[0] == 0 else 0
    if what == at.TRUTH:
        view[at.VALUE] = 1 if given == door[at.TRUE] else 0
        return 1 if given == door[at.TRUE] or given == door[at.FALSE] else 0
    names = int64_at(asked[at.CHOICES])
    for index in range(asked[at.HIGH]):
        if names[2 * index] == given:
            view[at.VALUE] = index
            return 1
    return 0


@native("i8*, i8*, i8*, i8* -> i8")
def see(door, table, given, views):
    """The views of the arguments of a call; 0 where one is of an unexpected type."""
    for place in range(table[at.COUNT]):
        asked, view = (
            offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS),
            offset(views, place * at.VIEW_WORDS),
        )
        one = given[place]
        if asked[at.KIND] != at.ARRAY:
            if _see_other(door, asked, one, view) == 0:
                return 0
        elif one == door[at.NONE]:
            view[at.PRESENT] = 0
        elif word(one + python.TYPE) == door[at.NDARRAY]:
            _see_array(door, table, one, view)
        else:
            return 0
    return 1


@native("i8*, i8*, i8*, i8*, i8*, i8*, i8 -> i8")
def _make(door, table, views, dims, record, made, number):
    """Make the results that were not given, for which `made` has a place each; 0 where there is no memory."""
    shape = letters()
    for place in range(table[at.COUNT]):
        asked, view = (
            offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS),
            offset(views, place * at.VIEW_WORDS),
        )
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
def same(thing):
    """An object, once more."""
    keep(thing)
    return thing


@native("i8*, i8*, i8*, i8*, i8*, i8* -> i8")
def _give(door, table, given, views, made, outcome):
    """What the operation returns, as a new reference."""
    kind = table[at.RETURNS]
    if kind == at.LOSS:
        return new_float(bits(outcome[0]))
    if kind == at.NOTHING:
        return same(door[at.TRUE])
    count = 0
    for place in range(table[at.COUNT]):
        asked = offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS)
        if asked[at.KIND] == at.ARRAY and asked[at.ASKS] & at.ALLOCATED != 0:
            if kind == at.RESULT:
                return made[place] if made[place] != 0 else same(given[place])
            count += 1
    results = new_tuple(count)
    into = int64_at(results + python.TUPLE_ITEMS)
    count = 0
    for place in range(table[at.COUNT]):
        asked = offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS)
        if asked[at.KIND] == at.ARRAY and asked[at.ASKS] & at.ALLOCATED != 0:
            if asked[at.UNLESS] >= 0 and _refused(views, asked):
                into[count] = same(door[at.NONE])
            else:
                into[count] = made[place] if made[place] != 0 else same(given[place])
            count += 1
    return results


@native("i8*, i8*, i8*, i8*, i8*, i8 -> i8")
def run_in_turn(table, dims, record, outcome, views, work):
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


@native("i8*, i8*, i8*, i8 -> i8")
def _call(door, table, given, number):
    """One call by one table: what it returns, or 0 where it cannot be done here."""
    views, dims, record, outcome = _views(), letters(), record_words(), outcome_words()
    made = made_words()
    if see(door, table, given, views) == 0 or admit(table, views, dims, record) != 0:
        return 0
    work = cost(table, dims)
    if work > float64_at(door[at.MOST_WORK])[0]:
        return 0
    if _make(door, table, views, dims, record, made, number) == 0:
        return 0
    long = 1 if work > LET_OTHERS_RUN else 0
    if run_in_turn(table, dims, record, outcome, views, long) != 0:
        for place in range(table[at.COUNT]):
            if made[place] != 0:
                drop(made[place])
        return 0
    return _give(door, table, given, views, made, outcome)


made_words = stack(MOST_ARGUMENTS)


@native("i8, i8, i8 -> i8")
def enter(self, arguments, count):
    """A call of the operation whose door is the memory of the array `self`; see the module."""
    door, given = int64_at(word(self + python.DATA)), int64_at(arguments)
    table = 0
    number = python.NPY_FLOAT32
    if word(given[0] + python.TYPE) == door[at.NDARRAY]:
        kind = word(given[0] + python.DESCR)
        if kind == door[at.DTYPE_FLOAT32]:
            table = door[at.TABLE_FLOAT32]
        elif kind == door[at.DTYPE_FLOAT64]:
            table, number = door[at.TABLE_FLOAT64], python.NPY_FLOAT64
    while table != 0:
        result = _call(door, int64_at(table), given, number)
        if result != 0:
            return result
        table = int64_at(table)[at.OTHERWISE]
    return same(door[at.NONE])
