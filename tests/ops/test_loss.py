"""The losses of elements against the reference, finite differences and PyTorch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu import loss as cpu_loss
from gdkernels.cpu.runtime import team
from gdkernels.ops.loss import binary_cross_entropy, huber, log_cosh, mse
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

REDUCTIONS = ("mean", "sum", "none")
OPS = [
    (mse, {}),
    (huber, {"delta": 0.7}),
    (log_cosh, {}),
    (binary_cross_entropy, {}),
    (binary_cross_entropy, {"pos_weight": 3.0}),
]
EVERY_OP = pytest.mark.parametrize(
    ("op", "options"),
    OPS,
    ids=["mse", "huber", "log_cosh", "binary_cross_entropy", "weighted_binary_cross_entropy"],
)
# No dimension, one, three; narrow rows; both sides of what is added up in one go.
SHAPES = ((), (1,), (64, 1), (3, 4, 5), (32, 10), (cpu_loss.ROW_ELEMENTS + 1,), (3, cpu_loss.CHUNK_ELEMENTS))


def pair(rng, dtype, shape):
    """Predictions and targets; the targets are probabilities, some of them 0 and 1."""
    pred = np.asarray(3 * rng.standard_normal(shape))
    target = np.asarray(np.clip(1.5 * rng.random(shape) - 0.25, 0, 1))
    return pred.astype(dtype), target.astype(dtype)


def assert_loss(op, options, pred, target, reduction, value, grad):
    """Sums in the element type have at most CHUNK_ELEMENTS terms, in float64 after that."""
    exact, slope = getattr(reference, op.__name__)(pred, target, reduction=reduction, **options)
    additions = min(pred.size, cpu_loss.CHUNK_ELEMENTS)
    of_value, of_grad = getattr(bounds, op.__name__)(pred, target, reduction, additions, **options)
    if reduction == "none":
        assert isinstance(value, np.ndarray) and value.dtype == pred.dtype
    else:
        assert type(value) is float
    assert_within(value, exact, of_value, "value", pred.dtype)
    assert_within(grad, slope, of_grad, "grad")


@EVERY_OP
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_the_reference(shape, dtype, reduction, op, options, rng):
    pred, target = pair(rng, dtype, shape)
    grad = np.empty_like(pred)
    value = op(pred, target, grad=grad, reduction=reduction, **options)
    assert_loss(op, options, pred, target, reduction, value, grad)
    np.testing.assert_array_equal(op(pred, target, reduction=reduction, **options), value, "without grad")


@given(
    shape=st.lists(st.integers(1, 12), max_size=3).map(tuple),
    dtype=st.sampled_from(DTYPES),
    reduction=st.sampled_from(REDUCTIONS),
    case=st.sampled_from(OPS),
    seed=st.integers(0, 99),
)
def test_any_shape(shape, dtype, reduction, case, seed):
    op, options = case
    pred, target = pair(np.random.default_rng(seed), dtype, shape)
    grad = np.empty_like(pred)
    value = op(pred, target, grad=grad, reduction=reduction, **options)
    assert_loss(op, options, pred, target, reduction, value, grad)


@EVERY_OP
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_gradient_matches_finite_differences(reduction, op, options, rng):
    pred, target = pair(rng, "float64", (4, 3))
    grad = np.empty_like(pred)
    op(pred, target, grad=grad, reduction=reduction, **options)

    def total(changed):
        return float(np.sum(op(changed, target, reduction=reduction, **options)))

    # Central differences with h = eps^(1/3): errors of some eps^(2/3) = 3.7e-11 times a sum of at most 12 terms of 50.
    numerical = reference.numerical_gradient(total, pred)
    np.testing.assert_allclose(grad, numerical, rtol=0, atol=600 * 3.7e-11)


@EVERY_OP
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_equals_pytorch(reduction, op, options, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    functional = torch.nn.functional
    pred, target = pair(rng, "float64", (6, 5))
    leaf, goal = torch.tensor(pred, requires_grad=True), torch.tensor(target)
    if op is mse:
        theirs = functional.mse_loss(leaf, goal, reduction=reduction)
    elif op is huber:
        theirs = functional.huber_loss(leaf, goal, reduction=reduction, delta=0.7)
    elif op is log_cosh:
        terms = torch.log(torch.cosh(leaf - goal))
        theirs = {"mean": terms.mean, "sum": terms.sum, "none": lambda: terms}[reduction]()
    else:
        weight = torch.tensor(options.get("pos_weight", 1.0))
        theirs = functional.binary_cross_entropy_with_logits(
            leaf, goal, pos_weight=weight, reduction=reduction
        )
    theirs.sum().backward()
    grad = np.empty_like(pred)
    value = op(pred, target, grad=grad, reduction=reduction, **options)
    # Terms of size up to 50 with a dozen roundings in either of the two, 30 of them added.
    close = {"rtol": 0, "atol": 2 * 50 * 42 * np.finfo("f8").eps}
    np.testing.assert_allclose(value, theirs.detach().numpy(), **close)
    np.testing.assert_allclose(grad, leaf.grad.numpy(), **close)


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        (mse, lambda z, t: ((z - t) ** 2, z - t)),  # the factor 2 forgotten
        (
            huber,
            lambda z, t: (np.where(abs(z - t) <= 1, (z - t) ** 2 / 2, abs(z - t)), np.clip(z - t, -1, 1)),
        ),
        (binary_cross_entropy, lambda z, t: (-t * np.log(1 / (1 + np.exp(-z))), 1 / (1 + np.exp(-z)) - t)),
        (binary_cross_entropy, lambda z, t: (np.maximum(z, 0) - z * t, 1 / (1 + np.exp(-z)) - t)),  # no log1p
    ],
)
def test_a_wrong_formula_would_be_caught(op, wrong, rng):
    pred, target = pair(rng, "float64", (4, 5))
    with pytest.raises(AssertionError):
        assert_loss(op, {}, pred, target, "none", *wrong(pred, target))


@EVERY_OP
def test_extremes_are_what_ieee_says(dtype, op, options):
    values = np.array([0, -0.0, 1e4, -1e4, 1, 200, -200, np.inf, -np.inf, np.nan], dtype)
    pred, target = (grid.ravel() for grid in np.meshgrid(values, np.array([0, 0.25, 1, np.nan], dtype)))
    pred, target = np.ascontiguousarray(pred), np.ascontiguousarray(target)
    grad = np.empty_like(pred)
    value = op(pred, target, grad=grad, reduction="none", **options)
    assert_loss(op, options, pred, target, "none", value, grad)


@EVERY_OP
def test_the_mean_over_nothing_is_nan_and_the_sum_zero(op, options):
    empty = np.zeros((0, 3), "f4")
    assert math.isnan(op(empty, empty, grad=empty.copy(), **options))
    assert op(empty, empty, reduction="sum", **options) == 0.0
    assert op(empty, empty, reduction="none", **options).shape == (0, 3)


@EVERY_OP
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_no_input_changed(layout, dtype, op, options, rng):
    pred, target = pair(rng, dtype, (7, 19))
    expected = np.empty_like(pred)
    value = op(pred, target, grad=expected, **options)
    given_pred, given_target = laid_out(pred, layout), laid_out(target, layout)
    before = given_pred.tobytes(), given_target.tobytes()
    grad = laid_out(np.zeros_like(pred), "C" if layout == "read-only" else layout)
    assert op(given_pred, given_target, grad=grad, **options) == value
    np.testing.assert_array_equal(grad, expected)
    assert (given_pred.tobytes(), given_target.tobytes()) == before


@EVERY_OP
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_same_bits_for_any_number_of_threads(reduction, op, options, rng):
    pred, target = pair(rng, "float32", (300_007,))  # above the work that is worth sharing
    before, results = team.get_threads(), []
    try:
        for threads in (1, 2):
            team.set_threads(threads)
            grad = np.empty_like(pred)
            value = op(pred, target, grad=grad, reduction=reduction, **options)
            results.append((np.asarray(value).tobytes(), grad.tobytes()))
    finally:
        team.set_threads(before)
    assert results[0] == results[1]


@EVERY_OP
@pytest.mark.parametrize("n", [1, 10, cpu_loss.CHUNK_ELEMENTS + 7])
def test_the_kernel_scales_the_gradient_and_not_the_loss_of_a_row(n, op, options, rng):
    pred, target = pair(rng, "float32", (5, n))
    grad, unscaled, row_loss = np.empty_like(pred), np.empty_like(pred), np.full(5, np.nan)
    op(pred, target, grad=unscaled, reduction="sum", **options)
    scale = np.array([0.25])  # a power of 2: the products are exact
    given = {"pos_weight": 1.0} | options if op is binary_cross_entropy else options
    numbers = np.array([*given.values(), 0.0])
    for start in (0, 3):  # a part of the rows gives the same as all of them
        grad[start:], row_loss[start:] = np.nan, np.nan
        parts = (array[start:] for array in (pred, target, grad, row_loss))
        team.run(cpu_loss.row_op(op.__name__, *parts, scale, numbers, 5 - start, n))
        np.testing.assert_array_equal(grad, np.float32(0.25) * unscaled)
        for row in range(5):
            name, one = op.__name__, (pred[row], target[row], "sum")
            exact, _ = getattr(reference, name)(*one[:2], reduction="sum", **options)
            bound, _ = getattr(bounds, name)(*one, min(n, cpu_loss.CHUNK_ELEMENTS), **options)
            assert_within(row_loss[row], exact, bound, dtype="float32")


@EVERY_OP
def test_what_cannot_be_done_is_refused_before_anything_is_written(op, options, rng):
    name = op.__name__
    first = "logits" if op is binary_cross_entropy else "pred"
    pred, target = pair(rng, "float32", (4,))
    grad = np.full(4, 7, "f4")
    with pytest.raises(
        ValueError, match=rf"{name}: target has shape \(4, 1\), expected \(4,\) because .* {first}"
    ):
        op(pred, target[:, None], grad=grad, **options)
    with pytest.raises(TypeError, match=f"{name}: target has dtype float64, expected float32"):
        op(pred, target.astype("f8"), grad=grad, **options)
    with pytest.raises(TypeError, match=f"{name}: {first} has dtype int64, expected float32 or float64"):
        op(np.arange(4), target, grad=grad, **options)
    with pytest.raises(TypeError, match=f"{name}: target is of type list, expected a NumPy or CUDA array"):
        op(pred, [1.0], grad=grad, **options)
    with pytest.raises(ValueError, match=f"{name}: reduction is 'average', expected one of mean, sum, none"):
        op(pred, target, grad=grad, reduction="average", **options)
    with pytest.raises(ValueError, match=rf"{name}: grad has shape \(2, 2\), expected \(4,\)"):
        op(pred, target, grad=grad.reshape(2, 2), **options)
    for same in (pred, target):  # inputs are never modified
        with pytest.raises(ValueError, match=f"{name}: grad overlaps another argument"):
            op(pred, target, grad=same, **options)
    with pytest.raises(ValueError, match=f"{name}: grad is read-only"):
        op(pred, target, grad=laid_out(grad, "read-only"), **options)
    assert (grad == 7).all()


def test_options_that_are_no_numbers_are_named():
    x = np.zeros(3)
    with pytest.raises(TypeError, match="huber: delta is '1', expected a positive number"):
        huber(x, x, "1")
    with pytest.raises(
        TypeError, match="binary_cross_entropy: pos_weight is None, expected a finite number > 0"
    ):
        binary_cross_entropy(x, x, pos_weight=None)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan])
def test_huber_asks_for_a_positive_delta(delta):
    with pytest.raises(ValueError, match=f"huber: delta is {delta}, expected a positive number"):
        huber(np.zeros(3), np.zeros(3), delta)


def test_an_infinite_delta_is_half_the_squared_error(rng):
    pred, target = pair(rng, "float64", (40,))
    np.testing.assert_array_equal(
        huber(pred, target, math.inf, reduction="none"), 0.5 * mse(pred, target, reduction="none")
    )


@pytest.mark.parametrize("pos_weight", [0.0, -1.0, math.inf, math.nan])
def test_binary_cross_entropy_asks_for_a_positive_weight(pos_weight):
    with pytest.raises(ValueError, match=f"pos_weight is {pos_weight}, expected a finite number > 0"):
        binary_cross_entropy(np.zeros(3), np.zeros(3), pos_weight=pos_weight)
