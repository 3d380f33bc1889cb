"""Learning-rate schedules: ``rate = schedule(step)``, where step 0 is the first update.

Each comes twice: as a function of the step and its parameters (`cosine`), which also Numba compiles, and as a class
that holds the parameters (`Cosine`), checks them once, and is what a `Trainer` takes:

>>> warmup_cosine(0, peak=1e-3, warmup=100, total=1000)
1e-05
>>> schedule = WarmupCosine(peak=1e-3, warmup=100, total=1000)
>>> schedule(0), schedule(99), schedule(1000)
(1e-05, 0.001, 0.0)
>>> schedule.rates(0, 3)
array([1.e-05, 2.e-05, 3.e-05])
"""

import abc
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..check import number, whole
from ..ranges import NOT_NEGATIVE, UNIT, Range
from ..scalar.schedules import (
    constant,
    cosine,
    cosine_restarts,
    linear_warmup,
    step_decay,
    warmup_cosine,
    warmup_linear,
)

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "LinearWarmup",
    "Schedule",
    "StepDecay",
    "WarmupCosine",
    "WarmupLinear",
    "constant",
    "cosine",
    "cosine_restarts",
    "linear_warmup",
    "step_decay",
    "warmup_cosine",
    "warmup_linear",
]


class Schedule(abc.ABC):
    """A function from the step, counted from 0, to the learning rate."""

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The rate of a step."""

    def rates(self, first_step: int, count: int) -> NDArray[np.float64]:
        """The rates of `count` steps from `first_step` on, as a float64 array."""
        first, count = whole("rates", "first_step", first_step, 0), whole("rates", "count", count, 0)
        return np.fromiter(map(self, range(first, first + count)), np.float64, count)


@dataclass(frozen=True)
class Constant(Schedule):
    """lr, at every step."""

    lr: float

    def __post_init__(self) -> None:
        _store_rate(self, "lr")

    def __call__(self, step: int) -> float:
        return constant(step, self.lr)


@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """From peak / warmup at step 0 in equal steps to peak, which stays. warmup = 0 is none."""

    peak: float
    warmup: int

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_whole(self, "warmup", 0)

    def __call__(self, step: int) -> float:
        return linear_warmup(step, self.peak, self.warmup)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a wave from peak at step 0 down to floor at step `total`, which stays."""

    peak: float
    total: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_whole(self, "total", 1)
        _store_floor(self)

    def __call__(self, step: int) -> float:
        return cosine(step, self.peak, self.total, self.floor)


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up for `warmup` steps, then half a wave down to floor at step `total`, which stays."""

    peak: float
    warmup: int
    total: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_warmup_and_total(self)
        _store_floor(self)

    def __call__(self, step: int) -> float:
        return warmup_cosine(step, self.peak, self.warmup, self.total, self.floor)


@dataclass(frozen=True)
class WarmupLinear(Schedule):
    """Linear warm-up for `warmup` steps, then a line down to floor at step `total`, which stays."""

    peak: float
    warmup: int
    total: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_warmup_and_total(self)
        _store_floor(self)

    def __call__(self, step: int) -> float:
        return warmup_linear(step, self.peak, self.warmup, self.total, self.floor)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """peak, multiplied by `factor` after every `every` steps."""

    peak: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_whole(self, "every", 1)
        factor = number(_name(self), "factor", self.factor, UNIT)
        object.__setattr__(self, "factor", factor)

    def __call__(self, step: int) -> float:
        return step_decay(step, self.peak, self.every, self.factor)


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Half a wave from peak to floor over `period` steps, again and again, each `factor` times as long as the last."""

    peak: float
    period: int
    factor: int = 1
    floor: float = 0.0

    def __post_init__(self) -> None:
        _store_rate(self, "peak")
        _store_whole(self, "period", 1)
        _store_whole(self, "factor", 1)
        _store_floor(self)

    def __call__(self, step: int) -> float:
        return cosine_restarts(step, self.peak, self.period, self.factor, self.floor)


def _name(schedule: Schedule) -> str:
    return type(schedule).__name__


def _store_rate(schedule: Schedule, field: str) -> None:
    """A learning rate: a finite number, not negative."""
    value = number(_name(schedule), field, getattr(schedule, field), NOT_NEGATIVE)
    object.__setattr__(schedule, field, value)


def _store_whole(schedule: Schedule, field: str, at_least: int) -> None:
    """A number of steps."""
    object.__setattr__(schedule, field, whole(_name(schedule), field, getattr(schedule, field), at_least))


def _store_floor(schedule: "Cosine | WarmupCosine | WarmupLinear | CosineRestarts") -> None:
    """The lowest rate; it cannot be above the peak."""
    expected = f"a number in [0, {schedule.peak:g}] because peak is {schedule.peak:g}"
    floor = number(_name(schedule), "floor", schedule.floor, Range(0.0, schedule.peak, expected))
    object.__setattr__(schedule, "floor", floor)


def _store_warmup_and_total(schedule: WarmupCosine | WarmupLinear) -> None:
    """The warm-up is a part of the total."""
    _store_whole(schedule, "warmup", 0)
    _store_whole(schedule, "total", 1)
    if schedule.warmup > schedule.total:
        raise ValueError(
            f"{_name(schedule)}: warmup is {schedule.warmup}, expected at most {schedule.total} because total is"
            f" {schedule.total}"
        )
