"""JAX's kernels: each operation as one jitted function, whose results go into the memory of the last ones (donation)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from ..operations import ADAM, ADAM_STEP, DROPOUT, EPS, OPERATIONS, Arrays
from .calls import Calls, keep_memory

FORWARD = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
}


def _slope_of_input(kind: str, da, z):
    return jax.vjp(FORWARD[kind], z)[1](da)[0]


BACKWARD = {
    "relu": lambda da, a: jnp.where(a > 0, da, 0),
    "tanh": lambda da, a: da * (1 - a * a),
    "sigmoid": lambda da, a: da * (a * (1 - a)),
    **{kind: partial(_slope_of_input, kind) for kind in ("gelu", "silu", "softplus", "mish")},
}


def _backward(kind: str, da, saved) -> Arrays:
    dz = BACKWARD[kind](da, saved)
    return {"dz": dz, "db": dz.sum(0)}


def _layernorm(x, gamma, beta) -> Arrays:
    """Also gives what the backward pass needs."""
    mean = x.mean(1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(x - mean).mean(1, keepdims=True) + EPS)
    return {"y": gamma * ((x - mean) * rstd) + beta, "mean": mean, "rstd": rstd}


def _layernorm_backward(dy, x, gamma, stats) -> Arrays:
    mean, rstd = stats[:, :1], stats[:, 1:]
    h, g = (x - mean) * rstd, dy * gamma
    dx = rstd * (g - g.mean(1, keepdims=True) - h * (g * h).mean(1, keepdims=True))
    return {"dx": dx, "dgamma": (dy * h).sum(0), "dbeta": dy.sum(0)}


def _rmsnorm(x, gamma) -> Arrays:
    """Also gives what the backward pass needs."""
    rstd = jax.lax.rsqrt(jnp.square(x).mean(1, keepdims=True) + EPS)
    return {"y": gamma * (x * rstd), "rstd": rstd}


def _rmsnorm_backward(dy, x, gamma, stats) -> Arrays:
    rstd = stats.reshape(-1, 1)
    h, g = x * rstd, dy * gamma
    return {"dx": rstd * (g - h * (g * h).mean(1, keepdims=True)), "dgamma": (dy * h).sum(0)}


def _cross_entropy(logits, target) -> Arrays:
    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    value, grad = jax.value_and_grad(loss)(logits)
    return {"loss": value, "grad": grad}


def _dropout(x, key) -> Arrays:
    kept = jax.random.bernoulli(key, 1 - DROPOUT, x.shape)
    return {"out": jnp.where(kept, x / (1 - DROPOUT), 0)}


FORMULAS: dict[str, Callable[..., Arrays]] = {
    "gemm": lambda a, b: {"out": a @ b},
    **{kind: (lambda z, act=act: {"a": act(z)}) for kind, act in FORWARD.items()},
    **{f"{kind} backward": partial(_backward, kind) for kind in BACKWARD},
    "layernorm": _layernorm,
    "layernorm backward": _layernorm_backward,
    "rmsnorm": _rmsnorm,
    "rmsnorm backward": _rmsnorm_backward,
    "softmax": lambda x: {"p": jax.nn.softmax(x)},
    "cross-entropy": _cross_entropy,
    "dropout": _dropout,
}


def make(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """XLA takes as many threads as the process has cores."""
    keep_memory()
    inputs = OPERATIONS[op].inputs(shape, form)
    operands = {name: jnp.array(array) for name, array in inputs.items()}
    if op == "dropout":
        operands["key"] = jax.random.key(0)  # as a constant, XLA would draw the mask once, when it compiles
    formula = FORMULAS[op]
    into = {
        name: jnp.zeros(each.shape, each.dtype) for name, each in jax.eval_shape(formula, **operands).items()
    }
    # What is donated is not read: it is the memory for the results.
    compiled = jax.jit(lambda into, operands: formula(**operands), donate_argnums=0, keep_unused=True)
    last = {"results": into}

    def call():
        last["results"] = compiled(last["results"], operands)

    return Calls(inputs, call, lambda: last["results"], lambda: jax.block_until_ready(last["results"]))


def adam(shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """optax.adam, jitted, with parameter and state donated."""
    keep_memory()
    inputs = OPERATIONS["adam"].inputs(shape, form)
    p, g, m, v = (jnp.array(inputs[name]) for name in ("p", "g", "m", "v"))
    optimizer = optax.adam(ADAM["lr"], b1=ADAM["beta1"], b2=ADAM["beta2"], eps=ADAM["eps"])
    first, *others = optimizer.init(p)
    state = (first._replace(count=jnp.int32(ADAM_STEP - 1), mu=m, nu=v), *others)

    def step(carry, g):
        p, state = carry
        updates, state = optimizer.update(g, state, p)
        return optax.apply_updates(p, updates), state

    compiled = jax.jit(step, donate_argnums=0)
    last = {"carry": (p, state)}

    def call():
        last["carry"] = compiled(last["carry"], g)

    def results():
        p, (first, *_) = last["carry"]
        return {"p": p, "m": first.mu, "v": first.nu}

    return Calls(inputs, call, results, lambda: jax.block_until_ready(last["carry"]))


KERNELS = {"jax": {op: partial(make, op) for op in FORMULAS} | {"adam": adam}}
