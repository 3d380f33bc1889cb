"""What it costs to begin: imports, the first training step, memory, and what is installed.

A first step is told from the start of the process to the end of the step, interpreter and imports included: once with
nothing compiled before (all caches of compiled code are empty folders), once with what an earlier process has left. Peak
memory is told after the imports alone, and after an epoch of case b. Every repetition is a process of its own, and
contestants take turns. Where a library keeps nothing, both first steps tell the same.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from . import installed
from .plan import Plan, Say, cut, failure
from .process import Failed, Process
from .record import Row, spread

REPEATS, QUICK_REPEATS = 3, 1
PATIENCE = 180.0  # seconds for a first step

# What a program imports that trains as the contestants do. gdkernels loads its parts at their first use.
MODULES = {
    "gdkernels": ("gdkernels", "gdkernels.train.trainer", "gdkernels.cpu.engine.engine"),
    "torch": ("torch",),
    "jax": ("jax", "optax"),
    "tinygrad": ("tinygrad", "tinygrad.nn.optim"),
    "scikit-learn": ("sklearn.neural_network",),
}
SLOW_TO_START = "torch compile"  # a quick run leaves it out
CONTESTANTS = ("gdkernels", "torch eager", "jax jit", "scikit-learn", "tinygrad", SLOW_TO_START)

COLD, WARM = "first step, nothing cached", "first step, caches filled"
IMPORT, EMPTY_MEMORY, MEMORY = "import", "memory after import", "memory after an epoch"
SIZE = "installed size"


def caches(folder: Path) -> dict[str, str]:
    """Variables that make every library keep its compiled code in this folder. JAX keeps none unless it is told to."""
    return {
        "GDKERNELS_CACHE_DIR": str(folder / "gdkernels"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "CACHEDB": str(folder / "tinygrad.db"),
    }


def begin(request: dict, folder: Path, patience: float = PATIENCE) -> dict[str, float]:
    """What a fresh process answers (`first`), with "wall": seconds from its start to the answer. Raises Failed."""
    environment = os.environ | caches(folder)
    start = time.perf_counter()
    with Process((sys.executable, "-m", "bench.first"), request, environment) as process:
        return process.told(patience) | {"wall": time.perf_counter() - start}


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """Sizes, then a row for each thing and contestant."""
    yield from sizes(plan)
    jobs = [
        *((IMPORT, name, {"do": "import", "modules": MODULES[name]}) for name in MODULES if plan.wants(name)),
        *(
            (what, name, {"do": do})
            for name in CONTESTANTS
            if plan.wants(name) and not (plan.quick and name == SLOW_TO_START)
            for what, do in ((COLD, "step"), (WARM, "step"), (MEMORY, "epoch"))
        ),
    ]
    found: dict[tuple[str, str], list[float]] = {}
    failed: set[tuple[str, str]] = set()
    threads = max(plan.threads)
    with tempfile.TemporaryDirectory() as kept:
        for number in range(QUICK_REPEATS if plan.quick else REPEATS):
            for what, name, job in jobs:
                if (what, name) in failed:
                    continue
                if plan.left() <= 0:
                    if number == 0:
                        yield cut(f"{what}: {name}")
                    continue
                request = {"contestant": name, "threads": threads, **job}
                try:
                    if what == WARM and number == 0:
                        begin(request, Path(kept), plan.patience)
                    with tempfile.TemporaryDirectory() as fresh:
                        told = begin(request, Path(fresh if what == COLD else kept), plan.patience)
                except Failed as error:
                    failed.add((what, name))
                    yield failure(f"{what}: {name}", str(error))
                    continue
                value = {IMPORT: "seconds", MEMORY: "peak"}.get(what, "wall")
                found.setdefault((what, name), []).append(told[value])
                if what == IMPORT:
                    found.setdefault((EMPTY_MEMORY, name), []).append(told["peak"])
    for (what, name), values in found.items():
        unit = "bytes" if what in (MEMORY, EMPTY_MEMORY) else "seconds"
        yield {"what": what, "contestant": name, unit: spread(values), "repeats": len(values)}


def sizes(plan: Plan) -> Iterator[Row]:
    """Installed sizes of the libraries that are here."""
    for library in installed.NAMES:
        if not plan.wants(library):
            continue
        try:
            yield {
                "what": SIZE,
                "contestant": library,
                "bytes": spread([installed.total(library)]),
                "repeats": 1,
            }
        except (PackageNotFoundError, ModuleNotFoundError) as error:
            yield failure(f"{SIZE}: {library}", f"{error.name} is not installed")


def line(row: Row) -> str:
    """A row on paper."""
    if "seconds" in row:
        value = "{median:8.2f} s   [{low:.2f} .. {high:.2f}]".format(**row["seconds"])
    else:
        value = f"{row['bytes']['median'] / 1e6:8.0f} MB"
    return f"{row['what']:28} {row['contestant']:16} {value}"
