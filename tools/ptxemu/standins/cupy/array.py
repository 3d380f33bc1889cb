"""Arrays on the emulated device, each with a NumPy view of the same memory for what is computed on the host."""

import ctypes
import functools
import math

import numpy as np
from cuda.bindings import driver

from .cuda import memory, runtime
from .cuda.stream import get_current_stream, handle


def now():
    """Before the host touches device memory: wait for the current stream, which reports the faults of kernels."""
    if get_current_stream().is_capturing():
        raise NotImplementedError(
            "ptxemu's stand-in for CuPy computes on the host, which a graph does not capture"
        )
    get_current_stream().synchronize()


class ndarray:
    """A device array.  `host` is its memory as a NumPy array, `mem` what keeps that memory."""

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        steps = [(n - 1) * s for n, s in zip(shape, strides or (), strict=bool(strides))]
        before = -sum(min(0, s) for s in steps)  # bytes in front of the first element
        size = sum(map(abs, steps)) + dtype.itemsize if strides else math.prod(shape) * dtype.itemsize
        self.mem, self.host = None, np.empty(shape, dtype, order)
        if self.host.size:
            pointer = memptr or memory.alloc(size)
            room = (ctypes.c_ubyte * size).from_address(pointer.ptr - before)
            self.mem, self.host = pointer.mem, np.ndarray(shape, dtype, room, before, strides, order)

    @classmethod
    def view_of(cls, host, mem):
        new = cls.__new__(cls)
        new.host, new.mem = host, mem
        return new

    # ---- what it is
    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    strides = property(lambda self: self.host.strides)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    flags = property(lambda self: self.host.flags)

    @property
    def data(self):
        return memory.MemoryPointer(self.mem, self.host.ctypes.data - self.mem.ptr if self.mem else 0)

    @property
    def device(self):
        from .cuda import Device

        return Device(0)

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
            "stream": get_current_stream().ptr or 1,
        }

    # ---- copies
    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy in host memory."""
        now()
        out = np.empty(self.shape, self.dtype, order) if out is None else out
        out[...] = self.host
        return out

    def set(self, values, stream=None):
        now()
        self.host[...] = values

    def copy(self, order="C"):
        new = ndarray(self.shape, self.dtype, order=order)
        if self.flags.c_contiguous and new.flags.c_contiguous and self.nbytes:
            runtime.check(driver.cuMemcpyDtoDAsync(new.data.ptr, self.data.ptr, self.nbytes, handle(None)))
        elif self.nbytes:
            now()
            new.host[...] = self.host
        return new

    def fill(self, value):
        if self.flags.c_contiguous and self.nbytes and not np.any(self.dtype.type(value)):
            runtime.check(driver.cuMemsetD8Async(self.data.ptr, 0, self.nbytes, handle(None)))
        else:
            now()
            self.host.fill(value)

    def item(self, *index):
        return self.get().item(*index)

    def tolist(self):
        return self.get().tolist()

    # ---- indexing
    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        index = host_of(index)
        if not any(i is Ellipsis for i in index):
            index = (*index, Ellipsis)  # a 0-d array instead of a scalar
        return self.wrap(self.host[index])

    def __setitem__(self, index, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        now()
        self.host[host_of(index)] = host_of(value)

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # ---- everything else, computed on the host
    def wrap(self, result):
        """A NumPy result as a device array: a view of this one, if it is one."""
        if isinstance(result, np.ndarray) and self.shares(result):
            return ndarray.view_of(result, self.mem)
        return on_device(result)

    def shares(self, host):
        return self.mem is not None and np.may_share_memory(host, self.host)

    def __getattr__(self, name):
        if name.startswith("__") or name == "host":
            raise AttributeError(name)
        attribute = getattr(self.host, name)
        if not callable(attribute):
            return self.wrap(attribute)

        @functools.wraps(attribute)
        def method(*args, **kwargs):
            if not get_current_stream().is_capturing():  # views need no computing
                now()
            result = attribute(*host_of(args), **host_of(kwargs))
            return self.wrap(result)

        return method

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return on_host(getattr(ufunc, method))(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return on_host(function)(*args, **kwargs)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __index__(self):
        return self.get().__index__()

    def __repr__(self):
        return repr(self.get())

    __hash__ = None


def operators():
    """Give ndarray the operators of NumPy's arrays."""
    binary = [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    ]
    names = [f"__{r}{n}__" for n in binary for r in ("", "r")]
    names += [f"__{n}__" for n in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert")]
    for name in names:
        setattr(ndarray, name, on_host(getattr(np.ndarray, name)))
    for name in binary:
        function = getattr(np.ndarray, f"__i{name}__")

        def in_place(self, other, function=function):
            on_host(function)(self, other)
            return self

        setattr(ndarray, f"__i{name}__", in_place)


def host_of(thing):
    """Device arrays replaced by their views on the host, also inside tuples, lists and dictionaries."""
    if isinstance(thing, ndarray):
        return thing.host
    if isinstance(thing, (tuple, list)):
        return type(thing)(map(host_of, thing))
    return {k: host_of(v) for k, v in thing.items()} if isinstance(thing, dict) else thing


def on_device(result):
    """NumPy arrays and scalars, also inside tuples and lists, copied to the device."""
    if isinstance(result, (tuple, list)):
        return type(result)(map(on_device, result))
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    result = np.asarray(result)
    fortran = result.flags.f_contiguous and not result.flags.c_contiguous
    new = ndarray(result.shape, result.dtype, order="F" if fortran else "C")
    new.set(result)
    return new


def arrays_in(things):
    for thing in things:
        if isinstance(thing, (tuple, list)):
            yield from arrays_in(thing)
        elif isinstance(thing, (ndarray, np.ndarray)):
            yield thing


def on_host(function):
    """A function of NumPy for device arrays."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        runtime.ready()
        given = list(arrays_in([*args, *kwargs.values()]))
        if any(isinstance(a, np.ndarray) and a.ndim for a in given):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        now()
        result = function(*host_of(args), **host_of(kwargs))
        if result is NotImplemented:
            return result
        for array in given:
            if result is getattr(array, "host", None):  # out=...
                return array
            if isinstance(result, np.ndarray) and isinstance(array, ndarray) and array.shares(result):
                return ndarray.view_of(result, array.mem)
        return on_device(result)

    return call


operators()


# ---- making arrays
def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype, order=order)


def zeros(shape, dtype=float, order="C"):
    new = ndarray(shape, dtype, order=order)
    if new.nbytes:
        runtime.check(driver.cuMemsetD8Async(new.data.ptr, 0, new.nbytes, handle(None)))
    return new


def empty_like(a, dtype=None):
    return ndarray(a.shape, dtype or a.dtype)


def zeros_like(a, dtype=None):
    return zeros(a.shape, dtype or a.dtype)


class Borrowed:
    """Memory of another library's device array, which is kept while this is."""

    def __init__(self, owner, ptr):
        self.owner, self.ptr = owner, ptr


def asarray(a, dtype=None, order=None, blocking=False):
    """A device array: `a` itself, a view of another library's memory, or a copy of what NumPy makes of `a`."""
    if not isinstance(a, ndarray) and (interface := getattr(a, "__cuda_array_interface__", None)):
        owner = Borrowed(a, interface["data"][0])
        pointer = memory.MemoryPointer(owner, 0)
        a = ndarray(interface["shape"], interface["typestr"], pointer, interface.get("strides"))
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    return on_device(np.asarray(host_of(a), dtype))


def asnumpy(a, stream=None, order="C", out=None, blocking=True):
    return a.get(out=out) if isinstance(a, ndarray) else np.asarray(a)
