"""The judge is judged first: on known derivatives, and on wrong ones, which it has to refuse."""

import importlib
import inspect

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)


def test_numerical_gradient_of_a_quadratic_is_exact_to_rounding():
    # No third derivative: only the rounding of f is left, eps |f| / h = eps^(2/3) |f|.
    x = np.array([[1.0, -2.0, 0.0], [3.0, 0.5, 1e3]])
    gradient = ref.numerical_gradient(lambda x: float((x * x).sum()), x)
    np.testing.assert_allclose(gradient, 2 * x, rtol=0, atol=2 * EPS ** (2 / 3) * 1e6)


@pytest.mark.parametrize("x", [0.0, 1.0, -2.5, 1e-9])
def test_numerical_gradient_of_sin_is_cos(x):
    gradient = ref.numerical_gradient(lambda x: float(np.sin(x).sum()), np.array([x]))
    h = max(1.0, abs(x)) * EPS ** (1 / 3)
    np.testing.assert_allclose(gradient, np.cos(x), rtol=0, atol=h * h / 6 + 2 * EPS / h)


def test_numerical_gradient_leaves_its_argument_alone_and_reads_any_layout():
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T[::-1]
    x.flags.writeable = False
    before = x.copy()
    np.testing.assert_allclose(ref.numerical_gradient(lambda x: float((x**3).sum()), x), 3 * x**2, atol=1e-6)
    np.testing.assert_array_equal(x, before)


def test_numerical_gradient_of_a_scalar_and_of_nothing():
    assert ref.numerical_gradient(lambda x: float(3 * x), 2.0) == pytest.approx(3.0, abs=1e-9)
    assert ref.numerical_gradient(lambda x: 0.0, np.zeros((0, 4))).shape == (0, 4)


def mutant(module: str, function: str, old: str, new: str):
    """The function with one piece of its source replaced; its module stays as it is."""
    home = importlib.import_module(f"reference.{module}")
    source = inspect.getsource(getattr(home, function))
    assert source.count(old) == 1
    scope = dict(vars(home))
    exec(source.replace(old, new), scope)
    return scope[function]


def linear_case(linear_backward, x):
    w = np.arange(8.0).reshape(4, 2) / 4 - 1
    a, _ = ref.linear(x, w, None, "tanh")
    return lambda x: ref.linear(x, w, None, "tanh")[0].sum(), linear_backward(
        np.ones_like(a), x, w, a, "tanh"
    )[0]


def slope_case(activation_slope, x):
    return lambda x: ref.activation(x, "silu").sum(), activation_slope(x, "silu")


def layernorm_case(layernorm_backward, x):
    gamma, dy = np.array([1.0, -2.0, 0.5, 3.0]), np.cos(np.arange(12.0)).reshape(3, 4)
    _, stats = ref.layernorm(x, gamma, gamma)
    return lambda x: (dy * ref.layernorm(x, gamma, gamma)[0]).sum(), layernorm_backward(dy, x, gamma, stats)[
        0
    ]


def rmsnorm_case(rmsnorm_backward, x):
    gamma, dy = np.array([1.0, -2.0, 0.5, 3.0]), np.cos(np.arange(12.0)).reshape(3, 4)
    _, stats = ref.rmsnorm(x, gamma)
    return lambda x: (dy * ref.rmsnorm(x, gamma)[0]).sum(), rmsnorm_backward(dy, x, gamma, stats)[0]


def scale_case(scale_backward, x):
    gamma, dy = np.array([1.0, -2.0, 0.5, 3.0]), np.cos(np.arange(12.0)).reshape(3, 4)
    return lambda x: (dy * ref.scale(x, gamma)).sum(), scale_backward(dy, x, gamma)[0]


def cross_entropy_case(softmax_cross_entropy, x):
    target = np.array([0, 3, 1])
    return lambda x: ref.softmax_cross_entropy(x, target)[0], softmax_cross_entropy(x, target)[1]


def bce_case(binary_cross_entropy, x):
    target = np.linspace(0, 1, 12).reshape(3, 4)
    f = lambda x: ref.binary_cross_entropy(x, target, "sum", 3.0)[0]  # noqa: E731
    return f, binary_cross_entropy(x, target, "sum", 3.0)[1]


MUTATIONS = {
    "linear: dx": (linear_case, "linear", "linear_backward", "dz, w, trans_b", "-dz, w, trans_b"),
    "activation: product rule": (slope_case, "activation", "activation_slope", "gate + z", "gate - z"),
    "layernorm: mean": (layernorm_case, "norm", "layernorm_backward", "(g - g.mean", "(g + g.mean"),
    "layernorm: deviation": (layernorm_case, "norm", "layernorm_backward", "- h * (g", "+ h * (g"),
    "rmsnorm: deviation": (rmsnorm_case, "norm", "rmsnorm_backward", "g - h * (g", "g + h * (g"),
    "scale: factor": (
        scale_case,
        "norm",
        "scale_backward",
        "return f64(gamma) * dy",
        "return dy / f64(gamma)",
    ),
    "cross-entropy: target": (
        cross_entropy_case,
        "cross_entropy",
        "softmax_cross_entropy",
        "True) - weighted",
        "True) + weighted",
    ),
    "BCE: positives": (bce_case, "loss", "binary_cross_entropy", "p - pos_weight", "p + pos_weight"),
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_sign_is_caught(mutation, assert_gradient):
    case, module, function, old, new = MUTATIONS[mutation]
    x = np.sin(np.arange(12.0)).reshape(3, 4)

    f, right = case(mutant(module, function, old, old), x)
    assert_gradient(f, x, right)
    f, wrong = case(mutant(module, function, old, new), x)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_gradient(f, x, wrong)
