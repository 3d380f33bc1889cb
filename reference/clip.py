"""Clipping by global norm: one bound for the length of the whole gradient, so that its direction stays."""

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64, ieee

__all__ = ["clip_by_global_norm", "global_norm"]


@ieee
def global_norm(*arrays: ArrayLike) -> float:
    """√(Σ g²) over all elements of all arrays, as if they were one long vector; 0 for none."""
    return float(np.sqrt(sum((float((f64(g) ** 2).sum()) for g in arrays), start=0.0)))


@ieee
def clip_by_global_norm(max_norm: float, *arrays: ArrayLike) -> tuple[float, list[Array]]:
    """(norm before clipping, arrays scaled by min(1, max_norm / (norm + 1e-6))).

    Clipping every array (or element) on its own would turn the gradient; one common factor only shortens
    it, so the step still goes downhill, at most max_norm far (Pascanu et al. 2013, 1211.5063). The 1e-6
    is PyTorch's: it keeps a zero gradient from dividing by zero. A norm of NaN makes everything NaN.
    """
    norm = global_norm(*arrays)
    scale = np.minimum(1.0, max_norm / (norm + 1e-6))
    return norm, [f64(g) * scale for g in arrays]
