"""Compiles the runtime into the cache folder (standard library only).

Layout of the cache, where KEY covers our sources, the compiler and the CPU:

    CACHE/build-KEY/libcuda.so.1, libptxemu.so, libnvJitLink.so.13, *.h, toolkit/
    CACHE/build-KEY/ptxemu/, standins/  copies of our Python: nothing is ever written beside the sources
    CACHE/build-KEY/modules/HASH.so     translated modules

Everything is made under a temporary name and renamed, so concurrent builds are safe.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile

from .compile import CC, CFLAGS, BuildError, compile_c
from .requirements import cpu_description, missing_from_machine

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.dirname(HERE)
SRC = os.path.join(TOOL, "src")


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("PTXEMU_CACHE") or os.path.join(base, "ptxemu")


def sources():
    folders = [d for top in ("ptxemu", "src", "standins") for d, _, _ in os.walk(os.path.join(TOOL, top))]
    return sorted(
        os.path.join(d, f) for d in folders for f in os.listdir(d) if f.endswith((".c", ".h", ".py"))
    )


def build_key():
    h = hashlib.sha256(repr((CC, CFLAGS)).encode())
    for name in sources():
        with open(name, "rb") as f:
            h.update(f.read())
    h.update(cpu_description().encode())
    h.update(subprocess.run([CC, "--version"], capture_output=True, check=True).stdout)
    return h.hexdigest()[:16]


def make_shared(folder, name, files, *extra, opt="-O2"):
    files = [os.path.join(SRC, f) for f in files]
    compile_c(os.path.join(folder, name), files, *extra, f"-Wl,-soname,{name}", opt=opt)


def fill(folder):
    """Make the contents of a build folder."""
    make_shared(folder, "libptxemu.so", ["emurt.c", "tensor.c"], opt="-O3")
    runtime = (f"{folder}/libptxemu.so", "-Wl,-rpath,$ORIGIN")
    make_shared(folder, "libcuda.so.1", ["libcuda.c", "capture.c"], *runtime)
    make_shared(folder, "libnvJitLink.so.13", ["nvjitlink.c"])
    for header in ("emurt.h", "devops.h"):
        shutil.copy(os.path.join(SRC, header), folder)
    for part in ("ptxemu", "standins"):
        shutil.copytree(f"{TOOL}/{part}", f"{folder}/{part}", ignore=shutil.ignore_patterns("__pycache__"))
    os.makedirs(f"{folder}/toolkit/lib64")
    with open(f"{folder}/toolkit/lib64/libcudadevrt.a", "wb") as f:
        f.write(b"!<arch>\n")  # grid sync is built in, but numba asks for the file
    os.mkdir(f"{folder}/modules")
    os.chmod(folder, 0o755)


def build_dir():
    """The folder with the compiled runtime; builds it first if need be."""
    if os.environ.get("PTXEMU_BUILD"):  # set by `run`
        return os.environ["PTXEMU_BUILD"]
    if missing := missing_from_machine():
        raise BuildError("; ".join(missing))
    final = os.path.join(cache_dir(), "build-" + build_key())
    if os.path.isdir(final):
        return final
    os.makedirs(cache_dir(), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="tmp-", dir=cache_dir())
    try:
        fill(folder)
        os.rename(folder, final)
    except OSError:
        if not os.path.isdir(final):  # else: another process was faster
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return final
