"""The check of a call's arguments in native code, by the table that describes what its operation asks.

The arguments of a call come as views, made from Python's objects (`front`) or from the arrays of a compiled function
(`gdkernels.njit`). `admit` compares them with the table, learns what the letters of the dimensions stand for, and fills the
record of the operation's kernel. Nothing is written to an argument before all of them have been checked.
"""

from ..runtime.jit import inlined, native
from ..runtime.scratch import SCRATCH_BYTES, own_scratch
from ..runtime.simd import address_of, bits, int64_at, invoke, offset, stack
from . import words as at
from .overlap import reach, share

letters = stack(at.LETTERS)
record_words = stack(at.MOST_RECORD_WORDS)
outcome_words = stack(2)


@inlined
def asked_of(table, place):
    """What is asked of an argument."""
    return offset(table, at.HEAD_WORDS + place * at.ARGUMENT_WORDS)


@inlined
def view_of(views, place):
    """The view of an argument."""
    return offset(views, place * at.VIEW_WORDS)


@inlined
def _swap(views, asked):
    """1 where an array is to be read as its transpose, else 0."""
    return 0 if asked[at.SWAPPED_BY] < 0 else views[asked[at.SWAPPED_BY] * at.VIEW_WORDS + at.VALUE]


@inlined
def _same_shape(view, other, dims):
    """Whether an array of any shape has that of the first one, `other`; of the first itself the size is learnt."""
    shape, ndim = int64_at(view[at.SHAPE]), view[at.DIMENSIONS]
    if address_of(view) == address_of(other):
        size, last = 1, 1
        for axis in range(ndim):
            last = shape[axis]
            size *= last
        dims[at.AXES] = ndim
        dims[at.SIZE] = size
        dims[at.LAST] = last
        return 1
    known = int64_at(other[at.SHAPE])
    if other[at.DIMENSIONS] != ndim:
        return 0
    for axis in range(ndim):
        if shape[axis] != known[axis]:
            return 0
    return 1


@inlined
def _fitting_shape(view, asked, dims, swap):
    """Whether the dimensions of a vector or matrix are what their letters stand for; learns what is not known yet."""
    shape = int64_at(view[at.SHAPE])
    if view[at.DIMENSIONS] != asked[at.NDIM]:
        return 0
    for axis in range(asked[at.NDIM]):
        letter, here = asked[at.FIRST_DIM + (axis ^ swap)], shape[axis]
        if letter < 0:
            if here != -1 - letter:
                return 0
        elif dims[letter] == at.UNKNOWN:
            dims[letter] = here
        elif dims[letter] != here:
            return 0
    return 1


@inlined
def _fitting_strides(view, asked, record, item, swap):
    """Whether the strides of a matrix, or of its copy, are whole elements; the record gets them."""
    steps = int64_at(view[at.STRIDES])
    down, right = steps[0], steps[1]
    if view[at.PLACE] != view[at.DATA]:
        down, right = int64_at(view[at.SHAPE])[1] * item, item
    if down % item != 0 or right % item != 0:
        return 0
    record[asked[at.ROW_SLOT]] = (down if swap == 0 else right) // item
    record[asked[at.COLUMN_SLOT]] = (right if swap == 0 else down) // item
    return 1


@inlined
def _admit_array(table, views, dims, record, place, first):
    """Check an array that is present; `first` is the place of the first array of any shape."""
    asked, view = asked_of(table, place), view_of(views, place)
    asks, seen = asked[at.ASKS], view[at.IS]
    labels = asks & at.LABELS != 0
    if seen & (at.OF_LABELS if labels else at.OF_ELEMENTS) == 0:
        return at.DTYPE
    swap = _swap(views, asked)
    if asked[at.NDIM] == at.ANY_SHAPE:
        fits = _same_shape(view, view_of(views, first), dims)
    else:
        fits = _fitting_shape(view, asked, dims, swap)
    if fits == 0:
        return at.DIMENSION
    item = 8 if labels else table[at.ITEM]
    if seen & at.IN_PLACE == 0:
        return at.LAYOUT
    size = dims[at.SIZE]
    if asked[at.NDIM] != at.ANY_SHAPE:
        size = 1
        for axis in range(asked[at.NDIM]):
            size *= int64_at(view[at.SHAPE])[axis]
    if asks & at.STRIDED != 0:
        if _fitting_strides(view, asked, record, item, swap) == 0:
            return at.LAYOUT
    elif seen & at.IN_ORDER == 0:
        return at.LAYOUT
    if size == 0 or (seen & at.IN_ORDER != 0 and view[at.PLACE] == view[at.DATA]):
        view[at.BEGIN] = view[at.DATA]
        view[at.END] = view[at.DATA] + size * item
    else:
        reach(view, item)
    return at.READ_ONLY if asks & at.WRITTEN != 0 and seen & at.MAY_WRITE == 0 else 0


@inlined
def _admit_other(asked, view, value):
    """Check a number, an integer or a name; `value` is a place for what the record gets."""
    kind, found = asked[at.KIND], view[at.VALUE]
    if kind == at.NUMBER:
        if not bits(asked[at.LOW]) <= bits(found) <= bits(asked[at.HIGH]):
            return at.VALUE_RANGE
    elif kind == at.WHOLE:
        if found < asked[at.LOW]:
            return at.VALUE_RANGE
    elif kind == at.NAME:
        found = int64_at(asked[at.CHOICES])[2 * found + 1]
        if found == at.NOT_READY:
            return at.VALUE_RANGE
    int64_at(value)[0] = found
    return 0


@inlined
def _apart(table, views):
    """The fault of a result that overlaps another array, unless it may be the same; 0 where there is none."""
    count = table[at.COUNT]
    for place in range(count):
        asked, view = asked_of(table, place), view_of(views, place)
        if asked[at.KIND] != at.ARRAY or asked[at.ASKS] & at.WRITTEN == 0 or view[at.PRESENT] == 0:
            continue
        for other in range(count):
            beside = view_of(views, other)
            wanted = asked_of(table, other)
            if other == place or wanted[at.KIND] != at.ARRAY or beside[at.PRESENT] == 0:
                continue
            if view[at.BEGIN] < beside[at.END] and beside[at.BEGIN] < view[at.END]:
                may_be = (asked[at.LIKE] >> other) & 1
                labels = wanted[at.ASKS] & at.LABELS
                if share(view, beside, table[at.ITEM], 8 if labels != 0 else table[at.ITEM], may_be) != 0:
                    return place * at.FAULTS + at.OVERLAP
    return 0


@native("i8*, i8*, i8*, i8* -> i8")
def admit(table, views, dims, record):
    """Check the arguments of a call: 0, or the first fault. `dims` learns the dimensions, `record` the kernel's operands."""
    for letter in range(at.LETTERS):
        dims[letter] = at.UNKNOWN
    for slot in range(table[at.OPERANDS]):
        record[slot] = 0
    first = -1
    for place in range(table[at.COUNT]):
        asked, view = asked_of(table, place), view_of(views, place)
        slot = asked[at.SLOT]
        if asked[at.KIND] != at.ARRAY:
            spare = record_words()
            into = offset(record, slot) if slot >= 0 else spare
            what = _admit_other(asked, view, address_of(into))
            if asked[at.NUMBER_SLOT] >= 0:
                record[asked[at.NUMBER_SLOT]] = view[at.VALUE]
        elif view[at.PRESENT] == 0:
            needed = asked[at.NEEDED_IF] >= 0 and views[asked[at.NEEDED_IF] * at.VIEW_WORDS + at.VALUE] != 0
            what = at.MISSING if needed or asked[at.ASKS] & at.OPTIONAL == 0 else 0
        else:
            if first < 0 and asked[at.NDIM] == at.ANY_SHAPE:
                first = place
            what = _admit_array(table, views, dims, record, place, first)
            if slot >= 0:
                record[slot] = view[at.PLACE]
        if what != 0:
            return place * at.FAULTS + what
    for letter in range(at.LETTERS):
        slot = table[at.LETTER_SLOTS + letter]
        if slot >= 0:
            record[slot] = dims[letter]
    return _apart(table, views)


@inlined
def _product(dims, mask):
    """The product of the dimensions whose bits are set."""
    product = 1
    for letter in range(at.LETTERS):
        if (mask >> letter) & 1 == 1:
            product *= dims[letter]
    return product


@inlined
def cost(table, dims):
    """Nanoseconds of one core for an admitted call, about."""
    first = bits(table[at.FIRST_COST]) * _product(dims, table[at.FIRST_DIMS])
    return first + bits(table[at.SECOND_COST]) * _product(dims, table[at.SECOND_DIMS])


@inlined
def memory_of(table, dims):
    """Bytes of working memory for an admitted call."""
    more = table[at.MEMORY_EACH] * _product(dims, table[at.MEMORY_DIMS])
    return SCRATCH_BYTES + table[at.MEMORY_LEAST] + more


@inlined
def carry_out(table, dims, record, outcome, scratch):
    """Run the kernel of an admitted call; `outcome` receives a loss, and a fault that only the kernel could see."""
    if table[at.VALUE_SLOT] >= 0:
        record[table[at.VALUE_SLOT]] = address_of(outcome)
    outcome[1] = 0
    if table[at.FAULT_SLOT] >= 0:
        record[table[at.FAULT_SLOT]] = address_of(offset(outcome, 1))
    total = 1 if table[at.TOTAL] < 0 else dims[table[at.TOTAL]]
    if total > 0:
        invoke(table[at.ENTRY], address_of(record), 0, total, scratch)
    return outcome[1]


@native("i8*, i8*, i8* -> i8")
def perform(table, views, outcome):
    """A call from compiled code: check the arguments and run the kernel; 0, the fault, or -1 where there is no memory.

    All results that are returned are given.
    """
    dims, record = letters(), record_words()
    wrong = admit(table, views, dims, record)
    if wrong != 0:
        return wrong
    scratch = own_scratch(memory_of(table, dims))
    return -1 if scratch == 0 else carry_out(table, dims, record, outcome, scratch)
