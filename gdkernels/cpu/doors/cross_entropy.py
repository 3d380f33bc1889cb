"""The doors of softmax cross-entropy: of labels and of probabilities, the mean or the sum and the terms row by row."""

import math

from ...ranges import UNIT
from ..cost import NS
from ..cross_entropy import softmax_cross_entropy_indices, softmax_cross_entropy_probabilities
from ..runtime.jit import inlined, kernel
from ..runtime.layout import Double, Doubles, Floats, Int, Ints, OptionalFloats
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import address_of, float64_at, offset
from . import words as at
from .arguments import Argument, Number, Tensor, Whole, filled, given, result
from .door import Door
from .loss import MEAN, MEMORY, NUMBERS, REDUCTIONS, summed

of_labels, of_probabilities = (
    one.source for one in (softmax_cross_entropy_indices, softmax_cross_entropy_probabilities)
)
NO_CLASS = at.DIMENSION  # of the logits
WRONG_LABEL = 1 * at.FAULTS + at.VALUE_RANGE


@inlined
def _fault(labels, m, n, ignore_index):
    """What is wrong: that there are no classes, or that a label is none and is not to be ignored; else 0."""
    if n == 0:
        return NO_CLASS
    for r in range(m):
        label = labels[r]
        if not 0 <= label < n and label != ignore_index:
            return WRONG_LABEL
    return 0


@inlined
def _mass(labels, weight, m, ignore_index):
    """(how many labels count, the sum of their weights)."""
    count, mass = 0, 0.0
    for r in range(m):
        if labels[r] != ignore_index:
            count += 1
            mass += 1.0 if address_of(weight) == 0 else weight[labels[r]]
    return count, mass


@inlined
def _memory(scratch):
    """Where the scale and the losses of the rows go."""
    scale = float64_at(scratch + SCRATCH_BYTES)
    return scale, offset(scale, NUMBERS)


@kernel
def labels_total(
    logits: Floats, target: Ints, grad: OptionalFloats, reduction: Int, label_smoothing: Double,
    class_weight: OptionalFloats, ignore_index: Int, m: Int, n: Int, value: Doubles, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """value = the mean or the sum over the labels that count."""
    fault[0] = _fault(target, m, n, ignore_index)
    if fault[0] != 0:
        return
    count, mass = _mass(target, class_weight, m, ignore_index)
    scale, losses = _memory(scratch)
    scale[0] = 1.0
    if reduction == MEAN:
        scale[0] = 1.0 / mass if mass != 0.0 else (math.nan if count > 0 else 0.0)
    of_labels(
        logits, target, grad, losses, n, scale, label_smoothing, class_weight, ignore_index, 0, m, scratch
    )
    added = summed(losses, m)
    if reduction == MEAN:
        added = added / mass if mass != 0.0 else math.nan
    value[0] = added


@kernel
def labels_terms(
    logits: Floats, target: Ints, grad: OptionalFloats, label_smoothing: Double, class_weight: OptionalFloats,
    ignore_index: Int, out: Floats, m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """out = the loss of each row."""
    fault[0] = _fault(target, m, n, ignore_index)
    if fault[0] != 0:
        return
    scale, losses = _memory(scratch)
    scale[0] = 1.0
    of_labels(
        logits, target, grad, losses, n, scale, label_smoothing, class_weight, ignore_index, 0, m, scratch
    )
    for r in range(m):
        out[r] = losses[r]


@kernel
def probabilities_total(
    logits: Floats, target: Floats, grad: OptionalFloats, reduction: Int, label_smoothing: Double,
    class_weight: OptionalFloats, m: Int, n: Int, value: Doubles, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """value = the mean or the sum over the rows."""
    if n == 0:
        fault[0] = NO_CLASS
        return
    scale, losses = _memory(scratch)
    scale[0] = 1.0
    if reduction == MEAN:
        scale[0] = 1.0 / m if m > 0 else 0.0
    of_probabilities(logits, target, grad, losses, n, scale, label_smoothing, class_weight, 0, m, scratch)
    added = summed(losses, m)
    if reduction == MEAN:
        added = added / m if m > 0 else math.nan
    value[0] = added


@kernel
def probabilities_terms(
    logits: Floats, target: Floats, grad: OptionalFloats, label_smoothing: Double, class_weight: OptionalFloats,
    out: Floats, m: Int, n: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """out = the loss of each row."""
    if n == 0:
        fault[0] = NO_CLASS
        return
    scale, losses = _memory(scratch)
    scale[0] = 1.0
    of_probabilities(logits, target, grad, losses, n, scale, label_smoothing, class_weight, 0, m, scratch)
    for r in range(m):
        out[r] = losses[r]


def _arguments(target: Tensor, after: dict[str, Argument]) -> dict[str, Argument]:
    """What is asked of the arguments, in the order of the operation."""
    return {
        "logits": given("m", "n"), "target": target, "grad": filled("m", "n"), **after, "label_smoothing": Number(UNIT),
        "class_weight": given("n", optional=True), "ignore_index": Whole(),
    }  # fmt: skip


_LABELS, _PROBABILITIES = given("m", labels=True), given("m", "n")
_TOTAL: dict[str, Argument] = {"reduction": REDUCTIONS}
_TERMS: dict[str, Argument] = {"out": result("m")}
_COSTS, _MEMORY, _NAME = ((NS["cross-entropy"], "m n"),), (MEMORY, 2, "m"), "softmax_cross_entropy"

_probabilities = Door(
    f"{_NAME}.probabilities", probabilities_total, _arguments(_PROBABILITIES, _TOTAL), costs=_COSTS, gives=at.LOSS,
    memory=_MEMORY,
)  # fmt: skip
_labels = Door(
    _NAME, labels_total, _arguments(_LABELS, _TOTAL), costs=_COSTS, gives=at.LOSS, memory=_MEMORY,
    otherwise=_probabilities,
)  # fmt: skip
_probabilities_terms = Door(
    f"{_NAME}.probabilities.terms",
    probabilities_terms,
    _arguments(_PROBABILITIES, _TERMS),
    costs=_COSTS,
    memory=_MEMORY,
)
_labels_terms = Door(
    f"{_NAME}.terms", labels_terms, _arguments(_LABELS, _TERMS), costs=_COSTS, memory=_MEMORY
)

DOORS = {door.name: door for door in (_labels, _probabilities, _labels_terms, _probabilities_terms)}
