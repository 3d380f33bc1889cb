"""The CUDA wing: the same operations as `gdkernels.cpu`, over CUDA arrays."""

import importlib.util


def describe() -> str:
    """The GPU that is seen here, or why there is none."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "not seen: numba-cuda is not installed"
    try:
        from .target import cuda
    except ImportError as error:
        return f"not seen: {error}"
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "there is no usable GPU or driver").split())
        return f"not seen: {reason}"
    device = cuda.get_current_device()
    major, minor = device.compute_capability
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {major}.{minor}"


def is_available() -> bool:
    """Whether there are a GPU, a driver and the packages to use them."""
    return not describe().startswith("not seen")
