"""The activations: a = act(z), and the chain rule through them, dz = da * act'(z).

Two ways of writing the derivative decide what the forward pass has to keep (`saved_for`). Where act' is a
short formula of the *output* (sigmoid' = a (1 - a)), the output is kept: the next layer needs it anyway,
so it costs no memory. Where it is not, because act cannot be inverted (gelu, silu and mish fall before
they rise) or the inverse costs as much as starting again (softplus), the pre-activation z is kept.

gelu, gelu_tanh, silu and mish are one idea: z times a gate that opens from 0 to 1. So

    act(z)  = z gate(z)
    act'(z) = gate(z) + z gate'(z)                  (product rule)

Every formula is written so that it neither overflows nor cancels: 1 - sigmoid(z) is sigmoid(-z), 1 +
erf(t) is erfc(-t), 1 + tanh(t) is 2 sigmoid(2 t). Hence each activation is good to a few ulp for every z,
infinities included; gelu and gelu_tanh to some z² ulp in their left tail, where the exponent is rounded.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64, ieee
from .rounding import Arithmetic, Roundings

__all__ = ["KINDS", "activation", "activation_backward", "activation_slope", "saved_for"]

LEAKY_SLOPE = 0.01
# λ and α of selu are those with which numbers of mean 0 and variance 1 keep both (Klambauer et al. 2017, 1706.02515).
SELU_SCALE, SELU_TAIL = 1.0507009873554805, 1.7580993408473768  # λ and λ α, α = 1.6732632423543772
GELU_CUBIC = 0.044715

# At |z| = 800 every gate below is exactly 0 or 1 in float64 and every gate' exactly 0 (exp(-x) is 0 from
# x = 746 on). Holding z there changes no result, and spares the infinities a product inf * 0 = NaN.
GATE_BOUND = 800.0

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)); for z < 0 the fraction is expanded by exp(z): exp sees no argument > 0."""
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1.0) / (1.0 + e)


def _softplus(z: Array) -> Array:
    """log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)); its derivative is the sigmoid."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _normal_gate(z: Array) -> tuple[Array, Array]:
    """gelu: P(N(0, 1) <= z) = (1 + erf(z / √2)) / 2, and its density (Hendrycks, Gimpel 2016, 1606.08415)."""
    return 0.5 * _erfc(-z / math.sqrt(2.0)), np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _tanh_gate(z: Array) -> tuple[Array, Array]:
    """gelu_tanh: (1 + tanh u) / 2 = sigmoid(2 u) with u = √(2/π) (z + 0.044715 z³): near the normal gate."""
    two_u = 2.0 * math.sqrt(2.0 / math.pi) * (z + GELU_CUBIC * z**3)
    slope = 2.0 * math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * GELU_CUBIC * z**2)
    return _sigmoid(two_u), _sigmoid(two_u) * _sigmoid(-two_u) * slope


def _sigmoid_gate(z: Array) -> tuple[Array, Array]:
    """silu: sigmoid(z), whose derivative is sigmoid(z) (1 - sigmoid(z))."""
    return _sigmoid(z), _sigmoid(z) * _sigmoid(-z)


def _mish_gate(z: Array) -> tuple[Array, Array]:
    """mish: tanh(s) with s = softplus(z); tanh' = 1 / cosh², ds/dz = sigmoid(z) (Misra 2019, 1908.08681)."""
    s = _softplus(z)
    return np.tanh(s), _sigmoid(z) / np.cosh(s) ** 2


GATES: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "gelu": _normal_gate,
    "gelu_tanh": _tanh_gate,
    "silu": _sigmoid_gate,
    "mish": _mish_gate,
}

_FORWARD: dict[str, Callable[[Array], Array]] = {
    "identity": np.copy,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, LEAKY_SLOPE * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
    "selu": lambda z: np.where(z > 0, SELU_SCALE * z, SELU_TAIL * np.expm1(np.minimum(z, 0.0))),
    "softplus": _softplus,
}

# act' as a formula of the output a. At the kink z = 0 (hence a = 0) any slope between the two sides is a
# subgradient: relu takes 0, leaky_relu takes 0.01, selu λ α, and elu has no kink (its slope there is 1).
# This is PyTorch's choice.
_SLOPE_FROM_OUTPUT: dict[str, Callable[[Array], Array]] = {
    "identity": np.ones_like,
    "sigmoid": lambda a: a * (1.0 - a),
    "tanh": lambda a: (1.0 - a) * (1.0 + a),
    "relu": lambda a: np.where(np.isnan(a), a, a > 0),
    "leaky_relu": lambda a: np.where(np.isnan(a), a, np.where(a > 0, 1.0, LEAKY_SLOPE)),
    "elu": lambda a: np.where(a > 0, 1.0, a + 1.0),
    "selu": lambda a: np.where(a > 0, SELU_SCALE, a + SELU_TAIL),
}

KINDS = (*_SLOPE_FROM_OUTPUT, "gelu", "gelu_tanh", "silu", "softplus", "mish")


# What rounding does to these formulas.
ROUNDINGS: dict[str, Callable[[Arithmetic], Roundings]] = {
    "identity": lambda on: Roundings(0.0, 0.0, 1.0),
    "sigmoid": lambda on: Roundings(on.exp + 0.5 + on.division, 0.5 + 0.5 + 0.5, 0.25),
    "tanh": lambda on: Roundings(on.tanh, 0.5 + 0.5 + 0.5 + 0.5, 1.0),  # (1 - a) (1 + a) da
    "relu": lambda on: Roundings(0.0, 0.0, 1.0),
    "leaky_relu": lambda on: Roundings(0.5 + 0.5, 0.5 + 0.5, 1.0),  # the constant 0.01, and a product
    "elu": lambda on: Roundings(on.expm1, 0.5 + 0.5, 1.0),
    "selu": lambda on: Roundings(0.5 + on.expm1 + 0.5, 0.5 + 0.5 + 0.5, SELU_TAIL, constant=SELU_TAIL),
    # log(1 + e^-|z|) is wrong by at most what e^-|z| is wrong by.
    "softplus": lambda on: Roundings(on.exp + on.log1p + 0.5, on.exp + 0.5 + on.division + 0.5, 1.0),
}

# With e = exp(-|z|) and part = 1 / (1 + e) the gates of silu and gelu_tanh are (1 or e) part, and gate' = e part²;
# neither changes by more than e does. For z < 0 the gate of mish is n / (n + 2) with n = e (e + 2), and gate' =
# 4 e (1 + e) / (n + 2)²; for z > 0 it is likewise (1 + 2 e) / (1 + 2 e + 2 e²), and gate' has another factor e. The
# slope 2u' of gelu_tanh is a product of a constant and a sum, whose second term has three roundings more.
GATE_ROUNDINGS: dict[str, Callable[[Arithmetic], Roundings]] = {
    "gelu": lambda on: Roundings(on.normal_cdf, on.normal_pdf, 1.13),
    "gelu_tanh": lambda on: Roundings(
        on.exp + 0.5 + on.division, on.exp + 2 * (0.5 + on.division) + 1.0 + 2.0, 1.13
    ),
    "silu": lambda on: Roundings(on.exp + 0.5 + on.division, on.exp + 2 * (0.5 + on.division) + 1.0, 1.1),
    "mish": lambda on: Roundings(
        on.exp + 1.5 + on.division, 2 * on.exp + 1.5 + 2 * (1.5 + on.division) + 1.0, 1.1
    ),
}


def saved_for(kind: str) -> str:
    """What the backward pass of this activation reads: "output" (a) or "preactivation" (z)."""
    if kind not in KINDS:
        raise ValueError(f"saved_for: kind is {kind!r}, expected one of {', '.join(KINDS)}")
    return "output" if kind in _SLOPE_FROM_OUTPUT else "preactivation"


@ieee
def activation(z: ArrayLike, kind: str) -> Array:
    """a = act(z), element by element, for an array of any shape.

    identity    z                               gelu        z P(N(0, 1) <= z)
    sigmoid     1 / (1 + exp(-z))               gelu_tanh   z (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2
    tanh        tanh(z)                         silu        z sigmoid(z)
    relu        max(z, 0)                       softplus    log(1 + exp(z))
    leaky_relu  z > 0 ? z : 0.01 z              mish        z tanh(softplus(z))
    elu         z > 0 ? z : exp(z) - 1          selu        z > 0 ? λ z : λ α (exp(z) - 1)

    NaN gives NaN. At z = -inf gelu, gelu_tanh, silu and mish give their limit 0.
    """
    z = f64(z)
    saved_for(kind)  # refuses an unknown kind
    if kind in GATES:
        gate, _ = GATES[kind](np.clip(z, -GATE_BOUND, GATE_BOUND))
        return np.maximum(z, -GATE_BOUND) * gate
    return _FORWARD[kind](z)


@ieee
def activation_slope(saved: ArrayLike, kind: str) -> Array:
    """act'(z), from what `saved_for(kind)` names: the output a or the pre-activation z.

    The reason sigmoid networks of many layers stop learning stands here: sigmoid' = a (1 - a) <= 0.25, so
    that each layer passes back at most a quarter of the gradient; relu passes back all of it, where it
    passes anything.

    NaN gives NaN, except for identity, whose slope is 1 everywhere.
    """
    saved = f64(saved)
    if saved_for(kind) == "output":
        return _SLOPE_FROM_OUTPUT[kind](saved)
    if kind == "softplus":
        return _sigmoid(saved)
    z = np.clip(saved, -GATE_BOUND, GATE_BOUND)
    gate, gate_slope = GATES[kind](z)
    return gate + z * gate_slope


@ieee
def activation_backward(da: ArrayLike, saved: ArrayLike, kind: str) -> Array:
    """dz = dL/dz = da * act'(z): each z reaches the loss only through its own a, so the Jacobian is diagonal.

    Parameters
    ----------
    da : array, dL/da
    saved : array of the same shape, the output a or the pre-activation z, as `saved_for(kind)` says

    Returns
    -------
    dz, of the same shape. The bias gradient, which kernels sum in the same pass, is dz.sum(axis=0).
    """
    return f64(da) * activation_slope(saved, kind)
