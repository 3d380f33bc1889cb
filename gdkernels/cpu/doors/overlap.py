"""Whether arrays of a call, as its views show them, have elements in common."""

from ..runtime.jit import inlined, native
from ..runtime.simd import int64_at, stack
from . import words as at

MOST_AXES = 32  # of an array whose elements are looked at one by one

_steps = stack(2 * MOST_AXES)


@inlined
def reach(view, item):
    """Let the view of an array that is not empty know between which addresses the caller's elements lie."""
    shape, steps = int64_at(view[at.SHAPE]), int64_at(view[at.STRIDES])
    below, above = 0, item
    for axis in range(view[at.DIMENSIONS]):
        far = (shape[axis] - 1) * steps[axis]
        below += min(far, 0)
        above += max(far, 0)
    view[at.BEGIN] = view[at.DATA] + below
    view[at.END] = view[at.DATA] + above


@inlined
def _same(view, other):
    """Whether two arrays of one shape are the same elements in the same order."""
    shape, steps, known = int64_at(view[at.SHAPE]), int64_at(view[at.STRIDES]), int64_at(other[at.STRIDES])
    if view[at.DATA] != other[at.DATA]:
        return 0
    for axis in range(view[at.DIMENSIONS]):
        if shape[axis] > 1 and steps[axis] != known[axis]:
            return 0
    return 1


@inlined
def _nested(view, item, found):
    """How many axes an array steps along: `found` gets pairs (bytes, elements), the longest step first.

    -1 where the steps along one axis lead among those of another one, as in windows that slide.
    """
    shape, steps, count = int64_at(view[at.SHAPE]), int64_at(view[at.STRIDES]), 0
    if view[at.DIMENSIONS] > MOST_AXES:
        return -1
    for axis in range(view[at.DIMENSIONS]):
        step = abs(steps[axis])
        if shape[axis] == 1 or step == 0:
            continue
        place = count
        while place > 0 and found[2 * place - 2] < step:
            found[2 * place], found[2 * place + 1] = found[2 * place - 2], found[2 * place - 1]
            place -= 1
        found[2 * place], found[2 * place + 1] = step, shape[axis]
        count += 1
    within = item
    for place in range(count - 1, -1, -1):
        if found[2 * place] < within:
            return -1
        within += (found[2 * place + 1] - 1) * found[2 * place]
    return count


@inlined
def _holds(found, count, item, distance):
    """Whether a byte at this distance from the first one is of an element."""
    if distance < 0:
        return 0
    for place in range(count):
        step = found[2 * place]
        distance -= min(distance // step, found[2 * place + 1] - 1) * step
    return 1 if distance < item else 0


@native("i8*, i8*, i8, i8, i8 -> i8")
def share(view, other, item, other_item, may_be_same):
    """Whether an array shares an element with another one, between whose addresses it reaches; no, if it may be the same.

    An element of the first array has as many bytes as one of the other, or fewer. Where the other one is no view of an
    array without gaps, its addresses decide.
    """
    if may_be_same != 0 and _same(view, other) != 0:
        return 0
    found = _steps()
    count = _nested(other, other_item, found)
    if count < 0:
        return 1
    shape, steps = int64_at(view[at.SHAPE]), int64_at(view[at.STRIDES])
    size = 1
    for axis in range(view[at.DIMENSIONS]):
        size *= shape[axis]
    for index in range(size):
        rest, first = index, view[at.DATA] - other[at.BEGIN]
        for axis in range(view[at.DIMENSIONS] - 1, -1, -1):
            first += rest % shape[axis] * steps[axis]
            rest //= shape[axis]
        if (
            _holds(found, count, other_item, first) != 0
            or _holds(found, count, other_item, first + item - 1) != 0
        ):
            return 1
    return 0
