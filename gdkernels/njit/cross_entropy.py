"""Softmax cross-entropy inside ``@njit``, of labels (int64, or other integers, which are copied) and of probabilities."""

import numpy as np
from numba import types
from numba.extending import register_jitable

from ..ops import cross_entropy as ops
from .arrays import deliver, in_order, landing, place
from .call import Call, Refused, inside, told
from .loss import reduced


@inside(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
):
    op = "softmax_cross_entropy"
    if not isinstance(target, types.Array):
        raise Refused(f"{op}: target {told(target)}, expected an array of labels or of probabilities")
    labels = isinstance(target.dtype, types.Integer)
    if labels and target.dtype not in (types.int32, types.int64):
        raise Refused(f"{op}: target has dtype {target.dtype}, expected int32 or int64 labels")
    narrow = target.dtype == types.int32
    seen = target.copy(dtype=types.int64, layout="C") if narrow else target
    name = op if labels else f"{op}.probabilities"
    given = {
        "logits": logits, "target": seen, "grad": grad, "label_smoothing": label_smoothing,
        "class_weight": class_weight, "ignore_index": ignore_index,
    }  # fmt: skip
    convert = _widened if narrow else in_order
    if not reduced(op, reduction):
        run = Call(f"{name}.terms", **given, out=None).run

        def terms(
            logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
        ):  # fmt: skip
            slope, out = landing(grad), place(None, (logits.shape[0],), logits)
            run(
                (
                    in_order(logits), convert(target), slope, out, label_smoothing, in_order(class_weight), ignore_index,
                )
            )  # fmt: skip
            deliver(grad, slope)
            return out

        return terms
    run = Call(name, **given, reduction=reduction).run

    def call(
        logits, target, grad=None, reduction="mean", label_smoothing=0.0, class_weight=None, ignore_index=-100
    ):
        slope = landing(grad)
        loss = run(
            (in_order(logits), convert(target), slope, 0, label_smoothing, in_order(class_weight), ignore_index)
        )  # fmt: skip
        deliver(grad, slope)
        return loss

    return call


@register_jitable
def _widened(labels):
    """Labels of int32 as int64."""
    return labels.astype(np.int64)
