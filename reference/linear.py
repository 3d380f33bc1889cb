"""The dense layer, a = act(x @ w + b): rows of x are samples."""

from numpy.typing import ArrayLike

from .activation import activation as activate
from .activation import activation_backward
from .matmul import matmul
from .precision import Array, f64, ieee

__all__ = ["linear", "linear_backward"]


@ieee
def linear(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, activation: str = "identity"
) -> tuple[Array, Array]:
    """(a, z) with z = x @ w + b and a = act(z).

    Parameters
    ----------
    x : (batch, fan_in) array
    w : (fan_in, fan_out) array
    b : (fan_out,) array, added to every row; None means zero
    activation : one of `KINDS`

    Returns
    -------
    a : (batch, fan_out) array, what the next layer reads
    z : (batch, fan_out) array, the pre-activation; `linear_backward` reads a or z, see `saved_for`
    """
    z = matmul(x, w)
    if b is not None:
        z = z + f64(b)
    return activate(z, activation), z


@ieee
def linear_backward(
    da: ArrayLike, x: ArrayLike, w: ArrayLike, saved: ArrayLike, activation: str = "identity"
) -> tuple[Array, Array, Array]:
    """(dx, dw, db) from da = dL/da.

    z[i, j] = Σ_k x[i, k] w[k, j] + b[j]. Follow one entry to every place where it enters, and add up:

        dw[k, j] = Σ_i dz[i, j] x[i, k]     dw = x.T @ dz     a weight acts on every sample: sum over samples
        db[j]    = Σ_i dz[i, j]             db = dz.sum(0)    the same, with x replaced by 1
        dx[i, k] = Σ_j dz[i, j] w[k, j]     dx = dz @ w.T     an input acts on every output: sum over outputs

    dz is computed once and used three times; dx is the `da` of the layer below. That is all of
    back-propagation.

    Parameters
    ----------
    da : (batch, fan_out) array
    x : (batch, fan_in) array, the input of the forward pass
    w : (fan_in, fan_out) array
    saved : (batch, fan_out) array, a or z of the forward pass, as `saved_for(activation)` says

    Returns
    -------
    dx : (batch, fan_in), dw : (fan_in, fan_out), db : (fan_out,); sums, not means, over the batch
    """
    dz = activation_backward(da, saved, activation)
    return matmul(dz, w, trans_b=True), matmul(x, dz, trans_a=True), dz.sum(axis=0)
