"""The rows of `gdkernels.cpu.cost`, measured again: what operations cost one core of this machine, beside the table.

`contestants.ours_costs` has the calls. What a row costs is found by least squares from calls of several sizes, together
with what a call costs by itself, which the table leaves out. Of each call the fastest of many short blocks counts: what
else the machine did makes a call slower, never faster. A row that several kinds of operations share is told by the median
of them. One that differs from the table by more than `FACTOR` has moved: the table decides how work is shared among cores,
and bits, so that this is a reason to look at both, not to replace a figure.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from gdkernels.cpu.cost import NS

from . import rounds
from .cast import Cast
from .contestants.ours_costs import JOBS, PARTS, Job
from .plan import Plan, Say, cut
from .process import Failed
from .record import Row, spread
from .training import OURS

FACTOR = 2.0
BLOCK = 0.003  # seconds
ROUNDS, QUICK_ROUNDS = 30, 10


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each row of the table, when all are measured."""
    found: dict[str, dict[str, float]] = defaultdict(dict)  # nanoseconds of a row, by the kinds that tell it
    with Cast(plan, 1) as cast:
        for part in PARTS:
            name = part[0].family
            if plan.left() <= 0:
                yield cut(name)
                continue
            with cast.trying(OURS, name):
                for row, nanoseconds in solve(part, fastest(plan, cast, part)).items():
                    kind = next(job.family for job in part if row in job.units)
                    found[row][kind] = nanoseconds
            yield from cast.failures()
    for name in NS:
        if name in found:
            yield beside(name, NS[name], found[name])


def fastest(plan: Plan, cast: Cast, part: list[Job]) -> list[float]:
    """Seconds of a call of each job. Raises Failed."""
    runner = cast.start(OURS, {"kind": "costs"})
    found = []
    for job in part:
        runner.turn(JOBS.index(job), plan.patience)
        turns = QUICK_ROUNDS if plan.quick else ROUNDS
        samples = rounds.compare({OURS: runner}, turns, BLOCK, plan.left)[OURS]
        if samples.failed:
            raise Failed(samples.failed)
        found.append(min(samples.seconds))
    return found


def solve(jobs: Sequence[Job], seconds: Sequence[float]) -> dict[str, float]:
    """Nanoseconds of each row that the jobs tell: the least sum of squares of the jobs' relative errors, nothing below 0.

    A job is thought to take Σ units · cost, and what its family takes for any call.
    """
    told = list(dict.fromkeys(row for job in jobs for row in job.units))
    families = list(dict.fromkeys(job.family for job in jobs))
    units = [
        [*(job.units.get(row, 0.0) for row in told), *(float(job.family == family) for family in families)]
        for job in jobs
    ]
    relative = np.array(units) / (1e9 * np.array(seconds))[:, None]
    costs, kept = np.zeros(len(told) + len(families)), list(range(len(told) + len(families)))
    while kept:
        fitted = np.linalg.lstsq(relative[:, kept], np.ones(len(jobs)))[0]
        if fitted.min() >= 0:
            costs[kept] = fitted
            break
        del kept[int(fitted.argmin())]
    return dict(zip(told, map(float, costs), strict=False))


def beside(name: str, expected: float, kinds: dict[str, float]) -> Row:
    """What is told of a row: the table's figure, and what the kinds of operations that it stands for cost."""
    found = spread(list(kinds.values()))
    ratio = found["median"] / expected
    return {
        "operation": name,
        "contestant": OURS,
        "table": expected,
        "nanoseconds": found,
        "ratio": ratio,
        "moved": not 1 / FACTOR <= ratio <= FACTOR,
        "kinds": kinds,
    }


def line(row: Row) -> str:
    """A row on paper."""
    found = row["nanoseconds"]
    words = f"{row['operation']:22} table {row['table']:6.3f} ns  measured {found['median']:6.3f}  {row['ratio']:5.2f} ×"
    words += "  moved" if row["moved"] else ""
    return words + (f"  [{found['low']:.3f} .. {found['high']:.3f}]" if len(row["kinds"]) > 1 else "")
