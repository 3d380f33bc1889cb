"""What ptxemu needs of the machine and of the Python that it runs (standard library only)."""

import os
import re
import shutil
import subprocess

from .compile import CC

CPU_FLAGS = ("avx2", "fma", "f16c")
PACKAGES = ("numba-cuda", "cuda-bindings", "nvidia-nvvm", "nvidia-cuda-nvrtc")
LIST_MISSING = f"""
from importlib.metadata import PackageNotFoundError, version
for name in {PACKAGES}:
    try:
        version(name)
    except PackageNotFoundError:
        print(name)
"""


def cpu_description():
    """The model and flags of the first processor, as /proc/cpuinfo words them."""
    with open("/proc/cpuinfo") as f:
        first = f.read(1 << 16).split("\n\n")[0]
    return "\n".join(re.findall(r"^(?:model name|flags).*$", first, re.M))


def missing_from_machine():
    """Why the runtime cannot be built or run here, one string per reason."""
    system = os.uname()
    if (system.sysname, system.machine) != ("Linux", "x86_64"):
        return [f"needs Linux on x86-64; this is {system.sysname} on {system.machine}"]
    missing, flags = [], set(cpu_description().split())
    if lacking := [f for f in CPU_FLAGS if f not in flags]:
        missing.append(f"needs a processor with {', '.join(lacking).upper()}")
    if not shutil.which(CC):
        missing.append(f"needs a C compiler: {CC} is not found (install gcc, or name another one in CC)")
    return missing


def missing_from_python(python):
    """Why numba-cuda kernels cannot be compiled by this interpreter, one string per reason."""
    try:
        found = subprocess.run([python, "-c", LIST_MISSING], capture_output=True, text=True)
    except OSError as e:
        return [f"{python}: {e.strerror}"]
    if found.returncode:
        return [f"{python} fails: {found.stderr.strip()[-300:]}"]
    names = ", ".join(found.stdout.split())
    return [f"{python} lacks {names}; install 'numba-cuda[cu13]'"] if names else []
