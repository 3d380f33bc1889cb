"""The dense layer with its activation, forward and backward."""

from .activation import KINDS, saved_for
from .check import Array, array, deliver, dimensions, empty, float_dtype, known, output
from .matmul import operand
from .wings import everywhere, wing


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
        identity, sigmoid, tanh, relu, leaky_relu, elu, gelu, gelu_tanh, silu, softplus or mish.
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
    known("linear", "activation", activation, KINDS)
    rows = operand("linear", "x", x, dtype, "x")
    weights = operand("linear", "w", w, dtype, "x")
    if weights.shape[0] != rows.shape[1]:
        raise ValueError(
            f"linear: w has shape {w.shape}, expected ({x.shape[1]}, n) because x has shape {x.shape}"
        )
    shape = (rows.shape[0], weights.shape[1])
    bias = b
    if b is not None:
        bias = array("linear", "b", b, dtype, shape[1:], f"w has shape {w.shape}")
    why = f"x has shape {x.shape} and w {w.shape}"
    result = output("linear", "out", out, rows, shape, why, apart_from=(x, w, b, z))
    before = None if z is None else output("linear", "z", z, rows, shape, why, apart_from=(x, w, b))
    wing(rows, "linear").run(rows, weights, bias, activation, result, before)
    if before is not None:
        deliver(before, z)
    return deliver(result, out)


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
    known(op, "activation", activation, KINDS)
    dimensions(op, "da", da, 2)
    batch, n_out = da.shape
    rows = operand(op, "x", x, dtype, "da")
    weights = operand(op, "w", w, dtype, "da")
    n_in = rows.shape[1]
    if rows.shape[0] != batch:
        raise ValueError(
            f"{op}: x has shape {x.shape}, expected ({batch}, n) because da has shape {da.shape}"
        )
    if weights.shape != (n_in, n_out):
        raise ValueError(
            f"{op}: w has shape {w.shape}, expected {(n_in, n_out)} because x has shape {x.shape} and da {da.shape}"
        )
    if accumulate and (dw is None or db is None):
        raise ValueError(
            f"{op}: accumulate is set but {'dw' if dw is None else 'db'} is not given, expected an array"
        )
    gradient = array(op, "da", da, dtype)
    kept = None
    if activation != "identity":
        if saved is None:
            raise ValueError(f"{op}: saved is None, expected the {saved_for(activation)} of {activation}")
        kept = array(op, "saved", saved, dtype, da.shape, f"da has shape {da.shape}")
    inputs = (da, x, w, saved)
    why = "of the inputs' shapes"
    dx_result = None
    if need_dx:
        dx_result = output(op, "dx", dx, gradient, rows.shape, why, apart_from=(*inputs, dw, db))
    dw_result = output(op, "dw", dw, gradient, weights.shape, why, apart_from=(*inputs, db))
    db_result = output(op, "db", db, gradient, (n_out,), why, apart_from=inputs)
    if accumulate:
        for result, given in ((dw_result, dw), (db_result, db)):
            if result is not given:
                result[...] = given
    dz = gradient if kept is None else empty(gradient, gradient.shape)
    wing(dz, "activation").backward(gradient, kept, activation, dz, db_result, accumulate)
    product = wing(dz, "matmul")
    product.matmul(rows.T, dz, dw_result, accumulate)
    if dx_result is not None:
        product.matmul(dz, weights.T, dx_result)
        dx_result = deliver(dx_result, dx)
    return dx_result, deliver(dw_result, dw), deliver(db_result, db)
