"""`gdkernels verify` for the GPU, row by row. Before that, all kernels are compiled by all cores.

A kernel takes about a second from Python to machine code; one after the other, verification alone would take all the time
that there is. What was compiled is kept on disk, by us (PTX) and by the driver (machine code).
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from functools import partial

from gdkernels.cli import verify
from gdkernels.cli.checks import SHAPES
from gdkernels.cuda.gemm import product as gemm
from gdkernels.cuda.runtime import driver
from gdkernels.scalar.activation import ACTIVATIONS

from . import rows
from .lab import Lab, lacks

LEFT_OUT = ("float16",)  # which neither verification nor the other sections use
TINY_JOBS = 3
TINY_ROWS = ("mse float32", "global_norm float32")
CHUNK_JOBS = 4  # that a process takes at a time
CONTEXT = 1 << 30  # bytes of the GPU that a process may need
ADDRESS = 1 << 20

Job = tuple[str, str] | tuple[int, int, str]


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
    """Kernels that do not compile, of those that the static gate knows and those of `linear` with every activation."""
    jobs = _jobs(driver.capability(driver.use()))
    if lab.tiny:
        jobs = jobs[-TINY_JOBS:]
    chunks = [jobs[start : start + CHUNK_JOBS] for start in range(0, len(jobs), CHUNK_JOBS)]
    free, _ = driver.memory()
    processes = min(len(chunks), os.cpu_count() or 1, max(1, free // CONTEXT))
    enough = 0.4 * lab.left()  # seconds for what follows
    failed: list[str] = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.imap_unordered(_compile, chunks)
        for done in range(len(chunks)):
            try:
                failed += results.next(timeout=None if lab.tiny else max(0.1, lab.left() - enough))
            except multiprocessing.TimeoutError:
                left = len(chunks) - done
                yield rows.note(
                    f"cut: {left} of {len(chunks)} groups of kernels are compiled when they are needed"
                )
                break
    yield rows.check("kernels that do not compile", "all", f"{len(jobs)} kinds", len(failed), 0)
    yield from map(rows.failure, failed)


def _jobs(capability: tuple[int, int]) -> list[Job]:
    """What is to be compiled: (activation, storage) of `linear`, and kernels by their places in the budgets."""
    from gdkernels.cuda.budgets import ARCHITECTURES, BUDGETS

    found: list[Job] = [(kind, storage) for kind in ACTIVATIONS for storage in verify.DTYPES]
    for number, budget in enumerate(BUDGETS):
        if any(ARCHITECTURES[name] <= capability for name in budget.architectures):
            for place, kernel in enumerate(budget.kernels):
                storages = [name for name in budget.holds_for(kernel) if name not in LEFT_OUT]
                found += [(number, place, name) for name in storages if not lacks(capability, name)]
    return found


def _compile(jobs: list[Job]) -> list[str]:
    """Compile and load kernels; what went wrong."""
    from gdkernels.cuda.budgets import BUDGETS

    device = driver.use()
    failed = []
    for job in jobs:
        try:
            if len(job) == 2:
                _load_linear(*job)
            else:
                number, place, storage = job
                BUDGETS[number].kernels[place].variant(storage).load(device)
        except Exception as error:
            name = job[0] if len(job) == 2 else BUDGETS[job[0]].kernels[job[1]].name
            failed.append(f"{name} for {job[-1]}: {type(error).__name__}: {error}")
    return failed


def _load_linear(kind: str, storage: str) -> None:
    """The kernels of `linear` that verification will need; the addresses mean nothing, since nothing is launched."""
    for m, k, n in SHAPES:
        launches = gemm.launches(
            lambda size: ADDRESS, storage, m=m, n=n, k=k, a=ADDRESS, rsa=k, csa=1, b=ADDRESS, rsb=n, csb=1, out=ADDRESS,
            ldo=n, bias=ADDRESS, activation=kind,
        )  # fmt: skip
        for one in launches:
            one.load()
