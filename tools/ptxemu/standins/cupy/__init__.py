"""A stand-in for CuPy on the emulated device: put before the real one by PTXEMU_CUPY=1.

It has CuPy's arrays, memory pool, streams, events and graphs, over the emulated driver.  Everything else is NumPy's:
device memory is host memory here, so functions and operators compute on the host and put their results on the device.
Like CuPy, it does not mix with NumPy arrays.  It is for running programs that use CuPy, not for testing CuPy.
"""

import numpy as _numpy

from . import cuda
from .array import asarray, asnumpy, empty, empty_like, ndarray, on_host, zeros, zeros_like

__version__ = "14.0+ptxemu"
__all__ = ["asarray", "asnumpy", "cuda", "empty", "empty_like", "ndarray", "zeros", "zeros_like"]

ascontiguousarray = on_host(_numpy.ascontiguousarray)


def array(a, dtype=None, copy=True, order="C", ndmin=0):
    """A new device array from anything that NumPy or the device knows."""
    made = asarray(a, dtype)
    made = made.copy() if copy and made is a else made
    return made.reshape((1,) * (ndmin - made.ndim) + made.shape) if made.ndim < ndmin else made


def get_array_module(*arrays):
    import sys

    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in arrays) else _numpy


def get_default_memory_pool():
    return cuda.memory.pool


class _Borrowed:
    """A part of NumPy (random, linalg, ...) whose functions return device arrays."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return _borrow(getattr(self.module, name))


def _borrow(thing):
    if isinstance(thing, type(_numpy)):
        return _Borrowed(thing)
    return on_host(thing) if callable(thing) and not isinstance(thing, type) else thing


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _borrow(getattr(_numpy, name))
