"""The optimizers: one element of a parameter, its gradient and its state, one step further.

The gradient that comes in is already clipped and carries its L2 decay (`decayed`); decoupled decay has already shrunk
p (`shrunk`). Running means are ``keep · old + gain · new`` with gain = 1 − keep, both rounded once from float64: 1 − beta2
computed in float32 would be wrong by 10⁻⁵. The derivations stand in the reference.
"""

import math

from . import elementwise


@elementwise
def decayed(g, p, scale, weight_decay):
    """The gradient that the optimizer sees: scale g + weight_decay p. Without decay, an infinite p does no harm."""
    g = scale * g
    return g + weight_decay * p if weight_decay != 0 else g


@elementwise
def shrunk(p, share):
    """p − share p: decoupled decay, share = rate weight_decay. One fused operation wherever p stands."""
    return p - share * p if share != 0 else p


@elementwise
def sgd(p, g, velocity, rate, momentum, nesterov):
    """(p, velocity): v = momentum v + g; p − rate v, or with Nesterov p − rate (g + momentum v)."""
    velocity = momentum * velocity + g
    return p - rate * (g + momentum * velocity if nesterov else velocity), velocity


@elementwise
def rmsprop(p, g, v, rate, keep, gain, eps):
    """(p, v): v = keep v + gain g²; p − rate g / (√v + eps). With keep = gain = 1 this is Adagrad."""
    v = keep * v + gain * g * g
    return p - rate * g / (math.sqrt(v) + eps), v


@elementwise
def adam_rates(step, lr, beta1, beta2, eps):
    """(rate, eps) of a step, counted from 1, with the bias corrections of m and v taken in.

    lr m̂ / (√v̂ + eps) with m̂ = m / (1 − beta1^step) and v̂ = v / r², r = √(1 − beta2^step), is the same as
    (lr r / (1 − beta1^step)) m / (√v + r eps): no division but one is left for the element. In float64.
    """
    root = math.sqrt(1.0 - beta2**step)
    return lr * root / (1.0 - beta1**step), root * eps


@elementwise
def adam(p, g, m, v, rate, keep1, gain1, keep2, gain2, eps):
    """(p, m, v): m = keep1 m + gain1 g; v = keep2 v + gain2 g²; p − rate m / (√v + eps)."""
    m = keep1 * m + gain1 * g
    v = keep2 * v + gain2 * g * g
    return p - rate * m / (math.sqrt(v) + eps), m, v


@elementwise
def amsgrad(p, g, m, v, vmax, rate, keep1, gain1, keep2, gain2, eps):
    """(p, m, v, vmax): Adam with the largest v so far under the root; a NaN in v goes into vmax."""
    m = keep1 * m + gain1 * g
    v = keep2 * v + gain2 * g * g
    vmax = vmax if vmax >= v else v
    return p - rate * m / (math.sqrt(vmax) + eps), m, v, vmax


@elementwise
def lion(p, g, m, rate, keep1, gain1, keep2, gain2):
    """(p, m): p − rate sign(keep1 m + gain1 g); m = keep2 m + gain2 g. The sign of 0 is 0, of NaN NaN."""
    move = keep1 * m + gain1 * g
    if move > 0:
        move = rate
    elif move < 0:
        move = -rate
    return p - move, keep2 * m + gain2 * g
