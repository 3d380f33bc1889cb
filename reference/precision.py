"""Everything in this folder is computed in float64, whatever real dtype comes in."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def f64(x: ArrayLike) -> Array:
    """`x` as a float64 array; exact for float16, bfloat16 and float32."""
    return np.asarray(x, dtype=np.float64)
