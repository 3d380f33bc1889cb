"""Initial weights: random, and of the one size that keeps signals alive in a deep network.

With x and w independent and of mean 0, z_j = Σ_k x_k w_kj has variance fan_in Var(w) Var(x). To keep
Var(z) = Var(x) forward, Var(w) = 1 / fan_in; to keep the gradient dx = dz @ w.T, likewise, Var(w) = 1 /
fan_out. Anything else is a factor to the power of the depth: signals vanish or explode.

    Xavier   Var(w) = 2 / (fan_in + fan_out)    a compromise, for tanh and sigmoid (Glorot, Bengio 2010)
    He       Var(w) = 2 / fan_in                relu drops half of E[x²], 2 restores it (He et al. 2015)

A uniform variable in [-limit, limit] has variance limit² / 3, hence the factor √3 between limit and
standard deviation. Numbers are drawn in float64 and then rounded to `dtype`, so that every dtype and
device starts from the same weights.
"""

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["he_normal", "he_uniform", "xavier_normal", "xavier_uniform"]

Weights = NDArray[np.floating]


def _uniform(shape: tuple[int, int], variance: float, rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    limit = math.sqrt(3.0 * variance)
    return rng.uniform(-limit, limit, shape).astype(dtype)


def _normal(shape: tuple[int, int], variance: float, rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    return (math.sqrt(variance) * rng.standard_normal(shape)).astype(dtype)


def xavier_uniform(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    """w of shape (fan_in, fan_out), uniform in ±√(6 / (fan_in + fan_out))."""
    return _uniform(shape, 2.0 / (shape[0] + shape[1]), rng, dtype)


def xavier_normal(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    """w of shape (fan_in, fan_out), normal with standard deviation √(2 / (fan_in + fan_out))."""
    return _normal(shape, 2.0 / (shape[0] + shape[1]), rng, dtype)


def he_uniform(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    """w of shape (fan_in, fan_out), uniform in ±√(6 / fan_in)."""
    return _uniform(shape, 2.0 / shape[0], rng, dtype)


def he_normal(shape: tuple[int, int], rng: np.random.Generator, dtype: DTypeLike) -> Weights:
    """w of shape (fan_in, fan_out), normal with standard deviation √(2 / fan_in)."""
    return _normal(shape, 2.0 / shape[0], rng, dtype)
