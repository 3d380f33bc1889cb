"""Functions that Python calls directly: an order of magnitude cheaper than ctypes, and compiled once for all processes."""

import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import numba
from numba import njit
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from ... import cache as disk
from . import objects as python
from .flags import FLAGS


@cache
def machine() -> tuple:
    """What compiled code depends on besides its source: the CPU, and the versions of the compiler."""
    return (*cpu_target.target_context.codegen().magic_tuple(), numba.__version__, llvmlite.__version__)


_only_compiles = False


def only_compiles() -> None:
    """Make this a process that compiles for another one (`compilers`) and runs nothing: calls lead nowhere there."""
    global _only_compiles
    _only_compiles = True


def is_only_compiling() -> bool:
    return _only_compiles


class _DispatcherCache(_Cache):
    """Keeps a dispatcher's code in our folder, a file for each signature.

    Numba's own cache keeps an index beside its files, which two processes that write at once leave at odds: code of another
    signature is then loaded, which ends the process.
    """

    def __init__(self, function):
        self._symbol = f"dispatch.{disk.name_of(function)}"

    @property
    def cache_path(self):
        return str(disk.folder())

    def load_overload(self, sig, target_context):
        with global_compiler_lock:
            target_context.refresh()
            stored = disk.load(self._symbol, (sig, machine()))
            return None if stored is None else CompileResult._rebuild(target_context, *pickle.loads(stored))

    def save_overload(self, sig, data):
        disk.save(self._symbol, (sig, machine()), dumps(data._reduce()))

    def enable(self):
        """It always is."""

    def disable(self):
        """It always is enabled."""

    def flush(self):
        """Files of other sources are deleted when new ones are written."""


def dispatcher(*signatures):
    """Compile a function for these signatures; without any, for whatever it is called with."""

    def decorate(function):
        compiled = njit(nogil=True, no_cfunc_wrapper=True, **FLAGS)(function)
        compiled._cache = _DispatcherCache(function)
        for one in () if _only_compiles else signatures:
            compiled.compile(one)
        return compiled

    return decorate


@dispatcher()
def _compiled_address(array):
    return array.ctypes.data


def _address() -> Callable[[Any], int]:
    """Address of the first element of an array: read where it stands, or, where that is not known, by code for each type."""
    return python.address_function() if python.READABLE else _compiled_address


address = _address()
