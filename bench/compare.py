"""What got slower, and what faster, between two runs: ``python -m bench compare OLD.json NEW.json``.

A machine is not the same from day to day. So rows are compared by what was measured against them in the same rounds: the
share of the limit, or the ratio to a peer, and by the time itself only where neither is there. A change counts where it is
larger than `THRESHOLD` and the spreads of both runs do not overlap. The exit status is 1 where ours got slower, or wrong.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import contestants
from .kernels import NATIVE, PYTHON
from .record import Row, Unreadable, read, rows_of
from .report import shape_of

THRESHOLD = 0.05  # of the median: smaller changes are the machine's
# What names a row, section by section; a key that a row lacks counts as absent in both.
KEYS = {
    "training": ("case", "threads", "contestant"),
    "kernels": ("kernel", "shape", "form", "threads", "contestant"),
    "calls": ("case", "operation", "shape", "form", "threads", "contestant"),
    "njit": ("case", "threads", "contestant"),
    "growth": ("axis", "value", "threads", "contestant"),
    "startup": ("what", "contestant"),
}
OURS = (*contestants.OURS, PYTHON)
RATES = ("steps_per_second", "rate")  # the larger, the faster
COSTS = ("seconds", "bytes")  # the larger, the worse

Spread = dict[str, float]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """How a row moved. `factor` is above 1 where it got better; `by` says by what it was compared."""

    name: str
    factor: float
    by: str
    beyond: bool  # the spreads of both runs, and the threshold
    wrong: bool = False  # right before, wrong now

    @property
    def slower(self) -> bool:
        return self.wrong or (self.beyond and self.factor < 1)

    @property
    def faster(self) -> bool:
        return not self.wrong and self.beyond and self.factor > 1


def compare(old: dict[str, Any], new: dict[str, Any], threshold: float = THRESHOLD) -> list[Change]:
    """The changes of our rows that are in both results, the worst first."""
    found = []
    for section, keys in KEYS.items():
        before, after = (_by_key(rows_of(results, section), keys) for results in (old, new))
        for key in [key for key in before if key in after and key[-1] in OURS]:
            scales = [_scales(rows, key) for rows in (before, after)]
            by = next(by for by in scales[0] if by in scales[1])
            name = " ".join(filter(None, (section, *key)))
            wrong = before[key].get("ok") is not False and after[key].get("ok") is False
            found.append(_change(name, by, scales[0][by], scales[1][by], threshold, wrong))
    return sorted(found, key=lambda change: (not change.wrong, change.factor))


def _by_key(rows: list[Row], keys: tuple[str, ...]) -> dict[Key, Row]:
    """Rows by their names, those with numbers; a time that was taken only once has no spread and says nothing."""
    return {
        tuple(
            shape_of(row[key]) if isinstance(row.get(key), list) else str(row.get(key, "")) for key in keys
        ): row
        for row in rows
        if any(isinstance(row.get(number), dict) for number in (*RATES, *COSTS))
        and not ("seconds" in row and row.get("repeats") == 1)
    }


def _scales(rows: dict[Key, Row], key: Key) -> dict[str, Spread]:
    """What a row can be compared by, the best first; more is better in all of them."""
    row, found = rows[key], {}
    absolute = next((row[name] for name in RATES if name in row), None)
    if absolute is None:
        cost = next(row[name] for name in COSTS if name in row)
        absolute = {"median": 1 / cost["median"], "low": 1 / cost["high"], "high": 1 / cost["low"]}
    limit = row.get("share_of_limit")
    if isinstance(limit, dict):
        found["the limit"] = limit
    elif isinstance(limit, int | float):  # its spread is that of the rate
        found["the limit"] = {name: limit * value / absolute["median"] for name, value in absolute.items()}
    if key[-1] == NATIVE:  # the peers' ratios are to this one
        peers = {
            other[-1]: each["ratio"]
            for other, each in rows.items()
            if other[:-1] == key[:-1] and other[-1] not in OURS and isinstance(each.get("ratio"), dict)
        }
        for name in sorted(peers, key=lambda name: peers[name]["high"] / peers[name]["low"]):
            found[name] = peers[name]
    return {**found, "itself": absolute}


def _change(name: str, by: str, old: Spread, new: Spread, threshold: float, wrong: bool) -> Change:
    factor = new["median"] / old["median"]
    apart = new["high"] < old["low"] or new["low"] > old["high"]
    return Change(name, factor, by, apart and max(factor, 1 / factor) > 1 + threshold, wrong)


def lines(changes: list[Change]) -> Iterator[str]:
    """What is wrong, slower and faster, and how many rows are as before."""
    for title, chosen in (
        ("slower", [change for change in changes if change.slower]),
        ("faster", [change for change in changes if change.faster]),
    ):
        for change in chosen:
            words = "WRONG NOW" if change.wrong else f"{change.factor:5.2f} × by {change.by}"
            yield f"{title}  {change.name:60} {words}"
    moved = sum(change.slower or change.faster for change in changes)
    yield f"{len(changes)} rows of ours are in both; {len(changes) - moved} are as they were"


def main(arguments: list[str] | None = None) -> int:
    """The command line. 0: nothing of ours got slower; 1: something did; 2: there is nothing to compare."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("old", type=Path, metavar="OLD.json", help="results of the run before")
    parser.add_argument("new", type=Path, metavar="NEW.json", help="results of the run after")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help=f"the smallest change that counts ({THRESHOLD})"
    )
    options = parser.parse_args(arguments)
    try:
        changes = compare(read(options.old), read(options.new), options.threshold)
    except Unreadable as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    if not changes:
        print("compare: the two have no row of ours in common", file=sys.stderr)
        return 2
    for line in lines(changes):
        print(line)
    return int(any(change.slower for change in changes))
