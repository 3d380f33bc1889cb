"""The global norm and the clipping by it."""

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)


def test_global_norm_is_that_of_one_long_vector(rng):
    arrays = [rng.standard_normal((3, 4)), rng.standard_normal(5), rng.standard_normal((2, 2))]
    flat = np.concatenate([g.ravel() for g in arrays])
    # 21 squares and their sum, rounded in either order; the root halves the relative error
    assert ref.global_norm(*arrays) == pytest.approx(np.linalg.norm(flat), rel=22 * EPS)
    assert ref.global_norm([3.0], [[4.0]]) == 5.0


def test_global_norm_of_nothing_is_zero():
    assert ref.global_norm() == 0.0
    assert ref.global_norm(np.zeros((0, 3))) == 0.0


def test_a_short_gradient_stays_as_it_is(rng):
    g = rng.standard_normal(10) / 10
    norm, (clipped,) = ref.clip_by_global_norm(5.0, g)
    assert norm < 5
    np.testing.assert_array_equal(clipped, g)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 3.0, 100.0])
def test_clipping_matches_pytorch(rng, max_norm):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    arrays = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in arrays]
    for parameter, g in zip(parameters, arrays, strict=True):
        parameter.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    norm, clipped = ref.clip_by_global_norm(max_norm, *arrays)
    # 17 squares summed, a root, a quotient, a product, in either of the two
    assert norm == pytest.approx(expected.item(), rel=20 * EPS)
    for ours, parameter in zip(clipped, parameters, strict=True):
        np.testing.assert_allclose(ours, parameter.grad.numpy(), rtol=40 * EPS)


def test_a_zero_gradient_stays_zero():
    norm, (clipped,) = ref.clip_by_global_norm(1.0, np.zeros(3))
    assert norm == 0.0
    np.testing.assert_array_equal(clipped, 0.0)


def test_nan_spreads_over_all_arrays_and_inf_shows():
    norm, clipped = ref.clip_by_global_norm(1.0, [np.nan, 1.0], [2.0])
    assert np.isnan(norm)
    assert all(np.isnan(g).all() for g in clipped)
    norm, clipped = ref.clip_by_global_norm(1.0, [np.inf, 1.0], [2.0])
    assert norm == np.inf
    assert np.isnan(clipped[0][0])  # inf * 0
    assert clipped[0][1] == clipped[1][0] == 0.0
