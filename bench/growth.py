"""How the cost of a step grows with the batch, the width, the depth and the threads: ours and the peers that are best there.

One thing grows, the others stay as in `cases.network`. Each contestant lives in one process, for all networks.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from . import correctness, rounds
from .cases import CASES, Case, network
from .cast import Cast
from .plan import Plan, Say, cut
from .record import Row
from .training import OURS, measured, verdict

CONTESTANTS = (OURS, "jax scan", "torch eager")
BATCH_SIZES = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (8, 32, 128, 512, 2048, 4096)
DEPTHS = (1, 4, 16, 64)
QUICK_BATCH_SIZES, QUICK_WIDTHS, QUICK_DEPTHS = (1, 1024), (8, 1024), (16,)
BLOCK, ROUNDS = 0.1, 5
QUICK_ROUNDS = 3


@dataclass(frozen=True)
class Point:
    """A network on one of the curves."""

    axis: str
    value: int
    threads: int
    case: Case

    def __str__(self) -> str:
        return f"{self.axis} {self.value} {self.threads}T"


def points(plan: Plan) -> dict[int, list[Point]]:
    """All points by their number of threads. What grows but the threads does so on all of them."""
    batches, widths, depths = (
        (QUICK_BATCH_SIZES, QUICK_WIDTHS, QUICK_DEPTHS) if plan.quick else (BATCH_SIZES, WIDTHS, DEPTHS)
    )
    most = max(plan.threads)
    found = {threads: [Point("threads", threads, threads, CASES["b"])] for threads in plan.threads}
    found[most] += [Point("batch", batch, most, network(batch=batch)) for batch in batches]
    found[most] += [Point("width", width, most, network(width=width)) for width in widths]
    found[most] += [Point("depth", depth, most, network(depth=depth)) for depth in depths]
    return found


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each point and contestant."""
    missing: set[str] = set()
    remaining = sum(map(len, points(plan).values()))
    for threads, listed in points(plan).items():
        with Cast(plan, threads, missing) as cast:
            job = {"kind": "train", "cases": [asdict(point.case) for point in listed]}
            for name in CONTESTANTS:
                if plan.wants(name) and name not in missing:
                    with cast.trying(name, f"{name} {threads}T"):
                        cast.start(name, job)
            yield from cast.failures()
            for number, point in enumerate(listed):
                if plan.left() <= 0:
                    yield cut(str(point))
                else:
                    end = plan.clock() + plan.left() / remaining
                    yield from _measured(plan, cast, number, point, end)
                remaining -= 1


def _measured(plan: Plan, cast: Cast, number: int, point: Point, end: float) -> Iterator[Row]:
    """The rows of a point, measured until `end`. A contestant that fails here takes part no more."""
    judged = {}
    for name, runner in list(cast.at_work.items()):
        with cast.trying(name, f"{name} at {point}"):
            runner.turn(number)
            judged[name] = correctness.judge(point.case, runner.outcome(correctness.STEPS))
    yield from cast.failures()
    turns = QUICK_ROUNDS if plan.quick else ROUNDS
    samples = rounds.compare(cast.at_work, turns, min(plan.block, BLOCK), lambda: end - plan.clock())
    for name, each in samples.items():
        if each.failed:
            cast.drop(name, f"{name} at {point}", each.failed)
            yield from cast.failures()
        if not each.seconds:
            continue
        row: Row = {
            "axis": point.axis,
            "value": point.value,
            "threads": point.threads,
            "contestant": name,
            **measured(each, point.case.batches),
            **verdict(judged[name]),
        }
        if name != OURS and samples.get(OURS) and samples[OURS].seconds:
            row["ratio"] = rounds.ratio(samples[OURS], each)
        yield row


def line(row: Row) -> str:
    """A row on paper."""
    words = [
        f"{row['axis']:8}{row['value']:5} {row['threads']}T {row['contestant']:12}",
        f"{row['microseconds']:12.1f} µs",
    ]
    if "ratio" in row:
        words.append(f"ours is {row['ratio']['median']:6.2f} ×")
    if not row["ok"]:
        words.append(f"WRONG: {row['compared']} by {row['error']:.2g}, {row['tolerance']:.2g} allowed")
    return "  ".join(words)
