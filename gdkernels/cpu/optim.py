"""Optimizer steps over flat arrays, in place.

One pass over memory does the clipping, the decay, the state and the parameter. What is the same for all elements (bias
corrections, 1 − beta) is computed once a call, in float64. Adam is bound by the root and the division, which leave
room for everything else: estimates refined by Newton steps (vrsqrt14ps, vrcp14ps) were tried in their place and are
slower by 5 to 25 % on Zen 4.

The kernels take the hyper-parameters as the vector that `scalar.hyper` makes.
"""

import numpy as np

from ..scalar import optim as optimizers
from .cost import work
from .runtime.jit import Op, kernel, native
from .runtime.layout import Doubles, Floats
from .runtime.simd import noalias, offset
from .runtime.team import run

QUANTUM = 64  # elements; a range of them is dealt out in multiples of this


# ---------------------------------------------------------------------------------------------- loops


@native("F*, F*, i8, f8*")
def descend(p, g, count, hyper):
    """Gradient descent without memory."""
    noalias()
    real = type(p[0])
    rate, decay, scale = real(hyper[0]), real(hyper[1]), real(hyper[2])
    for i in range(count):
        p[i] -= rate * optimizers.decayed(g[i], p[i], scale, decay)


@native("F*, F*, F*, i8, f8*")
def descend_with_momentum(p, g, velocity, count, hyper):
    noalias()
    real = type(p[0])
    rate, decay, scale = real(hyper[0]), real(hyper[1]), real(hyper[2])
    momentum, nesterov = real(hyper[4]), hyper[5] != 0.0
    for i in range(count):
        gradient = optimizers.decayed(g[i], p[i], scale, decay)
        p[i], velocity[i] = optimizers.sgd(p[i], gradient, velocity[i], rate, momentum, nesterov)


@native("F*, F*, F*, i8, f8*, f8, f8, f8")
def divide_by_size(p, g, v, count, hyper, keep, gain, eps):
    """RMSprop and Adagrad."""
    noalias()
    real = type(p[0])
    rate, decay, scale = real(hyper[0]), real(hyper[1]), real(hyper[2])
    keep_, gain_, eps_ = real(keep), real(gain), real(eps)
    for i in range(count):
        gradient = optimizers.decayed(g[i], p[i], scale, decay)
        p[i], v[i] = optimizers.rmsprop(p[i], gradient, v[i], rate, keep_, gain_, eps_)


@native("F*, F*, F*, F*, i8, f8*, i8")
def adam_elements(p, g, m, v, count, hyper, decoupled):
    """Adam with L2 decay, or AdamW."""
    noalias()
    real = type(p[0])
    rate, eps = optimizers.adam_rates(hyper[3], hyper[0], hyper[4], hyper[5], hyper[6])
    rate_, eps_, scale = real(rate), real(eps), real(hyper[2])
    decay = real(0.0 if decoupled else hyper[1])
    share = real(hyper[0] * hyper[1] if decoupled else 0.0)
    keep1, gain1, keep2, gain2 = real(hyper[4]), real(1.0 - hyper[4]), real(hyper[5]), real(1.0 - hyper[5])
    for i in range(count):
        gradient = optimizers.decayed(g[i], p[i], scale, decay)
        kept = optimizers.shrunk(p[i], share)
        p[i], m[i], v[i] = optimizers.adam(
            kept, gradient, m[i], v[i], rate_, keep1, gain1, keep2, gain2, eps_
        )


@native("F*, F*, F*, F*, F*, i8, f8*")
def amsgrad_elements(p, g, m, v, vmax, count, hyper):
    noalias()
    real = type(p[0])
    rate, eps = optimizers.adam_rates(hyper[3], hyper[0], hyper[4], hyper[5], hyper[6])
    rate_, eps_, decay, scale = real(rate), real(eps), real(hyper[1]), real(hyper[2])
    keep1, gain1, keep2, gain2 = real(hyper[4]), real(1.0 - hyper[4]), real(hyper[5]), real(1.0 - hyper[5])
    for i in range(count):
        gradient = optimizers.decayed(g[i], p[i], scale, decay)
        p[i], m[i], v[i], vmax[i] = optimizers.amsgrad(
            p[i], gradient, m[i], v[i], vmax[i], rate_, keep1, gain1, keep2, gain2, eps_
        )


@native("F*, F*, F*, i8, f8*")
def lion_elements(p, g, m, count, hyper):
    noalias()
    real = type(p[0])
    rate, scale, share = real(hyper[0]), real(hyper[2]), real(hyper[0] * hyper[1])
    keep1, gain1, keep2, gain2 = real(hyper[4]), real(1.0 - hyper[4]), real(hyper[5]), real(1.0 - hyper[5])
    for i in range(count):
        kept = optimizers.shrunk(p[i], share)
        p[i], m[i] = optimizers.lion(kept, scale * g[i], m[i], rate, keep1, gain1, keep2, gain2)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def update_sgd(p: Floats, g: Floats, velocity: Floats, hyper: Doubles, start, stop):
    """(velocity); velocity is not read without momentum."""
    if hyper[4] == 0.0:
        descend(offset(p, start), offset(g, start), stop - start, hyper)
    else:
        descend_with_momentum(
            offset(p, start), offset(g, start), offset(velocity, start), stop - start, hyper
        )


@kernel
def update_rmsprop(p: Floats, g: Floats, v: Floats, hyper: Doubles, start, stop):
    """(v)."""
    alpha = hyper[4]
    divide_by_size(
        offset(p, start),
        offset(g, start),
        offset(v, start),
        stop - start,
        hyper,
        alpha,
        1.0 - alpha,
        hyper[5],
    )


@kernel
def update_adagrad(p: Floats, g: Floats, v: Floats, hyper: Doubles, start, stop):
    """(v)."""
    divide_by_size(
        offset(p, start), offset(g, start), offset(v, start), stop - start, hyper, 1.0, 1.0, hyper[4]
    )


@kernel
def update_adam(p: Floats, g: Floats, m: Floats, v: Floats, hyper: Doubles, start, stop):
    """(m, v)."""
    adam_elements(
        offset(p, start), offset(g, start), offset(m, start), offset(v, start), stop - start, hyper, 0
    )


@kernel
def update_adamw(p: Floats, g: Floats, m: Floats, v: Floats, hyper: Doubles, start, stop):
    """(m, v)."""
    adam_elements(
        offset(p, start), offset(g, start), offset(m, start), offset(v, start), stop - start, hyper, 1
    )


@kernel
def update_amsgrad(p: Floats, g: Floats, m: Floats, v: Floats, vmax: Floats, hyper: Doubles, start, stop):
    """(m, v, vmax)."""
    amsgrad_elements(
        offset(p, start),
        offset(g, start),
        offset(m, start),
        offset(v, start),
        offset(vmax, start),
        stop - start,
        hyper,
    )


@kernel
def update_lion(p: Floats, g: Floats, m: Floats, hyper: Doubles, start, stop):
    """(m)."""
    lion_elements(offset(p, start), offset(g, start), offset(m, start), stop - start, hyper)


UPDATE = {
    "sgd": update_sgd,
    "rmsprop": update_rmsprop,
    "adagrad": update_adagrad,
    "adam": update_adam,
    "adamw": update_adamw,
    "amsgrad": update_amsgrad,
    "lion": update_lion,
}

# ---------------------------------------------------------------------------------------------- ops


def step_op(name: str, arrays: tuple, hyper: np.ndarray) -> Op:
    """One step of an optimizer on p, g and its states: C-contiguous arrays of the same size."""
    kernel, p = UPDATE[name], arrays[0]
    operands = dict(zip(kernel.words, (*arrays, None), strict=False))  # without momentum there is no velocity
    operands["hyper"] = hyper
    return kernel.op(p.dtype, p.size, quantum=QUANTUM, work=work("update", p), **operands)


def step(name: str, arrays: tuple, hyper: np.ndarray) -> None:
    """See `step_op`."""
    run(step_op(name, arrays, hyper))
