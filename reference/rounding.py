"""The units in which `bounds` counts what rounding does.

One rounding changes a number by at most eps/2 of itself. Where each term of a formula goes through r roundings on
its way into the result, they change the result by at most r/2 eps times the sum of the terms' absolute values, to
first order; a sum of n terms takes n - 1 of them in the worst order (N. Higham, Accuracy and Stability of Numerical
Algorithms, 2002, sections 3.1, 3.5 and 4.2). So errors are counted in eps: half of one for a rounding, and what
`Arithmetic` says for a function that is not rounded correctly.

In float64 the reference itself is rounded about as often. That is added where it is magnified, in the arguments of
exponentials; elsewhere the roundings of both are of either sign and come to far less than the bound of one (√r of
them instead of r, section 2.8).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .precision import Array, f64

__all__ = [
    "CPU",
    "GPU",
    "STORED",
    "Arithmetic",
    "Bound",
    "Roundings",
    "column_sums",
    "relative_to_largest",
    "rounded",
]


@dataclass(frozen=True)
class Arithmetic:
    """The largest errors of what a processor computes, in units in the last place; correct rounding is 0.5."""

    division: float
    root: float
    exp: float
    expm1: float
    log: float
    log1p: float
    tanh: float
    normal_cdf: float  # in the left tail
    normal_pdf: float


# What gdkernels/cpu/runtime/elementary.py states, rounded up; tests/cpu/test_elementary.py holds it to that. Without
# fused multiply-add the tail of normal_cdf, two polynomials, gains a rounding for each of their multiplications.
CPU = Arithmetic(0.5, 0.5, exp=1.2, expm1=2.0, log=1.0, log1p=1.7, tanh=2.7, normal_cdf=9.0, normal_pdf=2.3)
# CUDA C++ Programming Guide, Mathematical functions; the division of float32 is the fast one. The normal
# distribution is our own in float32: an exponential with a correction, and the CPU's polynomials.
GPU = Arithmetic(2.0, 1.0, exp=2.0, expm1=1.0, log=1.0, log1p=1.0, tanh=2.0, normal_cdf=9.0, normal_pdf=4.0)

# What a number loses, in parts of itself, where it is stored in fewer digits than it was computed in.
STORED = {"bfloat16": 2.0**-8, "float16": 2.0**-11}

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Bound:
    """|result - exact| <= error eps, element by element.

    error : array, the terms' absolute values times their roundings
    ulps : roundings of the term that sees most of them; error / ulps is the size of what they are relative to
    reference : the error of the reference itself, in float64's eps
    denormals : how often a number may be rounded that is too small for a relative error, down to the smallest
    """

    error: Array
    ulps: float
    reference: Array | float = 0.0
    denormals: Array | float = 0.0

    @property
    def size(self) -> Array:
        """The sum of the absolute values of the terms, each as far as it is rounded."""
        return self.error / self.ulps if self.ulps else np.zeros_like(self.error)

    def allowed(self, dtype: Any) -> Array:
        """The largest |result - exact| of an element type."""
        kind = np.finfo(dtype)
        return self.error * kind.eps + self.reference * EPS + self.denormals * kind.smallest_subnormal

    def __add__(self, other: "Bound") -> "Bound":
        """Of a sum."""
        return Bound(
            self.error + other.error,
            self.ulps + other.ulps,
            self.reference + other.reference,
            self.denormals + other.denormals,
        )

    def through(self, linear: Callable[[Array], Array]) -> "Bound":
        """Of a linear function, by its matrix of absolute values: a factor, a product, a sum over an axis."""
        reference, denormals = (
            np.broadcast_to(e, np.shape(self.error)) for e in (self.reference, self.denormals)
        )
        return Bound(linear(self.error), self.ulps, linear(reference), linear(denormals))

    def stored(self, exact: ArrayLike, storage: str) -> "Bound":
        """Of results that are computed in float32, if they are stored as a type of fewer digits."""
        if storage not in STORED:
            return self
        ulps = STORED[storage] / float(np.finfo(np.float32).eps)
        return self + rounded(exact, ulps)


class Roundings(NamedTuple):
    """What rounding does to an activation (`bounds`), in ulps; the terms stand in the order of the formula.

    value : of act(z), or of the gate
    slope : of da * act'(saved), or of gate'
    steepest : the steepest slope
    constant : what the slope adds to the output, unless that is a number of every element type
    """

    value: float
    slope: float
    steepest: float
    constant: float = 0.0


def rounded(value: ArrayLike, ulps: float, denormals: Array | float = 0.0) -> Bound:
    """Of numbers that went through roundings of this many ulps altogether."""
    return Bound(ulps * np.abs(f64(value)), ulps, denormals=denormals)


def column_sums(terms: ArrayLike, ulps: float, additions: float | None = None) -> Bound:
    """Of Σ over the rows, whose terms went through `ulps` before."""
    terms = np.abs(f64(terms))
    return rounded(terms.sum(axis=0), ulps + (len(terms) if additions is None else additions) / 2)


def relative_to_largest(terms: int = 0) -> float:
    """The error of a result relative to its largest element, if it is a formula of sums of `terms` random numbers.

    Eight for the formula. The partial sums of numbers of either sign are of the size of the sum, and their roundings
    are of either sign, too: √terms of them.
    """
    return 8.0 + math.isqrt(terms)
