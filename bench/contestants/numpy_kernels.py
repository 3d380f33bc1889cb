"""NumPy's matrix product, into memory that is there."""

import numpy as np

from ..operations import OPERATIONS
from .calls import Calls


def gemm(shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """The BLAS that NumPy was built with; its threads are set before it is loaded."""
    inputs = OPERATIONS["gemm"].inputs(shape, form)
    a, b = inputs["a"], inputs["b"]
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    return Calls(inputs, lambda: np.matmul(a, b, out=out), lambda: {"out": out})


KERNELS = {"numpy": {"gemm": gemm}}
