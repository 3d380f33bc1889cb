"""The elementary functions by their names. Each target replaces the bodies by code of its own (`cpu.runtime.elementary`).

Here they are those of the C library with the limits that IEEE 754 gives, where Python would raise an exception.
The square root is `math.sqrt` itself: every target has it as one instruction.
"""

import math


def exp(x: float) -> float:
    """e^x."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def expm1(x: float) -> float:
    """e^x − 1, without cancellation near 0."""
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def log(x: float) -> float:
    """The natural logarithm; −∞ at 0, NaN below."""
    if x > 0 or x != x:
        return math.log(x)
    return -math.inf if x == 0 else math.nan


def log1p(x: float) -> float:
    """log(1 + x), without cancellation near 0; −∞ at −1, NaN below."""
    if x > -1 or x != x:
        return math.log1p(x)
    return -math.inf if x == -1 else math.nan


def log1p_of_fraction(x: float) -> float:
    """log(1 + x) for x in [0, 1], the values of `decay`."""
    return math.log1p(x)


def decay(x: float) -> float:
    """e^−|x|."""
    return math.exp(-abs(x))


def tanh(x: float) -> float:
    """(e^x − e^−x) / (e^x + e^−x)."""
    return math.tanh(x)


def normal_cdf(x: float) -> float:
    """P(N(0, 1) ≤ x) = erfc(−x/√2) / 2, without cancellation in the left tail."""
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def normal_tail(x: float) -> float:
    """P(N(0, 1) > |x|) = erfc(|x|/√2) / 2."""
    return 0.5 * math.erfc(abs(x) * math.sqrt(0.5))


def normal_pdf(x: float) -> float:
    """The density of N(0, 1), e^(−x²/2) / √(2π)."""
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
