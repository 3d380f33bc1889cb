"""Which vectors the contestants run: all of them held to an instruction set, and what each says that it runs.

``python -m bench --isa avx2`` lets a machine with AVX-512 stand for the many that have none. Every library has a switch of
its own, and some have two: `VARIABLES` sets them all. Whether they are obeyed is not taken on trust: each library is asked
in a process of its own, and multiplies two matrices. With vectors half as wide it cannot be faster than the multiply-adds
that ours measures with the same ones.
"""

import os
import sys
from collections.abc import MutableMapping
from typing import Any

from . import limits
from .cast import Cast
from .plan import Plan
from .process import Failed, Process
from .record import Row
from .vectors import SIZE
from .worker import CHOSEN, settle

BLOCK, ROUNDS = 0.1, 5
TOO_FAST = 1.05  # times the peak: what turns differ by


def choose(isa: str | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Hold this process, and all that it starts, to an instruction set."""
    if isa is not None:
        environment[CHOSEN] = isa
        settle(environment)


def check(plan: Plan, libraries: list[str]) -> dict[str, str]:
    """What each library says that it runs and how fast its product is beside the peak, in words, by library.

    A library that is not installed is left out; one that fails says so.
    """
    found = {}
    with Cast(plan, 1) as cast:
        for library in libraries:
            try:
                peak = cast.start(limits.LIMIT, limits.fma_job())
                with Process((sys.executable, "-m", "bench.vectors"), library) as process:
                    said = process.told(plan.patience)
                    if "missing" not in said:
                        found[library] = words(said, rates(process, peak, plan.patience))
            except Failed as error:
                found[library] = f"not known: {error}"
    return found


def rates(process: Process, peak: Any, patience: float) -> list[tuple[float, float]]:
    """(GFLOP/s of a library's product, peak of multiply-adds), taken in turns."""
    flops = int(1e9 * BLOCK / peak.run(10**9))
    pairs = []
    for _ in range(ROUNDS):
        process.tell({"seconds": BLOCK})
        pairs.append((process.told(patience)["rate"], 1e-9 * flops / peak.run(flops)))
    return pairs


def words(said: Row, pairs: list[tuple[float, float]]) -> str:
    """One line: what a library says, its product's rate, and whether that can be true."""
    rate, peak = max(pairs, key=lambda pair: pair[0] / pair[1])
    text = f"{said['runs']}; product of {SIZE}³ {rate:.0f} of {peak:.0f} GFLOP/s"
    return f"{text}: WIDER VECTORS THAN OURS" if rate > TOO_FAST * peak else text
