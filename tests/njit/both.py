"""The one comparison of what a function computes compiled with what it computes in Python: bit for bit."""

import functools

import numba
import numpy as np

compiled = functools.cache(numba.njit)  # a function is compiled once for all tests


def copies(values):
    """The same arguments in memory of their own, each with the layout that it has."""
    if isinstance(values, tuple):
        return tuple(map(copies, values))
    return values.copy("K") if isinstance(values, np.ndarray) else values


def bits(value):
    """What is compared: types, shapes and bytes."""
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    return np.float64(value).tobytes() if isinstance(value, float) else value


def assert_same_in_both(function, *arguments):
    """What a function gives, and what it leaves in its arguments, is the same from Python and compiled; the result."""
    here, there = copies(arguments), copies(arguments)
    expected, found = function(*here), compiled(function)(*there)
    assert bits(found) == bits(expected)
    assert bits(there) == bits(here)
    return found
