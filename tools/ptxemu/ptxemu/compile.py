"""Compiles C, and PTX by way of C.  The driver starts this for each module that it has not seen: few imports."""

import os
import subprocess
import sys

CC = os.environ.get("CC", "gcc")
# -ffp-contract=off: PTX says exactly which operations are fused
CFLAGS = [
    "-march=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-w",
]
# Optimisation of kernels.  A 128x128 GEMM takes 0.7 s to compile with -Og and 3.6 s with -O2, and runs half as fast.
OPTIMISATION = os.environ.get("PTXEMU_OPT") or "g"
SEPARATOR = "//@@PTXEMU_NEXT@@"  # between PTX texts that were linked together; also in driver.h


class BuildError(RuntimeError):
    """The C compiler failed, or cannot be used here."""


def compile_c(out, sources, *extra, opt="-O2"):
    """Make the shared object `out` from C files."""
    command = [CC, opt, *CFLAGS, "-o", out, *sources, *extra, "-lpthread", "-ldl", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""})
    if done.returncode:
        raise BuildError(f"{CC} failed on {sources[0]}:\n{done.stderr[:3000]}")


def compile_ptx(build, texts, out, check=True, race=False):
    """Make the shared object `out` from PTX texts, against the runtime in the folder `build`.

    check: bounds and alignment checks; race: the shared-memory race detector, which includes them.
    """
    from .translate import translate

    os.makedirs(os.path.dirname(out), exist_ok=True)
    c, so = (f"{out[:-3]}.{os.getpid()}{end}" for end in (".c", ".so"))
    try:
        with open(c, "w") as f:
            f.write(translate(texts))
        flags = (f"-DEMU_CHECK={int(check or race)}", f"-DEMU_RACE={int(race)}")
        compile_c(so, [c], f"-I{build}", *flags, f"{build}/libptxemu.so", opt=f"-O{OPTIMISATION}")
        os.rename(so, out)
        if os.environ.get("PTXEMU_KEEP_C"):
            os.rename(c, f"{out[:-3]}.c")
    finally:
        for name in (c, so):
            if os.path.exists(name):
                os.unlink(name)


def main():
    """Arguments: BUILD PTX_FILE OUT.so CHECK RACE.  Run by libcuda.so.1."""
    build, ptx, out, check, race = sys.argv[1:]
    with open(ptx) as f:
        texts = [p for p in f.read().rstrip("\0").split(SEPARATOR) if p.strip()]
    try:
        compile_ptx(build, texts, out, check == "1", race == "1")
    except Exception as e:
        sys.exit(f"{type(e).__name__}: {e}")
