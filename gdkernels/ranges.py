"""What a number may be, as values: ranges, and the words that messages have for them.

Tables of options (`scalar.loss`, `scalar.schedules`), the checks of arguments (`check`) and the command line read them.
"""

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

LEAST, MOST = math.ulp(0.0), sys.float_info.max  # the smallest positive number, the largest finite one


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, both included, and what they are called. NaN is in no range."""

    low: float
    high: float
    words: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


POSITIVE = Range(LEAST, MOST, "a finite number > 0")
NOT_NEGATIVE = Range(0.0, MOST, "a finite number ≥ 0")
UNIT = Range(0.0, 1.0, "a number in [0, 1]")
BELOW_ONE = Range(0.0, math.nextafter(1.0, 0.0), "a number in [0, 1)")
PROBABILITY = Range(0.0, 1.0, "a probability in [0, 1]")
TRUTH = Range(0.0, 1.0, "True or False")


class Option(NamedTuple):
    """A number that a loss or an optimizer is asked for besides its arrays."""

    default: float
    range: Range


def integers(at_least: int | None = None) -> str:
    """What the integers ≥ `at_least` are called; all of them without it."""
    if at_least is None:
        return "an integer"
    return "a positive integer" if at_least == 1 else f"an integer ≥ {at_least}"
