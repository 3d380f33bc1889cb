"""How the code of a user's function finds a door, in this process and in those that load it from a cache.

The code holds symbols, never addresses: of the door's table, and of the native function that is called with it. `ready`
publishes them; a `Loaded` that is kept with the code does so again wherever Numba loads it.
"""

from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

from .. import cache as disk
from ..cpu import doors
from ..cpu.runtime.compilers import compile_all

I64 = ir.IntType(64)


def load(fingerprint: str, *rest: Any) -> Any:
    """Make a door ready for code that Numba is loading from a user's cache, where this function stands by its name.

    Code that was compiled with other sources of this package is refused by an OSError, which Numba takes for a file that it
    could not read: it then compiles the function again. So this name and the first argument must stay as they are.
    """
    if fingerprint != disk.fingerprint():
        raise OSError("gdkernels has changed since this function was compiled")
    return ready(*rest)


@dataclass(frozen=True)
class Loaded:
    """Kept with the code of a function that calls a door, so that the door is ready wherever that code is loaded."""

    name: str
    dtype: str
    words: tuple[tuple[int, str], ...]
    performer: str

    def __call__(self) -> None:
        """What Numba does with it when the code was loaded: nothing more."""

    def __reduce__(self):
        return load, (disk.fingerprint(), self.name, self.dtype, self.words, self.performer)


def performer_of(word: str) -> Any:
    """The native function that code calls with a door's table and views: for one item, for all, or for a norm."""
    from ..cpu.doors import admission, clip, lists

    return {"one": admission.perform, "all": lists.perform_all, "norm": clip.perform_norm}[word]


def ready(name: str, dtype: str, words: tuple[tuple[int, str], ...] = (), performer: str = "one") -> Loaded:
    """Compile a door, and what names among its arguments stand for, and publish the symbol under which code finds it.

    `performer` says which native function the code calls with it.
    """
    door: Any = doors.find(name)
    compile_all([(performer_of(performer), dtype), *((kernel, dtype) for kernel in door.kernels())])
    table = door.table(dtype)
    for place, word in words:
        door.choose(dtype, place, word)
    llvm.add_symbol(symbol(name, dtype), table.ctypes.data)
    performer_of(performer).address()  # which publishes it
    return Loaded(name, dtype, words, performer)


def symbol(name: str, dtype: str) -> str:
    """Of a door's table."""
    return f"gdkernels.table.{name}.{dtype}"


def perform(builder, performer: str, arguments):
    """The result, an int64, of a native function (`performer_of`) as code finds it."""
    kind = ir.FunctionType(I64, [argument.type for argument in arguments])
    name = performer_of(performer).symbol("any")
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def table(builder, door, dtype: str):
    """A door's table, as code finds it."""
    name, known = symbol(door.name, dtype), builder.module.globals
    return known[name] if name in known else ir.GlobalVariable(builder.module, I64, name)
