"""Shared memory beyond the 48 KiB that every launch gets: a kernel has to ask for it."""

from typing import Any

from ...check import whole
from ..runtime import driver


def allow_shared(kernel: Any, size: int) -> None:
    """Let launches of a kernel have `size` bytes of dynamic shared memory.

    `kernel` is a ``@cuda.jit`` function, compiled already: one with a signature, or one that has been launched or compiled
    (``kernel.compile(signature)``). Up to 48 KiB nothing is to be asked for.

    Raises ValueError where the kernel is not compiled yet, RuntimeError where the GPU has less.
    """
    size = whole("allow_shared", "size", size, at_least=0)
    if not getattr(kernel, "overloads", None):
        raise ValueError(
            "allow_shared: kernel is not compiled yet, expected a function of @cuda.jit with a signature, or that was compiled"
        )
    driver.use()
    for compiled in kernel.overloads.values():
        driver.allow_shared(compiled._codelibrary.get_cufunc().handle, size)
