"""Softmax of rows, and its logarithm."""

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64, ieee

__all__ = ["log_softmax", "softmax"]


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
