"""Clipping by global norm: one bound for the length of the whole gradient, so that its direction stays."""

import math

from ..check import Array, address, array, float_dtype, number, overlap, writable
from ..ranges import Range
from .wings import everywhere, wing

__all__ = ["clip_by_global_norm", "global_norm"]

Norm = float | Array

MAX_NORM = Range(0.0, math.inf, "a number ≥ 0")


@everywhere
def global_norm(*arrays: Array) -> Norm:
    """√(Σ g²) over all elements of all arrays, as if they were one vector; 0.0 for none.

    Parameters
    ----------
    *arrays : arrays
        Of one dtype, float32 or float64, and of any shape and layout.

    Returns
    -------
    float, or on the GPU an array of shape ()
        Summed in float64, in an order that depends on the sizes alone. NaN or Inf in an array gives NaN or Inf.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    """
    flat = _checked("global_norm", arrays)
    norm: Norm = wing(flat[0], "clip").norm(flat) if flat else 0.0
    return norm


@everywhere
def clip_by_global_norm(max_norm: float, *arrays: Array) -> Norm:
    """Scale all arrays by min(1, max_norm / (norm + 1e-6)), in place; return the norm before.

    Parameters
    ----------
    max_norm : float
        Not negative; infinity only measures.
    *arrays : arrays
        The gradients: of one dtype, any shape and layout, no memory in common. They are changed.

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
    flat = _checked(op, arrays)
    for index, one in enumerate(arrays):
        writable(op, f"arrays[{index}]", one, one.dtype, one.shape)
    _refuse_overlap(op, arrays)
    if not flat:
        return 0.0
    norm: Norm = wing(flat[0], "clip").clip(max_norm, flat)
    for given, one in zip(arrays, flat, strict=True):
        if one is not given:
            given[...] = one
    return norm


def _checked(op: str, arrays: tuple[Array, ...]) -> list[Array]:
    """The arrays, contiguous (a copy at most)."""
    if not arrays:
        return []
    dtype = float_dtype(op, "arrays[0]", arrays[0])
    why = f"arrays[0] has {dtype}"
    return [array(op, f"arrays[{index}]", one, dtype, None, why) for index, one in enumerate(arrays)]


def _bytes(one: Array) -> tuple[int, int]:
    """Between which addresses an array's elements lie."""
    start = address(one)
    spans = [(n - 1) * stride for n, stride in zip(one.shape, one.strides, strict=True)]
    below, above = sum(min(span, 0) for span in spans), sum(max(span, 0) for span in spans)
    return start + below, start + above + one.itemsize


def _refuse_overlap(op: str, arrays: tuple[Array, ...]) -> None:
    """In the order of their addresses, an array can only overlap those that begin before its predecessors end."""
    places = [(*_bytes(one), index) for index, one in enumerate(arrays) if one.size]
    open_: list[tuple[int, int, int]] = []
    for start, stop, index in sorted(places):
        open_ = [place for place in open_ if place[1] > start]
        for _, _, other in open_:
            if overlap(arrays[index], arrays[other]):
                first, second = sorted((index, other))
                raise ValueError(
                    f"{op}: arrays[{second}] overlaps arrays[{first}], expected memory of its own"
                )
        open_.append((start, stop, index))
