"""Cross-entropy of one decision among classes, with its gradient."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .loss import Value, reduced, same_shape
from .precision import Array, f64, ieee
from .softmax import log_softmax, softmax

__all__ = ["softmax_cross_entropy"]


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
        same_shape(op, "logits", z, y)
        counted = np.ones(len(z), dtype=np.bool_)
        count = len(z)

    q = (1.0 - label_smoothing) * y + label_smoothing / classes
    weighted = q * w
    contributions = weighted * log_softmax(z)
    if by_index:
        contributions[q == 0] = 0.0  # a class that was not picked adds nothing, even if its logit is -inf
    terms = np.where(counted, -contributions.sum(axis=1), 0.0)
    grad = softmax(z) * weighted.sum(axis=1, keepdims=True) - weighted
    value, grad = reduced(op, terms, grad, reduction, count)
    return value, np.where(counted[:, None], grad, 0.0)
