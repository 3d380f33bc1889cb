"""What the kernels must know of the machine: vector width, number of cores."""

import os
import platform

import llvmlite.binding as llvm
from numba.core import config

IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def _features() -> set[str]:
    """The CPU features that Numba compiles for (NUMBA_CPU_NAME may name a smaller CPU than the host)."""
    name = config.CPU_NAME
    if name and name != "host":
        return {"haswell": {"avx2"}, "skylake-avx512": {"avx2", "avx512f"}, "znver4": {"avx2", "avx512f"}}.get(
            name, set()
        )
    return {feature for feature, present in llvm.get_host_cpu_features().items() if present}


def _vector_bits() -> int:
    features = _features()
    if "avx512f" in features:
        return 512
    return 256 if "avx2" in features else 128


VECTOR_BITS = _vector_bits()
VECTOR_REGISTERS = 16 if IS_X86 and VECTOR_BITS < 512 else 32


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
