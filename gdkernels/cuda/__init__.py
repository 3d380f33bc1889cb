"""The CUDA backend: the same operations as `gdkernels.cpu`, over CUDA arrays.

`gd.cuda.device` has the functions for your own ``@cuda.jit`` kernels; it is imported when it is first used, and needs
numba-cuda.
"""

import ctypes
import importlib
import importlib.util
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gemm.choice import get_gemm_engine, set_gemm_engine

__all__ = ["describe", "get_gemm_engine", "is_available", "set_gemm_engine", "to_device", "to_numpy"]

DRIVERS = ("libcuda.so", "libcuda.so.1")


def __getattr__(name: str) -> Any:
    if name == "device":
        return importlib.import_module(f"{__name__}.device")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def describe() -> str:
    """The GPU that is seen here, or why there is none."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "not seen: numba-cuda is not installed"
    if sys.platform == "linux" and not _finds_driver():  # which spares the import of all that numba-cuda is
        return "not seen: the CUDA driver (libcuda.so.1) is not installed, or not on the path of libraries"
    try:
        from .runtime.target import cuda
    except ImportError as error:
        return f"not seen: {error}"
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "there is no usable GPU or driver").split())
        return f"not seen: {reason}"
    device = cuda.get_current_device()
    major, minor = device.compute_capability
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {major}.{minor}"


def _finds_driver() -> bool:
    """Whether there is something to load where numba-cuda looks for the driver."""
    for path in (
        *DRIVERS,
        *(f"{folder}/{name}" for folder in ("/usr/lib", "/usr/lib64") for name in DRIVERS),
    ):
        try:
            ctypes.CDLL(path)
        except OSError:
            if os.path.isfile(path):  # numba-cuda says what is wrong with it
                return True
        else:
            return True
    return False


def is_available() -> bool:
    """Whether there are a GPU, a driver and the packages to use them."""
    return not describe().startswith("not seen")


def to_device(values: NDArray[Any]) -> Any:
    """A copy of a NumPy array on the GPU: a CuPy array where CuPy is installed, else one of Numba.

    Raises RuntimeError where there is no GPU, MemoryError where its memory is too small.
    """
    from .runtime.arrays import BFLOAT16, default_library, read

    if not isinstance(values, np.ndarray):
        raise TypeError(f"to_device: values is of type {type(values).__name__}, expected a NumPy array")
    dtype = BFLOAT16 if values.dtype.name == "bfloat16" else values.dtype
    return read(default_library().empty(values.shape, dtype)).fill_from(values).owner


def to_numpy(array: Any) -> NDArray[Any]:
    """A copy of an array on the GPU, of whatever library, in NumPy; bfloat16 becomes float32."""
    from .runtime.arrays import read

    if isinstance(array, np.ndarray | list | tuple):
        raise TypeError(f"to_numpy: array is of type {type(array).__name__}, expected an array on the GPU")
    values: NDArray[Any] = read(array).to_numpy()
    return values
