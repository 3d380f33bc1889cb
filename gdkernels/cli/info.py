"""Show what gdkernels runs on: versions, processor, vector width, threads, cache folder, GPU."""

import argparse
import contextlib
import os
import platform
import sys
from pathlib import Path

PACKAGES = ("numpy", "numba", "llvmlite", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`gdkernels info` has no options."""


def run(options: argparse.Namespace) -> int:
    """Print one line for each fact."""
    for name, value in facts().items():
        print(f"{name:10}{value}")
    return 0


def facts() -> dict[str, str]:
    """What `gdkernels info` prints, by name."""
    import importlib.metadata

    import llvmlite.binding as llvm

    import gdkernels
    from gdkernels import cache, cuda
    from gdkernels.cpu.runtime import machine

    bits = machine.VECTOR_BITS
    return {
        "gdkernels": f"{gdkernels.__version__} in {Path(gdkernels.__file__).parent}",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "cpu": f"{_cpu_model()} ({os.environ.get('NUMBA_CPU_NAME') or llvm.get_host_cpu_name()})",
        "vectors": f"{bits} bits: {bits // 32} float32 or {bits // 64} float64",
        "threads": f"{_threads()} used, {machine.cpu_count()} cores",
        "cache": _cache_line(cache.folder()),
        "cuda": cuda.describe(),
    }


def _threads() -> int:
    """What `get_threads` gives: asked where it is known, without the kernels that a team of threads is made of."""
    from gdkernels.cpu.runtime.machine import threads_at_first

    team = sys.modules.get("gdkernels.cpu.runtime.team")
    return threads_at_first() if team is None else team.get_threads()


def _cpu_model() -> str:
    """The processor's name as its maker writes it; Linux alone tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cache_line(folder: Path) -> str:
    sizes = []
    for path in folder.glob("*.kernel"):
        with contextlib.suppress(FileNotFoundError):  # another process has just taken it away
            sizes.append(path.stat().st_size)
    return f"{folder} ({len(sizes)} compiled kernels, {sum(sizes) / 1e6:.1f} MB)"
