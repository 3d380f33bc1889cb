"""The only file that imports numba.cuda."""

import importlib.util


def describe() -> str:
    """The GPU that is seen here, or why there is none."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "not seen: numba-cuda is not installed"
    from numba import cuda

    if getattr(cuda, "implementation", "built-in") != "NVIDIA":
        return "not seen: numba.cuda is not the one of numba-cuda"
    if not cuda.is_available():
        return f"not seen: {cuda.cuda_error() or 'there is no usable GPU or driver'}"
    device = cuda.get_current_device()
    major, minor = device.compute_capability
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {major}.{minor}"
