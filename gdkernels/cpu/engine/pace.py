"""How many workers take a step of training fastest: measured on the way.

It cannot be known beforehand. Two workers take a step of 20 µs a fifth faster than one where their cores share a cache, and
twice as slowly where they do not; a foreign process on one of their cores costs them a turn of the scheduler at every
barrier. The results do not depend on the number of workers, so it may change from one stretch of steps to the next.

Where other processes want every core, one worker gets half of one. Then the workers take steps by turns (`runtime.turns`),
which brings a third more. That the machine is busy shows in one worker's time: it had its core for less than it took.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..runtime.turns import TURN

TRIAL = 0.5e-3  # seconds that a trial should last at least
MOST_STEPS = 16  # of a trial: a step can take a thousand times as long as it should
# Seconds until the other number is tried again, doubled each time it loses.
FIRST_REVIEW, LAST_REVIEW = 0.05, 2.0
HOPELESS = 20  # times as long as a step of the present number: the trial ends after one step
MARGIN = 0.95  # of the time of the present number, below which the other one wins
TRIALS = 3  # of which the fastest counts, unless the first one settles it
CLEAR = 1.5  # times as long as a step of the present number: no further trial
ASLEEP = 3e-3  # seconds without a job after which workers may have gone to sleep
WORTH_MEETING = 4  # times as long as workers that parted stayed away they must then work together, or they stay away longer
LOOK = 0.02  # seconds of one worker after which it is asked whether the machine is busy: some turns of the scheduler
BUSY, QUIET = (
    0.2,
    0.1,
)  # share of the time without a core: more, and the machine is busy; less, and it is so no more
WORTH_TURNS = 0.01  # seconds of a stretch from which on it is worth waking others for their turns


class Stretch(NamedTuple):
    """Steps to be taken by so many workers, who share each step or take steps by turns."""

    workers: int
    steps: int
    turns: bool = False


class Pace:
    """Chooses between one worker and `most` of them, for steps that one worker is expected to take in `seconds`.

    `next` says how to take how many of the steps that are left; `note` must be told how that went.
    """

    def __init__(self, most: int, seconds: float):
        self.workers, self.busy = 1, False
        self._several = self._other = most
        self._trial = min(MOST_STEPS, math.ceil(TRIAL / seconds))
        self._review, self._left = FIRST_REVIEW, 0.0
        self._late = False
        self._penalty, self._together = FIRST_REVIEW, 0.0  # seconds apart after parting; and together since
        self._step_on_core = math.inf  # seconds of one worker's step, without those in which it had no core
        self._alone, self._on_core = 0.0, 0.0  # seconds of one worker since it was last asked; with a core
        self._seconds: dict[int, float] = {}  # of a step, by the number of workers
        self._course_of_stretches = self._course()
        self._now = next(self._course_of_stretches)

    def next(self, left: int) -> Stretch:
        """The next stretch, at most `left` steps long."""
        workers, steps = self._now
        steps = min(steps, left)
        by_turns = workers == 1 and self.busy and self._step_on_core <= 1e-9 * TURN
        if by_turns and steps * self._seconds[1] >= WORTH_TURNS:
            return Stretch(self._several, steps, True)
        return Stretch(workers, steps)

    def note(
        self, stretch: Stretch, seconds: float, on_core: float, late: bool = False, asleep: bool = False
    ) -> None:
        """The steps of a stretch took so long, in which one worker, or all turns together, had a core for `on_core` seconds.

        `late`: the workers parted before its end because they waited too long for each other. `asleep`: they may have had to
        wake up first, which takes milliseconds: then a short stretch says nothing of a step.
        """
        workers = 1 if stretch.turns else stretch.workers
        if not asleep or seconds >= FIRST_REVIEW or workers not in self._seconds:
            self._seconds[workers] = seconds / stretch.steps
        self._late = late
        self._left -= seconds
        if workers == 1:
            self._step_on_core = on_core / stretch.steps
            self._look(seconds, on_core)
        else:
            self._together += seconds
        self._now = next(self._course_of_stretches)

    def _look(self, seconds: float, on_core: float) -> None:
        """Notice whether the machine is busy. When it is so no more, several workers are tried at once."""
        self._alone += seconds
        self._on_core += on_core
        if self._alone < LOOK:
            return
        away = 1.0 - self._on_core / self._alone
        before, self.busy = self.busy, away > (QUIET if self.busy else BUSY)
        self._alone = self._on_core = 0.0
        if before and not self.busy:
            self._review, self._left = FIRST_REVIEW, 0.0

    def _course(self) -> Iterator[tuple[int, int]]:
        """The stretches: trials of both numbers, then the better one, and from time to time the other, unless the machine is
        busy."""
        for steps in (1, self._trial):  # the first step warms up
            yield self.workers, steps
        yield from self._try()
        self._settle(1.0)
        while True:
            self._left = self._review
            while self._left > 0.0 or self.busy:
                seconds = LAST_REVIEW if self.busy else self._left
                yield self.workers, max(1, math.ceil(seconds / self._seconds[self.workers]))
                if self._late and self._seconds[self.workers] > self._step_on_core:
                    self.workers, self._other = 1, self._several
                    self._review = self._left = self._setback()
                elif not self.busy and self._settle(MARGIN):
                    self._review = FIRST_REVIEW
            yield from self._try()
            lost = not self._settle(MARGIN)
            self._review = min(LAST_REVIEW, 2 * self._review) if lost else FIRST_REVIEW

    def _setback(self) -> float:
        """Seconds until the workers that have parted may meet again: the more, the sooner they parted."""
        kept = self._together > WORTH_MEETING * self._penalty
        self._penalty = FIRST_REVIEW if kept else min(LAST_REVIEW, 2 * self._penalty)
        self._together = 0.0
        return self._penalty

    def _try(self) -> Iterator[tuple[int, int]]:
        """Trials of the other number: a step that wakes the workers, and trials proper if that was not hopeless.

        A single trial can be disturbed, or meet cold caches: where it leaves room for doubt, the fastest of some counts.
        """
        yield self._other, 1
        present, best = self._seconds[self.workers], self._seconds[self._other]
        if best >= HOPELESS * present:
            return
        best = math.inf
        for _ in range(TRIALS):
            yield self._other, self._trial
            best = min(best, self._seconds[self._other])
            if not MARGIN * present <= best < CLEAR * present:
                break
        self._seconds[self._other] = best

    def _settle(self, margin: float) -> bool:
        """Go over to the other number if it takes less than `margin` of the time; tell whether it did."""
        better = self._seconds[self._other] < margin * self._seconds[self.workers]
        if better:
            self.workers, self._other = self._other, self.workers
        return better
