"""The matrix product, in the three layouts that back-propagation needs."""

from numpy.typing import ArrayLike

from .precision import Array, f64, ieee

__all__ = ["matmul"]


@ieee
def matmul(a: ArrayLike, b: ArrayLike, trans_a: bool = False, trans_b: bool = False) -> Array:
    """op(a) @ op(b), where op transposes when its flag is set.

    c[i, j] = Σ_k op(a)[i, k] op(b)[k, j]

    Forward needs x @ w; the chain rule then needs x.T @ dz (for dw) and dz @ w.T (for dx). The flags
    exist so that no kernel has to copy a transposed matrix first.

    Parameters
    ----------
    a : (m, k) array, or (k, m) with `trans_a`
    b : (k, n) array, or (n, k) with `trans_b`

    Returns
    -------
    (m, n) array; zeros where k is 0, because an empty sum is 0
    """
    op_a = f64(a).T if trans_a else f64(a)
    op_b = f64(b).T if trans_b else f64(b)
    return op_a @ op_b
