"""The judge of every backward pass: the derivative, from nothing but the function."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64

__all__ = ["numerical_gradient"]

EPS = float(np.finfo(np.float64).eps)


def numerical_gradient(f: Callable[[Array], float], x: ArrayLike, h: float = EPS ** (1 / 3)) -> Array:
    """df/dx by central differences, one element of x at a time: (f(x + h e_i) - f(x - h e_i)) / 2h.

    Taylor: f(x ± h) = f ± h f' + h² f''/2 ± h³ f'''/6. The difference cancels the even terms, which
    leaves an error h² f'''/6; rounding of f adds about eps |f| / h. The sum is least near h = eps^(1/3) =
    6e-6, where both are of the order eps^(2/3) = 4e-11. (One-sided differences stop at eps^(1/2) =
    1.5e-8.)

    Parameters
    ----------
    f : scalar function of an array shaped like x; it must not keep or change its argument
    x : array of any shape; never modified
    h : step for elements up to 1 in size, scaled with |x| beyond

    Returns
    -------
    array of the shape of x
    """
    point = f64(x).copy()
    gradient = np.zeros_like(point)
    for i in np.ndindex(point.shape):
        here = float(point[i])
        step = h * max(1.0, abs(here))
        above, below = here + step, here - step
        point[i] = above
        rise = f(point)
        point[i] = below
        rise -= f(point)
        point[i] = here
        gradient[i] = rise / (above - below)  # the step that was taken, after rounding
    return gradient
