"""The dense layer, forward and backward."""

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize("activation", ref.KINDS)
def test_linear_backward_matches_finite_differences(activation, rng, assert_gradient):
    x, w, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 2)), rng.standard_normal(2)
    da = rng.standard_normal((4, 2))
    a, z = ref.linear(x, w, b, activation)
    assert np.abs(z).min() > 1e-3  # a step across a kink would measure neither slope
    dx, dw, db = ref.linear_backward(da, x, w, a if ref.saved_for(activation) == "output" else z, activation)

    def loss(x, w, b):
        return (da * ref.linear(x, w, b, activation)[0]).sum()

    assert_gradient(lambda x: loss(x, w, b), x, dx)
    assert_gradient(lambda w: loss(x, w, b), w, dw)
    assert_gradient(lambda b: loss(x, w, b), b, db)


def test_linear_matches_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x, w, b, da = (rng.standard_normal(s) for s in [(6, 5), (5, 3), (3,), (6, 3)])
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
    out = torch.tanh(tensors[0] @ tensors[1] + tensors[2])
    out.backward(torch.tensor(da))
    a, _ = ref.linear(x, w, b, "tanh")
    # sums of at most 6 products of size < 10, in either of the two
    np.testing.assert_allclose(a, out.detach().numpy(), rtol=0, atol=2 * 6 * 10 * EPS)
    for ours, theirs in zip(ref.linear_backward(da, x, w, a, "tanh"), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=0, atol=2 * 6 * 10 * EPS)


def test_linear_gives_activation_and_preactivation():
    a, z = ref.linear([[1.0, 2.0]], [[1.0, -1.0], [1.0, -1.0]], [0.5, 0.0], "relu")
    np.testing.assert_array_equal(z, [[3.5, -3.0]])
    np.testing.assert_array_equal(a, [[3.5, 0.0]])


def test_no_bias_is_a_zero_bias(rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    np.testing.assert_array_equal(ref.linear(x, w)[0], ref.linear(x, w, np.zeros(2))[0])


def test_an_empty_batch_has_zero_weight_gradients():
    x, w, da = np.zeros((0, 3)), np.ones((3, 2)), np.zeros((0, 2))
    a, z = ref.linear(x, w, np.ones(2), "gelu")
    dx, dw, db = ref.linear_backward(da, x, w, z, "gelu")
    assert a.shape == z.shape == (0, 2)
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal(dw, np.zeros((3, 2)))
    np.testing.assert_array_equal(db, np.zeros(2))


def test_a_nan_in_one_sample_reaches_its_row_and_every_weight_of_its_input():
    x = np.array([[np.nan, 1.0], [1.0, 1.0]])
    a, _ = ref.linear(x, np.eye(2))
    np.testing.assert_array_equal(np.isnan(a), [[True, True], [False, False]])
    _, dw, db = ref.linear_backward(np.ones((2, 2)), x, np.eye(2), a)
    np.testing.assert_array_equal(np.isnan(dw), [[True, True], [False, False]])
    assert np.isfinite(db).all()
