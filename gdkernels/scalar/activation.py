"""The activations of one element, a = act(z), each with its derivative.

`ACTIVATIONS` holds what else is to be known of each: kernels, operations, layers and the command line derive from it.

A derivative is a function of what the forward pass keeps for it (`SAVED`): of the output a where act′ is a short
formula of that, else of the pre-activation z. gelu, gelu_tanh, silu and mish are z times a gate that opens from 0 to
1; the derivative of such a product is gate + z gate′.

Exponentials are taken of −|z| only, so that nothing overflows and nothing cancels (1 − σ(z) is σ(−z)). NaN gives NaN.
Choices are written as selections of two computed values: that is what vectorises.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from . import elementwise
from .elementary import decay, expm1, log1p_of_fraction, normal_cdf, normal_pdf, normal_tail
from .elementary import tanh as hyperbolic_tangent

LEAKY_SLOPE = 0.01
SELU_SCALE, SELU_TAIL = 1.0507009873554805, 1.7580993408473768  # λ, and λ α with α = 1.6732632423543772
GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715

# Beyond |z| = 800 every gate is 0 or 1 and every gate′ is 0, also in float64. Holding z there changes no result and
# spares the infinities a product ∞ · 0.
GATE_BOUND = 800.0


@elementwise
def _at_least(z, low):
    return low if z < low else z


@elementwise
def _held(z):
    """z held in [−GATE_BOUND, GATE_BOUND]."""
    bound = type(z)(GATE_BOUND)
    z = bound if z > bound else z
    return -bound if z < -bound else z


@elementwise
def identity(z):
    """z."""
    return z


@elementwise
def identity_grad(a):
    """1."""
    return type(a)(1)


@elementwise
def sigmoid(z):
    """σ(z) = 1 / (1 + e^−z)."""
    one = type(z)(1)
    e = decay(z)
    return (e if z < type(z)(0) else one) / (one + e)


@elementwise
def sigmoid_grad(a):
    """σ′ = a (1 − a)."""
    return a * (type(a)(1) - a)


@elementwise
def tanh(z):
    """tanh(z)."""
    return hyperbolic_tangent(z)


@elementwise
def tanh_grad(a):
    """tanh′ = 1 − a², as a product that keeps its digits where |a| is near 1."""
    one = type(a)(1)
    return (one - a) * (one + a)


@elementwise
def relu(z):
    """max(z, 0)."""
    return _at_least(z, type(z)(0))


@elementwise
def relu_grad(a):
    """1 for a > 0, else 0 (also at the kink)."""
    zero = type(a)(0)
    slope = type(a)(1) if a > zero else a
    return zero if a <= zero else slope


@elementwise
def leaky_relu(z):
    """z for z > 0, else 0.01 z."""
    return z if z > type(z)(0) else type(z)(LEAKY_SLOPE) * z


@elementwise
def leaky_relu_grad(a):
    """1 for a > 0, else 0.01."""
    zero = type(a)(0)
    slope = type(a)(1) if a > zero else a
    return type(a)(LEAKY_SLOPE) if a <= zero else slope


@elementwise
def elu(z):
    """z for z > 0, else e^z − 1."""
    zero = type(z)(0)
    low = expm1(zero if z > zero else z)
    return z if z > zero else low


@elementwise
def elu_grad(a):
    """1 for a > 0, else e^z = a + 1."""
    one = type(a)(1)
    return one if a > type(a)(0) else a + one


@elementwise
def selu(z):
    """λ z for z > 0, else λ α (e^z − 1). Klambauer et al., Self-normalizing neural networks (2017), 1706.02515."""
    zero = type(z)(0)
    low = type(z)(SELU_TAIL) * expm1(zero if z > zero else z)
    return type(z)(SELU_SCALE) * z if z > zero else low


@elementwise
def selu_grad(a):
    """λ for a > 0, else λ α e^z = a + λ α."""
    return type(a)(SELU_SCALE) if a > type(a)(0) else a + type(a)(SELU_TAIL)


@elementwise
def gelu(z):
    """z P(N(0, 1) ≤ z). Hendrycks, Gimpel, Gaussian error linear units (2016), 1606.08415.

    This is max(z, 0) − |z| P(N(0, 1) > |z|), which takes the same formula on both sides of 0.
    """
    return _at_least(z, type(z)(0)) - abs(_held(z)) * normal_tail(z)


@elementwise
def gelu_grad(z):
    """P(N(0, 1) ≤ z) + z times the density at z."""
    z = _held(z)
    return normal_cdf(z) + z * normal_pdf(z)


@elementwise
def gelu_tanh(z):
    """z (1 + tanh u) / 2 = z σ(2u) with u = √(2/π) (z + 0.044715 z³)."""
    u = type(z)(GELU_SCALE) * (z + type(z)(GELU_CUBIC) * z * z * z)
    return _at_least(z, -type(z)(GATE_BOUND)) * sigmoid(u + u)


@elementwise
def gelu_tanh_grad(z):
    """σ(2u) + z σ(2u) σ(−2u) 2u′ with u′ = √(2/π) (1 + 3 · 0.044715 z²)."""
    z = _held(z)
    one, square = type(z)(1), z * z
    u = type(z)(GELU_SCALE) * (z + type(z)(GELU_CUBIC) * square * z)
    slope = type(z)(2 * GELU_SCALE) * (one + type(z)(3 * GELU_CUBIC) * square)
    e = decay(u + u)
    part = one / (one + e)
    gate = (e if z < type(z)(0) else one) * part
    return gate + z * (e * part * part) * slope


@elementwise
def silu(z):
    """z σ(z)."""
    return _at_least(z, -type(z)(GATE_BOUND)) * sigmoid(z)


@elementwise
def silu_grad(z):
    """σ(z) + z σ(z) σ(−z)."""
    z = _held(z)
    one = type(z)(1)
    e = decay(z)
    part = one / (one + e)
    return (e if z < type(z)(0) else one) * part + z * (e * part * part)


@elementwise
def softplus(z):
    """log(1 + e^z) = max(z, 0) + log(1 + e^−|z|)."""
    return _at_least(z, type(z)(0)) + log1p_of_fraction(decay(z))


@elementwise
def softplus_grad(z):
    """σ(z)."""
    return sigmoid(z)


@elementwise
def mish(z):
    """z tanh(softplus(z)). Misra, Mish (2019), 1908.08681.

    With e = e^−|z| the gate is (1 + 2e) / (1 + 2e + 2e²) for z ≥ 0, and e (e + 2) / (e (e + 2) + 2) for z < 0.
    """
    one, two = type(z)(1), type(z)(2)
    e = decay(z)
    negative = z < type(z)(0)
    above = e * (e + two) if negative else one + two * e
    below = above + (two if negative else two * e * e)
    return _at_least(z, -type(z)(GATE_BOUND)) * (above / below)


@elementwise
def mish_grad(z):
    """gate + z gate′, where gate′ = σ(z) / cosh²(softplus(z)) is 4e (1 + e) / below², times e for z ≥ 0; see `mish`."""
    z = _held(z)
    one, two, four = type(z)(1), type(z)(2), type(z)(4)
    e = decay(z)
    negative = z < type(z)(0)
    above = e * (e + two) if negative else one + two * e
    part = one / (above + (two if negative else two * e * e))
    rise = four * e * (one + e) * (one if negative else e)
    return above * part + z * (rise * part * part)


class Activation(NamedTuple):
    """An activation.

    act, slope : functions of one number, act and act′
    saved : what act′ is a function of, "output" (a) or "preactivation" (z)
    init : which initialiser (`scalar.init`) suits the weights in front of it: He's where it lets about half of its input
        through, which the larger variance makes up for, Xavier's otherwise
    """

    act: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    saved: str
    init: str


ACTIVATIONS = {
    "identity": Activation(identity, identity_grad, "output", "xavier_uniform"),
    "sigmoid": Activation(sigmoid, sigmoid_grad, "output", "xavier_uniform"),
    "tanh": Activation(tanh, tanh_grad, "output", "xavier_uniform"),
    "relu": Activation(relu, relu_grad, "output", "he_normal"),
    "leaky_relu": Activation(leaky_relu, leaky_relu_grad, "output", "he_normal"),
    "elu": Activation(elu, elu_grad, "output", "he_normal"),
    "selu": Activation(selu, selu_grad, "output", "xavier_normal"),
    "gelu": Activation(gelu, gelu_grad, "preactivation", "he_normal"),
    "gelu_tanh": Activation(gelu_tanh, gelu_tanh_grad, "preactivation", "he_normal"),
    "silu": Activation(silu, silu_grad, "preactivation", "he_normal"),
    "softplus": Activation(softplus, softplus_grad, "preactivation", "he_normal"),
    "mish": Activation(mish, mish_grad, "preactivation", "he_normal"),
}

SAVED = {kind: row.saved for kind, row in ACTIVATIONS.items()}
