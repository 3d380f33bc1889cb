"""Working memory of the thread that runs: one region a thread, reserved at its first use and freed when the thread ends.

Native code finds it without the interpreter, in threads that Python knows nothing of too, such as those of a `prange`.
"""

import ctypes
import os
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import native
from .memory import PAGE
from .simd import I32, I64, VOID, declare, int64_at

SCRATCH_BYTES = 6 << 20  # packed panels are the largest that is kept there

if os.name == "posix":
    _libc = ctypes.CDLL(None)
    _key = ctypes.c_ulong(0) if sys.platform == "darwin" else ctypes.c_uint(0)
    _free = ctypes.cast(_libc.free, ctypes.c_void_p)
    _failed = _libc.pthread_key_create(ctypes.byref(_key), _free)
    _functions = (_libc.pthread_getspecific, _libc.pthread_setspecific, _libc.malloc, _libc.free)
else:
    _kernel32, _libc = ctypes.windll.kernel32, ctypes.cdll.msvcrt
    _free = ctypes.cast(_libc.free, ctypes.c_void_p)
    _key = ctypes.c_ulong(_kernel32.FlsAlloc(_free))
    _failed = _key.value == 0xFFFFFFFF
    _functions = (_kernel32.FlsGetValue, _kernel32.FlsSetValue, _libc.malloc, _libc.free)

if _failed:
    raise OSError("gdkernels: there is no key left for the working memory of threads")
_key_word = ctypes.c_int64(_key.value)  # as wide on every system

for _name, _function in zip(("find", "put", "reserve", "return"), _functions, strict=True):
    llvm.add_symbol(f"gdkernels.thread_{_name}", ctypes.cast(_function, ctypes.c_void_p).value)
llvm.add_symbol("gdkernels.thread_key", ctypes.addressof(_key_word))


def _key_here(builder):
    """The key of this process: compiled code outlives it."""
    name, known = "gdkernels.thread_key", builder.module.globals
    return builder.load(known[name] if name in known else ir.GlobalVariable(builder.module, I64, name))


@intrinsic
def _find(typingctx):
    """What this thread has put down, or 0."""

    def generate(context, builder, signature, arguments):
        return builder.call(
            declare(builder.module, "gdkernels.thread_find", I64, [I64]), [_key_here(builder)]
        )

    return types.int64(), generate


@intrinsic
def _put(typingctx, memory):
    """Put down the address of this thread's memory."""

    def generate(context, builder, signature, arguments):
        function = declare(builder.module, "gdkernels.thread_put", I32, [I64, I64])
        builder.call(function, [_key_here(builder), arguments[0]])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def reserve(typingctx, size):
    """Memory of `size` bytes; 0 where there is none."""

    def generate(context, builder, signature, arguments):
        return builder.call(declare(builder.module, "gdkernels.thread_reserve", I64, [I64]), arguments)

    return types.int64(types.int64), generate


@intrinsic
def give_back(typingctx, memory):
    """Give back what `reserve` gave."""

    def generate(context, builder, signature, arguments):
        builder.call(declare(builder.module, "gdkernels.thread_return", VOID, [I64]), arguments)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@native("i8 -> i8")
def own_scratch(size):
    """Working memory of the calling thread, `size` bytes from the beginning of a page on; 0 where there is none.

    What was in it is lost where more is asked for than ever before. The first page holds how much there is.
    """
    memory = _find()
    if memory != 0:
        if int64_at(memory)[0] >= size:
            return (memory + 2 * PAGE - 1) // PAGE * PAGE
        _put(0)
        give_back(memory)
    memory = reserve(size + 2 * PAGE)
    if memory == 0:
        return 0
    int64_at(memory)[0] = size
    _put(memory)
    return (memory + 2 * PAGE - 1) // PAGE * PAGE
