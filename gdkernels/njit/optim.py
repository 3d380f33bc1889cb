"""The optimizer steps inside ``@njit``: of arrays, or of tuples of arrays, such as all parameters of a network.

An implementation lands each array that is changed, and delivers it, where it may have strides; see `arrays`.
"""

from numba import types

from ..ops import optim as ops
from .arrays import deliver, in_order, landing
from .call import Call, Calls, Refused, inside


def step_of(name, **kinds):
    """(a function that runs the step, whether it is for tuples)."""
    if isinstance(kinds["p"], types.List | types.ListType):
        raise Refused(f"{name}: p is of type {kinds['p']}, expected an array or a tuple of arrays")
    several = isinstance(kinds["p"], types.BaseTuple)
    return (Calls if several else Call)(name, **kinds).run, several


@inside(ops.sgd_step)
def sgd_step(p, g, velocity, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    run, several = step_of(
        "sgd_step",
        p=p,
        g=g,
        velocity=velocity,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )

    def call(p, g, velocity, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        to_p, to_velocity = landing(p), landing(velocity)
        run((to_p, in_order(g), to_velocity, lr, momentum, nesterov, weight_decay))
        deliver(p, to_p)
        deliver(velocity, to_velocity)

    def calls(p, g, velocity, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        run((p, g, velocity, lr, momentum, nesterov, weight_decay))

    return calls if several else call


@inside(ops.rmsprop_step)
def rmsprop_step(p, g, v, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
    run, several = step_of(
        "rmsprop_step", p=p, g=g, v=v, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay
    )

    def call(p, g, v, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
        to_p, to_v = landing(p), landing(v)
        run((to_p, in_order(g), to_v, lr, alpha, eps, weight_decay))
        deliver(p, to_p)
        deliver(v, to_v)

    def calls(p, g, v, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
        run((p, g, v, lr, alpha, eps, weight_decay))

    return calls if several else call


@inside(ops.adagrad_step)
def adagrad_step(p, g, v, lr, eps=1e-10, weight_decay=0.0):
    run, several = step_of("adagrad_step", p=p, g=g, v=v, lr=lr, eps=eps, weight_decay=weight_decay)

    def call(p, g, v, lr, eps=1e-10, weight_decay=0.0):
        to_p, to_v = landing(p), landing(v)
        run((to_p, in_order(g), to_v, lr, eps, weight_decay))
        deliver(p, to_p)
        deliver(v, to_v)

    def calls(p, g, v, lr, eps=1e-10, weight_decay=0.0):
        run((p, g, v, lr, eps, weight_decay))

    return calls if several else call


@inside(ops.adam_step)
def adam_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    run, several = step_of(
        "adam_step",
        p=p,
        g=g,
        m=m,
        v=v,
        step=step,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
    )

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        to_p, to_m, to_v = landing(p), landing(m), landing(v)
        run((to_p, in_order(g), to_m, to_v, step, lr, beta1, beta2, eps, weight_decay))
        deliver(p, to_p)
        deliver(m, to_m)
        deliver(v, to_v)

    def calls(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        run((p, g, m, v, step, lr, beta1, beta2, eps, weight_decay))

    return calls if several else call


@inside(ops.adamw_step)
def adamw_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    run, several = step_of(
        "adamw_step",
        p=p,
        g=g,
        m=m,
        v=v,
        step=step,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
    )

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        to_p, to_m, to_v = landing(p), landing(m), landing(v)
        run((to_p, in_order(g), to_m, to_v, step, lr, beta1, beta2, eps, weight_decay))
        deliver(p, to_p)
        deliver(m, to_m)
        deliver(v, to_v)

    def calls(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        run((p, g, m, v, step, lr, beta1, beta2, eps, weight_decay))

    return calls if several else call


@inside(ops.amsgrad_step)
def amsgrad_step(p, g, m, v, vmax, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    run, several = step_of(
        "amsgrad_step",
        p=p,
        g=g,
        m=m,
        v=v,
        vmax=vmax,
        step=step,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
    )

    def call(p, g, m, v, vmax, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        to_p, to_m, to_v, to_vmax = landing(p), landing(m), landing(v), landing(vmax)
        run((to_p, in_order(g), to_m, to_v, to_vmax, step, lr, beta1, beta2, eps, weight_decay))
        deliver(p, to_p)
        deliver(m, to_m)
        deliver(v, to_v)
        deliver(vmax, to_vmax)

    def calls(p, g, m, v, vmax, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        run((p, g, m, v, vmax, step, lr, beta1, beta2, eps, weight_decay))

    return calls if several else call


@inside(ops.nadam_step)
def nadam_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, weight_decay=0.0):
    run, several = step_of(
        "nadam_step",
        p=p,
        g=g,
        m=m,
        v=v,
        step=step,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        momentum_decay=momentum_decay,
        weight_decay=weight_decay,
    )

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, weight_decay=0.0):
        to_p, to_m, to_v = landing(p), landing(m), landing(v)
        run((to_p, in_order(g), to_m, to_v, step, lr, beta1, beta2, eps, momentum_decay, weight_decay))
        deliver(p, to_p)
        deliver(m, to_m)
        deliver(v, to_v)

    def calls(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, weight_decay=0.0):
        run((p, g, m, v, step, lr, beta1, beta2, eps, momentum_decay, weight_decay))

    return calls if several else call


@inside(ops.lion_step)
def lion_step(p, g, m, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
    run, several = step_of(
        "lion_step", p=p, g=g, m=m, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay
    )

    def call(p, g, m, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
        to_p, to_m = landing(p), landing(m)
        run((to_p, in_order(g), to_m, lr, beta1, beta2, weight_decay))
        deliver(p, to_p)
        deliver(m, to_m)

    def calls(p, g, m, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
        run((p, g, m, lr, beta1, beta2, weight_decay))

    return calls if several else call
