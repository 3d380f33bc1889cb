"""Several items of a contestant in one process, one after the other: importing a library takes longer than most of them."""

from collections.abc import Callable, Sequence
from typing import Any


class Turns:
    """`turn(number)` makes the item of that number anew; `outcome` and `run` then concern it."""

    def __init__(self, make: Callable[[Any], Any], items: Sequence[Any]):
        self._make, self._items = make, items
        self._item: Any = None
        self._at_work: Any = None

    def turn(self, number: int) -> None:
        """Go to another item, from its beginning."""
        self._at_work = None  # its memory is free before the next takes some
        self._item = self._items[number]
        self._at_work = self._make(self._item)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the present item."""
        return getattr(self._at_work, "facts", {})

    def outcome(self, count: int) -> dict[str, Any]:
        return self._at_work.outcome(count)

    def run(self, times: int) -> None:
        self._at_work.run(times)
