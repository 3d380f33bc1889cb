"""How samples are put in order and cut into batches, and what a batch weighs in the loss."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.random import PCG64
from numpy.typing import NDArray

from ..check import INT64, Array, whole
from .loss import Weights

WORTH_SEEDING, SEEDED = 32, 256  # epochs whose generators are seeded at once, at least and at most


def batch_of(op: str, batch_size: int | str, samples: int) -> int:
    """The samples of a step: as many as asked for, or all for "full"."""
    if batch_size == "full":
        return samples
    if isinstance(batch_size, str):
        raise TypeError(f"{op}: batch_size is {batch_size!r}, expected a positive integer or 'full'")
    return min(whole(op, "batch_size", batch_size, at_least=1), samples)


class Orders:
    """The orders of the samples in the epochs: permutations drawn from (seed, number of the epoch), or their own."""

    def __init__(self, samples: int, shuffle: bool, seed: int):
        self._samples, self._seed = samples, seed
        self._own = None if shuffle else np.arange(samples, dtype=np.int64)
        self._source = PCG64(0)
        self._generator = np.random.Generator(self._source)
        self._first = 0
        self._states: list[Mapping[str, Any]] = []  # of the generator, for epochs from `_first` on
        self._seen = 0  # epochs drawn

    def of(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The orders of `count` epochs from this one on, one after the other."""
        if self._own is not None:
            return self._own if count == 1 else np.tile(self._own, count)
        if count == 1:
            return self._drawn(epoch)
        return np.concatenate([self._drawn(epoch + number) for number in range(count)])

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        """What ``np.random.default_rng((seed, epoch)).permutation(samples)`` draws."""
        if not self._first <= epoch < self._first + len(self._states):
            # As many as there were before: of few epochs, few are seeded in vain.
            self._first, self._states = epoch, states_of(self._seed, epoch, min(SEEDED, max(1, self._seen)))
        self._seen += 1
        self._source.state = self._states[epoch - self._first]  # type: ignore[assignment]
        return self._generator.permutation(self._samples).astype(np.int64, copy=False)


def states_of(seed: int, first: int, count: int) -> list[Mapping[str, Any]]:
    """The state of ``np.random.PCG64((seed, epoch))`` for `count` epochs from `first` on.

    NumPy takes 10 µs to seed a generator, longer than many an epoch takes. This is how it does so (SeedSequence, after M. E.
    O'Neill's randutils; then PCG's own beginning), for all epochs at once.
    """
    if max(seed, first + count) >> 32 or count < WORTH_SEEDING:
        return [PCG64((seed, epoch)).state for epoch in range(first, first + count)]
    numbers = np.zeros((4, count), np.uint32)
    numbers[0], numbers[1] = seed, np.arange(first, first + count)
    constants = _constants(0x43B0D7E5, 0x931E8875)
    pool = [_hashed(row, constants) for row in numbers]
    for source in range(4):
        for target in range(4):
            if source != target:
                other = _hashed(pool[source], constants)
                mixed = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * other
                pool[target] = mixed ^ (mixed >> np.uint32(16))
    constants = _constants(0x8B51F9DD, 0x58F38DED)
    words = [_hashed(pool[place % 4], constants).astype(object) for place in range(8)]
    halves = [low + (high << 32) for low, high in zip(words[::2], words[1::2], strict=True)]
    starts, streams = ((halves[at] << 64) + halves[at + 1] for at in (0, 2))
    found: list[Mapping[str, Any]] = []
    for start, stream in zip(starts, streams, strict=True):
        inc = (stream << 1 | 1) % 2**128
        inner = {"state": ((inc + start) * 0x2360ED051FC65DA44385DF649FCCF645 + inc) % 2**128, "inc": inc}
        found.append({"bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0})
    return found


def _constants(constant: int, factor: int) -> Iterator[tuple[np.uint32, np.uint32]]:
    """(c, c f), (c f, c f²), … modulo 2³²."""
    while True:
        before, constant = constant, constant * factor % 2**32
        yield np.uint32(before), np.uint32(constant)


def _hashed(
    values: NDArray[np.uint32], constants: Iterator[tuple[np.uint32, np.uint32]]
) -> NDArray[np.uint32]:
    """The values scattered over all of uint32, each time in another way."""
    first, second = next(constants)
    scattered = (values ^ first) * second
    return scattered ^ (scattered >> np.uint32(16))


def totals(
    weights: Weights, order: NDArray[np.int64] | None, samples: int, batch: int
) -> NDArray[np.float64]:
    """The sum of the samples' weights in each batch of the epochs, of so many samples each, that have this order; in each of
    one epoch where no order is given, since all samples weigh the same."""
    starts = np.arange(0, samples, batch)
    if order is None or isinstance(weights, float):
        rows = np.full(len(starts), batch)
        rows[-1] = samples - starts[-1]
        return rows * weights
    epochs = len(order) // samples
    if epochs > 1:
        starts = (np.arange(epochs)[:, None] * samples + starts).reshape(-1)
    return np.add.reduceat(weights[order], starts)


def scale_of(weights: Weights, rows: int) -> float:
    """1 / Σ weights of a batch; 0 where nothing counts, for loss and gradient 0."""
    # One after the other, as compiled code that takes a step adds them up.
    total = rows * weights if type(weights) is float else float(np.add.accumulate(weights)[-1])
    return 1.0 / total if total else 0.0


def refuse_empty(op: str, x: Array) -> NoReturn:
    raise ValueError(f"{op}: x has shape {x.shape}, expected at least one row")


def are_labels(y: Array, rows: int) -> bool:
    """Whether a kernel can read these labels as they are, one for each row. What they are worth is not looked at."""
    return (
        type(y) is np.ndarray
        and y.dtype is INT64
        and y.shape == (rows,)
        and y.flags.c_contiguous
        and y.flags.aligned
    )
