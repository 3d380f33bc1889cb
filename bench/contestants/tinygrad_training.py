"""tinygrad: the whole step under TinyJit, on its CPU device, which needs clang.

Its search for faster kernels (BEAM) is left out: it takes minutes for each network.
"""

import os

import numpy as np

from ..cases import BETA1, BETA2, EPS, LR, Case
from . import Missing


class TinyStep:
    """A network, its loss and `nn.optim.Adam` in one captured step. The first call computes, the second one captures."""

    def __init__(self, case: Case, threads: int):
        os.environ |= {
            "DEV": os.environ.get("DEV", "CPU"),
            "NUM_CPU_THREADS": str(threads),
        }  # read when tinygrad is loaded
        from tinygrad import Context, Tensor, TinyJit
        from tinygrad.helpers import NUM_CPU_THREADS
        from tinygrad.nn.optim import Adam

        self.case, self.tensor = case, Tensor
        self.facts = {"tinygrad threads": NUM_CPU_THREADS.value}
        self.training = Context(TRAINING=1)
        try:
            self.params = [
                Tensor(array).is_param_().realize()
                for w in case.weights()
                for array in (w, np.zeros(w.shape[1], np.float32))
            ]
            Tensor.ones(1).contiguous().realize()
        except (RuntimeError, OSError) as error:
            raise Missing(f"tinygrad has no compiler: {error}") from error
        optimizer = Adam(self.params, lr=LR, b1=BETA1, b2=BETA2, eps=EPS)
        self.batches = self.tensors(*case.batched())

        @TinyJit
        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            for layer in range(0, len(self.params), 2):
                x = x @ self.params[layer] + self.params[layer + 1]
                if layer < len(self.params) - 2:
                    x = x.relu() if case.activation == "relu" else x.tanh()
            loss = x.sparse_categorical_crossentropy(y) if case.loss == "ce" else ((x - y) ** 2).mean()
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

        self.step = step

    def tensors(self, x: np.ndarray, y: np.ndarray) -> list[tuple]:
        y = y.astype(np.int32) if y.dtype.kind == "i" else y
        return [(self.tensor(x).realize(), self.tensor(y).realize()) for x, y in zip(x, y, strict=True)]

    def run(self, epochs: int) -> None:
        with self.training:
            for _ in range(epochs):
                for x, y in self.batches:
                    loss = self.step(x, y)
            loss.item()

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        with self.training:
            losses = [self.step(x, y).item() for x, y in self.tensors(*self.case.batched(steps))]
        found = {"losses": np.array(losses)}
        for layer in range(len(self.params) // 2):
            w, b = self.params[2 * layer : 2 * layer + 2]
            found |= {f"{layer}.w": w.numpy(), f"{layer}.b": b.numpy()}
        return found


TRAINING = {"tinygrad": TinyStep}
