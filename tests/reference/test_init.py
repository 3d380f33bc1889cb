"""The initialisers: moments, bounds, and what they are for."""

import math

import numpy as np
import pytest

import reference as ref
from reference import init

SHAPE = (200, 300)  # fan_in, fan_out: different, so that the two cannot be exchanged unnoticed
N = SHAPE[0] * SHAPE[1]
VARIANCE = {
    init.xavier_uniform: 2 / 500,
    init.xavier_normal: 2 / 500,
    init.he_uniform: 2 / 200,
    init.he_normal: 2 / 200,
}
by_name = pytest.mark.parametrize("initialiser", VARIANCE, ids=lambda f: f.__name__)


@by_name
def test_mean_is_0_and_variance_as_derived(initialiser, rng):
    w = initialiser(SHAPE, rng, np.float64)
    variance = VARIANCE[initialiser]
    assert w.shape == SHAPE
    # standard errors: of the mean √(variance / N); of the variance at most variance √(2 / N). Five of each.
    assert abs(w.mean()) < 5 * math.sqrt(variance / N)
    assert abs(w.var() - variance) < 5 * variance * math.sqrt(2 / N)


@pytest.mark.parametrize("initialiser", [init.xavier_uniform, init.he_uniform], ids=lambda f: f.__name__)
def test_uniform_fills_its_interval(initialiser, rng):
    w = initialiser(SHAPE, rng, np.float64)
    limit = math.sqrt({init.xavier_uniform: 6 / 500, init.he_uniform: 6 / 200}[initialiser])
    # all of 60,000 staying below 0.999 limit has probability 0.999^60000 = 1e-26
    assert 0.999 * limit < np.abs(w).max() <= limit


@pytest.mark.parametrize("initialiser", [init.xavier_normal, init.he_normal], ids=lambda f: f.__name__)
def test_normal_has_normal_tails(initialiser, rng):
    w = initialiser(SHAPE, rng, np.float64) / math.sqrt(VARIANCE[initialiser])
    beyond_two = math.erfc(math.sqrt(2.0))  # 4.6 %
    assert abs((np.abs(w) > 2).mean() - beyond_two) < 5 * math.sqrt(beyond_two / N)


@by_name
def test_every_dtype_starts_from_the_same_weights(initialiser):
    w = initialiser((5, 7), np.random.default_rng(3), np.float64)
    for dtype in (np.float32, np.float16, "float32"):
        narrow = initialiser((5, 7), np.random.default_rng(3), dtype)
        assert narrow.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(narrow, w.astype(dtype))


def test_he_keeps_the_size_of_a_signal_through_thirty_relu_layers(rng):
    a = rng.standard_normal((64, 256))
    size = np.sqrt((a**2).mean())
    for _ in range(30):
        a, _ = ref.linear(a, init.he_normal((256, 256), rng, np.float64), None, "relu")
    # A layer multiplies the mean square by 1 ± √(5 / 256), from the fourth moment of a rectified normal; 30
    # layers the root mean square by e^(±0.4) at one sigma. Var(w) = 1 / fan_in would make it 2^-15 = 3e-5.
    assert 1e-2 < np.sqrt((a**2).mean()) / size < 1e2
