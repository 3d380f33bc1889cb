"""Compiles the runtime and translated modules into the cache folder (standard library only).

Layout of the cache, where KEY covers our sources, the compiler and the CPU:

    CACHE/build-KEY/libcuda.so.1, libptxemu.so, libnvJitLink.so.13, *.h, toolkit/
    CACHE/build-KEY/ptxemu/             a copy of this package: nothing is ever written beside the sources
    CACHE/build-KEY/modules/HASH.so     translated modules

Everything is made under a temporary name and renamed, so concurrent builds are safe.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

from .requirements import CC, cpu_description, missing_from_machine

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.join(os.path.dirname(HERE), "src")
# -ffp-contract=off: PTX says exactly which operations are fused
CFLAGS = [
    "-march=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-w",
]
SEPARATOR = "//@@PTXEMU_NEXT@@"  # between PTX texts that were linked together


class BuildError(RuntimeError):
    pass


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("PTXEMU_CACHE") or os.path.join(base, "ptxemu")


def _sources():
    return sorted(
        os.path.join(d, f) for d in (SRC, HERE) for f in os.listdir(d) if f.endswith((".c", ".h", ".py"))
    )


def _build_key():
    h = hashlib.sha256(repr((CC, CFLAGS)).encode())
    for f in _sources():
        with open(f, "rb") as fh:
            h.update(fh.read())
    h.update(cpu_description().encode())
    h.update(subprocess.run([CC, "--version"], capture_output=True, check=True).stdout)
    return h.hexdigest()[:16]


def _compile(out, sources, *extra, opt="-O2"):
    r = subprocess.run(
        [CC, opt, *CFLAGS, "-o", out, *sources, *extra, "-lpthread", "-ldl", "-lm"],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": ""},
    )
    if r.returncode:
        raise BuildError(f"{CC} failed on {sources[0]}:\n{r.stderr[:3000]}")


def build_dir():
    """The folder with the compiled runtime; builds it first if need be."""
    if os.environ.get("PTXEMU_BUILD"):  # set by `run`
        return os.environ["PTXEMU_BUILD"]
    if missing := missing_from_machine():
        raise BuildError("; ".join(missing))
    final = os.path.join(cache_dir(), "build-" + _build_key())
    if os.path.isdir(final):
        return final
    os.makedirs(cache_dir(), exist_ok=True)
    tmp = tempfile.mkdtemp(prefix="tmp-", dir=cache_dir())
    try:

        def src(*names):
            return [os.path.join(SRC, n) for n in names]

        hidden, rpath = "-fvisibility=hidden", "-Wl,-rpath,$ORIGIN"
        _compile(
            f"{tmp}/libptxemu.so", src("emurt.c", "tensor.c"), hidden, "-Wl,-soname,libptxemu.so", opt="-O3"
        )
        _compile(
            f"{tmp}/libcuda.so.1",
            src("libcuda.c", "capture.c"),
            f"{tmp}/libptxemu.so",
            hidden,
            rpath,
            "-Wl,-soname,libcuda.so.1",
        )
        _compile(f"{tmp}/libnvJitLink.so.13", src("nvjitlink.c"), hidden, "-Wl,-soname,libnvJitLink.so.13")
        for h in ("emurt.h", "devops.h"):
            shutil.copy(os.path.join(SRC, h), tmp)
        shutil.copytree(HERE, f"{tmp}/ptxemu", ignore=shutil.ignore_patterns("__pycache__"))
        os.makedirs(f"{tmp}/toolkit/lib64")
        with open(f"{tmp}/toolkit/lib64/libcudadevrt.a", "wb") as f:
            f.write(b"!<arch>\n")  # grid sync is built in, but numba asks for the file
        os.mkdir(f"{tmp}/modules")
        os.chmod(tmp, 0o755)
        os.rename(tmp, final)
    except OSError:
        if not os.path.isdir(final):  # else: another process was faster
            raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return final


def build_module(texts, out, check=True, race=False):
    """Translate PTX texts to the shared object `out`."""
    from .translate import translate

    build = build_dir()
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(out)) as tmp:
        with open(f"{tmp}/m.c", "w") as f:
            f.write(translate(texts))
        _compile(
            f"{tmp}/m.so",
            [f"{tmp}/m.c"],
            f"-I{build}",
            f"-DEMU_CHECK={int(check or race)}",
            f"-DEMU_RACE={int(race)}",
            f"{build}/libptxemu.so",
            "-fvisibility=hidden",
        )
        if os.environ.get("PTXEMU_KEEP_C"):
            shutil.copy(f"{tmp}/m.c", out[:-3] + ".c")
        os.rename(f"{tmp}/m.so", out)
    return out


def main():
    """Arguments: PTX_FILE OUT.so CHECK RACE.  Run by libcuda.so.1 for a module it has not seen."""
    ptx, out, check, race = sys.argv[1:]
    with open(ptx) as f:
        texts = [p for p in f.read().rstrip("\0").split(SEPARATOR) if p.strip()]
    try:
        build_module(texts, out, check == "1", race == "1")
    except Exception as e:
        sys.exit(f"[ptxemu] {type(e).__name__}: {e}")
