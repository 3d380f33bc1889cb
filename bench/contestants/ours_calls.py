"""Our array operations as people call them from a loop of their own: the public functions, and nothing below them."""

from collections.abc import Callable
from typing import Any

import numpy as np

import gdkernels as gd
from gdkernels.scalar.loss import ELEMENT_LOSSES

from ..array_operations import DECAY, KINDS, LR, MANY, MAX_NORM, MOMENTUM, STEP
from ..operations import DROPOUT
from .array_calls import Call, Writer, writers

SEED = 1


def matmul(a, b, out):
    return lambda: gd.matmul(a, b), lambda: gd.matmul(a, b, out=out)


def linear(x, w, b, out):
    return lambda: gd.linear(x, w, b, "relu"), lambda: gd.linear(x, w, b, "relu", out=out)


def linear_backward(da, x, w, saved, dx, dw, db):
    return (
        lambda: gd.linear_backward(da, x, w, saved, "relu"),
        lambda: gd.linear_backward(da, x, w, saved, "relu", dx=dx, dw=dw, db=db),
    )


def activation(kind: str) -> Writer:
    return lambda z, out: (lambda: gd.activation(z, kind), lambda: gd.activation(z, kind, out=out))


def activation_backward(kind: str) -> Writer:
    return lambda da, saved, out: (
        lambda: gd.activation_backward(da, saved, kind),
        lambda: gd.activation_backward(da, saved, kind, out=out),
    )


def layernorm(x, gamma, beta, out):
    """With the statistics, which the backward pass reads."""
    stats = np.empty((len(x), 2), x.dtype)

    def allocated():
        kept = np.empty((len(x), 2), x.dtype)
        return gd.layernorm(x, gamma, beta, stats=kept), kept

    return allocated, lambda: gd.layernorm(x, gamma, beta, out=out, stats=stats)


def layernorm_backward(dy, x, gamma, stats, dx, dgamma, dbeta):
    return (
        lambda: gd.layernorm_backward(dy, x, gamma, stats),
        lambda: gd.layernorm_backward(dy, x, gamma, stats, dx=dx, dgamma=dgamma, dbeta=dbeta),
    )


def rmsnorm(x, gamma, out):
    """With the statistics, which the backward pass reads."""
    stats = np.empty(len(x), x.dtype)

    def allocated():
        kept = np.empty(len(x), x.dtype)
        return gd.rmsnorm(x, gamma, stats=kept), kept

    return allocated, lambda: gd.rmsnorm(x, gamma, out=out, stats=stats)


def rmsnorm_backward(dy, x, gamma, stats, dx, dgamma):
    return (
        lambda: gd.rmsnorm_backward(dy, x, gamma, stats),
        lambda: gd.rmsnorm_backward(dy, x, gamma, stats, dx=dx, dgamma=dgamma),
    )


def scale(x, gamma, out):
    return lambda: gd.scale(x, gamma), lambda: gd.scale(x, gamma, out=out)


def scale_backward(dy, x, gamma, dx, dgamma):
    return (
        lambda: gd.scale_backward(dy, x, gamma),
        lambda: gd.scale_backward(dy, x, gamma, dx=dx, dgamma=dgamma),
    )


def softmax(x, out):
    return lambda: gd.softmax(x), lambda: gd.softmax(x, out=out)


def log_softmax(x, out):
    return lambda: gd.log_softmax(x), lambda: gd.log_softmax(x, out=out)


def element_loss(name: str) -> Writer:
    loss = getattr(gd, name)

    def write(pred, target, grad):
        def allocated():
            new = np.empty_like(pred)
            return loss(pred, target, grad=new), new

        return allocated, lambda: loss(pred, target, grad=grad)

    return write


def softmax_cross_entropy(logits, target, grad):
    def allocated():
        new = np.empty_like(logits)
        return gd.softmax_cross_entropy(logits, target, grad=new), new

    return allocated, lambda: gd.softmax_cross_entropy(logits, target, grad=grad)


def dropout(x, out):
    return lambda: gd.dropout(x, DROPOUT, SEED), lambda: gd.dropout(x, DROPOUT, SEED, out=out)


# Parameters, states and gradients are arrays, or lists of them: the same call.
OPTIMIZERS: dict[str, Callable[..., Call]] = {
    "sgd": lambda p, g, velocity: lambda: gd.sgd_step(p, g, velocity, LR, MOMENTUM),
    "rmsprop": lambda p, g, v: lambda: gd.rmsprop_step(p, g, v, LR),
    "adagrad": lambda p, g, v: lambda: gd.adagrad_step(p, g, v, LR),
    "adam": lambda p, g, m, v: lambda: gd.adam_step(p, g, m, v, STEP, LR),
    "adamw": lambda p, g, m, v: lambda: gd.adamw_step(p, g, m, v, STEP, LR, weight_decay=DECAY),
    "amsgrad": lambda p, g, m, v, vmax: lambda: gd.amsgrad_step(p, g, m, v, vmax, STEP, LR),
    "nadam": lambda p, g, m, v: lambda: gd.nadam_step(p, g, m, v, STEP, LR),
    "lion": lambda p, g, m: lambda: gd.lion_step(p, g, m, LR),
}


def global_norm(g: Any) -> Call:
    return lambda: gd.global_norm(g)


def clip_by_global_norm(g: Any) -> Call:
    return lambda: gd.clip_by_global_norm(MAX_NORM, g)


WRITTEN: dict[str, Writer] = {
    "matmul": matmul,
    "linear": linear,
    "linear_backward": linear_backward,
    **{f"activation {kind}": activation(kind) for kind in KINDS},
    **{f"activation_backward {kind}": activation_backward(kind) for kind in KINDS},
    "layernorm": layernorm,
    "layernorm_backward": layernorm_backward,
    "rmsnorm": rmsnorm,
    "rmsnorm_backward": rmsnorm_backward,
    "scale": scale,
    "scale_backward": scale_backward,
    "softmax": softmax,
    "log_softmax": log_softmax,
    **{name: element_loss(name) for name in ELEMENT_LOSSES},
    "softmax_cross_entropy": softmax_cross_entropy,
    "dropout": dropout,
    **{f"{name}_step": write for name, write in OPTIMIZERS.items()},
    f"adam_step {MANY}": OPTIMIZERS["adam"],
    "global_norm": global_norm,
    f"global_norm {MANY}": global_norm,
    "clip_by_global_norm": clip_by_global_norm,
    f"clip_by_global_norm {MANY}": clip_by_global_norm,
}

CALLS = {"gdkernels": writers(WRITTEN, np.asarray, gd.set_threads)}
