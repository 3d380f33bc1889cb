"""Softmax cross-entropy inside ``@njit``, of labels and of probabilities."""

from numba import types

from ..ops import cross_entropy as ops
from .arrays import place
from .call import Call, inside
from .kinds import Refused, told
from .loss import reduced


@inside(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
):
    op = "softmax_cross_entropy"
    if not isinstance(target, types.Array):
        raise Refused(f"{op}: target {told(target)}, expected an array of labels or of probabilities")
    name = f"{op}.probabilities" if isinstance(target.dtype, types.Float) else op
    given = {
        "logits": logits, "target": target, "grad": grad, "label_smoothing": label_smoothing,
        "class_weight": class_weight, "ignore_index": ignore_index,
    }  # fmt: skip
    if not reduced(op, reduction):
        run = Call(f"{name}.terms", **given, out=None).run

        def terms(
            logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
        ):  # fmt: skip
            out = place(None, (logits.shape[0],), logits)
            run((logits, target, grad, out, label_smoothing, class_weight, ignore_index))
            return out

        return terms
    run = Call(name, **given, reduction=reduction).run

    def call(
        logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
    ):
        return run((logits, target, grad, 0, label_smoothing, class_weight, ignore_index))

    return call
