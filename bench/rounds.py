"""Contestants take turns: block by block, so that a change of the machine's mood hits all of them.

A block in which other processes used more than a tenth of a core is thrown away and repeated; how often is told. Ratios are
formed round by round, between blocks that lie close together, and the median is taken of those.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from . import machine
from .process import Failed
from .record import spread

Name = TypeVar("Name", bound=Hashable)

FOREIGN_SHARE = 0.10  # of a core
SLACK = 2 / machine.TICKS  # seconds that the machine's counters may be late by
RETRIES = 8  # blocks thrown away before one that is not clean is taken, and counted as dirty
PAUSE = 0.1  # seconds between a block that was thrown away and the next
SLOW = 10  # blocks that a single unit may take without taking part in fewer rounds
FEWEST_TURNS = 2  # also of those
MOST_TIMES = 1 << 44  # units of a block: some count bytes
FEWEST_ROUNDS = 3  # also when there is no time left


class Runner(Protocol):
    """What takes turns: a `process.Contestant`, or a stand-in."""

    def run(self, times: int) -> float:
        """Seconds of so many units."""
        ...

    def cpu_seconds(self) -> float | None:
        """CPU seconds used so far."""
        ...


@dataclass
class Samples:
    """What was measured of one contestant.

    Attributes
    ----------
    times : units of a block
    seconds : of one unit, round by round
    cores : CPU seconds by seconds, round by round, where that can be read
    thrown_away : blocks that other processes disturbed, and that were repeated
    dirty : blocks that were taken although other processes disturbed them
    failed : why it takes part no more, or ""
    """

    times: int = 1
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    thrown_away: int = 0
    dirty: int = 0
    failed: str = ""


def calibrate(runner: Runner, block: float) -> tuple[int, float]:
    """(units that last about so many seconds, at least one; the seconds that they take)."""
    seconds = runner.run(1)  # compiles, loads, allocates
    if seconds > SLOW * block:
        return 1, seconds
    times, seconds = 1, runner.run(1)
    while seconds < block / 4 and times < MOST_TIMES:
        times = min(16 * times, max(2 * times, int(times * block / max(seconds, 1e-9) / 2)))
        seconds = runner.run(times)
    best = max(1, round(times * block / max(seconds, 1e-9)))
    return best, seconds * best / times


def compare(
    runners: Mapping[Name, Runner],
    rounds: int,
    block: float,
    left: Callable[[], float] = lambda: float("inf"),
    busy: Callable[[], float | None] = machine.busy_seconds,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[Name, Samples]:
    """Samples of each contestant, of `rounds` blocks of about `block` seconds; fewer rounds where no time is `left`.

    A contestant of which one unit takes many times a block takes part in so many rounds fewer. One that fails on the way
    drops out, and says why.
    """
    found = {name: Samples() for name in runners}
    turns = dict.fromkeys(runners, rounds)
    for name, runner in runners.items():
        try:
            found[name].times, seconds = calibrate(runner, block)
            turns[name] = min(rounds, max(FEWEST_TURNS, int(rounds * SLOW * block / max(seconds, 1e-9))))
        except Failed as error:
            found[name].failed = str(error)
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and left() <= 0:
            break
        for name, runner in runners.items():
            if not found[name].failed and number < turns[name]:
                try:
                    _measure(runner, found[name], left, busy, sleep)
                except Failed as error:
                    found[name].failed = str(error)
    return found


def _measure(
    runner: Runner,
    samples: Samples,
    left: Callable[[], float],
    busy: Callable[[], float | None],
    sleep: Callable[[float], object],
) -> None:
    """Add a block that other processes left alone, if one can be had."""
    for attempt in range(RETRIES + 1):
        before, own_before = busy(), runner.cpu_seconds()
        seconds = runner.run(samples.times)
        own_after, after = runner.cpu_seconds(), busy()
        if before is None or after is None or own_before is None or own_after is None:
            break
        own = own_after - own_before
        clean = (after - before) - own <= FOREIGN_SHARE * seconds + SLACK
        if clean or attempt == RETRIES or left() <= 0:
            samples.dirty += not clean
            samples.cores.append(own / seconds)
            break
        samples.thrown_away += 1
        sleep(PAUSE)
    samples.seconds.append(seconds / samples.times)


def ratio(ours: Samples, theirs: Samples) -> dict[str, float]:
    """How many times faster ours is: the spread of their seconds by ours, round by round."""
    return spread([b / a for a, b in zip(ours.seconds, theirs.seconds, strict=False)])
