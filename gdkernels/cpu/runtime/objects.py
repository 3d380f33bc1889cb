"""What native code reads of Python's objects, and the functions of the interpreter that it calls.

A call from Python into native code by way of converted arguments costs more than a small kernel. So a door (`doors`) takes
the objects themselves and reads the few words that it needs where CPython and NumPy keep them. Both publish these layouts
for extensions and keep them within a version; `READABLE` tells whether this interpreter's are the expected ones. Addresses
are int64; whoever calls a function here holds the interpreter lock, but for `release_lock` and `take_lock`.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .simd import I32, I64, VOID, declare

HEAD = object.__basicsize__  # bytes of what every object begins with: its type is the last word of it
TYPE = HEAD - 8

# Of a NumPy array (PyArrayObject_fields); NDIM and FLAGS are int32.
DATA, NDIM, DIMS, STRIDES, DESCR, FLAGS = (HEAD + 8 * word for word in (0, 1, 2, 3, 5, 6))
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400

# Of a float, and of NumPy's float64 and int64, the value; of a list and a tuple the length, and where the items are.
VALUE = HEAD
LENGTH, LIST_ITEMS, TUPLE_ITEMS = HEAD, HEAD + 8, HEAD + 8

NPY_FLOAT32, NPY_FLOAT64 = (np.dtype(kind).num for kind in (np.float32, np.float64))
ARRAY_NEW = 93  # the place of PyArray_New in NumPy's table of functions for extensions


def _array_functions() -> int:
    """The address of NumPy's table of functions."""
    module = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
    kind = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    return kind(("PyCapsule_GetPointer", ctypes.pythonapi))(module._ARRAY_API, None)


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _is_readable() -> bool:
    """Whether objects lie in memory as this module says."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or HEAD != 16:
        return False
    array, number, items = np.zeros((3, 5), np.float32)[:, 1:4], 2.5, ["a", ("b", "c")]
    real, whole = np.float64(2.5), np.int64(7)
    place = id(array)
    expected = [
        (_word(place + TYPE), id(np.ndarray)),
        (_word(place + DATA), array.ctypes.data),
        (ctypes.c_int32.from_address(place + NDIM).value, 2),
        (ctypes.c_int32.from_address(place + FLAGS).value & (C_CONTIGUOUS | ALIGNED | WRITEABLE), ALIGNED | WRITEABLE),
        ([_word(_word(place + DIMS) + 8 * axis) for axis in range(2)], [3, 3]),
        ([_word(_word(place + STRIDES) + 8 * axis) for axis in range(2)], [20, 4]),
        (_word(place + DESCR), id(np.dtype(np.float32))),
        (ctypes.c_double.from_address(id(number) + VALUE).value, number),
        (ctypes.c_double.from_address(id(real) + VALUE).value, number),
        (_word(id(whole) + VALUE), 7),
        (_word(id(items) + LENGTH), 2),
        (_word(_word(id(items) + LIST_ITEMS)), id(items[0])),
        (_word(id(items[1]) + LENGTH), 2),
        (_word(id(items[1]) + TUPLE_ITEMS), id(items[1][0])),
    ]  # fmt: skip
    return all(found == right for found, right in expected)


READABLE = _is_readable()

for _name in (
    "PyFloat_FromDouble", "PyLong_AsDouble", "PyLong_AsLongLongAndOverflow", "PyUnicode_Compare", "PyTuple_New",
    "PyErr_Clear", "Py_IncRef", "Py_DecRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyType_IsSubtype",
    "PyErr_BadArgument", "PyLong_FromLongLong",
):  # fmt: skip
    _place = ctypes.cast(getattr(ctypes.pythonapi, _name), ctypes.c_void_p).value
    llvm.add_symbol(f"gdkernels.{_name}", _place)
# Where objects cannot be read nothing calls it, but what mentions it is compiled all the same (`gdkernels warmup`).
llvm.add_symbol("gdkernels.PyArray_New", _word(_array_functions() + 8 * ARRAY_NEW) if READABLE else _place)

_KINDS = {
    "i4": (types.int32, I32),
    "i8": (types.int64, I64),
    "f8": (types.float64, ir.DoubleType()),
    "": (types.void, VOID),
}


def _function(name: str, *given: str, result: str):
    """A function of the interpreter, of no, one or two arguments, as native code calls it."""
    kinds, words = zip(*map(_KINDS.get, given), strict=True) if given else ((), ())
    kind, made = _KINDS[result]

    def generate(context, builder, signature, values):
        value = builder.call(declare(builder.module, f"gdkernels.{name}", made, words), values)
        return context.get_dummy_value() if kind == types.void else value

    def of_none(typingctx):
        return kind(), generate

    def of_one(typingctx, first):
        return kind(*kinds), generate

    def of_two(typingctx, first, second):
        return kind(*kinds), generate

    return intrinsic((of_none, of_one, of_two)[len(given)])


new_float = _function("PyFloat_FromDouble", "f8", result="i8")
float_of_int = _function("PyLong_AsDouble", "i8", result="f8")  # -1 and an error where it is too large
int_of_int = _function(
    "PyLong_AsLongLongAndOverflow", "i8", "i8", result="i8"
)  # an int32 at the second tells
compare_words = _function("PyUnicode_Compare", "i8", "i8", result="i4")  # of two str: 0 where they are equal
new_tuple = _function("PyTuple_New", "i8", result="i8")
forget_error = _function("PyErr_Clear", result="")
keep = _function("Py_IncRef", "i8", result="")
drop = _function("Py_DecRef", "i8", result="")
release_lock = _function("PyEval_SaveThread", result="i8")
take_lock = _function("PyEval_RestoreThread", "i8", result="")


@intrinsic
def new_array(typingctx, ndarray, ndim, dims, number):
    """A new C-contiguous array of the element type with this number, its dimensions at address `dims`; 0 without memory.

    `ndarray` is the address of NumPy's type.
    """

    def generate(context, builder, signature, arguments):
        kind, count, place, element = arguments
        function = declare(
            builder.module, "gdkernels.PyArray_New", I64, [I64, I32, I64, I32, I64, I64, I32, I32, I64]
        )
        count, element = builder.trunc(count, I32), builder.trunc(element, I32)
        return builder.call(function, [kind, count, place, element, I64(0), I64(0), I32(0), I32(0), I64(0)])

    return types.int64(*[types.int64] * 4), generate


_METH_O = 0x8  # the interpreter's name for a function of (self, argument)
_libraries: list[Any] = []  # compiled code lives as long as its library


class _Method(ctypes.Structure):
    """PyMethodDef: what the interpreter reads of a function, until the process ends."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("text", ctypes.c_char_p),
    )


new_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)


def address_function() -> Callable[[Any], int]:
    """A function of the interpreter that gives the address of the first element of an array, also of a subclass.

    Anything else is a TypeError. It is too small to be worth a file: it is made in each process.
    """
    codegen = cpu_target.target_context.codegen()
    library = codegen.create_library("gdkernels.address")
    module = library.create_ir_module("gdkernels.address")
    function = ir.Function(module, ir.FunctionType(I64, [I64, I64]), "gdkernels.address")
    builder = ir.IRBuilder(function.append_basic_block())

    def word(place):
        return builder.load(builder.inttoptr(place, I64.as_pointer()))

    array, ndarray = function.args[1], I64(id(np.ndarray))
    kind = word(builder.add(array, I64(TYPE)))
    subtype = declare(module, "gdkernels.PyType_IsSubtype", I32, [I64, I64])
    exact = builder.icmp_unsigned("==", kind, ndarray)
    with builder.if_then(builder.not_(exact)):
        fits = builder.icmp_unsigned("!=", builder.call(subtype, [kind, ndarray]), I32(0))
        with builder.if_then(builder.not_(fits)):
            builder.call(declare(module, "gdkernels.PyErr_BadArgument", I32, []), [])
            builder.ret(I64(0))
    made = declare(module, "gdkernels.PyLong_FromLongLong", I64, [I64])
    builder.ret(builder.call(made, [word(builder.add(array, I64(DATA)))]))
    library.add_ir_module(module)
    with global_compiler_lock:
        library.finalize()
    _libraries.append(library)
    method = _Method(b"address", library.get_pointer_to_function(function.name), _METH_O, None)
    _libraries.append(method)
    return new_function(ctypes.addressof(method), None, "gdkernels")
