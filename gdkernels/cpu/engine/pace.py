"""How many workers take a step of training fastest: measured on the way.

It cannot be known beforehand. Two workers take a step of 20 µs a fifth faster than one where their cores share a cache, and
twice as slowly where they do not; a foreign process on one of their cores costs them a turn of the scheduler at every
barrier. The results do not depend on the number of workers, so it may change from one stretch of steps to the next.
"""

import math
from collections.abc import Iterator

TRIAL = 0.5e-3  # seconds that a trial should last at least
MOST_STEPS = 16  # of a trial: a step can take a thousand times as long as it should
# Seconds until the other number is tried again, doubled each time it loses.
FIRST_REVIEW, LAST_REVIEW = 0.05, 2.0
HOPELESS = 20  # times as long as a step of the present number: the trial ends after one step
MARGIN = 0.95  # of the time of the present number, below which the other one wins


class Pace:
    """Chooses between one worker and `most` of them, for steps that one worker is expected to take in `seconds`.

    `next` says with how many workers to take how many of the steps that are left; `note` must be told how long it took.
    """

    def __init__(self, most: int, seconds: float):
        self.workers = 1
        self._other = most
        self._trial = min(MOST_STEPS, math.ceil(TRIAL / seconds))
        self._review, self._left = FIRST_REVIEW, 0.0
        self._seconds: dict[int, float] = {}  # of a step, by the number of workers
        self._stretches = self._course()
        self._now = next(self._stretches)

    def next(self, left: int) -> tuple[int, int]:
        """(workers, steps) of the next stretch, at most `left` steps long."""
        workers, steps = self._now
        return workers, min(steps, left)

    def note(self, steps: int, seconds: float) -> None:
        """The stretch that `next` gave took so long."""
        workers, _ = self._now
        self._seconds[workers] = seconds / steps
        self._left -= seconds
        self._now = next(self._stretches)

    def _course(self) -> Iterator[tuple[int, int]]:
        """The stretches: trials of both numbers, then the better one, and from time to time the other."""
        for steps in (1, self._trial):  # the first step warms up
            yield self.workers, steps
        yield from self._try()
        self._settle(1.0)
        while True:
            self._left = self._review
            while self._left > 0.0:
                yield self.workers, max(1, math.ceil(self._left / self._seconds[self.workers]))
                if self._settle(MARGIN):
                    self._review = FIRST_REVIEW
            yield from self._try()
            lost = not self._settle(MARGIN)
            self._review = min(LAST_REVIEW, 2 * self._review) if lost else FIRST_REVIEW

    def _try(self) -> Iterator[tuple[int, int]]:
        """A trial of the other number: a step that wakes the workers, and the trial itself if that was not hopeless."""
        yield self._other, 1
        if self._seconds[self._other] < HOPELESS * self._seconds[self.workers]:
            yield self._other, self._trial

    def _settle(self, margin: float) -> bool:
        """Go over to the other number if it takes less than `margin` of the time; tell whether it did."""
        better = self._seconds[self._other] < margin * self._seconds[self.workers]
        if better:
            self.workers, self._other = self._other, self.workers
        return better
