"""What multiplies matrices: this package ("own"), cuBLAS ("vendor"), or whichever was faster on this GPU ("auto").

"auto" times both once for each class of products, launched one after the other: a class is an element type, a form,
sizes rounded up to powers of two, and whether more follows than the product. What it finds is kept in the cache folder,
by the GPU's name and the version: the next process does the same. On another machine of the same kind it may come out
differently, and the last bits with it.
"""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ... import __version__
from ... import cache as disk

ENGINES = ("own", "vendor", "auto")
ROUNDS, REPETITIONS = 3, 10  # the median of the rounds counts


class GemmEngine(NamedTuple):
    """What `set_gemm_engine` takes."""

    engine: str = "own"
    tf32: bool = False


_current = GemmEngine()


def set_gemm_engine(engine: str, tf32: bool = False) -> None:
    """Choose what multiplies matrices on the GPU, for the whole process.

    Parameters
    ----------
    engine : {"own", "vendor", "auto"}
        The kernels of this package, in which bias and activation cost no pass over memory; cuBLAS through CuPy, followed
        by one kernel for the rest; or the faster of the two for each class of shapes, timed when it is first met.
    tf32 : bool
        Multiply float32 on tensor cores, with the factors rounded to 11 significant bits. Sums stay float32.

    Raises
    ------
    ValueError
        For another name.
    RuntimeError
        For "vendor" where CuPy is missing or finds no GPU. "auto" is "own" there.
    """
    global _current
    if engine not in ENGINES:
        raise ValueError(f'set_gemm_engine: engine is {engine!r}, expected "own", "vendor" or "auto"')
    if engine == "vendor":
        if not cupy_is_installed():
            raise RuntimeError(
                'set_gemm_engine: "vendor" is cuBLAS through CuPy, which is not installed: pip install "gdkernels[cuda13]"'
            )
        if not vendor_is_available():
            raise RuntimeError('set_gemm_engine: "vendor" is cuBLAS through CuPy, which finds no GPU')
    _current = GemmEngine(engine, bool(tf32))


def get_gemm_engine() -> GemmEngine:
    """(engine, tf32) as they were set; at first ("own", False)."""
    return _current


def cupy_is_installed() -> bool:
    """Whether CuPy can be imported."""
    return importlib.util.find_spec("cupy") is not None


def vendor_is_available() -> bool:
    """Whether CuPy is installed and finds a GPU."""
    from ..runtime.arrays import CuPy, default_library

    return default_library() is CuPy


# ---------------------------------------------------------------------------------------------- auto


def product_class(kind: str, form: str, m: int, n: int, k: int, more: bool) -> str:
    """The name of a class of products; `more` than the product is asked for."""
    sizes = " ".join(str(1 << (size - 1).bit_length()) for size in (m, n, k))
    return f"{kind} {form} {sizes}{' and more' if more else ''}"


def faster(name: str, build: Any) -> str:
    """The engine that is faster for a class of products, timed if that is not known yet.

    ``build(engine, room)`` gives launches over memory from ``room(bytes)``. While a stream is captured nothing can be timed:
    "own", until the class is met again.
    """
    from ..runtime import driver

    machine = _machine(driver.use())
    known = _remembered(machine)
    if name not in known:
        if not vendor_is_available() or _is_capturing():
            return "own"
        times = _times(build)
        if times is None:
            return "own"
        known[name] = min(times, key=times.__getitem__)
        _remember(machine, name, known[name])
    return known[name]


def _is_capturing() -> bool:
    from ..runtime import driver
    from ..runtime.arrays import default_library

    try:
        return driver.is_capturing(default_library().stream())
    except RuntimeError:  # the default stream may not even be asked while another is captured
        return True


def _times(build: Any) -> dict[str, float] | None:
    """Milliseconds of each engine; None where there is no memory to time them in."""
    from ..runtime.arrays import default_library, read

    library = default_library()
    stream = library.stream()
    rounds: dict[str, list[float]] = {"own": [], "vendor": []}
    try:
        memory = read(library.empty((1,), np.dtype(np.float64)))
        launches = {engine: build(engine, memory.workspace) for engine in rounds}
        for engine in (*rounds, *rounds):  # compile, load, warm up
            _milliseconds(launches[engine], stream, 1)
    except MemoryError:
        return None
    for _ in range(ROUNDS):
        for engine, times in rounds.items():
            times.append(_milliseconds(launches[engine], stream, REPETITIONS))
    return {engine: median(times) for engine, times in rounds.items()}


def _milliseconds(launches: Any, stream: int, repetitions: int) -> float:
    """Of this many runs, between two events on the stream."""
    from ..runtime.driver import Event

    first, last = Event(), Event()
    first.record(stream)
    for _ in range(repetitions):
        for one in launches:
            one.run(stream)
    last.record(stream)
    return 1e3 * last.since(first)


# ---------------------------------------------------------------------------------------------- what is remembered


def _path() -> Path:
    return disk.folder() / "gemm_engine.json"


@cache
def _machine(device: int) -> str:
    """What the times depend on: the GPU (the current device, whose number this is) and the version."""
    from ..runtime.target import cuda

    name = cuda.get_current_device().name
    return f"{name.decode() if isinstance(name, bytes) else name}, gdkernels {__version__}"


def _read() -> dict[str, dict[str, str]]:
    """For each machine what is known; nothing where the file is missing or damaged."""
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    machines = found.items() if isinstance(found, dict) else ()
    return {machine: known for machine, known in machines if isinstance(known, dict)}


@cache
def _remembered(machine: str) -> dict[str, str]:
    """The faster engine of each class of products."""
    found = _read().get(machine, {})
    return {name: engine for name, engine in found.items() if engine in ("own", "vendor")}


def _remember(machine: str, name: str, engine: str) -> None:
    """Add one class to the file, beside what other processes have added. A full disk is not an error."""
    found = _read()
    found[machine] = {**found.get(machine, {}), name: engine}
    temporary = _path().with_name(f"gemm_engine.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(found, indent=1, sort_keys=True))
        temporary.replace(_path())
    except OSError:
        temporary.unlink(missing_ok=True)
