"""Files that are either the old one or the new one, never half of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError, saying why, unless `replacing` could write this file. Leaves no trace."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected the name of a file")
    if target.exists() and not target.is_file():
        raise OSError(f"{target} is not a regular file, expected one that a new file can replace")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} for the file {target.name}")
    # Rights alone do not tell (the superuser, read-only mounts, full disks): try.
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror}") from error
    try:
        os.lstat(_beside(target.resolve()))  # longer than the name itself
    except FileNotFoundError:
        pass
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror}") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside `path`: what is written there becomes `path` at the end, or vanishes if the block raises.

    The content is on the disk (fsync) before it takes the name: a crash leaves the old file or the new.
    The name ends like `path`, for writers that choose a format by it.
    """
    check_writable(path)
    target = Path(path).resolve()
    temporary = _beside(target)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """The name under which a file is written first."""
    return target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
