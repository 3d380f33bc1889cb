"""The cases: networks and batches that every contestant trains, float32, Adam with lr 1e-3."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # of Adam


@dataclass(frozen=True)
class Case:
    """Layer widths, batch, hidden activation ("relu" or "tanh"), loss ("ce" or "mse"), and batches in the data set."""

    sizes: tuple[int, ...]
    batch: int
    activation: str
    loss: str
    batches: int

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """The case that `dataclasses.asdict` made this of, through JSON."""
        return cls(**told | {"sizes": tuple(told["sizes"])})

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(n_in, n_out) of each layer."""
        return list(pairwise(self.sizes))

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(n_in * n_out + n_out for n_in, n_out in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations in the products of a step."""
        return sum(2 * m * n * k for _, m, n, k in self.products())

    def products(self) -> Iterator[tuple[str, int, int, int]]:
        """(form, m, n, k) of the products of a step: NN forward, TN for dw, NT for dx, the last not of the first layer."""
        for layer, (n_in, n_out) in enumerate(self.layers):
            yield "NN", self.batch, n_out, n_in
            yield "TN", n_in, n_out, self.batch
            if layer:
                yield "NT", self.batch, n_in, n_out

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (batches·batch, n_in) and y: labels, or values (batches·batch, n_out). The same for every contestant."""
        rng = np.random.default_rng(0)
        rows = self.batches * self.batch
        x = rng.standard_normal((rows, self.sizes[0]), dtype=np.float32)
        if self.loss == "ce":
            return x, rng.integers(0, self.sizes[-1], rows)
        return x, rng.standard_normal((rows, self.sizes[-1]), dtype=np.float32)

    def batched(self, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """x (steps, batch, n_in) and y (steps, batch) or (steps, batch, n_out): the batches in their order, again from the
        first one after the last. Without `steps`: those of one epoch."""
        x, y = self.data()
        x, y = (array.reshape(self.batches, self.batch, *array.shape[1:]) for array in (x, y))
        order = np.arange(self.batches if steps is None else steps) % self.batches
        return x[order], y[order]

    def weights(self) -> list[np.ndarray]:
        """He-normal weights (n_in, n_out) of each layer; biases start at zero."""
        rng = np.random.default_rng(1)
        return [
            rng.standard_normal(pair, dtype=np.float32) * np.float32(np.sqrt(2 / pair[0]))
            for pair in self.layers
        ]


CASES = {
    "a": Case((64, 128, 10), 32, "relu", "ce", 64),
    "b": Case((784, 256, 128, 10), 128, "relu", "ce", 32),
    "c": Case((784, 1024, 1024, 10), 512, "relu", "ce", 8),
    "d": Case((20, 64, 64, 1), 64, "tanh", "mse", 64),
    "e": Case((2048, 4096, 4096, 1000), 256, "relu", "ce", 4),
}

# Of networks that grow.
INPUTS, CLASSES = 64, 10
ROWS = 2048  # of an epoch, about
BATCHES = 4, 64  # of an epoch, at least and at most


def network(batch: int = 32, width: int = 64, depth: int = 2) -> Case:
    """`depth` hidden ReLU layers of `width` units, cross-entropy."""
    fewest, most = BATCHES
    batches = max(fewest, min(most, ROWS // batch))
    return Case((INPUTS, *[width] * depth, CLASSES), batch, "relu", "ce", batches)
