"""Full training steps against the peers: forward, loss, backward and Adam, with each number of threads.

Before a contestant is timed its first steps are held against float64 (`correctness`); a wrong one is timed all the same, and
marked. The limits of the machine that bound a step (`limits.step`) take turns with the contestants.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Self

from . import correctness, limits, rounds
from .cases import CASES, Case
from .contestants import TRAINING, Missing
from .plan import Plan, Say, cut, failure
from .process import Contestant, Failed
from .record import Row, spread
from .rounds import Samples

OURS = "gdkernels"
SLOW_TO_START = ("torch compile", "tinygrad")  # which a quick run leaves out, unless they alone are asked for
FMA, UPDATE = "limit fma", "limit update"


class Field:
    """The contestants of a case that are ready, and judged. Use it in a ``with``.

    Attributes
    ----------
    runners : processes by name, ours first
    judged : what `correctness.judge` says of each
    failures : rows of those that failed, or are missing and not yet in `missing`, a set that a section keeps
    """

    def __init__(self, plan: Plan, label: str, case: Case, threads: int, names: list[str], missing: set[str]):
        self._plan, self._label, self._case, self._threads = plan, label, case, threads
        self._names, self._missing = names, missing
        self._stack = ExitStack()
        self.runners: dict[str, Contestant] = {}
        self.judged: dict[str, correctness.Verdict] = {}
        self.failures: list[Row] = []

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                if name not in self._missing:
                    self._start(name)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, name: str) -> None:
        job = {"kind": "train", "case": asdict(self._case)}
        try:
            runner = Contestant(name, job, self._threads, self._plan.patience)
        except Missing as error:
            self._missing.add(name)
            self.failures.append(failure(name, str(error)))
            return
        except Failed as error:
            self.failures.append(failure(f"{self._label} {self._threads}T {name}", str(error)))
            return
        try:
            outcome = runner.outcome(correctness.STEPS)
            self.judged[name] = correctness.judge(self._case, outcome, runner.facts.get("eps hat", False))
        except (Failed, KeyError, ValueError) as error:  # also where the outcome has not what it should
            runner.close()
            self.failures.append(failure(f"{self._label} {self._threads}T {name}", str(error)))
            return
        self.runners[name] = self._stack.enter_context(runner)

    def limits(self) -> dict[str, Contestant]:
        """The processes that measure what bounds a step."""
        found = {}
        for name, job in ((FMA, limits.fma_job()), (UPDATE, limits.adam_job(self._case))):
            try:
                found[name] = self._stack.enter_context(
                    Contestant(limits.LIMIT, job, self._threads, self._plan.patience)
                )
            except (Missing, Failed) as error:
                self.failures.append(failure(f"{self._label} {self._threads}T {name}", str(error)))
        return found


def names(plan: Plan) -> list[str]:
    """Who takes part, ours first."""
    return [name for name in TRAINING if plan.wants(name) and not too_slow(plan, name)]


def too_slow(plan: Plan, name: str) -> bool:
    """Whether a contestant takes too long to start for a quick run in which there are others."""
    return plan.quick and name in SLOW_TO_START and not set(plan.peers) <= set(SLOW_TO_START)


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each case, number of threads and contestant."""
    listed = names(plan)
    for name in TRAINING:
        if plan.wants(name) and name not in listed:
            yield cut(f"{name}, which is slow to start")
    missing: set[str] = set()
    groups = [(letter, threads) for letter in plan.cases for threads in plan.threads]
    for place, (letter, threads) in enumerate(groups):
        if plan.left() <= 0:
            yield cut(f"{letter} {threads}T")
            continue
        end = plan.clock() + plan.left() / (len(groups) - place)
        with Field(plan, letter, CASES[letter], threads, listed, missing) as field:
            runners = field.runners | field.limits()
            yield from field.failures
            samples = rounds.compare(runners, plan.rounds, plan.block, lambda end=end: end - plan.clock())
            yield from table(letter, CASES[letter], threads, field, samples)


def table(letter: str, case: Case, threads: int, field: Field, samples: dict[str, Samples]) -> Iterator[Row]:
    """The rows of a case. Ratios and shares are formed round by round."""
    bounds = [
        limits.step(case, flop, byte)
        for flop, byte in zip(*(samples.get(name, Samples()).seconds for name in (FMA, UPDATE)), strict=False)
    ]
    ours = samples.get(OURS, Samples())
    for name, each in samples.items():
        if each.failed:
            yield failure(f"{letter} {threads}T {name}", each.failed)
        if name not in field.judged or not each.seconds:
            continue
        row: Row = {
            "case": letter,
            "threads": threads,
            "contestant": name,
            **measured(each, case.batches),
            **verdict(field.judged[name]),
            "threads_reported": told(field.runners[name].facts),
            "ready_seconds": field.runners[name].facts["seconds"],
        }
        if ours.seconds and name != OURS:
            row["ratio"] = rounds.ratio(ours, each)
        if bounds:
            pairs = zip(bounds, each.seconds, strict=False)
            row["share_of_limit"] = spread([bound * case.batches / seconds for bound, seconds in pairs])
            row["limit_microseconds"] = 1e6 * spread(bounds)["median"]
        yield row


def measured(samples: Samples, batches: int) -> Row:
    """What of the samples, each of an epoch of so many steps, a row tells."""
    rate = spread([batches / seconds for seconds in samples.seconds])
    found: Row = {
        "steps_per_second": rate,
        "microseconds": 1e6 / rate["median"],
        "rounds": len(samples.seconds),
        "thrown_away": samples.thrown_away,
        "dirty": samples.dirty,
    }
    return found | ({"cores_used": spread(samples.cores)} if samples.cores else {})


def verdict(judged: correctness.Verdict) -> Row:
    """What was compared, and whether it is right."""
    return {
        "compared": judged.what, "error": judged.error, "tolerance": judged.tolerance, "ok": judged.ok
    }  # fmt: skip


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """What the worker said of its threads."""
    return {
        **facts["threads"],
        **{name: value for name, value in facts.items() if "threads" in name and name != "threads"},
    }


def line(row: Row) -> str:
    """A row on paper."""
    rate = row["steps_per_second"]
    words = [
        f"{row['case']} {row['threads']}T {row['contestant']:15}",
        f"{rate['median']:10.1f} steps/s [{rate['low']:.1f} .. {rate['high']:.1f}]",
        f"{row['microseconds']:10.1f} µs",
    ]
    if "ratio" in row:
        words.append(f"ours is {row['ratio']['median']:6.2f} ×")
    if "share_of_limit" in row:
        words.append(f"{100 * row['share_of_limit']['median']:5.1f} % of the limit")
    if "cores_used" in row:
        words.append(f"{row['cores_used']['median']:.1f} cores")
    if not row["ok"]:
        words.append(f"WRONG: {row['compared']} by {row['error']:.2g}, {row['tolerance']:.2g} allowed")
    if row["thrown_away"] or row["dirty"]:
        words.append(f"{row['thrown_away']} thrown away, {row['dirty']} dirty")
    return "  ".join(words)
