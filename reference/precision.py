"""How this folder calculates: in float64, whatever real dtype comes in, and as IEEE 754 says."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "f64", "ieee"]

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])


def f64(x: ArrayLike) -> Array:
    """`x` as a float64 array; exact for narrower floats. It may be `x` itself: never write to it."""
    return np.asarray(x, dtype=np.float64)


def ieee(f: Function) -> Function:
    """Decorates: overflow to inf and inf - inf = NaN are results of `f`, and no reason for NumPy to warn."""
    return np.errstate(all="ignore")(f)
