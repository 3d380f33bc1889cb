"""What the tests of the reference share: random numbers, and the comparison with finite differences."""

from collections.abc import Callable

import numpy as np
import pytest

from reference import numerical_gradient

EPS = float(np.finfo(np.float64).eps)

GradientCheck = Callable[[Callable[[np.ndarray], float], np.ndarray, np.ndarray], None]


@pytest.fixture
def assert_gradient() -> GradientCheck:
    """Holds an analytic gradient of the scalar function f against central differences.

    Their error is h² f'''/6 + eps S / h, with S the sum of the absolute values that f adds up. At
    h = eps^(1/3) both are multiples of eps^(2/3) = 3.7e-11. The tests use about 20 terms of size about 1 with
    third derivatives below 10, so S + f'''/6 < 30; a function with larger values or slopes gets a
    proportionally larger bound.
    """

    def check(f: Callable[[np.ndarray], float], x: np.ndarray, gradient: np.ndarray) -> None:
        numerical = numerical_gradient(f, x)
        assert gradient.shape == numerical.shape
        size = max(1.0, abs(f(x)), float(np.abs(numerical).max(initial=0.0)))
        np.testing.assert_allclose(gradient, numerical, rtol=0, atol=30 * EPS ** (2 / 3) * size)

    return check
