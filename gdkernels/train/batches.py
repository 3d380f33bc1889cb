"""How samples are put in order and cut into batches, and what a batch weighs in the loss."""

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ..check import INT64, Array, whole
from .loss import Weights


def batch_of(op: str, batch_size: int | str, samples: int) -> int:
    """The samples of a step: as many as asked for, or all for "full"."""
    if batch_size == "full":
        return samples
    if isinstance(batch_size, str):
        raise TypeError(f"{op}: batch_size is {batch_size!r}, expected a positive integer or 'full'")
    return min(whole(op, "batch_size", batch_size, at_least=1), samples)


def order_of(samples: int, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the samples in an epoch, drawn from (seed, epoch) or their own."""
    if not shuffle:
        return np.arange(samples, dtype=np.int64)
    drawn = np.random.default_rng((seed, epoch)).permutation(samples)
    return drawn.astype(np.int64, copy=False)


def orders_of(samples: int, shuffle: bool, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The orders of `count` epochs, from `epoch` on, one after the other."""
    if count == 1 or not shuffle:
        return np.tile(order_of(samples, shuffle, seed, epoch), count)
    return np.concatenate([order_of(samples, shuffle, seed, epoch + number) for number in range(count)])


def totals(
    weights: Weights, order: NDArray[np.int64], samples: int, batch: int
) -> NDArray[np.float64]:  # fmt: skip
    """The sum of the samples' weights in each batch, for orders of epochs of so many samples."""
    starts, epochs = np.arange(0, samples, batch), len(order) // samples
    if not isinstance(weights, float):
        return np.add.reduceat(weights[order], (np.arange(epochs)[:, None] * samples + starts).reshape(-1))
    rows = np.full(len(starts), batch)
    rows[-1] = samples - starts[-1]
    return np.tile(rows * weights, epochs)


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
