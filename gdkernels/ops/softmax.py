"""Softmax and its logarithm."""

from ..check import Array, contiguous, float_dtype, output
from .entrance import everywhere
from .wings import wing

__all__ = ["log_softmax", "softmax"]


def _over_rows(op: str, x: Array, out: Array | None) -> Array:
    float_dtype(op, "x", x)
    if x.ndim == 0:
        raise ValueError(f"{op}: x has shape (), expected at least 1 dimension")
    inputs = (x,)
    x = contiguous(x)
    y = output(op, "out", out, x, x.shape, "it must match x", in_place=inputs)
    getattr(wing(x, "softmax"), op)(x, y.array)
    return y.deliver()


@everywhere
def softmax(x: Array, out: Array | None = None) -> Array:
    """p = exp(x) / Σ exp(x) by rows.

    The row's maximum is subtracted first, which cancels in the fraction: nothing overflows. A row with NaN or +∞, or of
    −∞ alone, is NaN.

    Parameters
    ----------
    x : (batch, n) array
        float32 or float64. Of an array with other dimensions, the last axis is taken.
    out : array like x, optional
        Receives the result; may be x itself.

    Returns
    -------
    (batch, n) array
        `out`, or a new array.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where the shapes differ, or `out` partly overlaps x.
    """
    return _over_rows("softmax", x, out)


@everywhere
def log_softmax(x: Array, out: Array | None = None) -> Array:
    """log p = x − max − log Σ exp(x − max) by rows.

    log(softmax(x)) would be −∞ where p is too small for its dtype; this is exact there.

    Parameters
    ----------
    x : (batch, n) array
        float32 or float64. Of an array with other dimensions, the last axis is taken.
    out : array like x, optional
        Receives the result; may be x itself.

    Returns
    -------
    (batch, n) array
        `out`, or a new array.

    Raises
    ------
    TypeError, ValueError
        As `softmax`.
    """
    return _over_rows("log_softmax", x, out)
