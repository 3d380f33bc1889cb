"""Kernels over elements: one body for four elements a thread and for one, and the launches that both are needed for.

The body of such a kernel takes one group a thread (`runtime.widths`), of as many as its last operand, `groups`, says.
"""

from collections.abc import Iterator
from functools import cache

from .runtime.jit import Kernel, Launch
from .runtime.pointer import BYTES, Pointer
from .runtime.target import cuda, device
from .runtime.widths import Pair, both_widths


def elementwise(arrays: str, variants):
    """Make kernels of a function of the elements of one array, or of two: ``out[i] = f(x[i])``, or f(x[i], y[i]).

    `arrays` are the kernel's, as in a signature, `out` being the last: it may be any of the others.
    """

    def decorate(f) -> Pair:
        of_one = f.__code__.co_argcount == 1

        def make(width):
            load, store, size = width.load, width.store, width.size
            apply = width.each(device(f), 1 if of_one else 2)

            def of_x(x, out, groups):
                place = cuda.grid(1)
                if place < groups:
                    store(out, size * place, apply(load(x, size * place)))

            def of_x_and_y(x, y, out, groups):
                place = cuda.grid(1)
                if place < groups:
                    store(out, size * place, apply(load(x, size * place), load(y, size * place)))

            return of_x if of_one else of_x_and_y

        make.__module__, make.__name__, make.__doc__ = f.__module__, f.__name__, f.__doc__
        return both_widths(f"{arrays}, i8", blocks=2, variants=variants)(make)

    return decorate


@cache
def _bytes(kernel: Kernel, storage: str) -> list[int]:
    """Of an element of each array."""
    return [BYTES[kind.storage] for kind in kernel.argument_types(storage) if isinstance(kind, Pointer)]


Part = tuple[Kernel, int, int, list[int]]


def parts(kernels: Pair, storage: str, count: int, arrays: tuple[int, ...]) -> Iterator[Part]:
    """How kernels go over `count` elements of arrays, at these addresses: as many as there are fours, then the rest.

    A part is a kernel, the number of its first element, that of its groups, and where these begin in each array; what is
    absent (address 0) stays so. An array that is no multiple of four elements makes all of them single.
    """
    sizes = _bytes(kernels.by_four, storage)
    aligned = all(address % (4 * size) == 0 for address, size in zip(arrays, sizes, strict=False))
    whole = count // 4 * 4 if aligned else 0
    if whole:
        yield kernels.by_four, 0, whole // 4, list(arrays)
    if count > whole:
        behind = [address and address + whole * size for address, size in zip(arrays, sizes, strict=False)]
        yield kernels.by_one, whole, count - whole, behind


def launches(kernels: Pair, storage: str, count: int, arrays: tuple[int, ...], *others) -> list[Launch]:
    """The launches of kernels over elements of arrays, their first operands, whose `others` are the same everywhere."""
    return [
        Launch(kernel, storage, kernel.grid(groups), (*places, *others, groups))
        for kernel, _, groups, places in parts(kernels, storage, count, arrays)
    ]
