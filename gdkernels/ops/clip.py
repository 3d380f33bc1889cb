"""Clipping by global norm: one bound for the length of the whole gradient, so that its direction stays."""

import math
from collections.abc import Sequence
from typing import cast

from ..check import Array, apart, array, float_dtype, number, writable
from ..ranges import Range
from .entrance import everywhere
from .wings import wing

__all__ = ["clip_by_global_norm", "global_norm"]

Norm = float | Array
Arrays = Array | Sequence[Array]

MAX_NORM = Range(0.0, math.inf, "a number ≥ 0")


@everywhere
def global_norm(*arrays: Arrays) -> Norm:
    """√(Σ g²) over all elements of all arrays, as if they were one vector; 0.0 for none.

    Parameters
    ----------
    *arrays : arrays
        Of one dtype, float32 or float64, and of any shape and layout; or one list of them.

    Returns
    -------
    float, or on the GPU an array of shape ()
        Summed in float64, in an order that depends on the sizes alone. NaN or Inf in an array gives NaN or Inf.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    """
    flat = _checked("global_norm", _unpacked(arrays))
    norm: Norm = wing(flat[0], "clip").norm(flat) if flat else 0.0
    return norm


@everywhere
def clip_by_global_norm(max_norm: float, *arrays: Arrays) -> Norm:
    """Scale all arrays by min(1, max_norm / (norm + 1e-6)), in place; return the norm before.

    Parameters
    ----------
    max_norm : float
        Not negative; infinity only measures.
    *arrays : arrays
        The gradients, or one list of them: of one dtype, any shape and layout, no memory in common. They are changed.

    Returns
    -------
    float, or on the GPU an array of shape ()
        The norm before clipping, as `global_norm` gives it.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where max_norm is negative or NaN, an array is read-only or two overlap. Nothing is written then.

    Notes
    -----
    As in PyTorch (error_if_nonfinite=False), a norm that is not finite is not an error: an infinite norm makes the scale 0
    (finite elements become 0, infinite ones NaN), a NaN makes everything NaN. R. Pascanu, T. Mikolov and Y. Bengio, On
    the difficulty of training recurrent neural networks, ICML 2013, arXiv 1211.5063.
    """
    op = "clip_by_global_norm"
    max_norm = number(op, "max_norm", max_norm, MAX_NORM)
    given = _unpacked(arrays)
    flat = _checked(op, given)
    for index, one in enumerate(given):
        writable(op, f"arrays[{index}]", one, one.dtype, one.shape)
    apart(op, [f"arrays[{index}]" for index in range(len(given))], given)
    if not flat:
        return 0.0
    norm: Norm = wing(flat[0], "clip").clip(max_norm, flat)
    for target, one in zip(given, flat, strict=True):
        if one is not target:
            target[...] = one
    return norm


def _unpacked(arrays: tuple[Arrays, ...]) -> tuple[Array, ...]:
    """The arrays of a call, which may have come as one list."""
    if len(arrays) == 1 and isinstance(arrays[0], list | tuple):
        return tuple(arrays[0])
    return cast("tuple[Array, ...]", arrays)


def _checked(op: str, arrays: tuple[Array, ...]) -> list[Array]:
    """The arrays, contiguous (a copy at most)."""
    if not arrays:
        return []
    dtype = float_dtype(op, "arrays[0]", arrays[0])
    why = f"arrays[0] has {dtype}"
    return [array(op, f"arrays[{index}]", one, dtype, None, why) for index, one in enumerate(arrays)]
