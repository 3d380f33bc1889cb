"""How far rounding may take a result from the reference: derived once for every family of operations.

The functions take what the reference's functions of the same names take, and give a `Bound` for each result. `on`
is the arithmetic of what is judged, `additions` how many a term of a long sum goes through; by default the worst.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import loss as losses
from . import optim
from .activation import GATE_BOUND, GATE_ROUNDINGS, GATES, GELU_CUBIC, ROUNDINGS, activation_slope
from .activation import activation as exact_activation
from .clip import clip_by_global_norm as exact_clip
from .clip import global_norm as exact_norm
from .cross_entropy import softmax_cross_entropy as exact_cross_entropy
from .dropout import dropout as exact_dropout
from .norm import layernorm as exact_layernorm
from .norm import rmsnorm as exact_rmsnorm
from .precision import Array, f64, ieee
from .rounding import CPU, Arithmetic, Bound, column_sums, rounded
from .softmax import log_softmax as exact_log_softmax
from .softmax import softmax as exact_softmax

__all__ = [
    "activation",
    "activation_backward",
    "clip_by_global_norm",
    "dropout",
    "global_norm",
    "layernorm",
    "layernorm_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "matmul",
    "rmsnorm",
    "rmsnorm_backward",
    "scale",
    "scale_backward",
    "softmax",
    "softmax_cross_entropy",
    "step",
]

# ------------------------------------------------------------------------------------------------ activations


def _gate(z: Array, kind: str, on: Arithmetic) -> tuple[Array, Array, Bound, Bound]:
    """(gate, |z gate'|, and the bounds of both).

    gelu: for z > 0 the gate is 1 - tail, and only the tail has the error of the normal distribution. The reference
    takes erfc(-z/√2) and exp(-z²/2) of rounded arguments: errors of z² and z²/4. gelu_tanh: both sides round 2u =
    2 √(2/π) (z + 0.044715 z³), z three times and its cube four times more, which changes the gate, a sigmoid of 2u,
    by 1 - gate times as much of itself, and gate' by no more.
    """
    ulps, ulps_of_rise, *_ = GATE_ROUNDINGS[kind](on)
    gate, rise = GATES[kind](z)
    rise = np.abs(z) * rise
    of_gate = rounded(gate, ulps, denormals=2.0)
    of_rise = rounded(rise, ulps_of_rise + 0.5, denormals=4.0 * np.abs(z))  # mish takes four e
    if kind == "gelu":
        tail = np.minimum(gate, 1.0 - gate)
        of_gate = Bound(np.minimum(ulps * gate, ulps * tail + 0.5 * gate), ulps, z * z * tail, 2.0)
        of_rise = replace(of_rise, reference=z * z / 4 * rise)
    if kind == "gelu_tanh":
        cube, scale = GELU_CUBIC * np.abs(z) ** 3, 2 * math.sqrt(2 / math.pi)
        moved = scale * (1.5 * np.abs(z) + 3.5 * cube)
        of_gate += Bound(moved * gate * (1 - gate), 0.0, moved * gate * (1 - gate))
        of_rise += Bound(moved * rise, 0.0, moved * rise, 2 * scale * (np.abs(z) + 3 * cube))
        of_rise += rounded(rise * 3 * cube / np.maximum(np.abs(z) + 3 * cube, 1e-300), 1.5)
    return gate, rise, of_gate, of_rise


@ieee
def activation(z: ArrayLike, kind: str, on: Arithmetic = CPU) -> Bound:
    """As `Roundings` says beside the formula; z times a gate is one rounding more."""
    z = f64(z)
    if kind in ROUNDINGS:
        ulps = ROUNDINGS[kind](on).value
        return rounded(exact_activation(z, kind), ulps, denormals=float(ulps > 0))
    z = np.clip(np.nan_to_num(z), -GATE_BOUND, GATE_BOUND)
    _, _, of_gate, _ = _gate(z, kind, on)
    return of_gate.through(lambda e: np.abs(z) * e) + rounded(exact_activation(z, kind), 0.5, denormals=2.0)


@ieee
def activation_backward(da: ArrayLike, saved: ArrayLike, kind: str, on: Arithmetic = CPU) -> Bound:
    """As `Roundings` says; a gate's product, gate + z gate' and its product by da are a rounding each."""
    da, saved = np.abs(f64(da)), f64(saved)
    if kind in ROUNDINGS:
        by, slope = ROUNDINGS[kind](on), np.abs(activation_slope(saved, kind))
        of_constant = rounded(da * by.constant, 0.5) if by.constant else rounded(0.0 * da, 0.0)
        return of_constant + rounded(da * slope, by.slope, denormals=(1.0 + da) * (by.slope > 0))
    gate, rise, of_gate, of_rise = _gate(np.clip(np.nan_to_num(saved), -GATE_BOUND, GATE_BOUND), kind, on)
    of_slope = of_gate + rounded(gate, 0.5) + of_rise + rounded(gate + rise, 0.5)
    return of_slope.through(lambda e: da * e) + rounded(da * (gate + rise), 0.5, denormals=2.0)


# ------------------------------------------------------------------------------------------------ products


def matmul(a: ArrayLike, b: ArrayLike, *summands: ArrayLike) -> Bound:
    """k products and k - 1 sums, in any order, with or without fused multiply-add: k roundings of |a| @ |b|.

    Each summand that is added to the product is one more.
    """
    a, b = np.abs(f64(a)), np.abs(f64(b))
    return rounded(a @ b + sum(np.abs(f64(s)) for s in summands), (a.shape[1] + len(summands)) / 2)


@ieee
def linear(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, kind: str = "identity", on: Arithmetic = CPU
) -> tuple[Bound, Bound]:
    """(a, z): the activation makes the error of z as many times larger as it is steep, and adds its own."""
    bias = () if b is None else (b,)
    of_z = matmul(x, w, *bias)
    steepest = (ROUNDINGS.get(kind) or GATE_ROUNDINGS[kind])(on).steepest
    z = f64(x) @ f64(w) + sum(map(f64, bias))
    return of_z.through(lambda e: steepest * e) + activation(z, kind, on), of_z


@ieee
def linear_backward(
    da: ArrayLike, x: ArrayLike, w: ArrayLike, saved: ArrayLike, kind: str = "identity", on: Arithmetic = CPU
) -> tuple[Bound, Bound, Bound]:
    """(dx, dw, db): products with dz, and its sum over the batch; all add up the error of dz, too."""
    of_dz = activation_backward(da, saved, kind, on)
    dz = np.abs(f64(da) * activation_slope(saved, kind))
    x, w, one = np.abs(f64(x)), np.abs(f64(w)), np.ones(len(dz))
    return (
        of_dz.through(lambda e: e @ w.T) + matmul(dz, w.T),
        of_dz.through(lambda e: x.T @ e) + matmul(x.T, dz),
        of_dz.through(lambda e: one @ e) + column_sums(dz, 0.0),
    )


# ------------------------------------------------------------------------------------------------ rows


def dropout(x: ArrayLike, p: float, seed: int, offset: int = 0) -> Bound:
    """1 / (1 - p) as a number of the element type, and a product; the quotient itself is rounded in float64."""
    exact = exact_dropout(x, p, seed, offset)
    return replace(rounded(exact, 1.0, denormals=exact != 0), reference=0.5 * np.abs(exact))


def _reach(x: ArrayLike, residual: ArrayLike | None, mean: Array | float) -> Array:
    """|x| + |residual| + |mean|, of which the deviations d = x + residual - mean are made."""
    return np.abs(f64(x)) + (0.0 if residual is None else np.abs(f64(residual))) + np.abs(mean)


def _normalise(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, residual: ArrayLike | None, mean: Array | None, rstd: Array,
    y: Array, on: Arithmetic,
) -> tuple[Bound, Bound, Bound]:  # fmt: skip
    """Of y, mean and rstd; `mean` is None for RMS norm.

    mean: n sums, that with the residual among them, and a division. d = x + residual - mean: its error, and two
    roundings. rstd: half the relative error of the variance, which is Σ d δd / Σ d², by Cauchy and Schwarz at most
    rstd √mean(δd²), and half of d², n sums, a division and the sum with eps; a root and a division. y = gamma d rstd
    + beta: three roundings and the errors of d and rstd.
    """
    n = np.shape(x)[1]
    reach = _reach(x, residual, 0.0 if mean is None else mean)
    of_mean = rounded(reach.mean(axis=1, keepdims=True), 0.0 if mean is None else n / 2 + on.division)
    of_d = rounded(reach, 1.0) + of_mean
    spread = np.sqrt((of_d.error**2).mean(axis=1, keepdims=True)) * rstd
    of_rstd = Bound(spread * rstd, of_d.ulps) + rounded(rstd, n / 4 + 0.5 + 1.5 * on.division + on.root)
    h = np.abs(y - f64(beta))  # |gamma d rstd|
    of_y = of_d.through(lambda e: np.abs(f64(gamma)) * rstd * e) + of_rstd.through(lambda e: h / rstd * e)
    return of_y + rounded(h + np.abs(f64(beta)), 1.5), of_mean, of_rstd


@ieee
def layernorm(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float = 1e-5, residual: ArrayLike | None = None,
    on: Arithmetic = CPU,
) -> tuple[Bound, Bound, Bound]:  # fmt: skip
    """Of y, and of the two columns of stats, mean and rstd; see `_normalise`."""
    y, stats = exact_layernorm(x, gamma, beta, eps, residual)
    return _normalise(x, gamma, beta, residual, stats[:, :1], stats[:, 1:], y, on)


@ieee
def rmsnorm(
    x: ArrayLike, gamma: ArrayLike, eps: float = 1e-6, residual: ArrayLike | None = None, on: Arithmetic = CPU
) -> tuple[Bound, Bound]:
    """Of y, and of stats, rstd; see `_normalise`."""
    y, rstd = exact_rmsnorm(x, gamma, eps, residual)
    of_y, _, of_rstd = _normalise(x, gamma, 0.0, residual, None, rstd[:, None], y, on)
    return of_y, of_rstd.through(lambda e: e[:, 0])


@ieee
def layernorm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike, stats: ArrayLike, residual: ArrayLike | None = None,
    on: Arithmetic = CPU,
) -> tuple[Bound, Bound, Bound]:  # fmt: skip
    """(dx, dgamma, dbeta) from given statistics.

    dx = rstd (g - mean(g) - h mean(g h)) adds up terms of the sizes rstd |g|, rstd mean|g| and rstd H mean|g H|, with
    H = reach rstd >= |h|. The last sees most roundings: one of g, three of h, two products, n sums and a division in
    the mean, two products by rstd, three of d again, a difference and a product. Of dgamma = Σ dy h every term has
    three of h and a product.
    """
    stats = f64(stats)
    mean, rstd = stats[:, :1], stats[:, 1:]
    g, reach = np.abs(f64(dy) * f64(gamma)), _reach(x, residual, mean) * rstd
    terms = g + g.mean(axis=1, keepdims=True) + reach * (g * reach).mean(axis=1, keepdims=True)
    of_dx = rounded(rstd * terms, g.shape[1] / 2 + 5.0 + on.division)
    return of_dx, column_sums(np.abs(f64(dy)) * reach, 2.0), column_sums(dy, 0.0)


@ieee
def rmsnorm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike, stats: ArrayLike, residual: ArrayLike | None = None,
    on: Arithmetic = CPU,
) -> tuple[Bound, Bound]:  # fmt: skip
    """(dx, dgamma) from given statistics: as for the layer norm, with a mean of 0 and without mean(g)."""
    rstd = f64(stats)[:, None]
    g, reach = np.abs(f64(dy) * f64(gamma)), _reach(x, residual, 0.0) * rstd
    terms = g + reach * (g * reach).mean(axis=1, keepdims=True)
    of_dx = rounded(rstd * terms, g.shape[1] / 2 + 5.0 + on.division)
    return of_dx, column_sums(np.abs(f64(dy)) * reach, 2.0)


@ieee
def scale(x: ArrayLike, gamma: ArrayLike, on: Arithmetic = CPU) -> Bound:
    """A product."""
    return rounded(f64(gamma) * f64(x), 0.5)


@ieee
def scale_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike, on: Arithmetic = CPU
) -> tuple[Bound, Bound]:
    """(dx, dgamma): a product, and a sum of products."""
    return rounded(f64(gamma) * f64(dy), 0.5), column_sums(f64(dy) * f64(x), 0.5)


def _below(x: Array) -> Array:
    """How far each number is below the largest of its row."""
    return x.max(axis=-1, keepdims=True) - x


@ieee
def softmax(x: ArrayLike, on: Arithmetic = CPU) -> Bound:
    """x - max is rounded, and so is the exponential's own argument: e^(x - max) changes by |x - max| times itself.

    Two exponentials, of the element and in the sum; n sums of one sign; a division. What the arguments change in
    the sum is Σ p |x - max| <= log n on the average of all, which the four roundings left over leave room for.
    """
    x = f64(x)
    p, ulps = exact_softmax(x), x.shape[-1] / 2 + 2 * on.exp + on.division + 2.0
    error = np.where(p == 0, 0.0, p * (ulps + _below(x)))  # inf * 0 is meant to be 0
    return Bound(error, ulps, denormals=1.0)


@ieee
def log_softmax(x: ArrayLike, on: Arithmetic = CPU) -> Bound:
    """x - max - log Σ: the rounding of x - max, that of the difference, and the logarithm of a sum as of `softmax`."""
    x = f64(x)
    ulps = x.shape[-1] / 2 + on.exp + on.log + 3.0
    return Bound(ulps + _below(x) + np.abs(exact_log_softmax(x)), ulps)


# ------------------------------------------------------------------------------------------------ losses


@ieee
def softmax_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    class_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    additions: float | None = None,
    on: Arithmetic = CPU,
) -> tuple[Bound, Bound]:
    """(value, grad). `additions` are those of rows; 0 if rows are added in float64.

    With a_c = w_c q_c and A = Σ a_c the loss of a row is A log(total) + Σ a_c (max - z_c): no term is negative. Both
    sums have n terms; log(total), at most log n, has the error of one of them and some roundings. The gradient is
    A p_c - a_c, where p_c has the error of a softmax and A that of a sum.
    """
    z, label = f64(logits), np.asarray(target)
    n, w = z.shape[1], 1.0 if class_weight is None else f64(class_weight)
    counted = np.ones(len(z), dtype=np.bool_)
    if label.ndim == 1:
        counted = label != ignore_index
        label = np.eye(n)[np.where(counted, label, 0)]
    a = ((1.0 - label_smoothing) * f64(label) + label_smoothing / n) * w * counted[:, None]
    mass = a.sum(axis=1, keepdims=True)
    size = mass[:, 0] * (1.0 + math.log(n)) + np.where(a == 0, 0.0, a * _below(z)).sum(axis=1)
    of_rows = rounded(size, n + 9.5 + on.division)
    p, ulps = exact_softmax(z), n + 11.0 + 2 * on.division
    of_grad = Bound(mass * np.where(p == 0, 0.0, p * (ulps + _below(z))) + 8.0 * a, ulps)
    if reduction == "none":
        return of_rows, of_grad
    value, grad = exact_cross_entropy(logits, target, reduction, label_smoothing, class_weight, ignore_index)
    count = 1.0
    if reduction == "mean":
        count = float((f64(label) * w)[counted].sum()) if np.ndim(target) == 1 else float(len(z))
    of_sum = (len(z) if additions is None else additions) / 2 + on.division * (reduction == "mean")
    of_value = of_rows.through(lambda e: np.asarray(e.sum() / count)) + rounded(value, of_sum)
    return of_value, of_grad.through(lambda e: e / count) + rounded(grad, of_sum)


@ieee
def _loss(
    name: str,
    pred: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    additions: float | None = None,
    on: Arithmetic = CPU,
    **options: float,
) -> tuple[Bound, Bound]:
    """(value, grad): a sum of terms of one sign; slopes, each times 1 / count."""
    pred, target = f64(pred), f64(target)
    ulps, slope, ulps_of_slope = losses.ROUNDINGS[name](pred, target, on, **options)
    value, _ = getattr(losses, name)(pred, target, reduction=reduction, **options)
    count = pred.size if reduction == "mean" else 1
    scaled = 0.5 + on.division
    if reduction != "none":
        ulps += (pred.size if additions is None else additions) / 2 + on.division
    return (
        rounded(value, ulps, denormals=float(max(pred.size, 8))),
        rounded(slope / (count or 1), ulps_of_slope + scaled, denormals=8.0),
    )


def __getattr__(name: str) -> Any:
    """The bounds of a loss of elements have its name."""
    if name in losses.ROUNDINGS:
        return partial(_loss, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ------------------------------------------------------------------------------------------------ parameters


def global_norm(*arrays: ArrayLike, additions: float | None = None, on: Arithmetic = CPU) -> Bound:
    """Squares and their sum, of which the root takes half."""
    if additions is None:
        additions = sum(np.size(g) for g in arrays)
    return rounded(exact_norm(*arrays), (additions + 1) / 4 + on.root)


def clip_by_global_norm(
    max_norm: float, *arrays: ArrayLike, of_norm: float = 0.0, on: Arithmetic = CPU
) -> list[Bound]:
    """The norm, its sum with 1e-6, the quotient and the products."""
    _, clipped = exact_clip(max_norm, *arrays)
    return [rounded(one, of_norm + 0.5 + on.division + 0.5) for one in clipped]


SQUARES = ("v", "vmax")  # states of optimizers that are means or sums of squares


@ieee
def step(
    name: str,
    p: ArrayLike,
    g: ArrayLike,
    states: Sequence[ArrayLike],
    lr: float,
    count: int = 1,
    **options: Any,
) -> list[Bound]:
    """Of p and of every state after a step of an optimizer ("adam", not "adam_step"), on either arithmetic.

    A sum a + b has the error k/2 (|a| + |b|), k the roundings of its terms: constants, products, the sum itself. So the
    step is taken from the absolute values, where nothing cancels: what p loses there is the size of the update. A mean
    of gradients goes through four roundings, one of squares (v, vmax) through six. Where the update is a quotient with
    such a root below, this halves the error of the squares and the quotient adds those of both sides. Divisions and
    roots are few beside the other roundings, and the numbers leave room for a division of 2 ulp and a root of 1. What
    an update has besides is in `optim.SUMS`.
    """
    exact_step = getattr(optim, f"{name}_step")
    o = {n: one.default for n, one in inspect.signature(exact_step).parameters.items()} | options
    counted = (count,) if "step" in o else ()
    exact = exact_step(p, g, *states, *counted, lr, **options)
    sizes = exact_step(*(np.abs(f64(each)) for each in (p, g, *states)), *counted, lr, **options)
    names = [n for n in o if n not in ("p", "g")][: len(states)]
    p = np.abs(f64(p))
    of_states = [  # sgd without momentum has none
        rounded(np.zeros(p.shape) if size is None else size, 6.0 if state in SQUARES else 4.0)
        for state, size in zip(names, sizes[1:], strict=True)
    ]
    update = p - sizes[0]
    if names[-1] not in SQUARES:
        return [rounded(p + update, 4.0), *of_states]
    small = o["eps"] * math.sqrt(1 - o["beta2"] ** count) if counted else o["eps"]
    under = np.sqrt(exact[-1])
    divisor = under + small
    update = update * (np.sqrt(sizes[-1]) + small) / divisor
    of_divisor = of_states[-1].error / (2 * under) + 2 * divisor
    size = update * (4 + of_divisor / divisor + 3 + optim.SUMS.get(name, 0)) + 2 * (p + update)
    return [Bound(size, 16.0), *of_states]
