"""What the kernels must know of the machine: vector width, number of cores."""

import os
import platform
import sys

import llvmlite.binding as llvm
from numba.core import config

HAS_CLOCK = os.name == "posix" and sys.maxsize > 2**32  # clock_gettime, with two words of 64 bits
IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


# What Numba was told to compile for instead of the host (NUMBA_CPU_NAME), as far as vectors are concerned.
_NAMED = {
    512: (
        "skylake-avx512",
        "cascadelake",
        "icelake-server",
        "sapphirerapids",
        "x86-64-v4",
        "znver4",
        "znver5",
    ),
    256: ("haswell", "broadwell", "skylake", "alderlake", "x86-64-v3", "znver1", "znver2", "znver3"),
}


def _features() -> set[str]:
    """The CPU features that Numba compiles for: NUMBA_CPU_FEATURES, those of NUMBA_CPU_NAME, or the host's."""
    if config.CPU_FEATURES:
        return {word[1:] for word in config.CPU_FEATURES.split(",") if word.startswith("+")}
    if config.CPU_NAME and config.CPU_NAME != "host":
        if config.CPU_NAME in _NAMED[512]:
            return {"avx512f", "avx2"}
        return {"avx2"} if config.CPU_NAME in _NAMED[256] else set()
    return {feature for feature, present in llvm.get_host_cpu_features().items() if present}


def _vector_bits() -> int:
    features = _features()
    if "avx512f" in features:
        return 512
    return 256 if "avx2" in features else 128


VECTOR_BITS = _vector_bits()
HAS_FMA = not IS_X86 or VECTOR_BITS > 128  # fused multiply-add as an instruction; all CPUs with AVX2 have it
MOST_WORKERS = 256  # of a team of threads
VECTOR_REGISTERS = 16 if IS_X86 and VECTOR_BITS < 512 else 32


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_asked_for(variable: str, otherwise: int, most: int | None = None) -> int:
    """The count that an environment variable holds, `otherwise` where it is not set; ValueError for anything else."""
    given = os.environ.get(variable)
    if not given:
        return otherwise
    if not (given.isdecimal() and int(given) >= 1 and (most is None or int(given) <= most)):
        expected = "an integer ≥ 1" if most is None else f"an integer in [1, {most}]"
        raise ValueError(f"{variable} is {given!r}, expected {expected}")
    return int(given)


def threads_at_first() -> int:
    """GDKERNELS_NUM_THREADS or, where that is not set, one thread a core."""
    return count_asked_for("GDKERNELS_NUM_THREADS", min(cpu_count(), MOST_WORKERS), MOST_WORKERS)
