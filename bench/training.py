"""Full training steps against the peers: forward, loss, backward and Adam, with each number of threads.

Before a contestant is timed its first steps are held against float64 (`correctness`); a wrong one is timed all the same, and
marked. The limits of the machine that bound a step (`limits.step`) take turns with the contestants.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from . import correctness, limits, rounds
from .cases import CASES, Case
from .cast import Cast
from .contestants import TRAINING
from .plan import Plan, Say, cut, failure
from .process import Contestant
from .record import Row, spread
from .rounds import Samples

OURS = "gdkernels"
SLOW_TO_START = ("torch compile", "tinygrad")  # which a quick run leaves out, unless they alone are asked for
FMA, UPDATE = "limit fma", "limit update"


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
        with Cast(plan, threads, missing) as cast:
            judged = judge(cast, letter, CASES[letter], listed)
            runners = dict(cast.at_work)
            jobs = {FMA: limits.fma_job(), UPDATE: limits.adam_job(CASES[letter])}
            for name, job in jobs.items():
                with cast.trying(name, f"{letter} {threads}T {name}", f"{letter} {threads}T {name}"):
                    runners[name] = cast.start(limits.LIMIT, job, name)
            yield from cast.failures()
            samples = rounds.compare(runners, plan.rounds, plan.block, lambda end=end: end - plan.clock())
            yield from table(letter, CASES[letter], threads, runners, judged, samples)


def judge(
    cast: Cast, label: str, case: Case, listed: list[str], kind: str = "train"
) -> dict[str, correctness.Verdict]:
    """Start those that can take part, ours first, and say how right their first steps are."""
    judged = {}
    for name in listed:
        if name not in cast.missing:
            with cast.trying(name, f"{label} {cast.threads}T {name}"):
                runner = cast.start(name, {"kind": kind, "case": asdict(case)})
                outcome = runner.outcome(correctness.STEPS)
                judged[name] = correctness.judge(case, outcome, runner.facts.get("eps hat", False))
    return judged


def table(
    letter: str,
    case: Case,
    threads: int,
    runners: dict[str, Contestant],
    judged: dict[str, correctness.Verdict],
    samples: dict[str, Samples],
) -> Iterator[Row]:
    """The rows of a case. Ratios and shares are formed round by round."""
    bounds = [
        limits.step(case, flop, byte)
        for flop, byte in zip(*(samples.get(name, Samples()).seconds for name in (FMA, UPDATE)), strict=False)
    ]
    ours = samples.get(OURS, Samples())
    for name, each in samples.items():
        if each.failed:
            yield failure(f"{letter} {threads}T {name}", each.failed)
        if name not in judged or not each.seconds:
            continue
        row: Row = {
            "case": letter,
            "threads": threads,
            "contestant": name,
            **measured(each, case.batches),
            **verdict(judged[name]),
            "threads_reported": told(runners[name].facts),
            "ready_seconds": runners[name].facts["seconds"],
        }
        if ours.seconds and name != OURS:
            row["ratio"] = rounds.ratio(ours, each)
        if bounds:
            pairs = zip(bounds, each.seconds, strict=False)
            row["share_of_limit"] = spread([bound * case.batches / seconds for bound, seconds in pairs])
            row["limit_microseconds"] = 1e6 * spread(bounds)["median"]
        yield row


def measured(samples: Samples, batches: int) -> Row:
    """What of the samples, each of an epoch of this many steps, a row tells."""
    rate = spread([batches / seconds for seconds in samples.seconds])
    found: Row = {
        "steps_per_second": rate,
        "microseconds": 1e6 / rate["median"],
        "rounds": len(samples.seconds),
        **samples.disturbed,
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
