"""Initial weights, drawn by NumPy on the host in float64 and then rounded, so that every dtype and device starts alike.

With x and w independent and of mean 0, Var(z) = fan_in Var(w) Var(x) forward and Var(dx) = fan_out Var(w) Var(dz)
backward: any other variance than about 1 / fan makes signals vanish or explode with the depth.

    Xavier   Var(w) = 2 / (fan_in + fan_out)    for tanh and sigmoid (Glorot and Bengio, AISTATS 2010)
    He       Var(w) = 2 / fan_in                for relu and its like (He et al., ICCV 2015, arXiv 1502.01852)

A uniform variable in ±limit has variance limit² / 3. Each function takes shape (fan_in, fan_out), a
``numpy.random.Generator``, which it advances, and a dtype, and raises TypeError or ValueError for anything else.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..check import FLOATS, whole
from ..scalar.init import INITIALIZERS

Weights = NDArray[Any]


def xavier_uniform(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike = "float32") -> Weights:
    """w of shape (fan_in, fan_out), uniform in ±√(6 / (fan_in + fan_out))."""
    return _draw("xavier_uniform", shape, rng, dtype)


def xavier_normal(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike = "float32") -> Weights:
    """w of shape (fan_in, fan_out), normal with standard deviation √(2 / (fan_in + fan_out))."""
    return _draw("xavier_normal", shape, rng, dtype)


def he_uniform(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike = "float32") -> Weights:
    """w of shape (fan_in, fan_out), uniform in ±√(6 / fan_in)."""
    return _draw("he_uniform", shape, rng, dtype)


def he_normal(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike = "float32") -> Weights:
    """w of shape (fan_in, fan_out), normal with standard deviation √(2 / fan_in)."""
    return _draw("he_normal", shape, rng, dtype)


def _draw(name: str, shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    """Weights of mean 0 and of the distribution and variance of this initialiser."""
    shape = _check(name, shape, rng, dtype)
    distribution, variance_of = INITIALIZERS[name]
    variance = variance_of(*shape)
    if distribution == "normal":
        return (math.sqrt(variance) * rng.standard_normal(shape)).astype(dtype)
    limit = math.sqrt(3.0 * variance)
    return rng.uniform(-limit, limit, shape).astype(dtype)


def _check(op: str, shape: tuple[int, int], rng: object, dtype: DTypeLike) -> tuple[int, int]:
    """(fan_in, fan_out), if all arguments are right."""
    try:
        fan_in, fan_out = (whole(op, "shape", n, at_least=1) for n in shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"{op}: shape is {shape!r}, expected (fan_in, fan_out), two positive integers"
        ) from None
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{op}: rng is of type {type(rng).__name__}, expected a numpy.random.Generator, such as "
            "numpy.random.default_rng(seed)"
        )
    try:
        known = np.dtype(dtype) in FLOATS
    except TypeError:
        known = False
    if not known:
        raise TypeError(f"{op}: dtype is {dtype!r}, expected float32 or float64")
    return fan_in, fan_out
