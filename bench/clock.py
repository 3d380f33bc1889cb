"""How long a block of calls takes: what a clock is, and that of the wall on a machine which nobody else may use meanwhile.

`bench.gpu.clock` has the clocks of a GPU. `rounds` asks one of them, whichever it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from . import machine

Contestant = TypeVar("Contestant", contravariant=True)
Left = Callable[[], float]  # seconds that are left

FOREIGN_SHARE = 0.10  # of a core
SLACK = 2 / machine.TICKS  # seconds that the machine's counters may be late by
RETRIES = 8  # blocks thrown away before one that is not clean is taken, and counted as dirty
PAUSE = 0.1  # seconds between a block that was thrown away and the next


@dataclass(frozen=True)
class Block:
    """A block, as a clock saw it.

    Attributes
    ----------
    seconds : of the whole block
    thrown_away : blocks that were disturbed, and that this one repeats
    dirty : whether this one was taken although it was disturbed
    cores : CPU seconds by seconds, where that can be read
    """

    seconds: float
    thrown_away: int = 0
    dirty: bool = False
    cores: float | None = None


class Clock(Protocol[Contestant]):
    """Takes a contestant's time. `most` is how many units a block may have."""

    most: int

    def seconds(self, contestant: Contestant, times: int) -> float:
        """Seconds of this many units, whatever disturbs them."""
        ...

    def block(self, contestant: Contestant, times: int, left: Left) -> Block:
        """This many units undisturbed, if that can be had in the time that is left."""
        ...


class Runner(Protocol):
    """Whose time `Quiet` takes: a `process.Contestant`, or a stand-in."""

    def run(self, times: int) -> float:
        """Seconds of this many units."""
        ...

    def cpu_seconds(self) -> float | None:
        """CPU seconds used so far."""
        ...


class Quiet:
    """The wall's clock. A block in which other processes used more than a tenth of a core is thrown away and repeated."""

    most = 1 << 44  # some count bytes

    def __init__(
        self,
        busy: Callable[[], float | None] = machine.busy_seconds,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self._busy, self._sleep = busy, sleep

    def seconds(self, contestant: Runner, times: int) -> float:
        return contestant.run(times)

    def block(self, contestant: Runner, times: int, left: Left) -> Block:
        for attempt in range(RETRIES + 1):
            before, own_before = self._busy(), contestant.cpu_seconds()
            seconds = contestant.run(times)
            own_after, after = contestant.cpu_seconds(), self._busy()
            if before is None or after is None or own_before is None or own_after is None:
                return Block(seconds, attempt)
            own = own_after - own_before
            clean = (after - before) - own <= FOREIGN_SHARE * seconds + SLACK
            if clean or attempt == RETRIES or left() <= 0:
                return Block(seconds, attempt, not clean, own / seconds)
            self._sleep(PAUSE)
        raise AssertionError("the last attempt returns")
