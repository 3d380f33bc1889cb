"""The losses, each with its gradient in the same pass."""

import numpy as np

from .check import Array, array, contiguous, deliver, dimensions, float_dtype, known, number, output
from .wings import everywhere, wing

REDUCTIONS = ("mean", "sum", "none")
INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
Loss = float | Array


def _of_elements(
    op: str,
    name: str,
    pred: Array,
    target: Array,
    grad: Array | None,
    reduction: str,
    options: tuple[float, ...] = (),
) -> Loss:
    dtype = float_dtype(op, name, pred)
    why = f"it must match {name}"
    given, wanted = array(op, name, pred, dtype), array(op, "target", target, dtype, pred.shape, why)
    known(op, "reduction", reduction, REDUCTIONS)
    slope = None
    if grad is not None:
        slope = output(op, "grad", grad, given, pred.shape, why, apart_from=(pred, target))
    result: Loss = wing(given, "loss").elements(op, given, wanted, slope, reduction, options)
    if slope is not None:
        deliver(slope, grad)
    return result


@everywhere
def mse(pred: Array, target: Array, grad: Array | None = None, reduction: str = "mean") -> Loss:
    """Mean squared error: (1/n) Σ (pred − target)², n = number of elements.

    Parameters
    ----------
    pred, target : arrays
        float32 or float64, of the same shape, whatever it is, and dtype.
    grad : array like pred, optional
        Receives dL/dpred = (2/n) (pred − target).
    reduction : str
        "mean"; "sum", the same without 1/n; "none", the array of the terms (`grad` is then the gradient of their sum).

    Returns
    -------
    float, on the GPU an array of shape (), or an array like pred for "none"
        Terms are in the dtype of pred, their sum in float64. The mean over nothing is NaN.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where the shapes differ (nothing is broadcast), the reduction is unknown, or `grad` overlaps an input.
    """
    return _of_elements("mse", "pred", pred, target, grad, reduction)


@everywhere
def huber(
    pred: Array, target: Array, delta: float = 1.0, grad: Array | None = None, reduction: str = "mean"
) -> Loss:
    """Huber's loss: (1/n) Σ of e²/2 where |e| ≤ delta, else delta (|e| − delta/2), with e = pred − target [1]_.

    Parameters
    ----------
    pred, target : arrays
        float32 or float64, of the same shape and dtype.
    delta : float
        Positive: the error from which on the loss grows linearly, so that outliers pull with a bounded force.
    grad : array like pred, optional
        Receives dL/dpred, e held in [−delta, delta], divided by n.
    reduction : str
        "mean", "sum" or "none", as in `mse`.

    Returns
    -------
    float, on the GPU an array of shape (), or an array like pred for "none"

    Raises
    ------
    TypeError, ValueError
        As `mse`; ValueError also where delta is not positive.

    References
    ----------
    .. [1] P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).
    """
    if not number("huber", "delta", delta) > 0:
        raise ValueError(f"huber: delta is {delta}, expected a positive number")
    return _of_elements("huber", "pred", pred, target, grad, reduction, (float(delta),))


@everywhere
def binary_cross_entropy(
    logits: Array,
    target: Array,
    grad: Array | None = None,
    reduction: str = "mean",
    pos_weight: float = 1.0,
) -> Loss:
    """Cross-entropy of independent yes/no decisions: −(1/n) Σ (w t log p + (1 − t) log(1 − p)), p = sigmoid(logits).

    Computed as w t softplus(−z) + (1 − t) softplus(z), z = logits, which overflows nowhere; dl/dz =
    (1 − t) σ(z) − w t σ(−z), which for w = 1 is p − t. As PyTorch's ``binary_cross_entropy_with_logits``.

    Parameters
    ----------
    logits, target : arrays
        float32 or float64, of the same shape and dtype; targets t in [0, 1].
    grad : array like logits, optional
        Receives dL/dlogits.
    reduction : str
        "mean", "sum" or "none", as in `mse`.
    pos_weight : float
        w, the weight of the positive part.

    Returns
    -------
    float, on the GPU an array of shape (), or an array like logits for "none"

    Raises
    ------
    TypeError, ValueError
        As `mse`.
    """
    op = "binary_cross_entropy"
    weight = number(op, "pos_weight", pos_weight)
    return _of_elements(op, "logits", logits, target, grad, reduction, (weight,))


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
    dl/dlogits_c = p_c Σ_k w_k q_k − w_c q_c, which without weights is p − q. PyTorch's ``cross_entropy``, every
    combination of its options.

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
        Where a shape does not fit, a label is no class (the first such row and its label are named), an option is
        out of range, or `grad` overlaps another argument. Nothing is written then.
    """
    op = "softmax_cross_entropy"
    dtype = float_dtype(op, "logits", logits)
    dimensions(op, "logits", logits, 2)
    batch, classes = logits.shape
    if classes == 0:
        raise ValueError(f"{op}: logits has shape {logits.shape}, expected at least one class")
    known(op, "reduction", reduction, REDUCTIONS)
    if not 0.0 <= number(op, "label_smoothing", label_smoothing) <= 1.0:
        raise ValueError(f"{op}: label_smoothing is {label_smoothing}, expected a number in [0, 1]")
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int | np.integer):
        raise TypeError(f"{op}: ignore_index is {ignore_index!r}, expected an integer")
    weight = None
    if class_weight is not None:
        weight = array(op, "class_weight", class_weight, dtype, (classes,), "it must match logits")
    rows = array(op, "logits", logits, dtype)
    if getattr(target, "dtype", None) in (INT64, INT32):
        if target.shape != (batch,):
            raise ValueError(
                f"{op}: target has shape {target.shape}, expected {(batch,)} because it holds labels"
            )
        goal = contiguous(target) if target.dtype == INT64 else target.astype(INT64, order="C")
    else:
        if hasattr(target, "dtype") and target.dtype != dtype:
            raise TypeError(
                f"{op}: target has dtype {target.dtype}, expected int32 or int64 labels, or {dtype} probabilities"
            )
        goal = array(op, "target", target, dtype, logits.shape, "it holds probabilities")
    slope = None
    if grad is not None:
        others = (logits, target, class_weight)
        slope = output(op, "grad", grad, rows, logits.shape, "it must match logits", apart_from=others)
    result: Loss = wing(rows, "loss").rows(
        op, rows, goal, slope, reduction, float(label_smoothing), weight, int(ignore_index)
    )
    if slope is not None:
        deliver(slope, grad)
    return result
