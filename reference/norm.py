"""Layer normalisation and RMS normalisation of rows, optionally of a sum x + residual; the scale of columns.

Both make the size of a row independent of the size of its input, and so the gradient of what follows
independent of how deep in the network it stands. The price is that every element of a row now depends on
all the others, through the mean and the standard deviation; the backward pass has to follow these paths
too.

With n the length of a row and g = gamma * dy the gradient of the normalised row h:

    layer norm   h = (x - mean) rstd    dx = rstd (g - mean(g) - h mean(g h))
    RMS norm     h = x rstd             dx = rstd (g - h mean(g h))

Why: h = (x - m) r. Changing x_i changes h_j (1) directly, by r δ_ij; (2) through the mean, by -r / n,
since dm/dx_i = 1/n; (3) through r = (v + eps)^(-1/2), by (x_j - m) dr/dx_i with dr/dx_i = -r³/2 dv/dx_i =
-r³ (x_i - m) / n, that is by -r h_i h_j / n. (The mean inside the variance adds nothing: Σ (x_j - m) =
0.) Multiply by g_j and sum over j: the three terms above. RMS norm has no mean, hence no second term. In
words: dx is g without its component along the directions (1, …, 1) and h, in which moving x does not
change the output (but for eps).
"""

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64, ieee

__all__ = ["layernorm", "layernorm_backward", "rmsnorm", "rmsnorm_backward", "scale", "scale_backward"]


def _summed(x: ArrayLike, residual: ArrayLike | None) -> Array:
    """What is normalised. Both summands of x + residual have the gradient of the sum."""
    return f64(x) if residual is None else f64(x) + f64(residual)


@ieee
def layernorm(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float = 1e-5, residual: ArrayLike | None = None
) -> tuple[Array, Array]:
    """(y, stats) with y = gamma (x - mean) / √(variance + eps) + beta, by rows (Ba et al. 2016, 1607.06450).

    The variance is the mean of (x - mean)², taken in a second pass: mean(x²) - mean² cancels where the
    mean is large.

    Parameters
    ----------
    x : (batch, n) array
    gamma, beta : (n,) arrays
    eps : keeps a constant row from dividing by 0
    residual : None or (batch, n) array that is added to x first

    Returns
    -------
    y : (batch, n) array
    stats : (batch, 2) array, mean and 1 / √(variance + eps); the backward pass reads them
    """
    total = _summed(x, residual)
    mean = total.mean(axis=1, keepdims=True)
    rstd = 1.0 / np.sqrt(((total - mean) ** 2).mean(axis=1, keepdims=True) + eps)
    y = f64(gamma) * (total - mean) * rstd + f64(beta)
    return y, np.concatenate([mean, rstd], axis=1)


@ieee
def layernorm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike, stats: ArrayLike, residual: ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta); the derivation stands at the top of this file.

    gamma and beta act on every row, so their gradients are sums over rows: dgamma = Σ dy h, dbeta = Σ dy.

    Parameters
    ----------
    dy, x, residual : (batch, n) arrays, x and residual as in the forward pass
    gamma : (n,) array
    stats : (batch, 2) array from the forward pass

    Returns
    -------
    dx : (batch, n) array, the gradient of x, and of the residual where there is one
    dgamma, dbeta : (n,) arrays
    """
    dy = f64(dy)
    mean, rstd = f64(stats)[:, :1], f64(stats)[:, 1:]
    h = (_summed(x, residual) - mean) * rstd
    g = dy * f64(gamma)
    dx = rstd * (g - g.mean(axis=1, keepdims=True) - h * (g * h).mean(axis=1, keepdims=True))
    return dx, (dy * h).sum(axis=0), dy.sum(axis=0)


@ieee
def rmsnorm(
    x: ArrayLike, gamma: ArrayLike, eps: float = 1e-6, residual: ArrayLike | None = None
) -> tuple[Array, Array]:
    """(y, stats) with y = gamma x / √(mean(x²) + eps), by rows (Zhang, Sennrich 2019, 1910.07467).

    Parameters
    ----------
    x : (batch, n) array
    gamma : (n,) array
    eps : keeps a zero row from dividing by 0
    residual : None or (batch, n) array that is added to x first

    Returns
    -------
    y : (batch, n) array
    stats : (batch,) array, 1 / √(mean(x²) + eps)
    """
    total = _summed(x, residual)
    rstd = 1.0 / np.sqrt((total**2).mean(axis=1) + eps)
    return f64(gamma) * total * rstd[:, None], rstd


@ieee
def rmsnorm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike, stats: ArrayLike, residual: ArrayLike | None = None
) -> tuple[Array, Array]:
    """(dx, dgamma); the derivation stands at the top of this file.

    Parameters
    ----------
    dy, x, residual : (batch, n) arrays, x and residual as in the forward pass
    gamma : (n,) array
    stats : (batch,) array from the forward pass

    Returns
    -------
    dx : (batch, n) array, the gradient of x, and of the residual where there is one
    dgamma : (n,) array
    """
    dy = f64(dy)
    rstd = f64(stats)[:, None]
    h = _summed(x, residual) * rstd
    g = dy * f64(gamma)
    dx = rstd * (g - h * (g * h).mean(axis=1, keepdims=True))
    return dx, (dy * h).sum(axis=0)


@ieee
def scale(x: ArrayLike, gamma: ArrayLike) -> Array:
    """y = gamma x: each column times its factor, as a norm does it in the end. x is (batch, n), gamma (n,)."""
    return f64(gamma) * f64(x)


@ieee
def scale_backward(dy: ArrayLike, x: ArrayLike, gamma: ArrayLike) -> tuple[Array, Array]:
    """(dx, dgamma): dx = gamma dy, and dgamma = Σ dy x over the rows, on all of which gamma acts.

    Parameters
    ----------
    dy, x : (batch, n) arrays
    gamma : (n,) array

    Returns
    -------
    dx : (batch, n) array
    dgamma : (n,) array
    """
    dy = f64(dy)
    return f64(gamma) * dy, (dy * f64(x)).sum(axis=0)
