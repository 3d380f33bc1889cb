"""JAX with optax: a jitted step, and a jitted scan over an epoch; parameters and states are donated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..cases import BETA1, BETA2, EPS, LR, Case


class Jax:
    """What both have in common: parameters, a step, and an outcome. `train` goes through batches and gives their losses."""

    def __init__(self, case: Case, threads: int):
        self.case = case
        self.facts = {"devices": str(jax.devices())}
        activation = jax.nn.relu if case.activation == "relu" else jnp.tanh
        params = [(jnp.array(w), jnp.zeros(w.shape[1], jnp.float32)) for w in case.weights()]
        optimizer = optax.adam(LR, BETA1, BETA2, EPS)
        self.carry = (params, optimizer.init(params))

        def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            for w, b in params[:-1]:
                x = activation(x @ w + b)
            w, b = params[-1]
            out = x @ w + b
            if case.loss == "ce":
                return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()
            return ((out - y) ** 2).mean()

        def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
            params, state = carry
            value, gradients = jax.value_and_grad(loss)(params, *batch)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        self.compile(step)
        self.batches = self.arrays(*case.batched())

    def compile(self, step: Any) -> None:
        raise NotImplementedError

    def arrays(self, x: np.ndarray, y: np.ndarray) -> Any:
        """The batches as `train` reads them."""
        raise NotImplementedError

    def train(self, batches: Any) -> Any:
        raise NotImplementedError

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            losses = self.train(self.batches)
        jax.block_until_ready((self.carry, losses))

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        losses = self.train(self.arrays(*self.case.batched(steps)))
        found = {"losses": np.array([float(value) for value in losses])}
        for layer, (w, b) in enumerate(self.carry[0]):
            found |= {f"{layer}.w": np.asarray(w), f"{layer}.b": np.asarray(b)}
        return found


class Jit(Jax):
    """A call of a compiled step for each batch."""

    def compile(self, step: Any) -> None:
        self.step = jax.jit(step, donate_argnums=0)

    def arrays(self, x: np.ndarray, y: np.ndarray) -> Any:
        return [(jnp.array(x), jnp.array(_small(y))) for x, y in zip(x, y, strict=True)]

    def train(self, batches: Any) -> Any:
        losses, carry, step = [], self.carry, self.step
        for batch in batches:
            carry, value = step(carry, batch)
            losses.append(value)
        self.carry = carry
        return losses


class Scan(Jax):
    """A call of a compiled `lax.scan` for an epoch."""

    def compile(self, step: Any) -> None:
        self.epoch = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches), donate_argnums=0)

    def arrays(self, x: np.ndarray, y: np.ndarray) -> Any:
        return jnp.array(x), jnp.array(_small(y))

    def train(self, batches: Any) -> Any:
        self.carry, losses = self.epoch(self.carry, batches)
        return losses


def _small(y: np.ndarray) -> np.ndarray:
    """Labels as int32: JAX has no wider ones."""
    return y.astype(np.int32) if y.dtype.kind == "i" else y


TRAINING = {"jax jit": Jit, "jax scan": Scan}
NJIT = {"jax jit": Jit}
