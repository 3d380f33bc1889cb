"""Softmax cross-entropy: every option against finite differences and PyTorch, and at the extremes."""

from itertools import product

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)
REDUCTIONS = ["mean", "sum", "none"]

# Against PyTorch: terms below 20, about 10 roundings each, at most 6 rows of 4 of them summed, in either of the two.
PYTORCH = {"rtol": 0, "atol": 2 * (10 + 24) * 20 * EPS}

CLASSES = 4
INDICES = np.array([0, 3, 1, -100, 2, 1])
SMOOTHINGS = [0.0, 0.1, 1.0]
CROSS_ENTROPY_CASES = [
    pytest.param(*case, id="-".join(map(str, case)))
    for case in product(["index", "ignoring 1", "probability"], REDUCTIONS, SMOOTHINGS, ["plain", "weighted"])
]


def summed(value) -> float:
    """What the gradient belongs to: with reduction "none" it is that of the sum."""
    return float(np.sum(value))


def cross_entropy_case(kind, smoothing, weights, rng):
    """(logits, target, options)"""
    options = {"label_smoothing": smoothing}
    if weights == "weighted":
        options["class_weight"] = np.array([0.5, 2.0, 0.0, 1.5])
    if kind == "ignoring 1":
        options["ignore_index"] = 1
        target = np.abs(INDICES) % CLASSES
    else:
        target = INDICES if kind == "index" else rng.dirichlet(np.ones(CLASSES), 6)
    return rng.standard_normal((6, CLASSES)) * 2, target, options


@pytest.mark.parametrize("kind, reduction, smoothing, weights", CROSS_ENTROPY_CASES)
def test_cross_entropy_gradient_matches_finite_differences(
    kind, reduction, smoothing, weights, rng, assert_gradient
):
    logits, target, options = cross_entropy_case(kind, smoothing, weights, rng)

    def loss(logits):
        return ref.softmax_cross_entropy(logits, target, reduction, **options)

    assert_gradient(lambda logits: summed(loss(logits)[0]), logits, loss(logits)[1])


@pytest.mark.parametrize("kind, reduction, smoothing, weights", CROSS_ENTROPY_CASES)
def test_cross_entropy_matches_pytorch(kind, reduction, smoothing, weights, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    logits, target, options = cross_entropy_case(kind, smoothing, weights, rng)
    tensor = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        tensor,
        torch.tensor(target),
        reduction=reduction,
        label_smoothing=smoothing,
        weight=torch.tensor(options["class_weight"]) if weights == "weighted" else None,
        ignore_index=options.get("ignore_index", -100),
    )
    expected.sum().backward()
    value, grad = ref.softmax_cross_entropy(logits, target, reduction, **options)
    assert np.shape(value) == tuple(expected.shape)
    np.testing.assert_allclose(value, expected.detach().numpy(), **PYTORCH)
    np.testing.assert_allclose(grad, tensor.grad.numpy(), **PYTORCH)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 1.5]], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("case", ["empty, indices", "empty, probabilities", "all ignored", "weightless"])
def test_a_mean_over_nothing_is_what_pytorch_says(case, smoothing, weights):
    """NaN, with gradient 0; where rows count but have no weight, PyTorch's gradient is NaN."""
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    target = {
        "empty, indices": np.zeros(0, np.int64),
        "empty, probabilities": np.zeros((0, CLASSES)),
        "all ignored": np.full(3, -100),
        "weightless": np.array([2, -100, 2]),
    }[case]
    if case == "weightless":
        weights = [1.0, 1.0, 0.0, 1.0]
    tensor = torch.zeros((len(target), CLASSES), dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        tensor,
        torch.tensor(target),
        label_smoothing=smoothing,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )
    expected.backward()
    value, grad = ref.softmax_cross_entropy(
        np.zeros((len(target), CLASSES)), target, label_smoothing=smoothing, class_weight=weights
    )
    assert np.isnan(value)
    assert np.isnan(expected.item())
    np.testing.assert_array_equal(grad, tensor.grad.numpy())


def test_a_one_hot_probability_target_is_an_index_target(rng):
    logits, index = rng.standard_normal((5, CLASSES)), np.array([0, 3, 1, 1, 2])
    value, grad = ref.softmax_cross_entropy(logits, index, label_smoothing=0.1)
    same, same_grad = ref.softmax_cross_entropy(logits, np.eye(CLASSES)[index], label_smoothing=0.1)
    assert value == same
    np.testing.assert_array_equal(grad, same_grad)


def test_an_ignored_row_is_left_alone_even_where_it_is_nan(rng):
    logits = rng.standard_normal((3, CLASSES))
    expected, expected_grad = ref.softmax_cross_entropy(logits[::2], [1, 2])
    logits[1] = np.nan
    value, grad = ref.softmax_cross_entropy(logits, [1, -100, 2])
    assert value == expected
    np.testing.assert_array_equal(grad, np.insert(expected_grad, 1, 0.0, axis=0))


def test_cross_entropy_at_the_extremes():
    """Logits of ±1e4: the loss is the distance to the largest, the gradient softmax - target, exactly."""
    logits = np.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
    terms, grad = ref.softmax_cross_entropy(logits, [0, 1], "none")
    np.testing.assert_array_equal(terms, [0.0, 2e4])
    np.testing.assert_array_equal(grad, [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]])


def test_a_class_masked_by_minus_infinity_costs_nothing_unless_it_is_the_target():
    logits = np.array([[0.0, -np.inf, 0.0]] * 2)
    terms, grad = ref.softmax_cross_entropy(logits, [0, 1], "none")
    np.testing.assert_array_equal(terms, [np.log(2), np.inf])
    np.testing.assert_array_equal(grad, [[-0.5, 0.0, 0.5], [0.5, -1.0, 0.5]])


def test_nan_passes_through_its_row_of_cross_entropy():
    terms, grad = ref.softmax_cross_entropy([[np.nan, 0.0], [0.0, 0.0]], [1, 1], "none")
    np.testing.assert_array_equal(np.isnan(terms), [True, False])
    np.testing.assert_array_equal(np.isnan(grad), [[True, True], [False, False]])


# ---------------------------------------------------------------- errors

LOGITS = np.zeros((3, CLASSES))
ERRORS = {
    r"target\[1\] is 4, expected a class in \[0, 4\)": lambda: ref.softmax_cross_entropy(LOGITS, [0, 4, 9]),
    r"target\[2\] is -1, expected": lambda: ref.softmax_cross_entropy(LOGITS, [-100, 0, -1]),
    r"target is int64 \(2,\), expected integers \(3,\)": lambda: ref.softmax_cross_entropy(LOGITS, [0, 1]),
    r"target is float64 \(3,\), expected integers": lambda: ref.softmax_cross_entropy(
        LOGITS, [0.0, 1.0, 2.0]
    ),
    r"class_weight has shape \(2,\), expected \(4,\)": lambda: ref.softmax_cross_entropy(
        LOGITS, [0, 1, 2], class_weight=[1.0, 2.0]
    ),
    r"label_smoothing is 1.5, expected a number in \[0, 1\]": lambda: ref.softmax_cross_entropy(
        LOGITS, [0, 1, 2], label_smoothing=1.5
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_an_error_names_op_argument_expectation_and_value(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
