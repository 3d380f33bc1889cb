"""The losses of one element, each with its derivative: (l, dl/dprediction).

The pair comes from one function because both need the same difference or exponential.

`ELEMENT_LOSSES` holds what else is to be known of each: kernels, operations, the losses of a trainer and the command line
derive from it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..ranges import LEAST, POSITIVE, UNIT, Option, Range
from . import elementwise
from .elementary import decay, expm1, log1p, log1p_of_fraction

LOG_2 = math.log(2)


@elementwise
def mse(pred, target):
    """l = (pred − target)², dl/dpred = 2 (pred − target)."""
    error = pred - target
    return error * error, error + error


@elementwise
def huber(pred, target, delta):
    """l = e²/2 where |e| ≤ delta, else delta (|e| − delta/2), with e = pred − target; dl/dpred is e held in ±delta.

    P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964).
    """
    half = type(pred)(0.5)
    error = pred - target
    size = abs(error)
    inside = size <= delta
    slope = error if inside else (delta if error > delta else (-delta if error < -delta else error))
    return half * error * error if inside else delta * (size - half * delta), slope


@elementwise
def log_cosh(pred, target):
    """l = log cosh(e), dl/dpred = tanh(e), with e = pred − target: e²/2 near 0, |e| − log 2 far out.

    With m = e^−|e| − 1, which keeps its digits near 0, and s = 1 + m, 1 − 1/cosh(e) = m² / (1 + s²) and tanh|e| =
    −m (2 + m) / (1 + s²); beyond |e| = 1 the logarithm is |e| − log 2 + log1p(s²). Nothing overflows.
    """
    one = type(pred)(1)
    error = pred - target
    size = abs(error)
    m = expm1(-size)
    square = (one + m) * (one + m)
    part = -m / (one + square)
    slope = part * (type(pred)(2) + m)
    near = size <= one
    rest = log1p(m * part if near else square)
    return -rest if near else (size - type(pred)(LOG_2)) + rest, -slope if error < type(pred)(0) else slope


@elementwise
def binary_cross_entropy(logit, target, pos_weight):
    """l = w t softplus(−z) + (1 − t) softplus(z), dl/dz = (1 − t) σ(z) − w t σ(−z), with z = logit, w = pos_weight.

    This is −(w t log p + (1 − t) log(1 − p)) with p = σ(z), but neither p nor its logarithm is formed: softplus(z) =
    max(z, 0) + log1p(e^−|z|) cannot overflow, and no two large terms cancel.
    """
    zero, one = type(logit)(0), type(logit)(1)
    small = decay(logit)  # in [0, 1]
    tail = log1p_of_fraction(small)
    larger = one / (one + small)  # σ(|z|)
    smaller = small * larger  # σ(−|z|)
    positive = pos_weight * target
    negative = one - target
    up = logit >= zero
    loss = positive * ((zero if up else -logit) + tail) + negative * ((logit if up else zero) + tail)
    slope = negative * (larger if up else smaller) - positive * (smaller if up else larger)
    return loss, slope


class Loss(NamedTuple):
    """A loss.

    loss : function of (prediction, target, *options) that gives (l, dl/dprediction)
    prediction : what operations call the first argument: "pred", or "logits" where it is not yet a prediction
    options : by name, in the order of the function's arguments
    targets : the range of the targets; None for any
    """

    loss: Callable[..., Any]
    prediction: str = "pred"
    options: Mapping[str, Option] = {}
    targets: Range | None = None


ELEMENT_LOSSES = {
    "mse": Loss(mse),
    "huber": Loss(huber, options={"delta": Option(1.0, Range(LEAST, math.inf, "a positive number"))}),
    "log_cosh": Loss(log_cosh),
    "binary_cross_entropy": Loss(
        binary_cross_entropy, "logits", {"pos_weight": Option(1.0, POSITIVE)}, targets=UNIT
    ),
}

# The loss of whole rows, a decision among classes: `cross_entropy` in each wing.
SOFTMAX_CROSS_ENTROPY = "softmax_cross_entropy"
