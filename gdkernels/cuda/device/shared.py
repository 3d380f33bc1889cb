"""Shared memory beyond the 48 KiB that every launch gets: a kernel has to ask for it."""

from typing import Any

from ...check import whole
from ..runtime import driver


def allow_shared(kernel: Any, size: int, *arguments: Any) -> None:
    """Let launches of a ``@cuda.jit`` kernel have `size` bytes of dynamic shared memory on the current GPU.

    Only what is compiled can be told: the kernel is compiled for `arguments`, those of the launch, unless it has a signature
    or has been launched. Up to 48 KiB nothing needs to be asked for.

    >>> allow_shared(train, mlp.shared_bytes(rows, 4), params, x, y)
    >>> train[blocks, threads, stream, mlp.shared_bytes(rows, 4)](params, x, y)

    Raises TypeError where `kernel` is no kernel, ValueError where it is not compiled, RuntimeError where the GPU has less.
    """
    size = whole("allow_shared", "size", size, at_least=0)
    if not hasattr(kernel, "overloads"):
        raise TypeError(
            f"allow_shared: kernel is of type {type(kernel).__name__}, expected what @cuda.jit gives"
        )
    driver.use()
    if arguments:
        kernel.compile(tuple(map(kernel.typeof_pyval, arguments)))
    if not kernel.overloads:
        raise ValueError(
            "allow_shared: kernel is not compiled, expected the arguments that it will be launched with"
        )
    for compiled in kernel.overloads.values():
        driver.allow_shared(compiled._codelibrary.get_cufunc().handle, size)
