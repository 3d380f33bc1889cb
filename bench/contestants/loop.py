"""Training in a Python loop of one's own, as in the README: arrays, operations on them, and no network."""

import numpy as np

from ..cases import Case


class Loop:
    """Epochs of steps on arrays of parameters, gradients and states; `step` is a library's."""

    def __init__(self, case: Case, threads: int):
        self.case = case
        self.batches = list(zip(*case.batched(), strict=True))
        self.params = [array for w in case.weights() for array in (w, np.zeros(w.shape[1], np.float32))]
        self.m, self.v = ([np.zeros_like(p) for p in self.params] for _ in range(2))
        self.kinds = [case.activation] * (len(case.layers) - 1) + ["identity"]
        self.count = 0

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """The loss of a batch, whose gradients have moved the parameters."""
        raise NotImplementedError

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in self.batches:
                self.step(x, y)

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        losses = [self.step(x, y) for x, y in zip(*self.case.batched(steps), strict=True)]
        names = [f"{layer}.{name}" for layer in range(len(self.kinds)) for name in "wb"]
        return {"losses": np.array(losses), **dict(zip(names, self.params, strict=True))}
