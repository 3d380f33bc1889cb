"""gd.softmax_cross_entropy against the reference, finite differences and PyTorch, in every combination of its options."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu import cross_entropy as cpu_cross_entropy
from gdkernels.cpu.runtime import team
from gdkernels.cpu.softmax import CHUNK_COLUMNS, MOST_ROWS, NARROW_COLUMNS
from gdkernels.ops.cross_entropy import softmax_cross_entropy
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

REDUCTIONS = ("mean", "sum", "none")
KINDS = ("int32", "int64", "probabilities")
# Both sides of what is transposed, of a block of rows and of a chunk of a row.
SHAPES = (
    (1, 1),
    (3, 10),
    (MOST_ROWS + 1, NARROW_COLUMNS),
    (MOST_ROWS, NARROW_COLUMNS + 1),
    (2, CHUNK_COLUMNS + 1),
)


def batch_of(rng, dtype, kind, batch, classes):
    """Logits, targets of a kind, and class weights."""
    logits = (3 * rng.standard_normal((batch, classes))).astype(dtype)
    if kind == "probabilities":
        target = reference.softmax(2 * rng.standard_normal((batch, classes))).astype(dtype)
    else:
        target = rng.integers(0, classes, batch).astype(kind)
    return logits, target, (0.2 + rng.random(classes)).astype(dtype)


def assert_loss(logits, target, reduction, value, grad, **options):
    exact, slope = reference.softmax_cross_entropy(logits, target, reduction, **options)
    # Rows are added in float64.
    of_value, of_grad = bounds.softmax_cross_entropy(logits, target, reduction, **options, additions=0)
    assert grad.dtype == logits.dtype
    if reduction == "none":
        assert isinstance(value, np.ndarray) and value.dtype == logits.dtype
    else:
        assert type(value) is float
    assert_within(value, exact, of_value, "value", logits.dtype)
    assert_within(grad, slope, of_grad, "grad")


# ------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_the_reference(shape, dtype, kind, rng):
    logits, target, weight = batch_of(rng, dtype, kind, *shape)
    for reduction, smoothing, weighted in itertools.product(REDUCTIONS, (0.0, 0.1, 1.0), (False, True)):
        options = {"label_smoothing": smoothing, "class_weight": weight if weighted else None}
        grad = np.empty_like(logits)
        value = softmax_cross_entropy(logits, target, grad, reduction, **options)
        assert_loss(logits, target, reduction, value, grad, **options)
        alone = softmax_cross_entropy(logits, target, None, reduction, **options)
        np.testing.assert_array_equal(alone, value, "without grad")


@pytest.mark.parametrize("ignore_index", [-100, 2, 99])
@pytest.mark.parametrize("classes", [5, NARROW_COLUMNS + 1])
def test_ignored_rows_do_not_count(dtype, classes, ignore_index, rng):
    logits, target, weight = batch_of(rng, dtype, "int64", 11, classes)
    target[[0, 4, 10]] = ignore_index
    logits[4] = np.nan  # what stands there does not matter
    clean = logits.copy()
    clean[4] = 0
    for reduction, smoothing, weighted in itertools.product(REDUCTIONS, (0.0, 0.1), (False, True)):
        options = {"label_smoothing": smoothing, "class_weight": weight if weighted else None}
        grad = np.empty_like(logits)
        value = softmax_cross_entropy(logits, target, grad, reduction, **options, ignore_index=ignore_index)
        assert_loss(clean, target, reduction, value, grad, **options, ignore_index=ignore_index)


@given(
    batch=st.integers(0, 2 * MOST_ROWS + 3),
    classes=st.integers(1, NARROW_COLUMNS + 20),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    reduction=st.sampled_from(REDUCTIONS),
    smoothing=st.sampled_from([0.0, 0.3]),
    weighted=st.booleans(),
    ignore_index=st.sampled_from([-100, 0]),
    seed=st.integers(0, 99),
)
def test_any_shape(batch, classes, dtype, kind, reduction, smoothing, weighted, ignore_index, seed):
    logits, target, weight = batch_of(np.random.default_rng(seed), dtype, kind, batch, classes)
    options = {
        "label_smoothing": smoothing,
        "class_weight": weight if weighted else None,
        "ignore_index": ignore_index,
    }
    grad = np.empty_like(logits)
    value = softmax_cross_entropy(logits, target, grad, reduction, **options)
    assert_loss(logits, target, reduction, value, grad, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["int64", "probabilities"])
def test_the_gradient_matches_finite_differences(kind, weighted, smoothing, reduction, rng):
    logits, target, weight = batch_of(rng, "float64", kind, 3, 4)
    options = {
        "reduction": reduction,
        "label_smoothing": smoothing,
        "class_weight": weight if weighted else None,
    }
    grad = np.empty_like(logits)
    softmax_cross_entropy(logits, target, grad, **options)

    def total(changed):
        return float(np.sum(softmax_cross_entropy(changed, target, **options)))

    # Central differences with h = eps^(1/3): errors of some eps^(2/3) = 3.7e-11 times a sum of 3 rows of 10.
    numerical = reference.numerical_gradient(total, logits)
    np.testing.assert_allclose(grad, numerical, rtol=0, atol=60 * 3.7e-11)


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_combination_equals_pytorch(reduction, kind, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    logits, target, weight = batch_of(rng, "float64", kind, 9, 6)
    # PyTorch accepts no other index for probabilities.
    ignored = (-100,) if kind == "probabilities" else (-100, 3, 77)
    for smoothing, weighted, ignore_index in itertools.product((0.0, 0.2, 1.0), (False, True), ignored):
        goal = target.copy()
        if kind != "probabilities":
            goal[[1, 5]] = ignore_index
        leaf = torch.tensor(logits, requires_grad=True)
        theirs = torch.nn.functional.cross_entropy(
            leaf,
            torch.tensor(goal),
            weight=torch.tensor(weight) if weighted else None,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        theirs.sum().backward()
        grad = np.empty_like(logits)
        options = (smoothing, weight if weighted else None, ignore_index)
        value = softmax_cross_entropy(logits, goal, grad, reduction, *options)
        # Rows of size up to 20 with some 30 roundings in either of the two, 9 of them added.
        close = {"rtol": 0, "atol": 2 * 20 * 40 * np.finfo("f8").eps}
        np.testing.assert_allclose(value, theirs.detach().numpy(), **close)
        np.testing.assert_allclose(grad, leaf.grad.numpy(), **close)


def test_a_wrong_formula_would_be_caught(rng):
    """A gradient p − y that ignores smoothing or weights, a mean over the wrong count, a sign."""
    logits, target, weight = batch_of(rng, "float32", "int64", 7, 5)
    right = {"label_smoothing": 0.1, "class_weight": weight}
    for reduction, wrong in (
        ("sum", {"class_weight": weight}),
        ("sum", {"label_smoothing": 0.1}),
        ("mean", {"label_smoothing": 0.1}),
    ):
        value, grad = reference.softmax_cross_entropy(logits, target, reduction, **wrong)
        with pytest.raises(AssertionError):
            assert_loss(logits, target, reduction, value, grad.astype("f4"), **right)
    value, grad = reference.softmax_cross_entropy(logits, target, "sum", **right)
    with pytest.raises(AssertionError):  # 7 is not the sum of the weights
        assert_loss(logits, target, "mean", value / 7, grad.astype("f4") / 7, **right)
    with pytest.raises(AssertionError):
        assert_loss(logits, target, "sum", value, -grad.astype("f4"), **right)
    assert_loss(logits, target, "sum", value, grad.astype("f4"), **right)


# ------------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("classes", [6, NARROW_COLUMNS + 1])
@pytest.mark.parametrize("kind", ["int64", "probabilities"])
def test_extremes_are_what_ieee_says(dtype, kind, classes, rng):
    logits, target, weight = batch_of(rng, dtype, kind, 9, classes)
    if kind == "probabilities":
        target[:] = np.eye(classes)[3]
    else:
        target[:] = 3
    logits[0, [0, 3]] = 1e4, -1e4
    logits[1, [0, 3]] = -1e4, 1e4
    logits[2] = 1e4
    logits[3, 1] = np.nan
    logits[4, 3] = np.inf
    logits[5, 0] = -np.inf  # a class that is not the target's: nothing for labels, 0 · ∞ for probabilities
    logits[6, 3] = -np.inf  # the loss is infinite
    logits[7] = -np.inf
    logits[8, 0] = np.inf
    for smoothing, used in itertools.product((0.0, 0.1), (None, weight)):
        grad = np.empty_like(logits)
        value = softmax_cross_entropy(logits, target, grad, "none", smoothing, used)
        exact, slope = reference.softmax_cross_entropy(logits, target, "none", smoothing, used)
        np.testing.assert_array_equal(np.isnan(value), np.isnan(exact))
        np.testing.assert_array_equal(np.isnan(grad), np.isnan(slope))
        np.testing.assert_array_equal(np.isinf(value), np.isinf(exact))
        eps = np.finfo(dtype).eps  # a few roundings of terms up to 2e4 · 1.2, and sums of `classes` of them
        known = np.isfinite(exact)
        assert (
            np.abs(value[known] - exact[known]) <= (classes + 10) * eps * np.maximum(1, exact[known])
        ).all()
        known = np.isfinite(slope)
        # 40: the ordinary max − z
        assert (np.abs(grad[known] - slope[known]) <= 40 * (classes + 20) * eps).all()


def test_the_mean_over_nothing_is_nan_and_its_gradient_zero(dtype, rng):
    logits, target, _ = batch_of(rng, dtype, "int64", 4, 5)
    target[:] = -100
    grad = np.full_like(logits, 7)
    assert math.isnan(softmax_cross_entropy(logits, target, grad))
    assert not grad.any()
    assert softmax_cross_entropy(logits, target, reduction="sum") == 0.0
    np.testing.assert_array_equal(softmax_cross_entropy(logits, target, reduction="none"), np.zeros(4))
    for empty_target in (target[:0], logits[:0]):
        assert math.isnan(softmax_cross_entropy(logits[:0], empty_target, grad[:0]))
        assert softmax_cross_entropy(logits[:0], empty_target, reduction="sum") == 0.0
        assert softmax_cross_entropy(logits[:0], empty_target, reduction="none").shape == (0,)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_where_all_labels_weigh_nothing_mean_and_gradient_are_nan(smoothing, rng):
    logits, target, weight = batch_of(rng, "float32", "int64", 4, 5)
    target[:] = [1, 1, -100, 1]
    weight[1] = 0
    grad = np.empty_like(logits)
    assert math.isnan(softmax_cross_entropy(logits, target, grad, "mean", smoothing, weight))
    assert np.isnan(grad[[0, 1, 3]]).all() and not grad[2].any()


# ------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_no_input_changed(layout, dtype, kind, rng):
    logits, target, weight = batch_of(rng, dtype, kind, 7, 19)
    expected = np.empty_like(logits)
    value = softmax_cross_entropy(logits, target, expected, class_weight=weight)
    inputs = [laid_out(values, layout) for values in (logits, target, weight)]
    before = [values.tobytes() for values in inputs]
    grad = laid_out(np.zeros_like(logits), "C" if layout == "read-only" else layout)
    assert softmax_cross_entropy(inputs[0], inputs[1], grad, class_weight=inputs[2]) == value
    np.testing.assert_array_equal(grad, expected)
    assert [values.tobytes() for values in inputs] == before


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("shape", [(8009, 10), (131, 1003)])  # above the work that is worth sharing
def test_the_same_bits_for_any_number_of_threads(shape, kind, rng):
    logits, target, weight = batch_of(rng, "float32", kind, *shape)
    before, results = team.get_threads(), []
    try:
        for threads in (1, 2):
            team.set_threads(threads)
            grad = np.empty_like(logits)
            value = softmax_cross_entropy(logits, target, grad, "mean", 0.1, weight)
            results.append((value, grad.tobytes()))
    finally:
        team.set_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("classes", [10, NARROW_COLUMNS + 1])
@pytest.mark.parametrize("kind", ["int64", "probabilities"])
def test_the_kernel_scales_the_gradient_and_not_the_loss_of_a_row(kind, classes, rng):
    logits, target, weight = batch_of(rng, "float32", kind, 2 * MOST_ROWS + 3, classes)
    unscaled, rows = np.empty_like(logits), len(logits)
    losses = softmax_cross_entropy(logits, target, unscaled, "none", 0.1, weight)
    grad, row_loss, scale = np.full_like(logits, np.nan), np.full(rows, np.nan), np.array([0.25])
    for start, stop in ((0, 5), (5, rows)):  # no row depends on where a part begins
        part = slice(start, stop)
        op = cpu_cross_entropy.row_op(
            logits[part], target[part], grad[part], row_loss[part], scale, 0.1, weight, -100
        )
        team.run(op)
    np.testing.assert_array_equal(grad, np.float32(0.25) * unscaled)
    np.testing.assert_array_equal(row_loss.astype("f4"), losses)


# ------------------------------------------------------------------------------------------------- complaints


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("label", [5, -1, -2, 2**31 - 1])
def test_a_label_out_of_range_is_named_before_anything_is_written(label, dtype, rng):
    logits, target, weight = batch_of(rng, "float32", dtype, 7, 5)
    target[[2, 6]] = -100, label
    grad = np.full_like(logits, 7)
    words = rf"softmax_cross_entropy: target\[6\] is {label}, expected a class in \[0, 5\)"
    for options in ({}, {"class_weight": weight}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=words):
            softmax_cross_entropy(logits, target, grad, **options)
    with pytest.raises(ValueError, match=r"target\[2\] is -100"):
        softmax_cross_entropy(logits, target, grad, ignore_index=label)
    assert (grad == 7).all()


def test_what_cannot_be_done_is_refused_before_anything_is_written(rng):
    logits, target, weight = batch_of(rng, "float32", "int64", 7, 5)
    grad = np.full_like(logits, 7)

    def refuse(error, words, logits=logits, target=target, grad=grad, **options):
        with pytest.raises(error, match=f"softmax_cross_entropy: {words}"):
            softmax_cross_entropy(logits, target, grad, **options)

    refuse(ValueError, r"logits has shape \(5,\), expected 2 dimensions", logits=logits[0])
    refuse(ValueError, r"logits has shape \(7, 0\), expected at least one class", logits=logits[:, :0])
    refuse(ValueError, r"target has shape \(6,\), expected \(7,\) because it holds labels", target=target[:6])
    refuse(ValueError, r"target has shape \(7, 1\), expected \(7,\)", target=target[:, None])
    refuse(
        ValueError,
        r"target has shape \(7,\), expected \(7, 5\) because it holds probabilities",
        target=target.astype("f4"),
    )
    refuse(
        TypeError, "target has dtype uint8, expected int32 or int64 labels, or", target=target.astype("u1")
    )
    refuse(TypeError, "target has dtype float64, expected .* or float32 prob", target=logits.astype("f8"))
    refuse(TypeError, "target is of type list, expected a NumPy or CUDA array", target=[1, 2])
    refuse(TypeError, "logits has dtype int64, expected float32 or float64", logits=np.zeros((7, 5), int))
    refuse(ValueError, "reduction is 'median', expected one of mean, sum, none", reduction="median")
    for smoothing in (-0.1, 1.5, math.nan):
        refuse(ValueError, f"label_smoothing is {smoothing}, expected a number in", label_smoothing=smoothing)
    refuse(TypeError, "label_smoothing is '0.1', expected a number", label_smoothing="0.1")
    for label in (1.0, True, None):
        refuse(TypeError, f"ignore_index is {label}, expected an integer", ignore_index=label)
    refuse(ValueError, r"class_weight has shape \(4,\), expected \(5,\)", class_weight=weight[:4])
    refuse(TypeError, "class_weight has dtype float64, expected float32", class_weight=weight.astype("f8"))
    refuse(ValueError, r"grad has shape \(5, 7\), expected \(7, 5\)", grad=grad.reshape(5, 7))
    refuse(ValueError, "grad overlaps another argument", grad=logits)
    refuse(ValueError, "grad is read-only", grad=laid_out(grad, "read-only"))
    assert (grad == 7).all()
