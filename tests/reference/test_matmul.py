"""The product in its layouts, against the sum that defines it."""

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (3, 4, 5), (7, 1, 2)])
def test_matmul_is_the_sum_over_k(rng, m, n, k, trans_a, trans_b):
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    product = ref.matmul(a.T if trans_a else a, b.T if trans_b else b, trans_a, trans_b)
    expected = np.array([[sum(a[i, q] * b[q, j] for q in range(k)) for j in range(n)] for i in range(m)])
    # each entry: k products and k - 1 sums, each rounded once, in either of the two calculations
    bound = 2 * k * EPS * (np.abs(a) @ np.abs(b))
    assert (np.abs(product - expected) <= bound).all()


def test_matmul_computes_in_float64_whatever_comes_in():
    a = np.array([[2**24 + 1, 1]], dtype=np.int64)
    b = np.array([[1], [2.0**-20]], dtype=np.float32)
    product = ref.matmul(a, b)
    assert product.dtype == np.float64
    assert product[0, 0] == 2**24 + 1 + 2.0**-20  # float32 would have given 2^24


@pytest.mark.parametrize("m, n, k", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_matmul_of_nothing_is_zero(m, n, k):
    product = ref.matmul(np.ones((m, k)), np.ones((k, n)))
    np.testing.assert_array_equal(product, np.zeros((m, n)))


def test_matmul_passes_nan_and_inf_through():
    product = ref.matmul([[np.nan, 1.0], [np.inf, 1.0]], np.eye(2))
    assert np.isnan(product[0]).all()
    assert product[1, 0] == np.inf
