"""The losses of elements, each with its gradient: what back-propagation starts from.

Every loss gives (value, grad). `reduction` says what becomes of the terms l_i of elements or rows:

    "mean"   value = Σ l_i / count     grad = dvalue/dinput
    "sum"    value = Σ l_i             grad = dvalue/dinput
    "none"   value = the array of l_i  grad = the gradient of their sum

A mean over nothing (empty batch, all labels ignored) is NaN with gradient zero, as in PyTorch.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .activation import activation
from .precision import Array, f64, ieee
from .rounding import Arithmetic

__all__ = ["binary_cross_entropy", "huber", "log_cosh", "mse"]

Value = float | Array


def same_shape(op: str, name: str, x: Array, target: Array) -> None:
    """Broadcasting (n,) against (n, 1) would compare each element with every other, and train to the mean."""
    if x.shape != target.shape:
        raise ValueError(f"{op}: target has shape {target.shape}, expected {x.shape} like {name}")


def reduced(op: str, terms: Array, grad: Array, reduction: str, count: float) -> tuple[Value, Array]:
    """(value, grad) from the terms and the gradient of their sum."""
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
    same_shape("mse", "pred", pred, target)
    error = pred - target
    return reduced("mse", error**2, 2.0 * error, reduction, error.size)


@ieee
def huber(
    pred: ArrayLike, target: ArrayLike, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Value, Array]:
    """l = e²/2 where |e| <= delta, else delta (|e| - delta/2), with e = pred - target (Huber 1964).

    A parabola continued by its tangents: value and slope agree at |e| = delta. Hence dl/dpred is e held in
    [-delta, delta], so that an outlier pulls with a bounded force. The same shapes as `mse`.
    """
    pred, target = f64(pred), f64(target)
    same_shape("huber", "pred", pred, target)
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}, expected a positive number")
    error = pred - target
    size = np.abs(error)
    terms = np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))
    return reduced("huber", terms, np.clip(error, -delta, delta), reduction, error.size)


@ieee
def log_cosh(pred: ArrayLike, target: ArrayLike, reduction: str = "mean") -> tuple[Value, Array]:
    """l = log cosh(e) with e = pred - target: e²/2 near 0, |e| - log 2 far out (Saleh, Saleh 2022, 2208.04564).

    A smooth Huber loss: dl/dpred = tanh(e), so that an outlier pulls with a force below 1, and all derivatives exist.
    Far out log cosh(e) is |e| + log(1 + exp(-2 |e|)) - log 2, which does not overflow. For small e that would cancel;
    there cosh(e) - 1 = 2 sinh²(e/2) goes into log1p. The same shapes as `mse`.
    """
    pred, target = f64(pred), f64(target)
    same_shape("log_cosh", "pred", pred, target)
    error = pred - target
    size = np.abs(error)
    near = np.log1p(2.0 * np.sinh(np.minimum(size, 1.0) / 2.0) ** 2)
    terms = np.where(size <= 1.0, near, size + np.log1p(np.exp(-2.0 * size)) - np.log(2.0))
    return reduced("log_cosh", terms, np.tanh(error), reduction, error.size)


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
    same_shape("binary_cross_entropy", "logits", z, t)
    e = np.exp(-np.abs(z))
    tail = np.log1p(e)  # softplus(z) = max(z, 0) + tail
    p, not_p = np.where(z < 0, e, 1.0) / (1.0 + e), np.where(z < 0, 1.0, e) / (1.0 + e)
    terms = pos_weight * t * (np.maximum(-z, 0.0) + tail) + (1.0 - t) * (np.maximum(z, 0.0) + tail)
    grad = (1.0 - t) * p - pos_weight * t * not_p
    return reduced("binary_cross_entropy", terms, grad, reduction, z.size)


# ------------------------------------------------------------------------------------------------ roundings


def _mse(pred: Array, target: Array, on: Arithmetic) -> tuple[float, Array, float]:
    """e = pred - target twice and a product; e."""
    return 1.5, 2.0 * np.abs(pred - target), 0.5


def _huber(pred: Array, target: Array, on: Arithmetic, delta: float = 1.0) -> tuple[float, Array, float]:
    """|e| - delta/2, which is at least a third of what its rounded terms add up to; a difference, delta, a product."""
    return 3 * 0.5 + 1.5, np.minimum(np.abs(pred - target), delta), 0.5


def _log_cosh(pred: Array, target: Array, on: Arithmetic) -> tuple[float, Array, float]:
    """With m = expm1(-|e|) and s = 1 + m the term is -log1p(-m² / (1 + s²)), which magnifies by 1.25 at most, for |e| = 1;
    there m stands 2.4 times, and e itself is rounded. Beyond |e| = 1 no rounding is magnified more than there. The slope
    -m (2 + m) / (1 + s²) has m one and a half times, four sums and products, a quotient, and e.
    """
    return (
        3.0 * on.expm1 + 1.25 * on.division + on.log1p + 3.5,
        np.tanh(np.abs(pred - target)),
        1.5 * on.expm1 + on.division + 3.0,
    )


def _binary_cross_entropy(
    logits: Array, target: Array, on: Arithmetic, pos_weight: float = 1.0
) -> tuple[float, Array, float]:
    """w t softplus(-z) + (1 - t) softplus(z): to the softplus come w, two products and a sum, and so for the slope."""
    p, not_p = activation(logits, "sigmoid"), activation(-logits, "sigmoid")
    return (
        on.exp + on.log1p + 2.5,
        (1.0 - target) * p + pos_weight * target * not_p,
        on.exp + on.division + 3.0,
    )


# name: ulps of a term, none of which is negative; what a slope is the sum or difference of; ulps of that
ROUNDINGS: dict[str, Callable[..., tuple[float, Array, float]]] = {
    "mse": _mse,
    "huber": _huber,
    "log_cosh": _log_cosh,
    "binary_cross_entropy": _binary_cross_entropy,
}
