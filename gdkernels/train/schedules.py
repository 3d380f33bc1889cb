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
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..check import number, whole
from ..ranges import Range
from ..scalar.schedules import (
    SCHEDULES,
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
        """The rates of `count` steps, the first of which is `first_step`, as a float64 array."""
        first, count = whole("rates", "first_step", first_step, 0), whole("rates", "count", count, 0)
        return np.fromiter(map(self, range(first, first + count)), np.float64, count)


class Formula(Schedule):
    """A schedule of this name in `scalar.schedules`: a frozen dataclass of the parameters of its function.

    Its row there says what they may be; besides, no floor is above the peak, and a warm-up is a part of the total.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        op, row = type(self).__name__, SCHEDULES[self.name]
        given = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        for name, among in row.numbers.items():
            given[name] = number(op, name, given[name], among)
        for name, least in row.counts.items():
            given[name] = whole(op, name, given[name], least)
        if "floor" in given:
            peak = given["peak"]
            words = f"a number in [0, {peak:g}] because peak is {peak:g}"
            number(op, "floor", given["floor"], Range(0.0, peak, words))
        if "warmup" in given and "total" in given and given["warmup"] > given["total"]:
            raise ValueError(
                f"{op}: warmup is {given['warmup']}, expected at most {given['total']} because total is "
                f"{given['total']}"
            )
        for name, value in given.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Constant(Formula):
    """lr, at every step."""

    lr: float
    name = "constant"

    def __call__(self, step: int) -> float:
        return constant(step, self.lr)


@dataclass(frozen=True)
class LinearWarmup(Formula):
    """From peak / warmup at step 0 in equal steps to peak, where it stays. warmup = 0: no warm-up."""

    peak: float
    warmup: int
    name = "linear_warmup"

    def __call__(self, step: int) -> float:
        return linear_warmup(step, self.peak, self.warmup)


@dataclass(frozen=True)
class Cosine(Formula):
    """Half a cosine wave from peak at step 0 down to floor at step `total`, where it stays."""

    peak: float
    total: int
    floor: float = 0.0
    name = "cosine"

    def __call__(self, step: int) -> float:
        return cosine(step, self.peak, self.total, self.floor)


@dataclass(frozen=True)
class WarmupCosine(Formula):
    """Linear warm-up for `warmup` steps, then half a cosine wave down to floor at step `total`, where it stays."""

    peak: float
    warmup: int
    total: int
    floor: float = 0.0
    name = "warmup_cosine"

    def __call__(self, step: int) -> float:
        return warmup_cosine(step, self.peak, self.warmup, self.total, self.floor)


@dataclass(frozen=True)
class WarmupLinear(Formula):
    """Linear warm-up for `warmup` steps, then a line down to floor at step `total`, where it stays."""

    peak: float
    warmup: int
    total: int
    floor: float = 0.0
    name = "warmup_linear"

    def __call__(self, step: int) -> float:
        return warmup_linear(step, self.peak, self.warmup, self.total, self.floor)


@dataclass(frozen=True)
class StepDecay(Formula):
    """peak, multiplied by `factor` after every `every` steps."""

    peak: float
    every: int
    factor: float = 0.1
    name = "step_decay"

    def __call__(self, step: int) -> float:
        return step_decay(step, self.peak, self.every, self.factor)


@dataclass(frozen=True)
class CosineRestarts(Formula):
    """Half a cosine wave from peak to floor over `period` steps, repeatedly, each `factor` times as long as the last."""

    peak: float
    period: int
    factor: int = 1
    floor: float = 0.0
    name = "cosine_restarts"

    def __call__(self, step: int) -> float:
        return cosine_restarts(step, self.peak, self.period, self.factor, self.floor)


FORMULAS: dict[str, type[Formula]] = {kind.name: kind for kind in Formula.__subclasses__()}
