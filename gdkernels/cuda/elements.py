"""Kernels over elements: one body for four elements a thread and for one, and the launches that both are needed for.

The body of such a kernel takes one group a thread (`runtime.widths`), of as many as its last operand, `groups`, says.
"""

from functools import cache

from .runtime.jit import Kernel, Launch
from .runtime.pointer import BYTES, Pointer
from .runtime.target import cuda, device
from .runtime.widths import Pair, both_widths


def elementwise(arrays: str, out: str, variants):
    """Make kernels of a function of the elements of one array, or of two: ``out[i] = f(x[i])``, or f(x[i], y[i]).

    `arrays` are the kernel's, as in a signature. Their names are those of the function's parameters, and `out`; what that
    is the name of may be any of the others.
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
        operands = *f.__code__.co_varnames[: f.__code__.co_argcount], out, "groups"
        return both_widths(f"{arrays}, i8", blocks=2, variants=variants, operands=operands)(make)

    return decorate


@cache
def _bytes(kernel: Kernel, storage: str) -> dict[str, int]:
    """Of an element of each array."""
    kinds = zip(kernel.operands, kernel.operand_types(storage), strict=True)
    return {name: BYTES[kind.storage] for name, kind in kinds if isinstance(kind, Pointer)}


Part = tuple[Kernel, int, int, dict[str, int]]


def parts(kernels: Pair, storage: str, count: int, arrays: dict[str, int]) -> list[Part]:
    """How kernels go over `count` elements of arrays, by name at these addresses: as many as there are fours, then the rest.

    A part is a kernel, the number of its first element, that of its groups, and where these begin in each array; what is
    absent (address 0) stays so. An array that does not begin at a multiple of four elements makes all of them single.
    """
    by_four, by_one = kernels
    size, whole = _bytes(by_four, storage), count // 4 * 4
    for name, address in arrays.items():
        if address % (4 * size[name]):
            whole = 0
    found = [(by_four, 0, whole // 4, arrays)] if whole else []
    if count > whole:
        behind = {name: address and address + whole * size[name] for name, address in arrays.items()}
        found.append((by_one, whole, count - whole, behind))
    return found


def launches(kernels: Pair, storage: str, count: int, arrays: dict[str, int], **others) -> list[Launch]:
    """The launches of kernels over elements of arrays (`parts`), with what else they take."""
    return [
        kernel.on(storage, kernel.grid(groups), **places, **others, groups=groups)
        for kernel, _, groups, places in parts(kernels, storage, count, arrays)
    ]
