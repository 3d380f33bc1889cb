"""The contestants of a section at work: who has been started, who failed, and who cannot take part here at all."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from .contestants import Missing
from .plan import Plan, failure
from .process import Contestant, Failed
from .record import Row


class Cast:
    """Contestants with one number of threads. Use it in a ``with``, at whose end their processes are ended.

    Attributes
    ----------
    threads : that each of them has
    at_work : their processes, by name, or whatever `start` was told to call them
    missing : names of those that cannot take part here, which a section may keep from cast to cast
    """

    def __init__(self, plan: Plan, threads: int, missing: set[str] | None = None):
        self._patience, self.threads = plan.patience, threads
        self._failures: list[Row] = []
        self.at_work: dict[Any, Contestant] = {}
        self.missing = set() if missing is None else missing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for contestant in self.at_work.values():
            contestant.close()

    def start(self, name: str, job: dict[str, Any], key: Hashable = None) -> Contestant:
        """The contestant at a job, which is started where it is not yet at work. Raises Missing, or Failed."""
        key = key or name
        if key not in self.at_work:
            self.at_work[key] = Contestant(name, job, self.threads, self._patience)
        return self.at_work[key]

    @contextmanager
    def trying(self, name: str, item: str, missing: str = "") -> Iterator[None]:
        """What a contestant does for an item: if it fails, it is ended, and a row is among the `failures`.

        `missing` is told in place of its name where it cannot take part at all.
        """
        try:
            yield
        except Missing as error:
            self.missing.add(name)
            self._failures.append(failure(missing or name, str(error)))
        except (Failed, KeyError, ValueError) as error:  # also where an outcome has not what it should
            self.drop(name, item, str(error))

    def drop(self, name: Hashable, item: str, why: str) -> None:
        """End one that failed; `start` starts it anew."""
        self._failures.append(failure(item, why))
        if name in self.at_work:
            self.at_work.pop(name).close()

    def failures(self) -> list[Row]:
        """Rows of what failed since this was last asked."""
        found, self._failures = self._failures, []
        return found
