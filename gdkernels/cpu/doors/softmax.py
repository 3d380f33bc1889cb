"""The doors of softmax and its logarithm, over the last axis."""

from ..cost import NS
from ..runtime.jit import kernel
from ..runtime.layout import Floats, Int, Ints
from ..softmax import log_softmax_rows, softmax_rows
from . import words as at
from .arguments import Argument, given, result
from .door import Door

softmax_of_rows, log_softmax_of_rows = softmax_rows.source, log_softmax_rows.source
NO_AXIS = at.DIMENSION  # of x


@kernel
def softmax_call(x: Floats, out: Floats, size: Int, last: Int, axes: Int, fault: Ints, start, stop, scratch):
    """out = softmax(x)."""
    if axes == 0:
        fault[0] = NO_AXIS
    elif size > 0:
        softmax_of_rows(x, out, last, 0, size // last, scratch)


@kernel
def log_softmax_call(
    x: Floats, out: Floats, size: Int, last: Int, axes: Int, fault: Ints, start, stop, scratch
):
    """out = log(softmax(x))."""
    if axes == 0:
        fault[0] = NO_AXIS
    elif size > 0:
        log_softmax_of_rows(x, out, last, 0, size // last, scratch)


_ARGUMENTS: dict[str, Argument] = {"x": given(), "out": result(like=("x",))}
_COSTS = ((NS["softmax"], "size"),)

softmax = Door("softmax", softmax_call, _ARGUMENTS, costs=_COSTS)
log_softmax = Door("log_softmax", log_softmax_call, _ARGUMENTS, costs=_COSTS)

DOORS = {door.name: door for door in (softmax, log_softmax)}
