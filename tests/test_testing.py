"""gd.testing.gradcheck accepts right gradients, names the worst element of wrong ones, and holds f to its contract."""

import doctest
import re

import numpy as np
import pytest

import gdkernels as gd
from gdkernels import testing
from gdkernels.testing import gradcheck


@pytest.fixture
def point():
    """x, w, b of a dense layer and its targets."""
    rng = np.random.default_rng(4)
    return [rng.standard_normal(shape) for shape in ((5, 3), (3, 2), (2,), (5, 2))]


def layer(x, w, b, y):
    """½ Σ (tanh(x w + b) − y)², composed of operations of this package."""
    a = gd.linear(x, w, b, "tanh")
    dx, dw, db = gd.linear_backward(a - y, x, w, a, "tanh")
    return 0.5 * np.sum((a - y) ** 2), (dx, dw, db, y - a)


def changed(which, change):
    """`layer` with one gradient changed."""

    def f(x, w, b, y):
        value, grads = layer(x, w, b, y)
        return value, [
            change(gradient) if index == which else gradient for index, gradient in enumerate(grads)
        ]

    return f


def test_right_gradients_pass_and_the_worst_ratio_is_returned(point):
    assert 0.0 < gradcheck(layer, point) <= 1.0


def test_the_example_of_the_docstring_is_true():
    results = doctest.testmod(testing)
    assert results.attempted > 5
    assert results.failed == 0


def spoil_one(gradient):
    gradient = gradient.copy()
    gradient.flat[-1] += 1e-5 * np.abs(gradient).max()
    return gradient


@pytest.mark.parametrize("which, element", [(0, "x[4, 2]"), (1, "w[2, 1]"), (2, "b[1]"), (3, "y[4, 1]")])
def test_one_slightly_wrong_element_is_named_with_both_values_and_the_bound(which, element, point):
    right = layer(*point)[1][which]
    with pytest.raises(AssertionError) as caught:
        gradcheck(changed(which, spoil_one), point)
    words = re.fullmatch(
        r"gradcheck: (\w) has a wrong gradient, worst at (.+): analytic (.+), numeric (.+), bound (.+) \(1 of (\d+)\)",
        str(caught.value),
    )
    name, place, analytic, numeric, bound, count = words.groups()
    assert (name, place, int(count)) == (element[0], element, right.size)
    assert float(analytic) == pytest.approx(spoil_one(right).flat[-1], rel=1e-8)
    assert float(numeric) == pytest.approx(right.flat[-1], abs=float(bound))


@pytest.mark.parametrize("change", [lambda g: -g, lambda g: 2 * g, lambda g: g[::-1].copy(), np.zeros_like])
def test_a_wrong_sign_factor_or_order_is_caught(change, point):
    with pytest.raises(AssertionError, match="w has a wrong gradient"):
        gradcheck(changed(1, change), point)


def test_none_leaves_an_argument_out_and_other_arguments_are_handed_on():
    labels = np.array([2, 0])

    def picked(logits, labels, factor):
        gradient = np.zeros_like(logits)
        gradient[np.arange(2), labels] = factor
        return factor * logits[np.arange(2), labels].sum(), (gradient, None, None)

    assert gradcheck(picked, (np.ones((2, 3), np.float32), labels, 0.5)) <= 1.0


def test_the_bound_grows_with_the_size_of_the_terms_not_with_their_sum():
    """A sum that cancels to about 0 is rounded like its terms."""
    x = np.array([1e6, -1e6, 1e-3])
    assert gradcheck(lambda x: (x.sum(), [np.ones(3)]), [x]) <= 1.0
    with pytest.raises(AssertionError, match=r"x\[2\]"):
        gradcheck(lambda x: (x.sum(), [np.array([1.0, 1.0, 1.01])]), [x])


def test_scalar_and_empty_arguments_are_checked_too():
    def product(a, x):
        return float(a * 3.0) + x.sum(), (np.full((), 3.0), np.zeros(0))

    assert gradcheck(product, (np.array(2.0), np.zeros(0))) <= 1.0
    with pytest.raises(AssertionError, match="worst at a: analytic 4, numeric 3"):
        gradcheck(lambda a: (float(a * 3.0), [np.full((), 4.0)]), [np.array(2.0)])


def test_the_arguments_given_are_not_changed(point):
    before = [array.copy() for array in point]
    gradcheck(layer, point)
    for array, old in zip(point, before, strict=True):
        np.testing.assert_array_equal(array, old)


def adds_to_x(x):
    x += 1
    return x.sum(), [np.ones_like(x)]


X = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("f", "args", "error", "words"),
    [
        (lambda x: x.sum(), [X], TypeError, r"f returned float64, expected \(value, grads\)"),
        (lambda x: (x, [x]), [X], ValueError, r"value has shape \(2,\), expected a scalar"),
        (lambda x: (np.nan, [x]), [X], ValueError, "value is nan, expected a finite number"),
        (lambda x: (x.sum(), x), [X], TypeError, "grads is of type ndarray, expected a tuple or list"),
        (lambda x: (x.sum(), []), [X], ValueError, "f returned 0 gradients, expected 1: one for each argument"),
        (lambda x: (x.sum(), [None]), [X], ValueError, "every gradient is None, expected one to check"),
        (lambda x: (x.sum(), [x[:1]]), [X], ValueError, r"the gradient of x has shape \(1,\), expected \(2,\)"),
        (lambda x: (x.sum(), [x.astype("f4")]), [X], TypeError, "the gradient of x has dtype float32, expected float64"),
        (lambda x, n: (x.sum(), [x, 1.0]), [X, 3], TypeError, "n is not a floating-point array, expected None as its grad"),
        (lambda x: (x.sum(), [x * np.inf]), [X], AssertionError, r"the gradient at x\[0\] is not finite"),
        (lambda *many: (many[0].sum(), [-np.ones(2)]), [X], AssertionError, r"args\[0\] has a wrong gradient"),
        (adds_to_x, [X], ValueError, "f changed x, expected its arguments unchanged"),
    ],
)  # fmt: skip
def test_a_broken_contract_is_named(f, args, error, words):
    with pytest.raises(error, match=f"gradcheck: {words}"):
        gradcheck(f, args)
