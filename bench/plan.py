"""What a section of `python -m bench` is asked to do, and how it tells what it could not do.

A section is a module with ``rows(plan, say) -> Iterator[Row]`` and ``line(row) -> str``. `rows` yields each row (a plain
dict) as soon as it is known; `say` prints a line on the way. `failure` and `cut` make rows of what failed, and of what
there was no time for; the command keeps these apart.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .record import Row

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much to measure, and until when.

    Attributes
    ----------
    quick : whether little is enough
    end : when the section should be done, on the clock of `time.monotonic`
    cases : letters of `cases.CASES`
    peers : libraries ("torch"), or contestants ("torch eager"), that take part; ours always does
    threads : numbers of threads, ascending
    rounds, block : turns of each contestant, and the seconds of a turn
    patience : seconds that a contestant may take until it is ready
    """

    quick: bool
    end: float
    cases: tuple[str, ...]
    peers: tuple[str, ...]
    threads: tuple[int, ...]
    rounds: int = 9
    block: float = 0.3
    patience: float = 180.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - self.clock()

    def wants(self, contestant: str) -> bool:
        """Whether a contestant takes part."""
        return any(
            contestant == peer or contestant.startswith(f"{peer} ") for peer in ("gdkernels", *self.peers)
        )


def schedule(shares: Mapping[str, float], names: Sequence[str], end: float) -> Iterator[tuple[str, float]]:
    """(section, when it should be done, on the clock of `time.monotonic`) for all that should be done at the `end`.

    Each gets its share of the time that is left, so that what one does not need goes to those behind it.
    """
    for place, name in enumerate(names):
        now = time.monotonic()
        share = shares[name] / sum(shares[other] for other in names[place:])
        yield name, now + share * (end - now)


def failure(item: str, why: str) -> Row:
    """The row of something that failed, or of a peer that is missing."""
    return {"failed": why, "item": item}


def cut(item: str) -> Row:
    """The row of something for which there was no time."""
    return {"cut": item}
