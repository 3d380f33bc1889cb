"""Softmax and its logarithm against PyTorch, and at the extremes."""

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)

# Against PyTorch: numbers below 20, about 10 roundings each, in either of the two.
PYTORCH = {"rtol": 0, "atol": 2 * 10 * 20 * EPS}


def test_softmax_and_its_logarithm_match_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x = rng.standard_normal((5, 7)) * 5
    np.testing.assert_allclose(ref.softmax(x), torch.softmax(torch.tensor(x), 1).numpy(), **PYTORCH)
    np.testing.assert_allclose(ref.log_softmax(x), torch.log_softmax(torch.tensor(x), 1).numpy(), **PYTORCH)


def test_softmax_rows_sum_to_1_and_ignore_a_constant(rng):
    x = np.round(rng.standard_normal((5, 7)) * 2**20) / 2**20
    # n terms, each rounded once, and their sum
    np.testing.assert_allclose(ref.softmax(x).sum(axis=1), 1, rtol=2 * 7 * EPS)
    np.testing.assert_array_equal(ref.softmax(x + 4096), ref.softmax(x))  # the sum is exact
    np.testing.assert_array_equal(ref.log_softmax(x - 4096), ref.log_softmax(x))


def test_softmax_at_the_extremes():
    x = np.array([[1e4, -1e4, 1e4], [-np.inf, 0.0, -np.inf], [np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0]])
    p, log_p = ref.softmax(x), ref.log_softmax(x)
    np.testing.assert_array_equal(p[:2], [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(log_p[0], [-np.log(2), -2e4 - np.log(2), -np.log(2)], rtol=2 * EPS)
    np.testing.assert_array_equal(log_p[1], [-np.inf, 0.0, -np.inf])
    assert np.isnan(p[2:]).all()
    assert np.isnan(log_p[2:]).all()
