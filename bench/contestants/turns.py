"""Several cases of a contestant in one process, one after the other: importing a library takes longer than most of them."""

from collections.abc import Callable, Sequence
from typing import Any

from ..cases import Case


class Turns:
    """`turn(number)` makes a new network of that case; `outcome` and `run` then concern it."""

    def __init__(self, make: Callable[[Case, int], Any], cases: Sequence[Case], threads: int):
        self._make, self._cases, self._threads = make, cases, threads
        self._at_work: Any = None

    def turn(self, number: int) -> None:
        """Go to another case, from its beginning."""
        self._at_work = None  # its memory is free before the next takes some
        self._at_work = self._make(self._cases[number], self._threads)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the present case."""
        return getattr(self._at_work, "facts", {})

    def outcome(self, steps: int) -> dict[str, Any]:
        return self._at_work.outcome(steps)

    def run(self, epochs: int) -> None:
        self._at_work.run(epochs)
