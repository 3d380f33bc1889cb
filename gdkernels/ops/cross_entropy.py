"""Cross-entropy of one decision among classes, with its gradient in the same pass."""

import numpy as np

from ..check import (
    ABSENT,
    INT64,
    Array,
    array,
    choice,
    contiguous,
    dimensions,
    float_dtype,
    number,
    output,
    whole,
)
from ..ranges import UNIT
from .entrance import everywhere
from .loss import REDUCTIONS, Loss
from .wings import wing

__all__ = ["softmax_cross_entropy"]

INT32 = np.dtype(np.int32)


@everywhere
def softmax_cross_entropy(
    logits: Array,
    target: Array,
    grad: Array | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: Array | None = None,
    ignore_index: int = -100,
) -> Loss:
    """Cross-entropy of one decision among classes: −Σ_c w_c q_c log p_c by rows, p = softmax(logits).

    q = (1 − ε) y + ε / classes, with y the target probabilities, or 1 at the target label and 0 elsewhere;
    dl/dlogits_c = p_c Σ_k w_k q_k − w_c q_c, which without weights is p − q. This is PyTorch's ``cross_entropy``,
    with every combination of its options.

    Parameters
    ----------
    logits : (batch, classes) array
        float32 or float64.
    target : (batch,) array of int32 or int64, or (batch, classes) array like logits
        The label of each row, or the probabilities of its classes.
    grad : (batch, classes) array, optional
        Receives dL/dlogits.
    reduction : str
        "mean" divides the sum over rows by Σ w[target] over the labels that count (their number, without weights), or
        by the batch where the target holds probabilities. "sum" divides by nothing; "none" gives the array of the
        rows' losses, and `grad` the gradient of their sum.
    label_smoothing : float
        ε in [0, 1].
    class_weight : (classes,) array, optional
        w, of the dtype of the logits; ones where missing.
    ignore_index : int
        Rows with this label do not count: loss 0, gradient 0. It need not be a class, and concerns labels only.

    Returns
    -------
    float, on the GPU an array of shape (), or a (batch,) array for "none"
        Rows are in the dtype of the logits, their sum in float64. A mean over nothing (an empty batch, all labels
        ignored) is NaN with gradient 0; where labels count but all weigh 0, both are NaN.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or a dtype does not fit.
    ValueError
        Where a shape does not fit, a label is not a class (the first such row and its label are named), an option is
        out of range, or `grad` overlaps another argument. Nothing is written then.
    """
    op = "softmax_cross_entropy"
    dtype = float_dtype(op, "logits", logits)
    dimensions(op, "logits", logits, 2)
    batch, classes = logits.shape
    if classes == 0:
        raise ValueError(f"{op}: logits has shape {logits.shape}, expected at least one class")
    choice(op, "reduction", reduction, REDUCTIONS)
    label_smoothing = number(op, "label_smoothing", label_smoothing, UNIT)
    ignore_index = whole(op, "ignore_index", ignore_index)
    inputs, why = (logits, target, class_weight), "it must match logits"
    if class_weight is not None:
        class_weight = array(op, "class_weight", class_weight, dtype, (classes,), why)
    logits = contiguous(logits)
    if getattr(target, "dtype", None) in (INT64, INT32):
        if target.shape != (batch,):
            raise ValueError(
                f"{op}: target has shape {target.shape}, expected {(batch,)} because it holds labels"
            )
        target = contiguous(target) if target.dtype == INT64 else target.astype(INT64, order="C")
    else:
        if hasattr(target, "dtype") and target.dtype != dtype:
            raise TypeError(
                f"{op}: target has dtype {target.dtype}, expected int32 or int64 labels, or {dtype} probabilities"
            )
        target = array(op, "target", target, dtype, logits.shape, "it holds probabilities")
    grad_out = ABSENT
    if grad is not None:
        grad_out = output(op, "grad", grad, logits, logits.shape, why, apart_from=inputs)
    loss: Loss = wing(logits, "cross_entropy").rows(
        op, logits, target, grad_out.array, reduction, label_smoothing, class_weight, ignore_index
    )
    grad_out.deliver()
    return loss
