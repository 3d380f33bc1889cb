"""What machine this is, which versions are installed, and how busy it is."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = (
    "numba", "llvmlite", "numpy", "torch", "jax", "jaxlib", "optax", "tinygrad", "scikit-learn", "scipy",
    "threadpoolctl",
)  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def facts() -> dict[str, Any]:
    """What every result carries."""
    return {
        "cpu": model(),
        "cores": cores(),
        "caches": caches(),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(PACKAGES),
    }


def model() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def caches() -> str:
    """The caches that the first core sees."""
    found = []
    for folder in sorted(_CACHES.glob("index*")):
        level, kind, size = (
            (folder / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def memory() -> str:
    """How much memory there is."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def versions(packages: Iterable[str]) -> str:
    """The versions of ours and of these packages, of those that are installed."""
    from gdkernels import __version__

    found = [f"gdkernels {__version__}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def busy_seconds() -> float | None:
    """CPU seconds that all processes together, and the machine's other guests, have used; None where that is not told.

    user, nice and system, and irq, softirq and steal of the first line of /proc/stat.
    """
    try:
        with open("/proc/stat", encoding="ascii") as file:
            words = [int(word) for word in file.readline().split()[1:]]
    except OSError:
        return None
    return (sum(words[:3]) + sum(words[5:8])) / TICKS


def cpu_seconds(pid: int) -> float | None:
    """CPU seconds that a process has used, with its threads; None where that is not told, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / TICKS
