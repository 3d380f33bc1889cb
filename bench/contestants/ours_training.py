"""Ours: `Trainer.fit`, in which one native call takes an epoch or several, and `Trainer.step` from a Python loop."""

import numpy as np

import gdkernels as gd

from ..cases import LR, Case


def trainer_of(case: Case, storage: str = "float32", device: str = "cpu") -> gd.Trainer:
    """A network with the case's weights, and Adam."""
    net = gd.mlp(case.sizes, activation=case.activation, dtype=storage)
    for layer, w in enumerate(case.weights()):
        net.params[f"{layer}.w"][...] = w
    loss = "softmax_cross_entropy" if case.loss == "ce" else "mse"
    return gd.Trainer(net.to(device), loss=loss, optimizer=gd.Adam(lr=LR))


class Fit:
    """Epochs by `Trainer.fit`."""

    def __init__(self, case: Case, threads: int):
        self.case = case
        gd.set_threads(threads)  # at most; the trainer measures how many of them pay
        self.trainer = trainer_of(case)
        self.x, self.y = case.data()
        self.trainer.warm_up(self.x[: case.batch], self.y[: case.batch])

    def train(self, x: np.ndarray, y: np.ndarray, epochs: int) -> np.ndarray:
        """The loss of every step."""
        return self.trainer.fit(
            x, y, epochs=epochs, batch_size=self.case.batch, shuffle=False, progress=False
        ).loss

    def run(self, epochs: int) -> None:
        self.train(self.x, self.y, epochs)

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        x, y = (array.reshape(-1, *array.shape[2:]) for array in self.case.batched(steps))
        return {"losses": self.train(x, y, 1), **self.trainer.net.params}


class Step(Fit):
    """Epochs by `Trainer.step`."""

    def train(self, x: np.ndarray, y: np.ndarray, epochs: int) -> np.ndarray:
        batch = self.case.batch
        batches = [(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch)]
        step = self.trainer.step
        for _ in range(epochs):
            losses = [step(batch_x, batch_y) for batch_x, batch_y in batches]
        return np.array(losses)


TRAINING = {"gdkernels": Fit, "gdkernels step": Step}
