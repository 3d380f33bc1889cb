"""The optimizers: one element of a parameter, its gradient and its state, one step further.

An optimizer is a row of `RULES`: the kernels of both wings derive from it, and what operations, trainers and the command
line check and hand on. A rule has two functions:

    update(p, g, state…, numbers) → (p, state…)    of an element; p alone for a rule without state
    numbers(step, lr, option…) → numbers           of a step: what is the same for all elements, in float64

The gradient that comes into an update is already clipped and carries its L2 decay (`decayed`), or decoupled decay has
already shrunk p (`shrunk`). Running means are ``keep · old + gain · new`` with gain = 1 − keep, both rounded once from
float64: 1 − beta2 computed in float32 would be wrong by 10⁻⁵. The derivations stand in the reference.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..ranges import BELOW_ONE, NOT_NEGATIVE, TRUTH, Option
from . import elementwise
from .elementary import exp, expm1, log

NUMBERS = 7  # that an update may be given


@elementwise
def decayed(g, p, scale, weight_decay):
    """The gradient that the optimizer sees: scale g + weight_decay p. Without decay, an infinite p does no harm."""
    g = scale * g
    return g + weight_decay * p if weight_decay != 0 else g


@elementwise
def shrunk(p, share):
    """p − share p: decoupled decay, share = rate weight_decay. One fused operation wherever p stands."""
    return p - share * p if share != 0 else p


# ---------------------------------------------------------------------------------------------- rules


@elementwise
def descent(p, g, numbers):
    """p − rate g."""
    return p - numbers[0] * g


@elementwise
def descent_numbers(step, lr):
    """(rate)."""
    return lr, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0


@elementwise
def sgd(p, g, velocity, numbers):
    """v = momentum v + g; p − rate v, or with Nesterov p − rate (g + momentum v)."""
    rate, momentum, nesterov = numbers[0], numbers[1], numbers[2]
    velocity = momentum * velocity + g
    return p - rate * (g + momentum * velocity if nesterov != 0 else velocity), velocity


@elementwise
def sgd_numbers(step, lr, momentum, nesterov):
    """(rate, momentum, whether Nesterov)."""
    return lr, momentum, nesterov, 0.0, 0.0, 0.0, 0.0


@elementwise
def rmsprop(p, g, v, numbers):
    """v = keep v + gain g²; p − rate g / (√v + eps). With keep = gain = 1 this is Adagrad."""
    rate, eps, keep, gain = numbers[0], numbers[1], numbers[2], numbers[3]
    v = keep * v + gain * g * g
    return p - rate * g / (math.sqrt(v) + eps), v


@elementwise
def rmsprop_numbers(step, lr, alpha, eps):
    """(rate, eps, keep, gain)."""
    return lr, eps, alpha, 1.0 - alpha, 0.0, 0.0, 0.0


@elementwise
def adagrad_numbers(step, lr, eps):
    """(rate, eps, keep, gain)."""
    return lr, eps, 1.0, 1.0, 0.0, 0.0, 0.0


@elementwise
def adam(p, g, m, v, numbers):
    """m = keep1 m + gain1 g; v = keep2 v + gain2 g²; p − rate m / (√v + eps)."""
    rate, eps, keep1, gain1, keep2, gain2, _ = numbers
    m = keep1 * m + gain1 * g
    v = keep2 * v + gain2 * g * g
    return p - rate * m / (math.sqrt(v) + eps), m, v


@elementwise
def adam_numbers(step, lr, beta1, beta2, eps):
    """(rate, eps, keep1, gain1, keep2, gain2) of a step, counted from 1, with the bias corrections of m and v taken in.

    lr m̂ / (√v̂ + eps) with m̂ = m / (1 − beta1^step) and v̂ = v / r², r = √(1 − beta2^step), is the same as
    (lr r / (1 − beta1^step)) m / (√v + r eps): no division but one is left for the element.
    """
    root = math.sqrt(1.0 - beta2**step)
    return lr * root / (1.0 - beta1**step), root * eps, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 0.0


@elementwise
def amsgrad(p, g, m, v, vmax, numbers):
    """Adam with the largest v so far under the root; a NaN in v goes into vmax."""
    rate, eps, keep1, gain1, keep2, gain2, _ = numbers
    m = keep1 * m + gain1 * g
    v = keep2 * v + gain2 * g * g
    vmax = vmax if vmax >= v else v
    return p - rate * m / (math.sqrt(vmax) + eps), m, v, vmax


@elementwise
def nadam(p, g, m, v, numbers):
    """Adam with m one step ahead: p − (rate_g g + rate_m m) / (√v + eps)."""
    rate_g, rate_m, eps, keep1, gain1, keep2, gain2 = numbers
    m = keep1 * m + gain1 * g
    v = keep2 * v + gain2 * g * g
    return p - (rate_g * g + rate_m * m) / (math.sqrt(v) + eps), m, v


@elementwise
def nadam_numbers(step, lr, beta1, beta2, eps, momentum_decay):
    """(rate_g, rate_m, eps, keep1, gain1, keep2, gain2) of a step, the corrections taken in as in `adam_numbers`.

    mu_t = beta1 (1 − 0.96^(t momentum_decay) / 2) is the momentum of step t, and takes the place of beta1 where the bias of
    m is taken out: rate_g = lr r (1 − mu_t) / (1 − mu_1 … mu_t), rate_m = lr r mu_t+1 / (1 − mu_1 … mu_t+1).
    """
    root = math.sqrt(1.0 - beta2**step)
    now = beta1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    then = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1.0) * momentum_decay))
    product = momentum_product(step, beta1, momentum_decay)
    rate = lr * root
    return (
        rate * (1.0 - now) / (1.0 - product), rate * then / (1.0 - product * then), root * eps,
        beta1, 1.0 - beta1, beta2, 1.0 - beta2,
    )  # fmt: skip


@elementwise
def momentum_product(step, beta1, momentum_decay):
    """mu_1 mu_2 … mu_step of `nadam_numbers`, in a fixed number of operations.

    With q = 0.96^momentum_decay its logarithm is step log beta1 + Σ_k log(1 − q^k / 2), where log(1 − x) = −Σ_j x^j / j;
    the sum over k is geometric: Σ_k q^jk = q^j (1 − q^(j step)) / (1 − q^j).
    """
    total = step * log(beta1)
    if total < -40.0:  # from 1, less than a rounding is taken
        return 0.0
    slope = momentum_decay * log(0.96)
    half = 1.0  # 2^−j
    for j in range(1, 53):
        half = 0.5 * half
        powers = step if slope == 0.0 else exp(j * slope) * expm1(j * step * slope) / expm1(j * slope)
        total -= half * powers / j
    return exp(total)


@elementwise
def lion(p, g, m, numbers):
    """p − rate sign(keep1 m + gain1 g); m = keep2 m + gain2 g. The sign of 0 is 0, of NaN NaN."""
    rate, keep1, gain1, keep2, gain2 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    move = keep1 * m + gain1 * g
    if move > 0:
        move = rate
    elif move < 0:
        move = -rate
    return p - move, keep2 * m + gain2 * g


@elementwise
def lion_numbers(step, lr, beta1, beta2):
    """(rate, keep1, gain1, keep2, gain2)."""
    return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 0.0, 0.0


# ---------------------------------------------------------------------------------------------- the table


class Rule(NamedTuple):
    """An optimizer.

    Attributes
    ----------
    update, numbers : see the module
    states : what is remembered of each element, in the order of `update`; all begin at zero
    options : by name, with default and range, in the order of `numbers`
    lr : the usual rate
    weight_decay : the usual decay; it is L2, or `decoupled`
    """

    update: Callable[..., Any]
    numbers: Callable[..., tuple[float, ...]]
    states: tuple[str, ...]
    options: Mapping[str, Option]
    lr: float = 1e-3
    weight_decay: float = 0.0
    decoupled: bool = False


def _betas(beta1: float, beta2: float) -> dict[str, Option]:
    """The weights of the past in two running means."""
    return {"beta1": Option(beta1, BELOW_ONE), "beta2": Option(beta2, BELOW_ONE)}


_MOMENTUM = {"momentum": Option(0.0, BELOW_ONE), "nesterov": Option(False, TRUTH)}
_ADAM = {**_betas(0.9, 0.999), "eps": Option(1e-8, NOT_NEGATIVE)}

PLAIN = "descent"  # sgd where it has no momentum and needs no memory

RULES: dict[str, Rule] = {
    PLAIN: Rule(descent, descent_numbers, (), {}),
    "sgd": Rule(sgd, sgd_numbers, ("velocity",), _MOMENTUM),
    "rmsprop": Rule(
        rmsprop,
        rmsprop_numbers,
        ("v",),
        {"alpha": Option(0.99, BELOW_ONE), "eps": Option(1e-8, NOT_NEGATIVE)},
        lr=1e-2,
    ),
    "adagrad": Rule(rmsprop, adagrad_numbers, ("v",), {"eps": Option(1e-10, NOT_NEGATIVE)}, lr=1e-2),
    "adam": Rule(adam, adam_numbers, ("m", "v"), _ADAM),
    "adamw": Rule(adam, adam_numbers, ("m", "v"), _ADAM, weight_decay=0.01, decoupled=True),
    "amsgrad": Rule(amsgrad, adam_numbers, ("m", "v", "vmax"), _ADAM),
    "nadam": Rule(
        nadam, nadam_numbers, ("m", "v"), {**_ADAM, "momentum_decay": Option(4e-3, NOT_NEGATIVE)}, lr=2e-3
    ),
    "lion": Rule(lion, lion_numbers, ("m",), _betas(0.9, 0.99), lr=1e-4, decoupled=True),
}

OPTIMIZERS = tuple(name for name in RULES if name != PLAIN)


def row_of(rule: Rule) -> Callable[..., tuple[float, ...]]:
    """``row(step, lr, weight_decay, options)``: what the kernels of a rule are given for a step, counted from 1.

    First the decay, weight_decay or, where it is decoupled, its product with the rate; then the numbers.
    """
    numbers, is_decoupled = rule.numbers, rule.decoupled

    def row(step, lr, weight_decay, options):
        return (lr * weight_decay if is_decoupled else weight_decay, *numbers(step, lr, *options))

    return row


ROWS = {name: row_of(rule) for name, rule in RULES.items()}
ROW = 1 + NUMBERS  # numbers of a row
