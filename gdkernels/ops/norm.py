"""Layer normalisation, RMS normalisation and the scale of columns, forward and backward."""

from ..check import Array, array, contiguous, dimensions, float_dtype, number, output
from ..ranges import NOT_NEGATIVE
from .entrance import everywhere
from .wings import wing

__all__ = ["layernorm", "layernorm_backward", "rmsnorm", "rmsnorm_backward", "scale", "scale_backward"]

PER_COLUMN = "it has one number for each column of x"
PER_ROW = "it has the statistics of each row of x"
LIKE_X = "it must match x"


def _rows(op: str, x: Array) -> Array:
    dimensions(op, "x", x, 2)
    if x.shape[1] == 0:
        raise ValueError(f"{op}: x has shape {x.shape}, expected at least one column")
    return contiguous(x)


def _like(op: str, name: str, value: Array | None, x: Array) -> Array | None:
    return None if value is None else array(op, name, value, x.dtype, x.shape, LIKE_X)


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
    dtype, inputs, scales = float_dtype(op, "x", x), (x, residual), (gamma, beta)
    x = _rows(op, x)
    batch, n = x.shape
    gamma = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    beta = array(op, "beta", beta, dtype, (n,), PER_COLUMN)
    residual = _like(op, "residual", residual, x)
    eps = number(op, "eps", eps, NOT_NEGATIVE)
    y = output(op, "out", out, x, (batch, n), LIKE_X, scales, inputs)
    stats_out = output(op, "stats", stats, x, (batch, 2), PER_ROW, (*inputs, *scales, out))
    wing(x, "norm").layernorm(x, residual, gamma, beta, y.array, stats_out.array, eps)
    stats_out.deliver()
    return y.deliver()


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
    dtype, inputs, of_rows = float_dtype(op, "x", x), (dy, x, residual), (gamma, stats)
    x = _rows(op, x)
    batch, n = x.shape
    dy = array(op, "dy", dy, dtype, (batch, n), LIKE_X)
    gamma = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    stats = array(op, "stats", stats, dtype, (batch, 2), PER_ROW)
    residual = _like(op, "residual", residual, x)
    dx_out = output(op, "dx", dx, x, (batch, n), LIKE_X, of_rows, inputs)
    others = (*inputs, *of_rows, dx)
    dgamma_out = output(op, "dgamma", dgamma, x, (n,), PER_COLUMN, others)
    dbeta_out = output(op, "dbeta", dbeta, x, (n,), PER_COLUMN, (*others, dgamma))
    wing(x, "norm").layernorm_backward(
        dy, x, residual, gamma, stats, dx_out.array, dgamma_out.array, dbeta_out.array
    )
    return dx_out.deliver(), dgamma_out.deliver(), dbeta_out.deliver()


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
    dtype, inputs, scales = float_dtype(op, "x", x), (x, residual), (gamma,)
    x = _rows(op, x)
    batch, n = x.shape
    gamma = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    residual = _like(op, "residual", residual, x)
    eps = number(op, "eps", eps, NOT_NEGATIVE)
    y = output(op, "out", out, x, (batch, n), LIKE_X, scales, inputs)
    stats_out = output(op, "stats", stats, x, (batch,), PER_ROW, (*inputs, *scales, out))
    wing(x, "norm").rmsnorm(x, residual, gamma, y.array, stats_out.array, eps)
    stats_out.deliver()
    return y.deliver()


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
    dtype, inputs, of_rows = float_dtype(op, "x", x), (dy, x, residual), (gamma, stats)
    x = _rows(op, x)
    batch, n = x.shape
    dy = array(op, "dy", dy, dtype, (batch, n), LIKE_X)
    gamma = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    stats = array(op, "stats", stats, dtype, (batch,), PER_ROW)
    residual = _like(op, "residual", residual, x)
    dx_out = output(op, "dx", dx, x, (batch, n), LIKE_X, of_rows, inputs)
    dgamma_out = output(op, "dgamma", dgamma, x, (n,), PER_COLUMN, (*inputs, *of_rows, dx))
    wing(x, "norm").rmsnorm_backward(dy, x, residual, gamma, stats, dx_out.array, dgamma_out.array)
    return dx_out.deliver(), dgamma_out.deliver()


@everywhere
def scale(x: Array, gamma: Array, out: Array | None = None) -> Array:
    """y = gamma ⊙ x, each column times its factor: what a norm ends with, alone.

    Parameters
    ----------
    x : (batch, n) array
        float32 or float64.
    gamma : (n,) array
    out : (batch, n) array, optional
        Receives the result; may be x.

    Returns
    -------
    (batch, n) array
        `out`, or a new array.

    Raises
    ------
    TypeError, ValueError
        As `layernorm`.
    """
    op = "scale"
    dtype, given = float_dtype(op, "x", x), x
    x = _rows(op, x)
    gamma = array(op, "gamma", gamma, dtype, (x.shape[1],), PER_COLUMN)
    y = output(op, "out", out, x, x.shape, LIKE_X, (gamma,), (given,))
    wing(x, "norm").scale(x, gamma, y.array)
    return y.deliver()


@everywhere
def scale_backward(
    dy: Array, x: Array, gamma: Array, dx: Array | None = None, dgamma: Array | None = None
) -> tuple[Array, Array]:
    """Gradients of `scale`, from dL/dy:  dx = gamma ⊙ dy,  dgamma = Σ_batch dy ⊙ x.

    Parameters
    ----------
    dy : (batch, n) array
        dL/dy.
    x, gamma : as in the forward pass
    dx : (batch, n) array, optional
        Receives dL/dx; may be dy or x.
    dgamma : (n,) array, optional
        Receives dL/dgamma.

    Returns
    -------
    (dx, dgamma)

    Raises
    ------
    TypeError, ValueError
        As `layernorm`.
    """
    op = "scale_backward"
    dtype, inputs = float_dtype(op, "x", x), (dy, x)
    x = _rows(op, x)
    n = x.shape[1]
    dy = array(op, "dy", dy, dtype, x.shape, LIKE_X)
    gamma = array(op, "gamma", gamma, dtype, (n,), PER_COLUMN)
    dx_out = output(op, "dx", dx, x, x.shape, LIKE_X, (gamma,), inputs)
    dgamma_out = output(op, "dgamma", dgamma, x, (n,), PER_COLUMN, (*inputs, gamma, dx))
    wing(x, "norm").scale_backward(dy, x, gamma, dx_out.array, dgamma_out.array)
    return dx_out.deliver(), dgamma_out.deliver()
