"""The epochs of a call of `fit`: orders, rates and weights in Python, the steps in native calls of the engine.

A native call has as many steps as take about the time that a place allows for a call (`nn.place`): a part of an epoch, or
several epochs where nothing is to be done between them. Python's part of a call is then shared by all of its epochs.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..check import Array
from ..engine import Numbers, Training
from .batches import Orders, totals
from .loss import Weights

if TYPE_CHECKING:
    from .trainer import Trainer

Record = dict[str, Any]

MOST_ORDERED = 1 << 20  # samples whose order is drawn ahead, so that memory stays bounded: 8 MiB


class Data(NamedTuple):
    """Samples: x (n, n_in) as the engine reads it, targets in NumPy and as the engine reads them, and the weights of
    the samples in the loss."""

    x: Any
    y: Array
    goal: Any
    weights: Weights


def inverse(weights: Numbers) -> Numbers:
    """1 / weight, and 0 for 0: where nothing counts, loss and gradient are 0."""
    return np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0.0)


class Epochs:
    """Epochs of a trainer on checked data, in batches of `batch` samples.

    `training` takes the steps, `rates` gives the learning rates of as many next steps as it is asked for.

    Attributes
    ----------
    finite : whether all steps were done; else the loss or a gradient of the next one is not finite
    losses, rates, norms : lists of arrays that together are (steps,), (steps,) and (steps, parameters); the last is empty
        if the norms of gradients are not wanted
    """

    def __init__(
        self, trainer: "Trainer", training: Training, rates: Callable[[int], Numbers], data: Data, batch: int, shuffle: bool,
        seed: int, norms: bool,
    ):  # fmt: skip
        self._trainer, self._training, self._rates_of, self._data = trainer, training, rates, data
        self._batch, self._with_norms = batch, norms
        self._samples = len(data.x)
        self._orders = Orders(self._samples, shuffle, seed)
        self._same = None  # weights of batches and scales of an epoch, where all samples weigh the same
        if isinstance(data.weights, float):
            weights = totals(data.weights, None, self._samples, batch)
            self._same = weights, inverse(weights)
        self._batches = -(-self._samples // batch)  # of an epoch
        self._goal = trainer.net.place.call_seconds
        # Where calls are not to take long, one step, until it is known how long that takes.
        self._steps_a_call = sys.maxsize if self._goal is None else 1
        self.finite = True
        self.losses: list[Numbers] = []
        self.rates: list[Numbers] = []
        self.norms: list[Numbers] = []

    def take(self, most: int) -> list[Record]:
        """Take the steps of an epoch, or in one native call those of several, but of `most` at most; the records of those
        that are done."""
        trainer, batches = self._trainer, self._batches
        count, ahead = self._count(most)
        first, samples, epoch = trainer.steps, trainer.net.samples, trainer.epochs
        orders = self._orders.of(epoch, count)
        weights, scales = self._weights(orders, count)
        steps = len(scales)
        losses, rates = np.empty(steps), np.empty(steps)
        norms = np.empty((steps, len(trainer.net.params))) if self._with_norms else None
        seconds = 0.0
        done = 0
        while done < steps:
            stop = steps if count > 1 else min(steps, done + self._steps_a_call)
            now = slice(done, stop)
            rates[now] = self._rates_of(stop - done) if ahead is None else ahead
            begin = time.perf_counter()
            try:
                self._training.train(
                    self._data.x, self._data.goal, orders[done * self._batch : stop * self._batch] if count == 1 else orders,
                    self._batch, rates[now], scales[now], trainer.net.samples, losses[now],
                    None if norms is None else norms[now], count,
                )  # fmt: skip
            finally:  # also where Ctrl-C ends the call early
                before, done = done, trainer.steps - first
                whole, rest = divmod(done, batches)
                trainer.net.samples = samples + whole * self._samples + rest * self._batch
                trainer.epochs = epoch + whole
            elapsed = time.perf_counter() - begin
            seconds += elapsed
            if done < stop:
                self.finite = False
                break
            if self._goal is not None:
                # The first steps may have waited for kernels to be loaded: approach the goal, do not jump to it.
                taken = done - before
                self._steps_a_call = max(1, min(8 * taken, int(self._goal * taken / max(elapsed, 1e-9))))
        self.losses.append(losses)
        self.rates.append(rates)
        self.norms += [] if norms is None else [norms]
        return self._records(epoch, losses, weights, seconds, done)

    def _count(self, most: int) -> tuple[int, Numbers | None]:
        """How many epochs the next call has, and the rates of their steps if it has more than one."""
        if self._goal is None:
            return 1, None
        count = max(1, min(most, self._steps_a_call // self._batches, MOST_ORDERED // self._samples))
        if count > 1:
            try:
                return count, self._rates_of(count * self._batches)
            except Exception:  # a step without a rate is met, and named, when its epoch is taken by itself
                count = 1
        return count, None

    def _weights(self, orders: NDArray[np.int64], count: int) -> tuple[Numbers, Numbers]:
        """What each batch of these epochs weighs, and the factors of their losses."""
        if self._same is None:
            weights = totals(self._data.weights, orders, self._samples, self._batch)
            return weights, inverse(weights)
        weights, scales = self._same
        return self._same if count == 1 else (np.tile(weights, count), np.tile(scales, count))

    def _records(
        self, epoch: int, losses: Numbers, weights: Numbers, seconds: float, done: int
    ) -> list[Record]:
        """The records of the epochs that are whole, after epoch `epoch`. Those of one call share its time."""
        count, batches = done // self._batches, self._batches
        losses, weights = (
            numbers[: count * batches].reshape(count, batches) for numbers in (losses, weights)
        )
        sums, whole = (losses * weights).sum(axis=1).tolist(), weights.sum(axis=1).tolist()
        each = seconds * batches / max(done, 1)
        return [
            {"epoch": epoch + number, "train_loss": part / total if total else math.nan, "seconds": each}
            for number, (part, total) in enumerate(zip(sums, whole, strict=True), 1)
        ]
