"""Ours inside ``@njit``: an epoch as the user writes it, in array operations or by a view of a trainer."""

import numpy as np
from numba import njit

import gdkernels as gd

from ..cases import LR, Case
from .loop import Loop
from .ours_training import Fit, trainer_of


@njit
def epoch_of_two(xs, ys, params, m, v, memory, losses, count):
    """An epoch of a network of two layers, ReLU and cross-entropy; nothing is allocated."""
    w1, b1, w2, b2 = params
    dw1, db1, dw2, db2, h, y, dy, dh = memory
    for i in range(len(xs)):
        count += 1
        gd.linear(xs[i], w1, b1, "relu", out=h)
        gd.linear(h, w2, b2, out=y)
        losses[i] = gd.softmax_cross_entropy(y, ys[i], grad=dy)
        gd.linear_backward(dy, h, w2, None, dx=dh, dw=dw2, db=db2)
        gd.linear_backward(dh, xs[i], w1, h, "relu", dw=dw1, db=db1, need_dx=False)
        gd.adam_step(params, (dw1, db1, dw2, db2), m, v, count, LR)
    return count


@njit
def epoch_of_three(xs, ys, params, m, v, memory, losses, count):
    """An epoch of a network of three layers, tanh and mean squared error; nothing is allocated."""
    w1, b1, w2, b2, w3, b3 = params
    dw1, db1, dw2, db2, dw3, db3, h1, h2, y, dy, dh2, dh1 = memory
    for i in range(len(xs)):
        count += 1
        gd.linear(xs[i], w1, b1, "tanh", out=h1)
        gd.linear(h1, w2, b2, "tanh", out=h2)
        gd.linear(h2, w3, b3, out=y)
        losses[i] = gd.mse(y, ys[i], grad=dy)
        gd.linear_backward(dy, h2, w3, None, dx=dh2, dw=dw3, db=db3)
        gd.linear_backward(dh2, h1, w2, h2, "tanh", dx=dh1, dw=dw2, db=db2)
        gd.linear_backward(dh1, xs[i], w1, h1, "tanh", dw=dw1, db=db1, need_dx=False)
        gd.adam_step(params, (dw1, db1, dw2, db2, dw3, db3), m, v, count, LR)
    return count


class Operations(Loop):
    """Epochs in array operations. The results lie in memory that was taken before."""

    def __init__(self, case: Case, threads: int):
        gd.set_threads(threads)
        super().__init__(case, threads)
        self.x, self.y = case.batched()
        self.epoch = epoch_of_two if len(case.layers) == 2 else epoch_of_three
        shapes = [(case.batch, n_out) for _, n_out in case.layers]
        passed = [*shapes, *shapes[::-1]]
        self.memory = (*map(np.zeros_like, self.params), *(np.empty(shape, np.float32) for shape in passed))

    def train(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        losses = np.empty(len(x))
        params, m, v = map(tuple, (self.params, self.m, self.v))
        self.count = self.epoch(x, y, params, m, v, self.memory, losses, self.count)
        return losses

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            self.train(self.x, self.y)

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        losses = self.train(*self.case.batched(steps))
        names = [f"{layer}.{name}" for layer in range(len(self.kinds)) for name in "wb"]
        return {"losses": losses, **dict(zip(names, self.params, strict=True))}


@njit
def epoch_by_view(training, xs, ys, losses):
    """An epoch by a view of a trainer."""
    for i in range(len(xs)):
        losses[i] = training.step(xs[i], ys[i])


class View:
    """Epochs by a view."""

    def __init__(self, case: Case, threads: int):
        gd.set_threads(threads)
        self.case = case
        self.trainer = trainer_of(case)
        self.view = self.trainer.jitted()
        self.x, self.y = case.batched()

    def train(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        losses = np.empty(len(x))
        epoch_by_view(self.view, x, y, losses)
        return losses

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            self.train(self.x, self.y)

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        return {"losses": self.train(*self.case.batched(steps)), **self.trainer.net.params}


NJIT = {"gdkernels": Operations, "gdkernels view": View, "gdkernels epoch": Fit}
