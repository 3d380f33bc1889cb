"""The optimizer steps inside ``@njit``: of arrays, or of tuples of arrays, such as all parameters of a network."""

from numba import types
from numba.extending import register_jitable

from ..cpu import doors
from ..ops import optim as ops
from .call import Call, Calls, inside
from .kinds import Refused


def step_of(name, *kinds):
    """A function that runs a step, of the arguments as one tuple; `kinds` are their types."""
    p = kinds[0]
    if isinstance(p, types.List | types.ListType):
        raise Refused(f"{name}: p is of type {p}, expected an array or a tuple of arrays")
    if p == types.Tuple(()):
        return nothing
    asked = doors.find(name).arguments
    return (Calls if isinstance(p, types.BaseTuple) else Call)(
        name, **dict(zip(asked, kinds, strict=True))
    ).run


@register_jitable
def nothing(arguments):
    """The step of no parameter."""


@inside(ops.sgd_step)
def sgd_step(p, g, velocity, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    run = step_of("sgd_step", p, g, velocity, lr, momentum, nesterov, weight_decay)

    def call(p, g, velocity, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        run((p, g, velocity, lr, momentum, nesterov, weight_decay))

    return call


@inside(ops.rmsprop_step)
def rmsprop_step(p, g, v, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
    run = step_of("rmsprop_step", p, g, v, lr, alpha, eps, weight_decay)

    def call(p, g, v, lr, alpha=0.99, eps=1e-8, weight_decay=0.0):
        run((p, g, v, lr, alpha, eps, weight_decay))

    return call


@inside(ops.adagrad_step)
def adagrad_step(p, g, v, lr, eps=1e-10, weight_decay=0.0):
    run = step_of("adagrad_step", p, g, v, lr, eps, weight_decay)

    def call(p, g, v, lr, eps=1e-10, weight_decay=0.0):
        run((p, g, v, lr, eps, weight_decay))

    return call


@inside(ops.adam_step)
def adam_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    run = step_of("adam_step", p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        run((p, g, m, v, step, lr, beta1, beta2, eps, weight_decay))

    return call


@inside(ops.adamw_step)
def adamw_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    run = step_of("adamw_step", p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        run((p, g, m, v, step, lr, beta1, beta2, eps, weight_decay))

    return call


@inside(ops.amsgrad_step)
def amsgrad_step(p, g, m, v, vmax, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    run = step_of("amsgrad_step", p, g, m, v, vmax, step, lr, beta1, beta2, eps, weight_decay)

    def call(p, g, m, v, vmax, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        run((p, g, m, v, vmax, step, lr, beta1, beta2, eps, weight_decay))

    return call


@inside(ops.nadam_step)
def nadam_step(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, weight_decay=0.0):
    run = step_of("nadam_step", p, g, m, v, step, lr, beta1, beta2, eps, momentum_decay, weight_decay)

    def call(p, g, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, weight_decay=0.0):
        run((p, g, m, v, step, lr, beta1, beta2, eps, momentum_decay, weight_decay))

    return call


@inside(ops.lion_step)
def lion_step(p, g, m, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
    run = step_of("lion_step", p, g, m, lr, beta1, beta2, weight_decay)

    def call(p, g, m, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
        run((p, g, m, lr, beta1, beta2, weight_decay))

    return call
