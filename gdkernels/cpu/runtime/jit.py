"""How Python functions become native kernels.

Three decorators, from the inside out:

``device``
    a small function that is inlined where it is used (the mathematics of one element).
``native(signature)``
    a loop over memory, compiled once for each element type and called by its symbol from other kernels, so that no
    caller compiles it again. Its pointers do not overlap, or are equal (LLVM may then vectorise without checks).
``kernel``
    what a plan can call: ``f(record, start, stop, worker)``. The record holds the operands; `simd.unpack` reads them.

Compilation happens at the first use of an element type and is cached on disk (`cache`).

A signature is written ``"F*, F*, i8 -> f8"``: ``F`` stands for the element type of the kernel, ``i8 i4 f8`` for int64,
int32 and float64, ``*`` for a pointer. Nothing is returned where there is no arrow.
"""

import inspect
from functools import cache
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import cfunc, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing import signature as make_signature
from numba.core.typing.templates import AbstractTemplate
from numba.extending import register_jitable, typeof_impl

from ... import cache as disk
from .elementary import install
from .simd import Record

# contract and nsz keep every element's bits independent of where it stands in a vector, a tail or a thread's range.
# Sums that may be reordered ask for `reassoc` themselves, over ranges that do not depend on the threads.
FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
SUM_FLAGS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}

install()

FLOATS = {"float32": types.float32, "float64": types.float64}
_SCALARS = {"i8": types.int64, "i4": types.int32, "f8": types.float64, "f4": types.float32}


def device(function):
    """A function that is inlined into its callers; left to itself LLVM may keep a call, and then nothing vectorises."""
    return register_jitable(**FLAGS, forceinline=True)(function)


def parse_type(text: str, dtype: str):
    """The Numba type of one word of a signature."""
    name = text.strip()
    if name == "record":
        return Record(FLOATS[dtype])
    scalar = FLOATS[dtype] if name[0] == "F" else _SCALARS[name.rstrip("*")]
    return types.CPointer(scalar) if name.endswith("*") else scalar


@cache
def _machine() -> tuple:
    return (*cpu_target.target_context.codegen().magic_tuple(), numba.__version__, llvmlite.__version__)


def target(function) -> tuple:
    """What the code of a function depends on besides the sources of the package."""
    source = Path(function.__code__.co_filename)
    if source.is_relative_to(disk.PACKAGE):
        return _machine()
    return (*_machine(), str(source), source.stat().st_mtime_ns)


class Native:
    """A compiled function with a C interface, one variant for each element type."""

    def __init__(self, function, signature: str, flags: dict):
        arguments, _, result = signature.partition("->")
        self.function = function
        self._arguments = [word.strip() for word in arguments.split(",")]
        self._result = result.strip()
        self._flags = flags
        self._generic = any(word[0] == "F" or word == "record" for word in self._arguments)
        self._addresses: dict = {}  # by the name of the element type, and by what else it was asked for
        self._libraries = []  # compiled code lives as long as its library
        self.name = disk.name_of(function)
        self.__doc__ = function.__doc__
        self.numba_type = _callable_type(self)

    def __repr__(self):
        return f"<native {self.name}({', '.join(self._arguments)})>"

    def signature(self, dtype: str):
        """The Numba signature for an element type."""
        result = parse_type(self._result, dtype) if self._result else types.void
        return make_signature(result, *(parse_type(word, dtype) for word in self._arguments))

    def symbol(self, dtype: str) -> str:
        return f"gdkernels.{self.name}.{dtype}"

    def dtype_of(self, arguments) -> str:
        """The element type that a call with these Numba types means ("any" where the signature has none)."""
        if not self._generic:
            return "any"
        for word, given in zip(self._arguments, arguments, strict=True):
            if word == "record":
                return str(given.dtype)
            if word == "F*" and isinstance(given, types.CPointer):
                return str(given.dtype)
        raise TypeError(f"{self.name}: none of the arguments {arguments} tells the element type")

    def address(self, dtype="float32") -> int:
        """Where the compiled code for this element type is; compiles it, or loads it, when that is not yet known."""
        place = self._addresses.get(dtype)
        if place is None:
            name = (dtype if isinstance(dtype, str) else np.dtype(dtype).name) if self._generic else "any"
            place = self._addresses.get(name) or self._ready(name)
            self._addresses[dtype] = place
        return place

    def _ready(self, dtype: str) -> int:
        """Build the code of the functions that this one calls, then its own, and publish its symbol."""
        for callee in _callees(self.function):
            callee.address(dtype)
        place = self._addresses[dtype] = self._build(dtype)
        llvm.add_symbol(self.symbol(dtype), place)
        return place

    def _build(self, dtype: str) -> int:
        stored = disk.load(self.symbol(dtype), target(self.function))
        if stored is not None:
            entry, code = stored
            library = cpu_target.target_context.codegen().unserialize_library(code)
        else:
            compiled = cfunc(self.signature(dtype), nopython=True, **self._flags)(self.function)
            library, entry = compiled._library, compiled.native_name
            disk.save(
                self.symbol(dtype), target(self.function), (entry, library.serialize_using_object_code())
            )
        self._libraries.append(library)
        return library.get_pointer_to_function(entry)


def _callable_type(native: Native):
    """The Numba type through which other kernels call a native function by its symbol."""

    class Call(AbstractTemplate):
        key = native

        def generic(self, args, kws):
            if kws or len(args) != len(native._arguments):
                return None
            dtype = native.dtype_of(args)
            native.address(dtype)
            return native.signature(dtype)

    @lower_builtin(native, types.VarArg(types.Any))
    def call(context, builder, signature, arguments):
        symbol = native.symbol(native.dtype_of(signature.args))
        kinds = [context.get_value_type(kind) for kind in signature.args]
        result = signature.return_type
        void = result == types.void
        function_type = cgutils.ir.FunctionType(
            cgutils.ir.VoidType() if void else context.get_value_type(result), kinds
        )
        value = builder.call(cgutils.get_or_insert_function(builder.module, function_type, symbol), arguments)
        return context.get_dummy_value() if void else value

    return types.Function(Call)


@typeof_impl.register(Native)
def _typeof_native(value, _):
    return value.numba_type


def _callees(function, seen=None) -> list[Native]:
    """The native functions that a function calls, also through the device functions it uses."""
    seen = set() if seen is None else seen
    found = []
    closure = inspect.getclosurevars(function)
    for value in (*closure.globals.values(), *closure.nonlocals.values()):
        if isinstance(value, Native):
            found.append(value)
        elif (
            inspect.isfunction(value) and value.__module__.startswith("gdkernels.cpu.") and value not in seen
        ):
            seen.add(value)
            found += _callees(value, seen)
    return found


def native(signature: str, reorder_sums: bool = False):
    """Compile a loop over memory once for each element type; other kernels call it by name."""

    def decorate(function):
        return Native(function, signature, SUM_FLAGS if reorder_sums else FLAGS)

    return decorate


def kernel(function) -> Native:
    """Compile ``f(record, start, stop, worker)`` so that a plan can call it."""
    return Native(function, "record, i8, i8, i8", FLAGS)
