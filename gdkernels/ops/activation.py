"""The activations, element by element, and the chain rule through them."""

from ..check import ABSENT, Array, array, choice, contiguous, dimensions, float_dtype, output
from ..scalar.activation import SAVED
from .entrance import everywhere
from .wings import wing

__all__ = ["activation", "activation_backward", "saved_for"]

KINDS = tuple(SAVED)


def saved_for(kind: str) -> str:
    """What `activation_backward` reads for this activation.

    Parameters
    ----------
    kind : str

    Returns
    -------
    str
        "output" (a = act(z)) where the slope is a short formula of a, such as tanh's 1 − a²; "preactivation" (z) where
        it is not, as for gelu.

    Raises
    ------
    ValueError
        Where the activation is unknown.
    """
    choice("saved_for", "kind", kind, SAVED)
    return SAVED[kind]


@everywhere
def activation(z: Array, kind: str, out: Array | None = None) -> Array:
    """a = act(z), element by element.

    ========== ======================  ========= =======================================
    identity   z                       gelu      z P(N(0, 1) ≤ z)
    sigmoid    1 / (1 + e^−z)          gelu_tanh z (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2
    tanh       tanh(z)                 silu      z / (1 + e^−z)
    relu       max(z, 0)               softplus  log(1 + e^z)
    leaky_relu z > 0 ? z : 0.01 z      mish      z tanh(softplus(z))
    elu        z > 0 ? z : e^z − 1     selu      z > 0 ? λ z : λ α (e^z − 1), λ = 1.0507, α = 1.6733
    ========== ======================  ========= =======================================

    NaN gives NaN; at −∞ gelu, gelu_tanh, silu and mish give their limit 0.

    Parameters
    ----------
    z : array
        float32 or float64, of any shape.
    kind : str
        One of the names above.
    out : array, optional
        Receives the result, of the shape and dtype of z; may be z itself.

    Returns
    -------
    array of the shape of z
        `out`, or a new array.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where the activation is unknown, the shapes differ, or `out` partly overlaps z.

    Notes
    -----
    The formulas, with their sources, are those of `gdkernels.scalar.activation`; the derivations are in
    `gdkernels.reference.activation`.
    """
    float_dtype("activation", "z", z, halves=True)
    choice("activation", "kind", kind, SAVED)
    inputs = (z,)
    z = contiguous(z)
    a = output("activation", "out", out, z, z.shape, f"z has shape {z.shape}", in_place=inputs)
    wing(z, "activation").forward(z, kind, a.array)
    return a.deliver()


@everywhere
def activation_backward(
    da: Array, saved: Array | None, kind: str, out: Array | None = None, db: Array | None = None
) -> Array:
    """Gradient through an activation, with the gradient of a bias in the same pass.

    dL/dz = dL/da ⊙ act′(z),  db = Σ_batch dL/dz

    Parameters
    ----------
    da : array
        dL/da, float32 or float64, of any shape; (batch, n) where `db` is given.
    saved : array of the shape of da, or None
        The output or the pre-activation, as ``saved_for(kind)`` says. The identity reads nothing.
    kind : str
        One of the names that `activation` lists.
    out : array, optional
        Receives dL/dz, of the shape and dtype of da; may be da or saved itself.
    db : (n,) array, optional
        Receives the sums of the columns of dL/dz.

    Returns
    -------
    array of the shape of da
        dL/dz: `out`, or a new array.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where the activation is unknown, shapes do not fit, `out` partly overlaps an input, or `db` overlaps anything.
    """
    op = "activation_backward"
    dtype = float_dtype(op, "da", da, halves=True)
    choice(op, "kind", kind, SAVED)
    inputs, why = (da, saved), "it must match da"
    da = contiguous(da)
    if saved is not None:
        saved = array(op, "saved", saved, dtype, da.shape, why)
    elif kind != "identity":
        raise ValueError(f"{op}: saved is None, expected the {SAVED[kind]} of {kind}")
    dz = output(op, "out", out, da, da.shape, why, in_place=inputs)
    db_out = ABSENT
    if db is not None:
        dimensions(op, "da", da, 2)
        db_out = output(op, "db", db, da, da.shape[1:], why, apart_from=(*inputs, out))
    wing(da, "activation").backward(da, saved, kind, dz.array, db_out.array)
    db_out.deliver()
    return dz.deliver()
