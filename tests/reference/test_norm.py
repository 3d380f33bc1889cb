"""Layer norm and RMS norm, with and without residual."""

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)


@pytest.fixture
def rows(rng):
    """x, residual, dy (4, 6) and gamma, beta (6,); rows of different means and sizes."""
    x = rng.standard_normal((4, 6)) * [[0.5], [1.0], [2.0], [1.0]] + [[0.0], [3.0], [-1.0], [0.5]]
    return x, rng.standard_normal((4, 6)), rng.standard_normal((4, 6)), *rng.standard_normal((2, 6))


@pytest.mark.parametrize("with_residual", [False, True])
def test_layernorm_backward_matches_finite_differences(rows, with_residual, assert_gradient):
    x, residual, dy, gamma, beta = rows
    residual = residual if with_residual else None
    _, stats = ref.layernorm(x, gamma, beta, residual=residual)
    dx, dgamma, dbeta = ref.layernorm_backward(dy, x, gamma, stats, residual)

    def loss(x, gamma, beta, residual):
        return (dy * ref.layernorm(x, gamma, beta, residual=residual)[0]).sum()

    assert_gradient(lambda x: loss(x, gamma, beta, residual), x, dx)
    assert_gradient(lambda gamma: loss(x, gamma, beta, residual), gamma, dgamma)
    assert_gradient(lambda beta: loss(x, gamma, beta, residual), beta, dbeta)
    if with_residual:
        assert_gradient(lambda r: loss(x, gamma, beta, r), residual, dx)


@pytest.mark.parametrize("with_residual", [False, True])
def test_rmsnorm_backward_matches_finite_differences(rows, with_residual, assert_gradient):
    x, residual, dy, gamma, _ = rows
    residual = residual if with_residual else None
    _, stats = ref.rmsnorm(x, gamma, residual=residual)
    dx, dgamma = ref.rmsnorm_backward(dy, x, gamma, stats, residual)

    def loss(x, gamma, residual):
        return (dy * ref.rmsnorm(x, gamma, residual=residual)[0]).sum()

    assert_gradient(lambda x: loss(x, gamma, residual), x, dx)
    assert_gradient(lambda gamma: loss(x, gamma, residual), gamma, dgamma)
    if with_residual:
        assert_gradient(lambda r: loss(x, gamma, r), residual, dx)


def test_scale_backward_matches_finite_differences(rows, assert_gradient):
    x, _, dy, gamma, _ = rows
    dx, dgamma = ref.scale_backward(dy, x, gamma)
    assert_gradient(lambda x: (dy * ref.scale(x, gamma)).sum(), x, dx)
    assert_gradient(lambda gamma: (dy * ref.scale(x, gamma)).sum(), gamma, dgamma)


def test_scale_is_the_norm_of_rows_that_are_normal_already(rows):
    """Rows of mean 0 and variance 1 pass through layer norm without beta as through the scale."""
    x, _, _, gamma, beta = rows
    normal = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    y, _ = ref.layernorm(normal, gamma, np.zeros_like(beta), eps=0.0)
    np.testing.assert_allclose(ref.scale(normal, gamma), y, rtol=0, atol=100 * EPS)


# Against PyTorch: about 6 roundings of values below 20, and sums of 6 of them, in either of the two.
PYTORCH = {"rtol": 0, "atol": 2 * 6 * 20 * EPS}


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layernorm_matches_pytorch(rows, eps):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x, residual, dy, gamma, beta = rows
    tensors = [torch.tensor(v, requires_grad=True) for v in (x + residual, gamma, beta)]
    out = torch.nn.functional.layer_norm(tensors[0], (6,), tensors[1], tensors[2], eps)
    out.backward(torch.tensor(dy))
    y, stats = ref.layernorm(x, gamma, beta, eps, residual)
    np.testing.assert_allclose(y, out.detach().numpy(), **PYTORCH)
    for ours, theirs in zip(ref.layernorm_backward(dy, x, gamma, stats, residual), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), **PYTORCH)


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_rmsnorm_matches_pytorch(rows, eps):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x, residual, dy, gamma, _ = rows
    tensors = [torch.tensor(v, requires_grad=True) for v in (x + residual, gamma)]
    out = torch.nn.functional.rms_norm(tensors[0], (6,), tensors[1], eps)
    out.backward(torch.tensor(dy))
    y, stats = ref.rmsnorm(x, gamma, eps, residual)
    np.testing.assert_allclose(y, out.detach().numpy(), **PYTORCH)
    for ours, theirs in zip(ref.rmsnorm_backward(dy, x, gamma, stats, residual), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), **PYTORCH)


def test_stats_are_what_they_are_called(rows):
    x, _, _, gamma, beta = rows
    _, stats = ref.layernorm(x, gamma, beta, eps=0.5)
    assert stats.shape == (4, 2)
    np.testing.assert_allclose(stats[:, 0], x.mean(axis=1), rtol=8 * EPS)
    np.testing.assert_allclose(stats[:, 1], (x.var(axis=1) + 0.5) ** -0.5, rtol=8 * EPS)
    _, stats = ref.rmsnorm(x, gamma, eps=0.5)
    assert stats.shape == (4,)
    np.testing.assert_allclose(stats, ((x * x).mean(axis=1) + 0.5) ** -0.5, rtol=8 * EPS)


def test_a_normalised_row_has_mean_0_and_deviation_1_even_on_a_high_plateau(rng):
    x = 1e4 + rng.standard_normal((3, 50))
    y, _ = ref.layernorm(x, np.ones(50), np.zeros(50), eps=0.0)
    # x itself is only known to 1e4 eps; mean(x²) - mean² would have lost 1e8 eps
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=4e4 * EPS)
    np.testing.assert_allclose(y.std(axis=1), 1, atol=4e4 * EPS)


def test_a_constant_row_becomes_beta_and_a_zero_row_zero():
    gamma, beta = np.full(5, 3.0), np.arange(5.0)
    y, stats = ref.layernorm(np.full((2, 5), 7.0), gamma, beta)
    np.testing.assert_array_equal(y, np.tile(beta, (2, 1)))
    dx, _, _ = ref.layernorm_backward(np.ones((2, 5)), np.full((2, 5), 7.0), gamma, stats)
    np.testing.assert_array_equal(dx, 0)
    np.testing.assert_array_equal(ref.rmsnorm(np.zeros((2, 5)), gamma)[0], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_stays_alone(rows, bad):
    x, _, dy, gamma, beta = rows
    x[1, 2] = bad
    y, stats = ref.layernorm(x, gamma, beta)
    np.testing.assert_array_equal(np.isnan(y).all(axis=1), [False, True, False, False])
    assert np.isfinite(np.delete(y, 1, axis=0)).all()
    dx, _, _ = ref.layernorm_backward(dy, x, gamma, stats)
    np.testing.assert_array_equal(np.isnan(dx).all(axis=1), [False, True, False, False])
    y, _ = ref.rmsnorm(x, gamma)
    np.testing.assert_array_equal(np.isnan(y).any(axis=1), [False, True, False, False])


def test_an_empty_batch_has_zero_parameter_gradients():
    x, gamma = np.zeros((0, 4)), np.ones(4)
    y, stats = ref.layernorm(x, gamma, gamma)
    assert (y.shape, stats.shape) == ((0, 4), (0, 2))
    dx, dgamma, dbeta = ref.layernorm_backward(x, x, gamma, stats)
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, 4)))
    y, stats = ref.rmsnorm(x, gamma)
    assert (y.shape, stats.shape) == ((0, 4), (0,))
    np.testing.assert_array_equal(ref.rmsnorm_backward(x, x, gamma, stats)[1], np.zeros(4))
