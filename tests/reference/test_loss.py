"""The losses of elements: every option against finite differences and PyTorch, and at the extremes."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)
REDUCTIONS = ["mean", "sum", "none"]

# Against PyTorch: terms below 20, about 10 roundings each, at most 24 of them summed, in either of the two.
PYTORCH = {"rtol": 0, "atol": 2 * (10 + 24) * 20 * EPS}


def log_cosh(pred, target, reduction):
    """PyTorch has none of its own."""
    terms = (pred - target).cosh().log()
    return {"mean": terms.mean, "sum": terms.sum, "none": lambda: terms}[reduction]()


# Ours, PyTorch's function, and options.
ELEMENTWISE = {
    "mse": (ref.mse, "mse_loss", [{}]),
    "huber": (ref.huber, "huber_loss", [{}, {"delta": 0.3}, {"delta": 5.0}]),
    "log_cosh": (ref.log_cosh, log_cosh, [{}]),
    "bce": (ref.binary_cross_entropy, "binary_cross_entropy_with_logits", [{}, {"pos_weight": 2.5}]),
}
ELEMENTWISE_CASES = [
    pytest.param(name, options, reduction, id="-".join([name, *map(str, options.values()), reduction]))
    for name, (_, _, choices) in ELEMENTWISE.items()
    for options in choices
    for reduction in REDUCTIONS
]


def summed(value) -> float:
    """What the gradient belongs to: with reduction "none" it is that of the sum."""
    return float(np.sum(value))


@pytest.fixture
def pair(rng):
    """Predictions of both signs, small and large, and targets in [0, 1]."""
    return rng.standard_normal((6, 4)) * 3, rng.random((6, 4))


@pytest.mark.parametrize("name, options, reduction", ELEMENTWISE_CASES)
def test_elementwise_gradient_matches_finite_differences(name, options, reduction, pair, assert_gradient):
    loss, _, _ = ELEMENTWISE[name]
    pred, target = pair
    _, grad = loss(pred, target, reduction=reduction, **options)
    assert_gradient(lambda pred: summed(loss(pred, target, reduction=reduction, **options)[0]), pred, grad)


@pytest.mark.parametrize("name, options, reduction", ELEMENTWISE_CASES)
def test_elementwise_loss_matches_pytorch(name, options, reduction, pair):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    loss, torch_name, _ = ELEMENTWISE[name]
    pred, target = pair
    tensor = torch.tensor(pred, requires_grad=True)
    theirs = {k: torch.tensor(v) if k == "pos_weight" else v for k, v in options.items()}
    function = torch_name if callable(torch_name) else getattr(torch.nn.functional, torch_name)
    expected = function(tensor, torch.tensor(target), reduction=reduction, **theirs)
    expected.sum().backward()
    value, grad = loss(pred, target, reduction=reduction, **options)
    np.testing.assert_allclose(value, expected.detach().numpy(), **PYTORCH)
    np.testing.assert_allclose(grad, tensor.grad.numpy(), **PYTORCH)


def test_huber_is_half_the_square_inside_and_a_line_outside():
    terms, grad = ref.huber([0.5, -2.0, 5.0], [0.0, 0.0, 0.0], delta=2.0, reduction="none")
    np.testing.assert_array_equal(terms, [0.125, 2.0, 2.0 * (5.0 - 1.0)])
    np.testing.assert_array_equal(grad, [0.5, -2.0, 2.0])


def test_log_cosh_has_the_digits_of_its_formula():
    """At 60 digits; where the formula turns, at 1, some roundings of terms that are twice its size."""
    errors = np.array([1e-160, 1e-9, 1e-3, 0.3, 0.9999, 1.0, 1.0001, 2.5, 30.0, 700.0])
    with localcontext() as context:
        context.prec = 60
        exact = [((Decimal(e).exp() + Decimal(-e).exp()) / 2).ln() for e in errors[1:].tolist()]
    terms, grad = ref.log_cosh(np.append(errors, -errors), np.zeros(20), "none")
    np.testing.assert_allclose(terms[1:10], [float(one) for one in exact], rtol=6 * EPS)
    np.testing.assert_array_equal(terms[10:], terms[:10])
    np.testing.assert_array_equal(grad, np.tanh(np.append(errors, -errors)))
    assert terms[0] == 0.0 or abs(terms[0] / 5e-321 - 1) < 1e-2


@pytest.mark.parametrize("loss", [ref.mse, ref.huber, ref.log_cosh, ref.binary_cross_entropy])
def test_an_elementwise_mean_over_nothing_is_nan_and_a_sum_0(loss):
    nothing = np.zeros((0, 3))
    value, grad = loss(nothing, nothing)
    assert np.isnan(value)
    assert grad.shape == (0, 3)
    assert loss(nothing, nothing, reduction="sum")[0] == 0.0
    assert loss(nothing, nothing, reduction="none")[0].shape == (0, 3)


def test_bce_at_the_extremes_has_no_overflow_and_keeps_small_tails():
    z, target = np.array([1e4, 1e4, -1e4, -1e4, -40.0]), np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    terms, grad = ref.binary_cross_entropy(z, target, "none")
    np.testing.assert_array_equal(terms[:4], [1e4, 0.0, 0.0, 1e4])
    np.testing.assert_array_equal(grad[:4], [1.0, 0.0, 0.0, -1.0])
    np.testing.assert_allclose([terms[4], grad[4]], np.exp(-40.0), rtol=4 * EPS)


def test_infinite_logits_of_bce_have_finite_gradients():
    """The loss is inf on the wrong side; on the right side the other summand is 0 * inf, as in PyTorch."""
    z, target = [np.inf, np.inf, -np.inf, -np.inf], [0.0, 1.0, 0.0, 1.0]
    terms, grad = ref.binary_cross_entropy(z, target, "none")
    np.testing.assert_array_equal(terms, [np.inf, np.nan, np.nan, np.inf])
    np.testing.assert_array_equal(grad, [1.0, 0.0, 0.0, -1.0])


def test_regression_losses_at_the_extremes():
    error = np.array([1e200, -np.inf, 1e4])
    terms, grad = ref.mse(error, np.zeros(3), "none")
    np.testing.assert_array_equal(terms, [np.inf, np.inf, 1e8])
    np.testing.assert_array_equal(grad, [2e200, -np.inf, 2e4])
    terms, grad = ref.huber(error, np.zeros(3), reduction="none")
    np.testing.assert_array_equal(terms, [1e200, np.inf, 1e4 - 0.5])
    np.testing.assert_array_equal(grad, [1.0, -1.0, 1.0])
    terms, grad = ref.log_cosh(error, np.zeros(3), "none")
    np.testing.assert_array_equal(terms, [1e200, np.inf, 1e4 - np.log(2.0)])
    np.testing.assert_array_equal(grad, [1.0, -1.0, 1.0])


@pytest.mark.parametrize("loss", [ref.mse, ref.huber, ref.log_cosh, ref.binary_cross_entropy])
def test_nan_passes_through_elementwise(loss):
    terms, grad = loss([np.nan, 0.5], [1.0, 1.0], reduction="none")
    np.testing.assert_array_equal(np.isnan(terms), [True, False])
    np.testing.assert_array_equal(np.isnan(grad), [True, False])
    assert np.isnan(loss([np.nan, 0.5], [1.0, 1.0])[0])


# ---------------------------------------------------------------- errors

ERRORS = {
    r"mse: target has shape \(3, 1\), expected \(3,\) like pred": lambda: ref.mse(
        np.ones(3), np.ones((3, 1))
    ),
    r"huber: delta is 0.0, expected a positive number": lambda: ref.huber([1.0], [1.0], delta=0.0),
    r"mse: reduction is 'avg', expected 'mean', 'sum' or 'none'": lambda: ref.mse([1.0], [1.0], "avg"),
}


@pytest.mark.parametrize("message", ERRORS)
def test_an_error_names_op_argument_expectation_and_value(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
