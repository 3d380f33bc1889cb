"""`gdkernels verify` for the GPU, row by row. Before that, all kernels are compiled by all cores.

A kernel takes about a second from Python to machine code; one after the other, verification alone would take all the time
that there is. What was compiled is kept on disk, by us (PTX) and by the driver (machine code).
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from functools import partial

from gdkernels.cli import verify
from gdkernels.cuda import driver

from . import rows
from .lab import Lab

STORAGES = ("float32", "float64", "bfloat16", "int64", "int32")  # of the kernels that are compiled beforehand
TINY_BUDGETS = ("sums of strips",)
TINY_ROWS = ("mse float32", "global_norm float32")
CHUNK = 4  # kernels that a process takes at a time
CONTEXT = 1 << 30  # bytes of the GPU that a process may need


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """All kernels at once, then the rows of verification; on an emulated device a few of both."""
    found = [("all kernels compile", partial(compile_all, lab))]
    for name, row in verify.table(verify.find_reference(), "cuda"):
        if not lab.tiny or name in TINY_ROWS:
            found.append((name, partial(one_row, row)))
    return found


def one_row(row: Callable[[], verify.Row]) -> Iterator[rows.Row]:
    """A row of `gdkernels verify`."""
    found = row()
    yield rows.check(found.op, found.dtype, found.against, found.worst, found.bound) | {
        "ok": found.passed, "cases": found.cases, "worst case": found.case,
    }  # fmt: skip


def compile_all(lab: Lab) -> Iterator[rows.Row]:
    """Kernels that do not compile, of those that the static gate knows."""
    from gdkernels.cuda.budgets import BUDGETS

    places = [
        (number, place, storage)
        for number, budget in enumerate(BUDGETS)
        if not lab.tiny or budget.name in TINY_BUDGETS
        for place, kernel in enumerate(budget.kernels)
        for storage in budget.storages
        if storage in kernel.variants and storage in STORAGES
    ]
    chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
    failed: list[str] = []
    free, _ = driver.memory()
    processes = min(len(chunks), 2 if lab.tiny else os.cpu_count() or 1, max(1, free // CONTEXT))
    enough = 0.4 * lab.left()  # seconds for what follows
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.imap_unordered(_compile, chunks)
        for done in range(len(chunks)):
            try:
                failed += results.next(timeout=None if lab.tiny else max(0.1, lab.left() - enough))
            except multiprocessing.TimeoutError:
                yield rows.note(
                    f"cut: {len(chunks) - done} of {len(chunks)} groups of kernels are yet to be compiled"
                )
                break
    yield rows.check("kernels that do not compile", "all", f"{len(places)} kernels", len(failed), 0)
    yield from map(rows.note, failed)


def _compile(places: list[tuple[int, int, str]]) -> list[str]:
    """Compile and load kernels, named by their places in the budgets; what went wrong."""
    from gdkernels.cuda.budgets import BUDGETS

    device = driver.use()
    failed = []
    for number, place, storage in places:
        kernel = BUDGETS[number].kernels[place]
        try:
            kernel.ready(storage, device)
        except Exception as error:
            failed.append(f"{kernel.name} for {storage}: {type(error).__name__}: {error}")
    return failed
