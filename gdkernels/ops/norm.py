"""Layer normalisation and RMS normalisation, forward and backward."""

import numpy as np

from .check import Array, array, deliver, dimensions, float_dtype, number, output
from .wings import everywhere, wing

PER_COLUMN = "it has one number for each column of x"
PER_ROW = "it has the statistics of each row of x"
LIKE_X = "it must match x"


def _rows(op: str, x: Array, dtype: "np.dtype[np.generic]") -> Array:
    dimensions(op, "x", x, 2)
    if x.shape[1] == 0:
        raise ValueError(f"{op}: x has shape {x.shape}, expected at least one column")
    return array(op, "x", x, dtype)


def _like(op: str, name: str, value: Array | None, x: Array) -> Array | None:
    return None if value is None else array(op, name, value, x.dtype, x.shape, LIKE_X)


def _check_eps(op: str, eps: float) -> None:
    if not number(op, "eps", eps) >= 0:
        raise ValueError(f"{op}: eps is {eps}, expected a number from 0 on")


@everywhere
def layernorm(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float = 1e-5,
    residual: Array | None = None,
    out: Array | None = None,
    stats: Array | None = None,
) -> Array:
    """y = gamma (x − mean) / √(variance + eps) + beta, mean and variance of each row [1]_.

    The variance is the mean of (x − mean)², taken in a second pass over the row.

    Parameters
    ----------
    x : (batch, n) array
        float32 or float64.
    gamma, beta : (n,) arrays
    eps : float
        Keeps a constant row from dividing by 0.
    residual : (batch, n) array, optional
        Is added first: x + residual is normalised.
    out : (batch, n) array, optional
        Receives the result; may be x or the residual.
    stats : (batch, 2) array, optional
        Receives mean and 1 / √(variance + eps) of each row, which `layernorm_backward` reads.

    Returns
    -------
    (batch, n) array
        `out`, or a new array.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where a shape does not fit, eps is negative, or a result overlaps where it must not.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization, arXiv:1607.06450 (2016).
    """
    op = "layernorm"
    dtype = float_dtype(op, "x", x)
    rows = _rows(op, x, dtype)
    batch, n = rows.shape
    scale = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    shift = array(op, "beta", beta, dtype, (n,), PER_COLUMN)
    added = _like(op, "residual", residual, rows)
    _check_eps(op, eps)
    result = output(op, "out", out, rows, (batch, n), LIKE_X, (gamma, beta), in_place=(x, residual))
    others = (x, gamma, beta, residual, out)
    moments = output(op, "stats", stats, rows, (batch, 2), PER_ROW, apart_from=others)
    wing(rows, "norm").layernorm(rows, added, scale, shift, result, moments, eps)
    deliver(moments, stats)
    return deliver(result, out)


@everywhere
def layernorm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    stats: Array,
    residual: Array | None = None,
    dx: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of `layernorm`, from dL/dy.

    With h = (x − mean) rstd and g = gamma dy:  dx = rstd (g − mean(g) − h mean(g h)),  dgamma = Σ_batch dy h,
    dbeta = Σ_batch dy.

    Parameters
    ----------
    dy : (batch, n) array
        dL/dy.
    x, gamma, residual : as in the forward pass
    stats : (batch, 2) array
        As the forward pass filled it.
    dx : (batch, n) array, optional
        Receives dL/dx; may be dy, x or the residual.
    dgamma, dbeta : (n,) arrays, optional
        Receive dL/dgamma and dL/dbeta.

    Returns
    -------
    (dx, dgamma, dbeta)
        dx is the gradient of the sum x + residual, and so that of either.

    Raises
    ------
    TypeError, ValueError
        As `layernorm`.
    """
    op = "layernorm_backward"
    dtype = float_dtype(op, "x", x)
    rows = _rows(op, x, dtype)
    batch, n = rows.shape
    gradient = array(op, "dy", dy, dtype, (batch, n), LIKE_X)
    scale = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    moments = array(op, "stats", stats, dtype, (batch, 2), PER_ROW)
    added = _like(op, "residual", residual, rows)
    inputs = (dy, x, gamma, stats, residual)
    to_x = output(op, "dx", dx, rows, (batch, n), LIKE_X, (gamma, stats), in_place=(dy, x, residual))
    to_gamma = output(op, "dgamma", dgamma, rows, (n,), PER_COLUMN, apart_from=(*inputs, dx))
    to_beta = output(op, "dbeta", dbeta, rows, (n,), PER_COLUMN, apart_from=(*inputs, dx, dgamma))
    wing(rows, "norm").layernorm_backward(gradient, rows, added, scale, moments, to_x, to_gamma, to_beta)
    return deliver(to_x, dx), deliver(to_gamma, dgamma), deliver(to_beta, dbeta)


@everywhere
def rmsnorm(
    x: Array,
    gamma: Array,
    eps: float = 1e-6,
    residual: Array | None = None,
    out: Array | None = None,
    stats: Array | None = None,
) -> Array:
    """y = gamma x / √(mean(x²) + eps), the mean of each row [1]_.

    Parameters
    ----------
    x : (batch, n) array
        float32 or float64.
    gamma : (n,) array
    eps : float
        Keeps a row of zeros from dividing by 0.
    residual : (batch, n) array, optional
        Is added first: x + residual is normalised.
    out : (batch, n) array, optional
        Receives the result; may be x or the residual.
    stats : (batch,) array, optional
        Receives 1 / √(mean(x²) + eps) of each row, which `rmsnorm_backward` reads.

    Returns
    -------
    (batch, n) array
        `out`, or a new array.

    Raises
    ------
    TypeError, ValueError
        As `layernorm`.

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467 (2019).
    """
    op = "rmsnorm"
    dtype = float_dtype(op, "x", x)
    rows = _rows(op, x, dtype)
    batch, n = rows.shape
    scale = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    added = _like(op, "residual", residual, rows)
    _check_eps(op, eps)
    result = output(op, "out", out, rows, (batch, n), LIKE_X, (gamma,), in_place=(x, residual))
    moments = output(op, "stats", stats, rows, (batch,), PER_ROW, apart_from=(x, gamma, residual, out))
    wing(rows, "norm").rmsnorm(rows, added, scale, result, moments, eps)
    deliver(moments, stats)
    return deliver(result, out)


@everywhere
def rmsnorm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    stats: Array,
    residual: Array | None = None,
    dx: Array | None = None,
    dgamma: Array | None = None,
) -> tuple[Array, Array]:
    """Gradients of `rmsnorm`, from dL/dy.

    With h = x rstd and g = gamma dy:  dx = rstd (g − h mean(g h)),  dgamma = Σ_batch dy h.

    Parameters
    ----------
    dy : (batch, n) array
        dL/dy.
    x, gamma, residual : as in the forward pass
    stats : (batch,) array
        As the forward pass filled it.
    dx : (batch, n) array, optional
        Receives dL/dx; may be dy, x or the residual.
    dgamma : (n,) array, optional
        Receives dL/dgamma.

    Returns
    -------
    (dx, dgamma)
        dx is the gradient of the sum x + residual, and so that of either.

    Raises
    ------
    TypeError, ValueError
        As `layernorm`.
    """
    op = "rmsnorm_backward"
    dtype = float_dtype(op, "x", x)
    rows = _rows(op, x, dtype)
    batch, n = rows.shape
    gradient = array(op, "dy", dy, dtype, (batch, n), LIKE_X)
    scale = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    moments = array(op, "stats", stats, dtype, (batch,), PER_ROW)
    added = _like(op, "residual", residual, rows)
    to_x = output(op, "dx", dx, rows, (batch, n), LIKE_X, (gamma, stats), in_place=(dy, x, residual))
    inputs = (dy, x, gamma, stats, residual, dx)
    to_gamma = output(op, "dgamma", dgamma, rows, (n,), PER_COLUMN, apart_from=inputs)
    wing(rows, "norm").rmsnorm_backward(gradient, rows, added, scale, moments, to_x, to_gamma)
    return deliver(to_x, dx), deliver(to_gamma, dgamma)
