"""The cases: networks and batches that every contestant trains, float32, Adam with lr 1e-3."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """Layer widths, batch, hidden activation ("relu" or "tanh"), loss ("ce" or "mse"), and batches in the data set."""

    sizes: tuple[int, ...]
    batch: int
    activation: str
    loss: str
    batches: int

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (batches·batch, n_in) and y: labels, or values (batches·batch, n_out). The same for every contestant."""
        rng = np.random.default_rng(0)
        rows = self.batches * self.batch
        x = rng.standard_normal((rows, self.sizes[0]), dtype=np.float32)
        if self.loss == "ce":
            return x, rng.integers(0, self.sizes[-1], rows)
        return x, rng.standard_normal((rows, self.sizes[-1]), dtype=np.float32)

    def weights(self) -> list[np.ndarray]:
        """He-normal weights (n_in, n_out) of each layer; biases start at zero."""
        rng = np.random.default_rng(1)
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        return [
            rng.standard_normal((n_in, n_out), dtype=np.float32) * np.float32(np.sqrt(2 / n_in))
            for n_in, n_out in pairs
        ]


CASES = {
    "a": Case((64, 128, 10), 32, "relu", "ce", 64),
    "b": Case((784, 256, 128, 10), 128, "relu", "ce", 32),
    "c": Case((784, 1024, 1024, 10), 512, "relu", "ce", 8),
    "d": Case((20, 64, 64, 1), 64, "tanh", "mse", 64),
    "e": Case((2048, 4096, 4096, 1000), 256, "relu", "ce", 4),
}
