"""The dense layer with its activation, forward and backward."""

from ..check import ABSENT, Array, array, choice, contiguous, dimensions, empty, float_dtype, output
from ..scalar.activation import SAVED
from .entrance import everywhere
from .matmul import operand
from .wings import wing

__all__ = ["linear", "linear_backward"]


@everywhere
def linear(
    x: Array,
    w: Array,
    b: Array | None = None,
    activation: str = "identity",
    out: Array | None = None,
    z: Array | None = None,
) -> Array:
    """A dense layer: act(x @ w + b), the activation applied while the product is still in the cache.

    Parameters
    ----------
    x : (batch, n_in) array
    w : (n_in, n_out) array
        With any strides: the transpose of an (n_out, n_in) weight is not copied.
    b : (n_out,) array, optional
    activation : str
        A name that `activation` lists.
    out : (batch, n_out) array, optional
        Receives the result.
    z : (batch, n_out) array, optional
        Receives the pre-activation x @ w + b, which the backward pass of some activations reads (see `saved_for`).

    Returns
    -------
    (batch, n_out) array

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where shapes do not fit, the activation is unknown, or a result overlaps an input or the other result.
    """
    dtype = float_dtype("linear", "x", x, halves=True)
    choice("linear", "activation", activation, SAVED)
    inputs = (x, w, b)
    x = operand("linear", "x", x, dtype, "x")
    w = operand("linear", "w", w, dtype, "x")
    (batch, n_in), (rows, n_out) = x.shape, w.shape
    if rows != n_in:
        raise ValueError(f"linear: w has shape {w.shape}, expected ({n_in}, n) because x has shape {x.shape}")
    if b is not None:
        b = array("linear", "b", b, dtype, (n_out,), f"w has shape {w.shape}")
    shape, why = (batch, n_out), f"x has shape {x.shape} and w {w.shape}"
    a = output("linear", "out", out, x, shape, why, apart_from=(*inputs, z))
    z_out = ABSENT if z is None else output("linear", "z", z, x, shape, why, apart_from=inputs)
    wing(x, "linear").run(x, w, b, activation, a.array, z_out.array)
    z_out.deliver()
    return a.deliver()


@everywhere
def linear_backward(
    da: Array,
    x: Array,
    w: Array,
    saved: Array | None,
    activation: str = "identity",
    dx: Array | None = None,
    dw: Array | None = None,
    db: Array | None = None,
    need_dx: bool = True,
    accumulate: bool = False,
) -> tuple[Array | None, Array, Array]:
    """Gradients of a dense layer a = act(z), z = x @ w + b, from dL/da.

    dL/dz = dL/da ⊙ act′(z),  dL/dx = dL/dz @ wᵀ,  dL/dw = xᵀ @ dL/dz,  dL/db = Σ_batch dL/dz.

    Each product of the chain rule is computed once; the derivative product and the sum over the batch are one pass.

    Parameters
    ----------
    da : (batch, n_out) array
        dL/da.
    x : (batch, n_in) array
    w : (n_in, n_out) array
    saved : (batch, n_out) array or None
        The output or the pre-activation, as ``saved_for(activation)`` says. The identity reads nothing.
    activation : str
    dx, dw, db : arrays, optional
        Receive the results, of the shapes of x, w and (n_out,).
    need_dx : bool
        False leaves dx out: the first layer of a network has no use for it.
    accumulate : bool
        Add to `dw` and `db`, which must then be given; dx is overwritten.

    Returns
    -------
    (dx, dw, db)
        dx is None where `need_dx` is False.

    Raises
    ------
    TypeError, ValueError
        As `linear`.
    """
    op = "linear_backward"
    dtype = float_dtype(op, "da", da, halves=True)
    choice(op, "activation", activation, SAVED)
    dimensions(op, "da", da, 2)
    inputs, (batch, n_out) = (da, x, w, saved), da.shape
    x = operand(op, "x", x, dtype, "da")
    w = operand(op, "w", w, dtype, "da")
    rows, n_in = x.shape
    if rows != batch:
        raise ValueError(
            f"{op}: x has shape {x.shape}, expected ({batch}, n) because da has shape {da.shape}"
        )
    if w.shape != (n_in, n_out):
        raise ValueError(
            f"{op}: w has shape {w.shape}, expected {(n_in, n_out)} because x has shape {x.shape} and da {da.shape}"
        )
    if accumulate and (dw is None or db is None):
        raise ValueError(
            f"{op}: accumulate is set but {'dw' if dw is None else 'db'} is not given, expected an array"
        )
    da = contiguous(da)
    if activation == "identity":
        saved, dz = None, da
    elif saved is None:
        raise ValueError(f"{op}: saved is None, expected the {SAVED[activation]} of {activation}")
    else:
        saved = array(op, "saved", saved, dtype, da.shape, "it must match da")
        dz = empty(da, da.shape)
    why = "of the inputs' shapes"
    dx_out = output(op, "dx", dx, da, x.shape, why, apart_from=(*inputs, dw, db)) if need_dx else ABSENT
    dw_out = output(op, "dw", dw, da, w.shape, why, apart_from=(*inputs, db))
    db_out = output(op, "db", db, da, (n_out,), why, apart_from=inputs)
    if accumulate:
        dw_out.fill()
        db_out.fill()
    wing(dz, "activation").backward(da, saved, activation, dz, db_out.array, accumulate)
    product = wing(dz, "matmul")
    product.matmul(x.T, dz, dw_out.array, accumulate)
    if need_dx:
        product.matmul(dz, w.T, dx_out.array)
    return dx_out.deliver(), dw_out.deliver(), db_out.deliver()
