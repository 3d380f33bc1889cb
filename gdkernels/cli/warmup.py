"""Compile every CPU kernel for float32 and float64 into the cache, so that no later run waits for it."""

import argparse
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .options import DTYPES, count

if TYPE_CHECKING:
    from gdkernels.cpu.runtime.crew import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gdkernels warmup`."""
    parser.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help="compile by N processes at once; by default one for each core that may be used",
    )


def run(options: argparse.Namespace) -> int:
    """Compile what is not in the cache yet; 1 where a kernel cannot be compiled."""
    from tqdm import tqdm

    from gdkernels import cache
    from gdkernels.cpu.runtime.compilers import compile_all, missing
    from gdkernels.cpu.runtime.machine import cpu_count

    start = time.perf_counter()
    jobs = [(native, dtype) for native in natives() for dtype in DTYPES]
    failures: list[str] = []
    with tqdm(total=len(missing(jobs)), unit="kernel", disable=not sys.stderr.isatty()) as bar:
        done = 0

        def told(job: "Job", wrong: Exception | None) -> None:
            nonlocal done
            done += 1
            if wrong is not None:
                reason = str(wrong).strip() or type(wrong).__name__
                failures.append(f"{job.symbol}: {reason.splitlines()[0]}")
            bar.set_postfix_str(job.symbol, refresh=False)
            bar.update()
            if bar.disable and done % 20 == 0:
                print(f"{done}/{bar.total} kernels", file=sys.stderr, flush=True)

        compile_all(jobs, options.processes or cpu_count(), told)
    for line in failures:
        print(f"gdkernels warmup: {line}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} kernels cannot be compiled")
        return 1
    for dtype in DTYPES:
        train_once(dtype)
    seconds = time.perf_counter() - start
    print(f"{len(jobs)} kernels ready in {seconds:.1f} s, kept in {cache.folder()}")
    return 0


def train_once(dtype: str) -> None:
    """A step with labels and one with values: what Python calls directly is compiled for the arrays it meets."""
    import numpy as np

    import gdkernels as gd

    x = np.zeros((2, 3), dtype)
    for loss, y in (("softmax_cross_entropy", np.zeros(2, np.int64)), ("mse", np.zeros((2, 2), dtype))):
        net = gd.mlp([3, 4, 2], norm="layer", dtype=dtype)
        gd.Trainer(net, loss=loss).fit(x, y, epochs=1, batch_size=2, validation=(x, y), progress=False)


def natives() -> list[Any]:
    """Every compiled function of `gdkernels.cpu`, in the order of the modules."""
    import importlib
    import pkgutil

    import gdkernels.cpu

    names = [module.name for module in pkgutil.walk_packages(gdkernels.cpu.__path__, "gdkernels.cpu.")]
    modules = [importlib.import_module(name) for name in names]
    found = {id(native): native for module in modules for native in _natives_in(vars(module).values())}
    return list(found.values())


def _natives_in(values: Iterable[Any]) -> Iterable[Any]:
    """The compiled functions among these values, also those in tables (one for each activation) and behind doors."""
    from gdkernels.cpu.doors.door import Door
    from gdkernels.cpu.runtime.jit import Native

    for value in values:
        if isinstance(value, Native):
            yield value
        elif isinstance(value, Door):
            yield value.kernel
        elif isinstance(value, dict):
            yield from _natives_in(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _natives_in(value)
