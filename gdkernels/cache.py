"""Compiled kernels on disk: one object file for each kernel, element type and CPU.

The name of a file is a hash of everything that its contents depend on: the sources of the whole package, the
versions of Numba and llvmlite, the CPU and the kernel. Editing any file of the package therefore misses the cache;
nothing has to be invalidated, and files of older sources are deleted when a newer one is written.

The folder is the user's cache folder, never one of the package: what an installer did not write it does not remove, and a
folder that is left behind under the package's name would be imported in its place.
"""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

PACKAGE = Path(__file__).resolve().parent


@cache
def fingerprint() -> str:
    """Hash over path, size and modification time of every Python file of the package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        status = path.stat()
        digest.update(f"{path.relative_to(PACKAGE)}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def name_of(function: Any) -> str:
    """What a kernel is called: where its function stands in its wing, such as ``gemm.product.gemm``."""
    module = function.__module__
    for wing in ("gdkernels.cpu.", "gdkernels.cuda."):
        if module.startswith(wing):
            return f"{module.removeprefix(wing)}.{function.__name__}"
    return f"{module.rpartition('.')[2]}.{function.__name__}"


def _candidates() -> Iterator[Path]:
    chosen = os.environ.get("GDKERNELS_CACHE_DIR")
    if chosen:
        yield Path(chosen).expanduser()
    of_user = platformdirs.user_cache_path("gdkernels", appauthor=False)
    if of_user.is_absolute():  # a user without a home has "~/.cache", which would be a folder of that name
        yield of_user / hashlib.sha256(str(PACKAGE).encode()).hexdigest()[:12]
    # What is found here is run: a folder that another user could have made first will not do.
    yield Path(tempfile.mkdtemp(prefix="gdkernels-"))


@cache
def folder() -> Path:
    """The first that can be written of: ``$GDKERNELS_CACHE_DIR``, this install's part of the user's cache, a new folder."""
    for path in _candidates():
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
        except OSError:
            continue
    raise OSError("gdkernels: no writable folder for compiled kernels; set GDKERNELS_CACHE_DIR")


def _path(symbol: str, target: tuple[Any, ...]) -> Path:
    identity = hashlib.sha256(repr((symbol, target)).encode()).hexdigest()[:12]
    return folder() / f"{symbol}.{identity}.{fingerprint()}.kernel"


def is_empty() -> bool:
    """Whether nothing was compiled from these sources yet."""
    return next(folder().glob(f"*.{fingerprint()}.kernel"), None) is None


def holds(symbol: str, target: tuple[Any, ...]) -> bool:
    """Whether something is stored for this symbol on this target."""
    return _path(symbol, target).exists()


def load(symbol: str, target: tuple[Any, ...]) -> Any:
    """What `save` stored for this symbol on this target (CPU and versions), or None."""
    try:
        return pickle.loads(_path(symbol, target).read_bytes())
    except Exception:  # damaged bytes may mean anything to pickle; the kernel is compiled again
        return None


def save(symbol: str, target: tuple[Any, ...], payload: Any) -> None:
    """Store a payload, replacing older versions of the same kernel. A full disk is not an error: nothing is cached."""
    path = _path(symbol, target)
    stem = path.name.removesuffix(f".{fingerprint()}.kernel")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(pickle.dumps(payload))
        temporary.replace(path)
        for stale in path.parent.glob(f"{stem}.*.kernel"):
            if stale != path:
                stale.unlink(missing_ok=True)
    except OSError:
        temporary.unlink(missing_ok=True)
