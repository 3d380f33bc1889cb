"""The optimizers: one step from (p, g, state) to (p, state), where g = dL/dp.

All descend, p <- p - lr * direction; they differ in the direction, and what they remember. The formulas
are PyTorch's. State starts at zero; nothing is changed in place, the new arrays are returned in the order
of the arguments.

    memory        direction    optimizer
    none          g            sgd: steepest descent
    sum of g      v            sgd with momentum: damps zig-zag, keeps going
    size of g     g / √v       adagrad (sum), rmsprop (running mean): one rate for each parameter
    both          m / √v       adam, adamw, amsgrad, nadam
    mean of g     sign(m)      lion: every element moves by lr

Weight decay by weight_decay * p comes in two kinds. L2 adds it to g: the gradient of weight_decay/2 |p|²,
which then goes through the optimizer's memory and division. Decoupled decay (adamw, lion) shrinks p
directly, by the same share for every parameter. For plain sgd they agree; for adam they do not, since L2
would decay least where gradients are large.
"""

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64, ieee

__all__ = [
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "amsgrad_step",
    "lion_step",
    "nadam_step",
    "rmsprop_step",
    "sgd_step",
]

# Of an update that is more than a product and a quotient: its further roundings.
SUMS: dict[str, int] = {"nadam": 1}  # rate_g g + rate_m m


@ieee
def sgd_step(
    p: ArrayLike,
    g: ArrayLike,
    velocity: ArrayLike | None,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[Array, Array | None]:
    """(p, velocity): v <- momentum v + g;  p <- p - lr v, or with Nesterov p <- p - lr (g + momentum v).

    v is a sum of past gradients with weights momentum^age: along a steady direction it grows to g / (1 -
    momentum), across a valley the signs cancel. Nesterov's form already looks one momentum step ahead
    (Sutskever et al. 2013). Without momentum nothing is remembered: velocity may be None and is returned
    as None.
    """
    p, g = f64(p), f64(g)
    g = g + weight_decay * p
    if momentum == 0:
        return p - lr * g, None
    if velocity is None:
        raise ValueError(f"sgd_step: velocity is None, expected an array because momentum is {momentum}")
    v = momentum * f64(velocity) + g
    return p - lr * (g + momentum * v if nesterov else v), v


@ieee
def rmsprop_step(
    p: ArrayLike,
    g: ArrayLike,
    v: ArrayLike,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """(p, v): v <- alpha v + (1 - alpha) g²;  p <- p - lr g / (√v + eps).

    √v is the recent size of this element's gradient, so that the step is about lr whatever the scale of
    the loss (Tieleman and Hinton 2012, lecture 6.5).
    """
    p, g, v = f64(p), f64(g), f64(v)
    g = g + weight_decay * p
    v = alpha * v + (1.0 - alpha) * g**2
    return p - lr * g / (np.sqrt(v) + eps), v


@ieee
def adagrad_step(
    p: ArrayLike, g: ArrayLike, v: ArrayLike, lr: float, eps: float = 1e-10, weight_decay: float = 0.0
) -> tuple[Array, Array]:
    """(p, v): v <- v + g²;  p <- p - lr g / (√v + eps).

    The sum never forgets: steps shrink like 1/√t, slowest where gradients are rare (Duchi et al. 2011).
    """
    p, g, v = f64(p), f64(g), f64(v)
    g = g + weight_decay * p
    v = v + g**2
    return p - lr * g / (np.sqrt(v) + eps), v


@ieee
def adam_step(
    p: ArrayLike,
    g: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """(p, m, v): p <- p - lr m̂ / (√v̂ + eps), running means of g and g² without their bias (Kingma, Ba 2015).

        m <- beta1 m + (1 - beta1) g        m̂ = m / (1 - beta1^step)
        v <- beta2 v + (1 - beta2) g²       v̂ = v / (1 - beta2^step)

    Why the division: m starts at 0, so after t steps its weights (1 - beta1) beta1^age sum to 1 -
    beta1^t, not to 1. Without it the first steps would be wrong by (1 - beta1) / √(1 - beta2), about 3.
    `step` counts from 1. The decay is L2, see the top of this file.
    """
    p, g, m, v = f64(p), f64(g), f64(m), f64(v)
    g = g + weight_decay * p
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g**2
    m_hat, v_hat = m / (1.0 - beta1**step), v / (1.0 - beta2**step)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


@ieee
def adamw_step(
    p: ArrayLike,
    g: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[Array, Array, Array]:
    """(p, m, v): p shrinks by 1 - lr weight_decay, then takes Adam's step (Loshchilov, Hutter 2019)."""
    shrunk = (1.0 - lr * weight_decay) * f64(p)
    return adam_step(shrunk, g, m, v, step, lr, beta1, beta2, eps)


@ieee
def amsgrad_step(
    p: ArrayLike,
    g: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    vmax: ArrayLike,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array, Array]:
    """(p, m, v, vmax): Adam with vmax <- max(vmax, v) in place of v (Reddi et al. 2018, 1904.09237).

    Adam may forget a rare large gradient and then take too large a step; a maximum never forgets. As in
    PyTorch the maximum is over v before the bias is taken out, and its bias is then taken out as that of
    v. The decay is L2.
    """
    p, g, m, v = f64(p), f64(g), f64(m), f64(v)
    g = g + weight_decay * p
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g**2
    vmax = np.maximum(f64(vmax), v)
    m_hat, v_hat = m / (1.0 - beta1**step), vmax / (1.0 - beta2**step)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v, vmax


@ieee
def nadam_step(
    p: ArrayLike,
    g: ArrayLike,
    m: ArrayLike,
    v: ArrayLike,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """(p, m, v): p <- p - lr m̄ / (√v̂ + eps), Adam with Nesterov's look ahead (Dozat 2016).

        m̄ = (1 - mu_t) g / (1 - mu_1 ... mu_t) + mu_t+1 m / (1 - mu_1 ... mu_t+1),  t = step
        mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2)

    Nesterov moves to where the momentum will have carried p: the old momentum that Adam's m̂ has in it is replaced
    by the next step's. mu_t rises from beta1/2 to beta1, so that the first gradients, which know little, are
    trusted less. m and v are Adam's; the bias of m̄ is that of weights mu_t. The decay is L2. As in PyTorch.
    """
    p, g, m, v = f64(p), f64(g), f64(m), f64(v)
    g = g + weight_decay * p
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g**2

    # A factor is below beta1: what is left of the product after `enough` of them is less than a rounding of 1.
    enough = 1 if beta1 == 0 else 1 + int(-40.0 / np.log(beta1))
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (np.arange(1, min(step, enough) + 1) * momentum_decay))
    mu_now, mu_next = (beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
    product = float(mu.prod())
    of_g, of_m = (1.0 - mu_now) / (1.0 - product), mu_next / (1.0 - product * mu_next)
    return p - lr * (of_g * g + of_m * m) / (np.sqrt(v / (1.0 - beta2**step)) + eps), m, v


@ieee
def lion_step(
    p: ArrayLike,
    g: ArrayLike,
    m: ArrayLike,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """(p, m): p <- p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p), m <- beta2 m + (1 - beta2) g.

    Every element moves by exactly lr, so lr is smaller than Adam's. Two betas: the sign listens to the
    new gradient more than the memory does (Chen et al. 2023, 2302.06675, algorithm 2). sign(0) is 0. The
    decay is decoupled.
    """
    p, g, m = f64(p), f64(g), f64(m)
    direction = np.sign(beta1 * m + (1.0 - beta1) * g)
    return p - lr * (direction + weight_decay * p), beta2 * m + (1.0 - beta2) * g
