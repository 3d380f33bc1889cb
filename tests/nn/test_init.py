"""The initialisers: the reference's bits, the right variance, and what they refuse."""

import math

import numpy as np
import pytest

import gdkernels as gd
import reference

VARIANCES = {
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
}


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (300, 20)])
@pytest.mark.parametrize("name", VARIANCES)
def test_weights_are_the_bits_of_the_reference(name, shape, dtype):
    ours, theirs = np.random.default_rng(8), np.random.default_rng(8)
    w = getattr(gd.init, name)(shape, ours, dtype)
    assert w.dtype == dtype
    assert w.flags.c_contiguous
    np.testing.assert_array_equal(w, getattr(reference.init, name)(shape, theirs, dtype))
    assert ours.bit_generator.state == theirs.bit_generator.state


@pytest.mark.parametrize("name", VARIANCES)
def test_float32_weights_are_the_rounded_float64_weights(name):
    draw = getattr(gd.init, name)
    single, double = (
        draw((40, 50), np.random.default_rng(1)),
        draw((40, 50), np.random.default_rng(1), "float64"),
    )
    np.testing.assert_array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize("name", VARIANCES)
def test_weights_have_the_variance_that_keeps_signals_alive(name):
    """The mean square of N values scatters by √(kurtosis − 1) / √N < √(2 / N) of itself; six of that never happen."""
    fan_in, fan_out = 400, 100
    w = getattr(gd.init, name)((fan_in, fan_out), np.random.default_rng(2), "float64")
    assert np.mean(w**2) == pytest.approx(VARIANCES[name](fan_in, fan_out), rel=6 * math.sqrt(2 / w.size))
    assert abs(w.mean()) < 6 * math.sqrt(VARIANCES[name](fan_in, fan_out) / w.size)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"shape": (3,)}, ValueError, r"he_normal: shape is \(3,\), expected \(fan_in, fan_out\), two positive integers"),
        ({"shape": (0, 3)}, ValueError, r"he_normal: shape is \(0, 3\), expected"),
        ({"shape": (2.5, 3)}, ValueError, r"he_normal: shape is \(2.5, 3\), expected"),
        ({"shape": 5}, ValueError, "he_normal: shape is 5, expected"),
        ({"rng": 42}, TypeError, "he_normal: rng is of type int, expected a numpy.random.Generator"),
        ({"dtype": "int32"}, TypeError, "he_normal: dtype is 'int32', expected float32 or float64"),
        ({"dtype": "single precision"}, TypeError, "he_normal: dtype is 'single precision', expected float32"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(arguments, error, words):
    given = {"shape": (3, 4), "rng": np.random.default_rng(0), "dtype": "float32"} | arguments
    with pytest.raises(error, match=words):
        gd.init.he_normal(**given)
