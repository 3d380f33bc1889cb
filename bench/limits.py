"""The limits of this machine: multiply-adds, memory traffic by working set, and barriers, with each number of threads.

`contestants.limits` holds the kernels. Other sections measure the limits that they need again, in turns with their own
contestants; `step` says how long a training step takes at least, by those.
"""

from collections.abc import Iterator
from typing import Any

from . import rounds
from .cases import Case
from .cast import Cast
from .plan import Plan, Say, failure
from .process import Contestant
from .record import Row, spread

LIMIT = "limit"
UNITS = {"fma": "GFLOP/s", "barrier": "ns"}  # of the others: GB/s
STREAMS = ("copy", "triad", "update")
WORKING_SETS = (16 << 10, 128 << 10, 512 << 10, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)  # bytes
QUICK_WORKING_SETS = (16 << 10, 512 << 10, 4 << 20, 256 << 20)
BLOCK, ROUNDS = 0.03, 5
QUICK_ROUNDS = 3

ADAM_BYTES = 28  # a parameter: p, m and v are read and written, g is read
ADAM_WORKING_SET = 16  # p, m, v, g


def fma_job() -> dict[str, Any]:
    """Multiply-adds on data in registers."""
    return {"kind": "limit", "op": "fma"}


def adam_job(case: Case) -> dict[str, Any]:
    """An update in place of as much memory as Adam goes through in a step of the case."""
    return {"kind": "limit", "op": "update", "bytes": ADAM_WORKING_SET * case.parameters}


def step(case: Case, second_per_flop: float, second_per_byte: float) -> float:
    """Seconds that a training step takes at least: its products at the peak of the multiply-adds, and then Adam's traffic at
    the speed of an update in place of a working set of that size.

    What an ideal step could overlap, or keep in registers between the two, is not counted in its favour; activations and
    their traffic are not counted at all.
    """
    return case.flops * second_per_flop + ADAM_BYTES * case.parameters * second_per_byte


class Sized:
    """A stream with one of its working sets, as a contestant of its own; they share a process."""

    def __init__(self, contestant: Contestant, working_set: int, turned: list[int]):
        self._contestant, self._working_set = contestant, working_set
        self._turned = turned  # the working set that the process has now

    def run(self, times: int) -> float:
        if self._turned != [self._working_set]:
            self._contestant.outcome(self._working_set)
            self._turned[:] = [self._working_set]
            self._contestant.run(times)  # brings it into the caches
        return self._contestant.run(times)

    def cpu_seconds(self) -> float | None:
        return self._contestant.cpu_seconds()


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each limit, working set and number of threads."""
    sizes = QUICK_WORKING_SETS if plan.quick else WORKING_SETS
    for threads in plan.threads:
        with Cast(plan, threads) as cast:
            runners: dict[tuple[str, int], Any] = {}
            for op in ("fma", *(("barrier",) if threads > 1 else ()), *STREAMS):
                job, item = {"kind": "limit", "op": op, "bytes": sizes[0]}, f"{op} {threads}T"
                with cast.trying(LIMIT, item, item):
                    process, turned = cast.start(LIMIT, job, op), []
                    if op in UNITS:
                        runners[op, 0] = process
                    else:
                        runners |= {(op, size): Sized(process, size, turned) for size in sizes}
            yield from cast.failures()
            turns = QUICK_ROUNDS if plan.quick else ROUNDS
            found = rounds.compare(runners, turns, min(plan.block, BLOCK), plan.left)
        for (op, size), samples in found.items():
            if samples.failed:
                yield failure(f"{op} {threads}T", samples.failed)
            if samples.seconds:
                rates = [1e9 * each if op == "barrier" else 1e-9 / each for each in samples.seconds]
                yield {
                    "limit": op,
                    "threads": threads,
                    "bytes": size,
                    "unit": UNITS.get(op, "GB/s"),
                    "rate": spread(rates),
                    **samples.disturbed,
                }


def line(row: Row) -> str:
    """A row on paper."""
    rate = row["rate"]
    size = f"{row['bytes'] / 1024:.0f} KiB" if row["bytes"] else ""
    return (
        f"{row['limit']:8} {size:>12} {row['threads']}T {rate['median']:8.1f} {row['unit']}"
        f" [{rate['low']:.1f} .. {rate['high']:.1f}]"
    )
