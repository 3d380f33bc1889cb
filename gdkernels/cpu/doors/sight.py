"""How native code sees the arguments of a call from Python: as views, read where the interpreter keeps its objects."""

from ..runtime import objects as python
from ..runtime.jit import inlined, native
from ..runtime.objects import compare_words, float_of_int, forget_error, int_of_int, keep
from ..runtime.simd import address_of, bits, int32_at, int64_at
from . import words as at
from .admission import asked_of, outcome_words, view_of


@inlined
def word(place):
    """The int64 at an address."""
    return int64_at(place)[0]


@inlined
def same(thing):
    """An object, once more."""
    keep(thing)
    return thing


@inlined
def see_array(door, table, array, view):
    """The view of a NumPy array."""
    view[at.PRESENT] = array
    view[at.DATA] = view[at.PLACE] = word(array + python.DATA)
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


@inlined
def see_number(door, given, view):
    """The view of a float or an integer as a float64; whether it is one."""
    kind = word(given + python.TYPE)
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


@inlined
def _see_other(door, asked, given, view):
    """The view of an argument that is no array; whether it is of an expected type."""
    kind, what = word(given + python.TYPE), asked[at.KIND]
    if what == at.NUMBER:
        return see_number(door, given, view)
    if what == at.WHOLE:
        if kind == door[at.INT64]:
            view[at.VALUE] = word(given + python.VALUE)
            return 1
        if kind != door[at.INT]:
            return 0
        overflow = outcome_words()
        view[at.VALUE] = int_of_int(given, address_of(overflow))
        return 1 if int32_at(address_of(overflow))[0] == 0 else 0
    if what == at.TRUTH:
        view[at.VALUE] = 1 if given == door[at.TRUE] else 0
        return 1 if given == door[at.TRUE] or given == door[at.FALSE] else 0
    names = int64_at(asked[at.CHOICES])
    for index in range(asked[at.HIGH]):  # a name that stands in a program is the same object as ours
        if names[2 * index] == given:
            view[at.VALUE] = index
            return 1
    if kind != door[at.WORD]:
        return 0
    for index in range(asked[at.HIGH]):
        if compare_words(names[2 * index], given) == 0:
            view[at.VALUE] = index
            return 1
    return 0


@native("i8*, i8*, i8*, i8* -> i8")
def see(door, table, given, views):
    """The views of the arguments of a call; 0 where one is of an unexpected type."""
    for place in range(table[at.COUNT]):
        asked, view = asked_of(table, place), view_of(views, place)
        one = given[place]
        if asked[at.KIND] != at.ARRAY:
            view[at.PRESENT] = 0
            if _see_other(door, asked, one, view) == 0:
                return 0
        elif one == door[at.NONE]:
            view[at.PRESENT] = 0
        elif word(one + python.TYPE) == door[at.NDARRAY]:
            see_array(door, table, one, view)
        else:
            return 0
    return 1


@inlined
def items_of(door, thing):
    """The items of a list or a tuple; a null pointer of anything else."""
    kind = word(thing + python.TYPE)
    if kind == door[at.LIST]:
        return int64_at(word(thing + python.LIST_ITEMS))
    return int64_at(thing + python.TUPLE_ITEMS if kind == door[at.TUPLE] else 0)


@inlined
def table_of(door, array):
    """Which table is for the element type of an array: its word of the door, or 0."""
    if word(array + python.TYPE) != door[at.NDARRAY]:
        return 0
    kind = word(array + python.DESCR)
    if kind == door[at.DTYPE_FLOAT32]:
        return at.TABLE_FLOAT32
    return at.TABLE_FLOAT64 if kind == door[at.DTYPE_FLOAT64] else 0
