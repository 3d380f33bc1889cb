"""Contestants take turns: block by block, so that a change of the machine's mood hits all of them.

A clock says how long a block took (`clock`, `bench.gpu.clock`), and repeats those that were disturbed. Ratios are formed
round by round, between blocks that lie close together, and the median is taken of those.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .clock import Block, Clock, Left, Quiet
from .process import Failed
from .record import Row, spread

Name = TypeVar("Name", bound=Hashable)
Contestant = TypeVar("Contestant")

SLOW = 10  # blocks that a single unit may take without taking part in fewer rounds
FEWEST_TURNS = 2  # also of those
FEWEST_ROUNDS = 3  # also when there is no time left


@dataclass
class Samples:
    """What was measured of one contestant.

    Attributes
    ----------
    times : units of a block
    seconds : of one unit, round by round
    cores : CPU seconds by seconds, round by round, where that can be read
    thrown_away : blocks that were disturbed, and that were repeated
    dirty : blocks that were taken although they were disturbed
    failed : why it takes part no more, or ""
    """

    times: int = 1
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    thrown_away: int = 0
    dirty: int = 0
    failed: str = ""

    def add(self, block: Block) -> None:
        """What another round gave."""
        self.seconds.append(block.seconds / self.times)
        self.cores += [] if block.cores is None else [block.cores]
        self.thrown_away += block.thrown_away
        self.dirty += block.dirty

    @property
    def disturbed(self) -> Row:
        """Of a row: how often it was disturbed."""
        return {"thrown_away": self.thrown_away, "dirty": self.dirty}


def calibrate(contestant: Contestant, block: float, clock: Clock[Contestant]) -> tuple[int, float]:
    """(units that last about this many seconds, at least one; the seconds that they take)."""
    seconds = clock.seconds(contestant, 1)  # compiles, loads, allocates
    if seconds > SLOW * block:
        return 1, seconds
    times, seconds = 1, clock.seconds(contestant, 1)
    while seconds < block / 4 and times < clock.most:
        fitting = int(times * block / max(seconds, 1e-9) / 2)
        times = min(16 * times, max(2 * times, fitting), clock.most)
        seconds = clock.seconds(contestant, times)
    best = max(1, min(clock.most, round(times * block / max(seconds, 1e-9))))
    return best, seconds * best / times


def compare(
    contestants: Mapping[Name, Contestant],
    rounds: int,
    block: float,
    left: Left = lambda: float("inf"),
    clock: Clock[Any] = Quiet(),  # noqa: B008
) -> dict[Name, Samples]:
    """Samples of each contestant, of `rounds` blocks of about `block` seconds; fewer rounds where no time is `left`.

    A contestant whose unit takes many times as long as a block takes part in fewer rounds by that factor. One that
    fails on the way drops out, and says why.
    """
    found = {name: Samples() for name in contestants}
    turns = dict.fromkeys(contestants, rounds)
    for name, contestant in contestants.items():
        try:
            found[name].times, seconds = calibrate(contestant, block, clock)
            turns[name] = min(rounds, max(FEWEST_TURNS, int(rounds * SLOW * block / max(seconds, 1e-9))))
        except Failed as error:
            found[name].failed = str(error)
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and left() <= 0:
            break
        for name, contestant in contestants.items():
            if not found[name].failed and number < turns[name]:
                try:
                    found[name].add(clock.block(contestant, found[name].times, left))
                except Failed as error:
                    found[name].failed = str(error)
    return found


def ratio(ours: Samples, theirs: Samples) -> dict[str, float]:
    """How many times faster ours is: the spread of their seconds by ours, round by round."""
    return spread([b / a for a, b in zip(ours.seconds, theirs.seconds, strict=False)])
