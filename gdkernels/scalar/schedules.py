"""Learning-rate schedules: the rate of a step, a pure function of its number. Step 0 is the first update.

Why warm up: at first Adam's running means rest on few gradients, and the curvature is largest. Why decay: near a
minimum the noise of mini-batches keeps the parameters at a distance that grows with the rate.

These functions are plain Python: nothing here imports Numba, and ``numba.njit(cosine)`` compiles each as it stands.
For that each is complete in itself and calls no other.

`SCHEDULES` holds what else is to be known of each: the classes of `train.schedules` and the command line derive from it.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..ranges import NOT_NEGATIVE, UNIT, Range


def constant(step: int, lr: float) -> float:
    """lr, at every step."""
    return lr


def linear_warmup(step: int, peak: float, warmup: int) -> float:
    """peak · min(1, (step + 1) / warmup): reaches peak at step warmup − 1 and stays. warmup = 0: no warm-up."""
    return peak * (step + 1) / warmup if step + 1 < warmup else peak


def cosine(step: int, peak: float, total: int, floor: float = 0.0) -> float:
    """floor + (peak − floor) (1 + cos(π step / total)) / 2; floor for step ≥ total (arXiv 1608.03983)."""
    if step >= total:
        return floor
    return floor + (peak - floor) * (0.5 * (1.0 + math.cos(math.pi * step / total)))


def warmup_cosine(step: int, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """`linear_warmup` for `warmup` steps, then `cosine` over the other total − warmup; floor for step ≥ total."""
    if step >= total:
        return floor
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    return floor + (peak - floor) * (0.5 * (1.0 + math.cos(math.pi * done)))


def warmup_linear(step: int, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """`linear_warmup` for `warmup` steps, then a line from peak down to floor at `total`, where it stays."""
    if step >= total:
        return floor
    if step < warmup:
        return peak * (step + 1) / warmup
    return floor + (peak - floor) * (total - step) / (total - warmup)


def step_decay(step: int, peak: float, every: int, factor: float = 0.1) -> float:
    """peak · factor^⌊step / every⌋: the rate falls by `factor` after every `every` steps."""
    return peak * factor ** (step // every)


def cosine_restarts(step: int, peak: float, period: int, factor: int = 1, floor: float = 0.0) -> float:
    """`cosine` over `period` steps, again and again, each `factor` times as long as the last (arXiv 1608.03983).

    Raises ValueError where period or factor is below 1.
    """
    if period < 1 or factor < 1:
        raise ValueError("cosine_restarts: period and factor must be at least 1")
    if factor == 1:
        step %= period
    while step >= period:
        step -= period
        period *= factor
    return floor + (peak - floor) * (0.5 * (1.0 + math.cos(math.pi * step / period)))


class Schedule(NamedTuple):
    """A schedule.

    rate : function of the step and of the parameters below
    numbers : the range of each parameter that is a number
    counts : the least value of each parameter that counts something, such as steps
    """

    rate: Callable[..., float]
    numbers: Mapping[str, Range]
    counts: Mapping[str, int] = {}


PEAK, FROM_PEAK_TO_FLOOR = {"peak": NOT_NEGATIVE}, {"peak": NOT_NEGATIVE, "floor": NOT_NEGATIVE}

SCHEDULES = {
    "constant": Schedule(constant, {"lr": NOT_NEGATIVE}),
    "linear_warmup": Schedule(linear_warmup, PEAK, {"warmup": 0}),
    "cosine": Schedule(cosine, FROM_PEAK_TO_FLOOR, {"total": 1}),
    "warmup_cosine": Schedule(warmup_cosine, FROM_PEAK_TO_FLOOR, {"warmup": 0, "total": 1}),
    "warmup_linear": Schedule(warmup_linear, FROM_PEAK_TO_FLOOR, {"warmup": 0, "total": 1}),
    "step_decay": Schedule(step_decay, {**PEAK, "factor": UNIT}, {"every": 1}),
    "cosine_restarts": Schedule(cosine_restarts, FROM_PEAK_TO_FLOOR, {"period": 1, "factor": 1}),
}
