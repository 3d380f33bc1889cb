"""How Python functions become native kernels.

Three decorators, from the inside out:

``inlined``
    a small function that is inlined where it is used (the mathematics of one element).
``native(signature)``
    a loop over memory, compiled once for each element type and called by its symbol from other kernels, so that no
    caller compiles it again. Its pointers do not overlap, or are equal (LLVM may then vectorise without checks).
``kernel``
    what a plan can call: a function of named operands (`layout`) and a range. Native code calls it as ``entry(record, start,
    stop, scratch)``; Python makes an `Op` of it.

Compilation happens at the first use of an element type and is cached on disk (`cache`).

The signature of a native function is written ``"F*, F*, i8 -> f8"``: ``F`` stands for the element type, ``i8 i4 f8`` for
int64, int32 and float64, ``*`` for a pointer. Nothing is returned where there is no arrow.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import llvmlite.binding as llvm
import numpy as np
from numba import cfunc, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing import signature as make_signature
from numba.core.typing.templates import AbstractTemplate
from numba.extending import register_jitable, typeof_impl

from ... import cache as disk
from .crew import call_others
from .dispatch import is_only_compiling, machine
from .elementary import install
from .flags import FLAGS, SUM_FLAGS, WITHIN
from .layout import arguments_of, packer, parse_type, words_of
from .pipeline import WideCompiler

install()


def inlined(function):
    """A function that is inlined into its callers; left to itself LLVM may keep a call, and then nothing vectorises."""
    return register_jitable(**FLAGS, **WITHIN)(function)


def target(function) -> tuple:
    """What the code of a function depends on besides the sources of the package."""
    source = Path(function.__code__.co_filename)
    if source.is_relative_to(disk.PACKAGE):
        return machine()
    return (*machine(), str(source), source.stat().st_mtime_ns)


_known: WeakValueDictionary = WeakValueDictionary()  # native functions by name


def known(name: str) -> "Native":
    """The native function of this name, whose module was imported."""
    return _known[name]


class Native:
    """A compiled function with a C interface, one variant for each element type."""

    def __init__(self, function, signature: str, flags: dict):
        arguments, _, result = signature.partition("->")
        self.function = self.source = function
        self._arguments = [word.strip() for word in arguments.split(",")]
        self._result = result.strip()
        self._flags = flags
        self._generic = any(word[0] == "F" or word == "record" for word in self._arguments)
        self.addresses: dict = {}  # by the name of the element type, and by what else it was asked for
        self._libraries = []  # compiled code lives as long as its library
        self.name = disk.name_of(function)
        # Numba makes symbols of it: those of two processes must differ where the functions do, for a third loads both.
        function.__qualname__ = function.__name__
        _known[self.name] = self
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
        raise TypeError(f"{self.name}: none of the arguments {arguments} determines the element type")

    def address(self, dtype="float32") -> int:
        """Where the compiled code for this element type is; compiles it, or loads it, when that is not yet known."""
        place = self.addresses.get(dtype)
        if place is None:
            name = self.variant(dtype)
            with global_compiler_lock:  # threads may meet here, and LLVM serves one at a time
                if _noted is not None:
                    _noted.append((self, name))
                    return NOWHERE
                place = self.addresses.get(name) or self._ready(name)
            self.addresses[dtype] = place
        return place

    def variant(self, dtype: Any) -> str:
        """What the code for an element type goes by: "any" where it is the same for all."""
        if not self._generic:
            return "any"
        return dtype if isinstance(dtype, str) else np.dtype(dtype).name

    def callees(self) -> "list[Native]":
        """The native functions that this one calls, also through the inlined functions it uses."""
        return [one for one in _reached(self.function) if isinstance(one, Native)]

    def size(self) -> int:
        """Bytes of Python's code that are compiled for it, those of inlined functions once."""
        return sum(
            len(one.__code__.co_code) for one in _reached(self.function) if not isinstance(one, Native)
        )

    def is_ready(self, variant: str) -> bool:
        """Whether its code was compiled, in this process or earlier."""
        return variant in self.addresses or disk.holds(self.symbol(variant), target(self.source))

    def compile(self, variant: str) -> None:
        """Compile it for another process, into the cache, in one that `only_compiles`."""
        for callee in self.callees():
            callee.address(variant)
        if not disk.holds(self.symbol(variant), target(self.source)):
            self._compile(variant)

    def _ready(self, dtype: str) -> int:
        """Build the code of the functions that this one calls, then its own, and publish its symbol."""
        if is_only_compiling():
            place = NOWHERE
        else:
            for callee in self.callees():
                callee.address(dtype)
            place = self._build(dtype)
        self.addresses[dtype] = place
        llvm.add_symbol(self.symbol(dtype), place)
        return place

    def _build(self, dtype: str) -> int:
        stored = disk.load(self.symbol(dtype), target(self.source))
        if stored is not None:
            entry, code = stored
            library = cpu_target.target_context.codegen().unserialize_library(code)
        else:
            library, entry = self._compile(dtype)
        self._libraries.append(library)
        return library.get_pointer_to_function(entry)

    def _compile(self, dtype: str) -> tuple[Any, str]:
        if disk.is_empty():
            call_others()  # more will be asked for soon
        options = {"nopython": True, "pipeline_class": WideCompiler, **self._flags}
        compiled = cfunc(self.signature(dtype), **options)(self.function)
        library, entry = compiled._library, compiled.native_name
        disk.save(self.symbol(dtype), target(self.source), (entry, library.serialize_using_object_code()))
        return library, entry


NOWHERE = 1  # the address of what is not compiled: never called
_noted: list[tuple[Native, str]] | None = None


def noted(make: Callable[[], Any]) -> tuple[Any, list[tuple[Native, str]]]:
    """(what `make` gives, which native functions it asks for that have no address yet); nothing is compiled meanwhile.

    What it gives holds no true addresses.
    """
    global _noted
    with global_compiler_lock:
        before, _noted = _noted, []
        try:
            return make(), _noted
        finally:
            _noted = before


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


WITHOUT_NATIVES = ("numba", "numpy")  # packages whose functions call none


def _reached(function, seen=None) -> Iterator[Any]:
    """A function, the inlined functions that it uses, and the native functions that all of these call."""
    seen = set() if seen is None else seen
    yield function
    closure = inspect.getclosurevars(function)
    for value in (*closure.globals.values(), *closure.nonlocals.values()):
        if isinstance(value, Native):
            yield value
        elif inspect.isfunction(value) and value not in seen:
            seen.add(value)
            if (value.__module__ or "").partition(".")[0] not in WITHOUT_NATIVES:
                yield from _reached(value, seen)


def native(signature: str, reorder_sums: bool = False):
    """Compile a loop over memory once for each element type; other kernels call it by name."""

    def decorate(function):
        return Native(function, signature, SUM_FLAGS if reorder_sums else FLAGS)

    return decorate


class Kernel(Native):
    """A native function that a plan can call: it takes its operands from a record.

    ``record(dtype, **operands)`` makes one, ``op(dtype, total, quantum, work, **operands)`` an `Op`, which tells what
    these are. TypeError names the kernel and the operand that is missing, unknown or not what the kernel asks for.
    """

    def __init__(self, function):
        words = words_of(function)
        super().__init__(_entry(function, arguments_of(function, words)), "record, i8, i8, i8", FLAGS)
        self.source = function
        self.words = words  # the operands by name, in the order of the record
        taken = words.keys() & Op._fields
        if taken and "start" in inspect.signature(function).parameters:
            raise TypeError(
                f"{function.__name__}: {', '.join(taken)} is part of every Op, expected another name"
            )

    @cached_property
    def record(self) -> Any:
        """A function ``(dtype, *, operands…)`` that packs a record."""
        return packer(self.name, self.words, "record", "", {})

    @cached_property
    def op(self) -> Any:
        """A function ``(dtype, total, quantum=1, work=0.0, *, operands…)`` that makes an `Op`; a job has none."""
        pointers = "".join(f"{name}, " for name, word in self.words.items() if "*" in word)
        made = f"new(Op, (kernel, dtype, record, total, quantum, work, ({pointers}), False))"
        names = {"new": tuple.__new__, "Op": Op, "kernel": self}
        return packer(self.name, self.words, made, ", total, quantum=1, work=0.0", names)


def kernel(function) -> Kernel:
    """Compile a function of annotated operands and of what is supplied (`layout.SUPPLIED`), so that a plan can call it."""
    return Kernel(function)


def _entry(function, arguments):
    """What is compiled of a kernel: it unpacks the record and goes on with the function itself."""
    body = inlined(function)

    def entry(record, start, stop, scratch):
        body(*arguments(record, start, stop, scratch))

    entry.__name__, entry.__module__, entry.__doc__ = function.__name__, function.__module__, function.__doc__
    return entry


class Op(NamedTuple):
    """What an operation comes down to: a kernel, its operands, and a range which is dealt out among workers.

    Attributes
    ----------
    kernel, dtype : what is run, and for which element type
    record : the operands, as ``kernel.record(dtype, …)`` packs them
    total, quantum : range(total) is dealt out in multiples of `quantum`
    work : nanoseconds that one core needs, about; it decides how many workers share an operation
    keeps : the arrays that the record points into, which live as long as the op
    apart : other workers write what it reads, or read what it writes, so that all meet before and after it
    """

    kernel: Kernel
    dtype: Any
    record: bytes
    total: int
    quantum: int = 1
    work: float = 0.0
    keeps: tuple = ()
    apart: bool = False
