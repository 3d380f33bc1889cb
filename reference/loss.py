"""The losses, each with its gradient: what back-propagation starts from.

Every loss gives (value, grad). `reduction` says what becomes of the terms l_i of elements or rows:

    "mean"   value = Σ l_i / count     grad = dvalue/dinput
    "sum"    value = Σ l_i             grad = dvalue/dinput
    "none"   value = the array of l_i  grad = the gradient of their sum

A mean over nothing (empty batch, all labels ignored) is NaN with gradient zero, as in PyTorch.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .precision import Array, f64, ieee

Value = float | Array


def _same_shape(op: str, name: str, x: Array, target: Array) -> None:
    """Broadcasting (n,) against (n, 1) would compare each element with every other, and train to the mean."""
    if x.shape != target.shape:
        raise ValueError(f"{op}: target has shape {target.shape}, expected {x.shape} like {name}")


def _reduced(op: str, terms: Array, grad: Array, reduction: str, count: float) -> tuple[Value, Array]:
    if reduction == "none":
        return terms, grad
    if reduction == "sum":
        return float(terms.sum()), grad
    if reduction == "mean":
        n = count or np.nan
        return float(terms.sum() / n), grad / n
    raise ValueError(f"{op}: reduction is {reduction!r}, expected 'mean', 'sum' or 'none'")


@ieee
def mse(pred: ArrayLike, target: ArrayLike, reduction: str = "mean") -> tuple[Value, Array]:
    """l = (pred - target)², dl/dpred = 2 (pred - target). The mean is over all elements, not over rows.

    Least squares: -log of a normal density around pred, up to constants. pred and target have the same shape.
    """
    pred, target = f64(pred), f64(target)
    _same_shape("mse", "pred", pred, target)
    error = pred - target
    return _reduced("mse", error**2, 2.0 * error, reduction, error.size)


@ieee
def huber(
    pred: ArrayLike, target: ArrayLike, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Value, Array]:
    """l = e²/2 where |e| <= delta, else delta (|e| - delta/2), with e = pred - target (Huber 1964).

    A parabola continued by its tangents: value and slope agree at |e| = delta. Hence dl/dpred is e held in
    [-delta, delta], so that an outlier pulls with a bounded force. The same shapes as `mse`.
    """
    pred, target = f64(pred), f64(target)
    _same_shape("huber", "pred", pred, target)
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}, expected a positive number")
    error = pred - target
    size = np.abs(error)
    terms = np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))
    return _reduced("huber", terms, np.clip(error, -delta, delta), reduction, error.size)


@ieee
def binary_cross_entropy(
    logits: ArrayLike, target: ArrayLike, reduction: str = "mean", pos_weight: float = 1.0
) -> tuple[Value, Array]:
    """l = -(w t log p + (1 - t) log(1 - p)) with p = sigmoid(logits), t = target in [0, 1], w = pos_weight.

    -log sigmoid(z) = log(1 + exp(-z)) = softplus(-z), and 1 - sigmoid(z) = sigmoid(-z), so that neither p
    nor its logarithm is ever formed:

        l     = w t softplus(-z) + (1 - t) softplus(z)
        dl/dz = (1 - t) sigmoid(z) - w t sigmoid(-z)        since softplus' = sigmoid;  for w = 1 it is p - t

    Written with log(p) the loss would be inf from z = -746 on, and its gradient NaN. logits and target
    have the same shape; w > 1 counts positives more, to the gain of recall.
    """
    z, t = f64(logits), f64(target)
    _same_shape("binary_cross_entropy", "logits", z, t)
    e = np.exp(-np.abs(z))
    tail = np.log1p(e)  # softplus(z) = max(z, 0) + tail
    p, not_p = np.where(z < 0, e, 1.0) / (1.0 + e), np.where(z < 0, 1.0, e) / (1.0 + e)
    terms = pos_weight * t * (np.maximum(-z, 0.0) + tail) + (1.0 - t) * (np.maximum(z, 0.0) + tail)
    grad = (1.0 - t) * p - pos_weight * t * not_p
    return _reduced("binary_cross_entropy", terms, grad, reduction, z.size)


@ieee
def softmax(x: ArrayLike) -> Array:
    """p = exp(x) / Σ exp(x), over the last axis.

    A constant added to a row cancels in the fraction. Subtracting the row's maximum makes every exponent
    <= 0 and one of them 0: no overflow, and a denominator in [1, n].
    """
    x = f64(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p: Array = e / e.sum(axis=-1, keepdims=True)
    return p


@ieee
def log_softmax(x: ArrayLike) -> Array:
    """log p = x - max - log Σ exp(x - max), over the last axis.

    log(softmax(x)) would be -inf wherever p underflows, from 746 below the maximum on; this is exact there.
    """
    x = f64(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_p


def _one_hot(target: NDArray[np.integer], counted: NDArray[np.bool_], shape: tuple[int, ...]) -> Array:
    """Rows of the identity matrix; zero where a row does not count. ValueError for a label out of range."""
    classes = shape[1]
    for row in np.flatnonzero(counted & ((target < 0) | (target >= classes)))[:1]:
        raise ValueError(
            f"softmax_cross_entropy: target[{row}] is {target[row]}, expected a class in [0, {classes})"
        )
    y = np.zeros(shape)
    y[np.flatnonzero(counted), target[counted]] = 1.0
    return y


@ieee
def softmax_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: ArrayLike | None = None,
    ignore_index: int = -100,
) -> tuple[Value, Array]:
    """l = -Σ_c w_c q_c log p_c by rows, p = softmax(logits): PyTorch's cross_entropy, every combination.

        q = (1 - ε) y + ε / classes     y: the target probabilities, or 1 at the target index and 0 elsewhere
        dl/dz_c = p_c Σ_k w_k q_k - w_c q_c          for w = 1: p - q

    Why: log p_k = z_k - log Σ exp z, so d log p_k / dz_c = δ_kc - p_c. Multiply by -w_k q_k and sum over
    k. The division by p that the logarithm brings has cancelled against the softmax: a confidently wrong
    row still has a gradient of size 1, where mean squared error of a softmax would have one near 0.

    Parameters
    ----------
    logits : (batch, classes) array
    target : (batch,) array of integers, the class of each row; or (batch, classes) array of probabilities
    reduction : "mean" divides by Σ w[target] over the rows that count (without weights: their number) for
        index targets, smoothed or not; by batch for probabilities, weighted or not
    label_smoothing : ε in [0, 1]
    class_weight : (classes,) array w; None means ones
    ignore_index : rows with this target are left out: term 0, gradient 0. Index targets only.

    Returns
    -------
    value : float, or (batch,) array for "none"
    grad : (batch, classes) array. Where rows count but their weights sum to 0, mean and gradient are NaN.
    """
    op = "softmax_cross_entropy"
    z, classes = f64(logits), np.shape(logits)[1]
    w = np.ones(classes) if class_weight is None else f64(class_weight)
    if w.shape != (classes,):
        raise ValueError(f"{op}: class_weight has shape {w.shape}, expected ({classes},)")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{op}: label_smoothing is {label_smoothing}, expected a number in [0, 1]")

    label = np.asarray(target)
    by_index = label.ndim == 1
    if by_index:
        if label.shape != z.shape[:1] or not np.issubdtype(label.dtype, np.integer):
            raise ValueError(f"{op}: target is {label.dtype} {label.shape}, expected integers {z.shape[:1]}")
        counted = label != ignore_index
        y = _one_hot(label, counted, z.shape)
        count = float((y * w).sum())
    else:
        y = f64(target)
        _same_shape(op, "logits", z, y)
        counted = np.ones(len(z), dtype=np.bool_)
        count = len(z)

    q = (1.0 - label_smoothing) * y + label_smoothing / classes
    weighted = q * w
    contributions = weighted * log_softmax(z)
    if by_index:
        contributions[q == 0] = 0.0  # a class that was not picked adds nothing, even if its logit is -inf
    terms = np.where(counted, -contributions.sum(axis=1), 0.0)
    grad = softmax(z) * weighted.sum(axis=1, keepdims=True) - weighted
    value, grad = _reduced(op, terms, grad, reduction, count)
    return value, np.where(counted[:, None], grad, 0.0)
