"""Steps per second while a foreign process is busy on every core: a team that spins at its barriers must not stand still.

Two threads on cores that others want as well get half of each at best; those who wait for each other get less where one is
off its core while the other spins. Told is each contestant's rate relative to its own on the quiet machine. Blocks with
foreign load cannot be thrown away here.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from . import cases, machine, rounds
from .cast import Cast
from .clock import Quiet
from .plan import Plan, Say, cut
from .process import kill
from .record import Row, spread
from .training import OURS, judge, too_slow, verdict

BATCHES = 16  # of an epoch: a contestant that stands still must be able to end one
CASES = {letter: replace(cases.CASES[letter], batches=BATCHES) for letter in ("a", "b")}
THREADS = 2
CONTESTANTS = (OURS, "torch eager", "torch compile", "jax scan")
BLOCK = 0.5  # seconds: many turns of the scheduler
ROUNDS, QUICK_ROUNDS = 5, 3
BUSY = """
import os, sys
core, parent = map(int, sys.argv[1:])
os.sched_setaffinity(0, {core})
while os.getppid() == parent:
    for _ in range(10**6): pass
"""


@contextmanager
def foreign_load() -> Iterator[None]:
    """A process that is busy on every core; they end with the block, or with this process."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for core in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-c", BUSY, str(core), str(os.getpid())]
            processes.append(subprocess.Popen(command, text=True, start_new_session=True))
        yield
    finally:
        for process in processes:
            kill(process)
            process.wait()


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each case and contestant."""
    if not hasattr(os, "sched_setaffinity") or machine.cores() < THREADS:
        yield cut(f"all: this needs Linux and {THREADS} cores")
        return
    names = [name for name in CONTESTANTS if plan.wants(name) and not too_slow(plan, name)]
    missing: set[str] = set()
    letters = list(CASES)[:1] if plan.quick else list(CASES)
    for place, letter in enumerate(letters):
        if plan.left() <= 0:
            yield cut(f"case {letter}")
            continue
        end = plan.clock() + plan.left() / (len(letters) - place)
        with Cast(plan, THREADS, missing) as cast:
            judged = judge(cast, letter, CASES[letter], names)
            yield from cast.failures()
            turns = QUICK_ROUNDS if plan.quick else ROUNDS
            block = min(plan.block, BLOCK)
            quiet = rounds.compare(cast.at_work, turns, block, lambda end=end: end - plan.clock())
            fit = {name: runner for name, runner in cast.at_work.items() if not quiet[name].failed}
            with foreign_load():
                busy = rounds.compare(fit, turns, block, plan.left, Quiet(busy=lambda: None))
            for name in fit:
                if not busy[name].failed:
                    yield row(letter, name, quiet[name], busy[name]) | verdict(judged[name])


def row(letter: str, name: str, quiet: rounds.Samples, busy: rounds.Samples) -> Row:
    """The rates of a contestant, and their ratio: the medians', as the rounds were not the same."""
    rates = [spread([BATCHES / seconds for seconds in samples.seconds]) for samples in (quiet, busy)]
    return {
        "case": letter,
        "threads": THREADS,
        "contestant": name,
        "quiet": rates[0],
        "contended": rates[1],
        "share_of_quiet": rates[1]["median"] / rates[0]["median"],
        **quiet.disturbed,
    }


def line(row: Row) -> str:
    """A row on paper."""
    return (
        f"{row['case']} {row['threads']}T {row['contestant']:15} quiet {row['quiet']['median']:10.1f} steps/s"
        f"  contended {row['contended']['median']:10.1f} [{row['contended']['low']:.1f} .. {row['contended']['high']:.1f}]"
        f"  {100 * row['share_of_quiet']:5.1f} %"
    )
