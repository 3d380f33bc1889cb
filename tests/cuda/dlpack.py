"""A DLPack capsule for memory of the device, as a library in C would make it."""

import ctypes

CODES = {"float32": (2, 32), "float64": (2, 64), "bfloat16": (4, 16), "int64": (0, 64)}
CUDA = 2


class Tensor(ctypes.Structure):
    """DLTensor, then what makes it a DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_alive = []  # what capsules point to


def capsule(array):
    """The capsule of an `Array`, which must outlive it."""
    counts = (ctypes.c_int64 * array.ndim)(*array.shape)
    steps = (ctypes.c_int64 * array.ndim)(*(step // array.itemsize for step in array.strides))
    code, bits = CODES[array.dtype.name]
    tensor = Tensor(
        array.address, CUDA, 0, array.ndim, code, bits, 1,
        ctypes.cast(counts, ctypes.POINTER(ctypes.c_int64)), ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64)),
    )  # fmt: skip
    _alive.append((tensor, counts, steps))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(ctypes.addressof(tensor), b"dltensor", None)
