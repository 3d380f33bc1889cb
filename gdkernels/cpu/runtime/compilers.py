"""Compile at once, by several processes, what will be asked for soon; and the program of those processes (`crew`)."""

import importlib
import os
import signal
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

from numba.core.compiler_lock import global_compiler_lock

from .crew import DONE, Job, Told, compilers_at_first, crew
from .dispatch import only_compiles
from .jit import Native, known

WORTH_A_COMPILER = 6000  # bytes of Python's code: two seconds, of which a process needs one to begin


def missing(asked: Iterable[tuple[Native, Any]]) -> dict[str, Job]:
    """What must be compiled for these, by symbol: they and all that they call, callees first."""
    jobs: dict[str, Job] = {}
    found: dict[str, frozenset[str]] = {}  # what is missing of a function and below it

    def visit(native: Native, variant: str) -> frozenset[str]:
        symbol = native.symbol(variant)
        if symbol not in found:
            below = [visit(callee, callee.variant(variant)) for callee in native.callees()]
            found[symbol] = frozenset().union(*below)
            if not native.is_ready(variant):
                request = f"{native.function.__module__} {native.name} {variant}"
                compile_it = partial(native.address, variant)
                jobs[symbol] = Job(symbol, request, found[symbol], native.size(), compile_it)
                found[symbol] |= {symbol}
        return found[symbol]

    for native, dtype in asked:
        visit(native, native.variant(dtype))
    return jobs


def compile_all(
    asked: Iterable[tuple[Native, Any]],
    compilers: int | None = None,
    told: Told | None = None,
) -> None:
    """Compile native functions, and all that they call, by several processes where that is worth their start.

    Parameters
    ----------
    asked : pairs of a function and an element type
    compilers : how many processes, this one included; None for `compilers_at_first`
    told : is called with each that is ready, or with what was wrong with it; None: an error of any ends it here, by raising
        it where that is compiled
    """
    count = compilers_at_first() if compilers is None else compilers
    if count == 1 and told is None:
        return
    with global_compiler_lock:
        jobs = missing(asked)
        worth = sum(job.size for job in jobs.values()) // WORTH_A_COMPILER
        if told is not None or (worth and count > 1):
            crew.run(jobs, min(count - 1, worth), told)


def serve() -> None:
    """Compile what is asked for on the standard input, a line each: its module, its name and its variant."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has started this one
    only_compiles()
    crew.close()
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # what anybody prints
        for line in sys.stdin:
            module, name, variant = line.split()
            try:
                importlib.import_module(module)
                known(name).compile(variant)
            except Exception:  # whatever it is, it shows where this is compiled next
                answers.write(b"failed\n")
            else:
                answers.write(DONE)


if __name__ == "__main__":
    serve()
