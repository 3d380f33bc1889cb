"""Softmax cross-entropy on the device, against the reference, in every combination of its options; checks of labels."""

import itertools

import numpy as np
import pytest

import reference
from reference import bounds
from reference.rounding import GPU
from tests.cuda.mutation import mutant
from tests.cuda.test_loss import ADDITIONS
from tests.within import assert_within

REDUCTIONS = ("mean", "sum", "none")
KINDS = ("labels", "probabilities")
# One class; narrow rows side by side in a warp; several turns of a warp; a block a row; longer than what registers hold.
# By fours, of float32: 64, 1000, 5000. One by one: the others, and all of float64.
SHAPES = ((1, 1), (5, 3), (33, 10), (3, 127), (9, 64), (3, 1000), (2, 5000), (2, 5001), (1, 8196))


def batch_of(rng, kind, batch, classes, dtype="float64"):
    """Logits, targets of a kind, and class weights."""
    logits = (3 * rng.standard_normal((batch, classes))).astype(dtype)
    if kind == "probabilities":
        target = reference.softmax(2 * rng.standard_normal((batch, classes))).astype(dtype)
    else:
        target = rng.integers(0, classes, batch)
    return logits, target, (0.2 + rng.random(classes)).astype(dtype)


def on_device(device, logits, target, reduction, options, with_grad=True):
    """(value, gradient), the gradient NaN where it was not asked for."""
    from gdkernels.cuda import cross_entropy

    given, goal = device.put(logits), device.put(target)
    weight = options.get("class_weight")
    weight = None if weight is None else device.put(weight)
    grad = device.put(np.full_like(logits, np.nan))
    smoothing, ignored = options.get("label_smoothing", 0.0), options.get("ignore_index", -100)
    to = grad if with_grad else None
    value = cross_entropy.rows(
        "softmax_cross_entropy", given, goal, to, reduction, smoothing, weight, ignored
    )
    assert value.dtype == logits.dtype
    assert value.shape == (logits.shape[:1] if reduction == "none" else ())
    return value.to_numpy(), grad.to_numpy()


def assert_loss(logits, target, reduction, value, grad, options):
    """Rows are added in the element type, as in test_loss."""
    exact, slope = reference.softmax_cross_entropy(logits, target, reduction, **options)
    of_value, of_grad = bounds.softmax_cross_entropy(
        logits, target, reduction, **options, additions=ADDITIONS, on=GPU
    )
    assert_within(value, exact, of_value, "value")
    assert_within(grad, slope, of_grad, "grad")


# ------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_the_reference(device, shape, dtype, kind, rng):
    logits, target, weight = batch_of(rng, kind, *shape, dtype)
    for reduction, (smoothing, weighted) in zip(
        (*REDUCTIONS, "mean", "none"), ((0.0, False), (0.1, False), (0.1, True), (0.0, True), (1.0, True)), strict=True
    ):  # fmt: skip
        options = {"label_smoothing": smoothing, "class_weight": weight if weighted else None}
        value, grad = on_device(device, logits, target, reduction, options)
        assert_loss(logits, target, reduction, value, grad, options)
        alone, untouched = on_device(device, logits, target, reduction, options, with_grad=False)
        np.testing.assert_array_equal(alone, value, "without grad")
        assert np.isnan(untouched).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [8, 5])
def test_every_combination_of_options(device, classes, kind, rng):
    logits, target, weight = batch_of(rng, kind, 11, classes, "float32")
    for reduction, smoothing, weighted in itertools.product(REDUCTIONS, (0.0, 0.1, 1.0), (False, True)):
        options = {"label_smoothing": smoothing, "class_weight": weight if weighted else None}
        value, grad = on_device(device, logits, target, reduction, options)
        assert_loss(logits, target, reduction, value, grad, options)


@pytest.mark.parametrize("ignore_index", [-100, 2, 99])
@pytest.mark.parametrize(
    ("classes", "dtype"), [(8, "float32"), (5, "float32"), (5, "float64"), (1028, "float32")]
)
def test_ignored_rows_do_not_count(device, classes, dtype, ignore_index, rng):
    logits, target, weight = batch_of(rng, "labels", 11, classes, dtype)
    target[[0, 4, 10]] = ignore_index
    logits[4] = np.nan  # what stands there does not matter
    clean = logits.copy()
    clean[4] = 0
    for reduction, smoothing, weighted in itertools.product(REDUCTIONS, (0.0, 0.1), (False, True)):
        options = {
            "label_smoothing": smoothing,
            "class_weight": weight if weighted else None,
            "ignore_index": ignore_index,
        }
        value, grad = on_device(device, logits, target, reduction, options)
        assert_loss(clean, target, reduction, value, grad, options)


def rows_on_device(device, storage, kind, logits, target, weight, smoothing=0.1, first=0, ignore_index=-100):
    """(row losses, gradients times 0.25) of `row_launches`; arrays begin `first` elements behind an aligned address."""
    from gdkernels.cuda import cross_entropy
    from gdkernels.cuda.runtime import driver
    from gdkernels.cuda.runtime.pointer import BYTES

    computed = "float64" if storage == "float64" else "float32"

    def behind(values, storage):
        array = device.put(np.concatenate([np.zeros(first), np.ravel(values)]), storage)
        return array, array.address + first * BYTES[storage]

    arrays, places = zip(
        behind(logits, storage),
        behind(target, computed if kind == "probabilities" else "int64"),
        behind(np.full(logits.shape, np.nan), storage),
        behind(np.full(len(logits), np.nan), computed),
        behind(np.array([0.25]), computed),
        behind(weight, computed),
        strict=True,
    )
    by_label = {"ignore_index": ignore_index} if kind == "labels" else {}
    name = cross_entropy.LABELS if kind == "labels" else cross_entropy.PROBABILITIES
    rows, n = logits.shape
    for one in cross_entropy.launches(
        storage, name, logits=places[0], target=places[1], grad=places[2], row_loss=places[3], rows=rows, n=n,
        scale=places[4], factor=1.0, divide=False, label_smoothing=smoothing, class_weight=places[5], **by_label,
    ):  # fmt: skip
        one.run(arrays[0].stream)
    driver.synchronize(arrays[0].stream)
    return arrays[3].to_numpy()[first:], arrays[2].to_numpy()[first:].reshape(logits.shape)


def assert_rows(device, storage, kind, shape, rng, first=0):
    logits, target, weight = batch_of(rng, kind, *shape)
    computed = "float64" if storage == "float64" else "float32"
    logits = device.put(logits, storage).to_numpy().astype("f8")
    target = target if target.ndim == 1 else target.astype(computed).astype("f8")
    weight = weight.astype(computed).astype("f8")
    row_loss, grad = rows_on_device(device, storage, kind, logits, target, weight, 0.1, first)
    exact, slope = reference.softmax_cross_entropy(logits, target, "none", 0.1, weight)
    of_rows, of_grad = bounds.softmax_cross_entropy(logits, target, "none", 0.1, weight, on=GPU)
    assert_within(row_loss, exact, of_rows, dtype=computed)
    of_grad = of_grad.stored(slope, storage).through(lambda e: 0.25 * e)
    assert_within(grad, 0.25 * slope, of_grad, dtype=computed)


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_with_few_rows(device, kind, storage, rng):
    """By fours and one by one, in parts of a warp and in whole blocks; row losses are not scaled, gradients are."""
    for shape in ((9, 8), (3, 5), (2, 1028), (2, 1025)):
        assert_rows(device, storage, kind, shape, rng)
    if storage != "bfloat16" and kind == "labels":
        logits, target, weight = batch_of(rng, kind, 9, 5, storage)
        value, grad = on_device(device, logits, target, "mean", {"class_weight": weight})
        assert_loss(logits, target, "mean", value, grad, {"class_weight": weight})


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_misaligned_rows(device, kind, first, rng):
    for storage in ("float32", "bfloat16"):
        for shape in ((5, 12), (2, 1028)):
            assert_rows(device, storage, kind, shape, rng, first)


# ------------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("classes", [8, 7, 1028, 1029])
@pytest.mark.parametrize("kind", KINDS)
def test_extremes_are_what_ieee_says(device, dtype, kind, classes, rng):
    logits, target, weight = batch_of(rng, kind, 10, classes, dtype)
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
    logits[9, :3] = -np.inf  # before the first finite number there is no peak
    for smoothing, used in itertools.product((0.0, 0.1, 1.0), (None, weight)):
        options = {"label_smoothing": smoothing, "class_weight": used}
        value, grad = on_device(device, logits, target, "none", options)
        exact, slope = reference.softmax_cross_entropy(logits, target, "none", **options)
        np.testing.assert_array_equal(np.isnan(value), np.isnan(exact))
        np.testing.assert_array_equal(np.isnan(grad), np.isnan(slope))
        np.testing.assert_array_equal(np.isinf(value), np.isinf(exact))
        eps = np.finfo(dtype).eps  # a few roundings of terms up to 2e4 · 1.2, and sums of `classes` of them
        known = np.isfinite(exact)
        error = np.abs(value[known] - exact[known])
        assert (error <= (classes + 12) * eps * np.maximum(1, exact[known])).all()
        known = np.isfinite(slope)
        error = np.abs(grad[known] - slope[known])
        assert (error <= 40 * (classes + 20) * eps).all()  # 40: the ordinary max − z


def test_the_mean_over_nothing_is_nan_and_its_gradient_zero(device, dtype, rng):
    logits, target, _ = batch_of(rng, "labels", 4, 8, dtype)
    target[:] = -100
    value, grad = on_device(device, logits, target, "mean", {})
    assert np.isnan(value) and not grad.any()
    assert on_device(device, logits, target, "sum", {})[0] == 0.0
    np.testing.assert_array_equal(on_device(device, logits, target, "none", {})[0], np.zeros(4))
    for empty_target in (target[:0], logits[:0]):
        assert np.isnan(on_device(device, logits[:0], empty_target, "mean", {})[0])
        assert on_device(device, logits[:0], empty_target, "sum", {})[0] == 0.0
        assert on_device(device, logits[:0], empty_target, "none", {})[0].shape == (0,)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_where_all_labels_weigh_nothing_mean_and_gradient_are_nan(device, smoothing, rng):
    logits, target, weight = batch_of(rng, "labels", 4, 8, "float32")
    target[:] = [1, 1, -100, 1]
    weight[1] = 0
    options = {"label_smoothing": smoothing, "class_weight": weight}
    value, grad = on_device(device, logits, target, "mean", options)
    assert np.isnan(value)
    assert np.isnan(grad[[0, 1, 3]]).all() and not grad[2].any()


# ------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("label", [5, -1, -2, 2**31 - 1, -(2**63)])
def test_a_label_out_of_range_is_named(device, label, rng):
    from gdkernels.cuda import cross_entropy

    target = rng.integers(0, 5, 7)
    target[[2, 6]] = -100, label
    words = rf"softmax_cross_entropy: target\[6\] is {label}, expected a class in \[0, 5\)"
    with pytest.raises(ValueError, match=words):
        cross_entropy.check_labels("softmax_cross_entropy", device.put(target), 5, -100)
    with pytest.raises(ValueError, match=r"target\[2\] is -100"):
        cross_entropy.check_labels("softmax_cross_entropy", device.put(target), 5, label)
    cross_entropy.check_labels("softmax_cross_entropy", device.put(target[:0]), 5, -100)


def test_the_first_wrong_label_of_many_is_named(device):
    """More rows than threads look at in one turn; in the first turn, in a later one, in the last row."""
    from gdkernels.cuda import cross_entropy

    target = np.zeros(64 * 256 + 300, np.int64)
    array = device.put(target)
    cross_entropy.check_labels("op", array, 1, -100)
    for wrong in (
        [0, 5],
        [255, 256],
        [64 * 256 - 1, 64 * 256],
        [64 * 256 + 290, 64 * 256 + 299],
        [64 * 256 + 299],
    ):
        bad = target.copy()
        bad[wrong] = 7
        with pytest.raises(ValueError, match=rf"op: target\[{wrong[0]}\] is 7"):
            cross_entropy.check_labels("op", device.put(bad), 1, -100)


@pytest.mark.parametrize(
    ("classes", "storage"), [(8, "float32"), (7, "float32"), (7, "float64"), (8, "bfloat16")]
)
def test_labels_that_nobody_checked_give_nan(device, classes, storage, rng):
    """In a graph nobody can be told. No label is used as an index: the emulator would see an address out of bounds."""
    logits, target, weight = batch_of(rng, "labels", 6, classes)
    target[:] = [0, classes, -1, 2**62, -(2**63), classes - 1]
    row_loss, grad = rows_on_device(device, storage, "labels", logits, target, weight)
    np.testing.assert_array_equal(np.isnan(row_loss), [False, True, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(grad), np.isnan(row_loss)[:, None].repeat(classes, axis=1))


def test_labels_are_not_checked_while_a_graph_is_captured(device):
    """The host must not wait for a stream that only records."""
    from gdkernels.cuda import cross_entropy
    from gdkernels.cuda.runtime import driver

    target = device.put(np.array([7, 0]))
    stream = driver.Stream()

    class Elsewhere:
        """The labels, as a library sees them that works on this stream."""

        size, address = target.size, target.address

    Elsewhere.stream = stream.handle
    with pytest.raises(ValueError, match=r"op: target\[0\] is 7"):
        cross_entropy.check_labels("op", target, 5, -100)
    driver.Graph(stream.handle, lambda: cross_entropy.check_labels("op", Elsewhere, 5, -100))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mass_of_many_labels(device, weighted, dtype, rng):
    """What a mean divides by; weights are integers, so that every order of additions gives the same."""
    from gdkernels.cuda import cross_entropy

    target = rng.integers(-2, 6, 2 * 4096 + 77)
    weight = np.array([1, 2, 3, 5, 8]).astype(dtype)
    array, mass = device.put(target), device.empty((), dtype)
    weights = device.put(weight)
    launches = cross_entropy.mass_launches(
        array.workspace, dtype, target=array.address, weight=weights.address if weighted else 0, rows=target.size,
        classes=5, ignore_index=2, mass=mass.address,
    )  # fmt: skip
    for one in launches:
        one.run(array.stream)
    counting = target[(target != 2) & (target >= 0) & (target < 5)]
    assert mass.to_numpy() == (weight[counting].sum() if weighted else counting.size)


# ------------------------------------------------------------------------------------------------- bits and mistakes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [12, 13, 1028])
def test_the_same_bits_wherever_a_row_stands(device, n, kind, rng):
    logits, target, weight = batch_of(rng, kind, 37, n, "float32")
    row_loss, grad = rows_on_device(device, "float32", kind, logits, target, weight)
    again = rows_on_device(device, "float32", kind, logits, target, weight)
    assert again[0].tobytes() == row_loss.tobytes() and again[1].tobytes() == grad.tobytes()
    part = rows_on_device(device, "float32", kind, logits[18:20], target[18:20], weight)
    np.testing.assert_array_equal(part[0], row_loss[18:20])
    np.testing.assert_array_equal(part[1], grad[18:20])


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        pytest.param(0, "exp(z0 - peak), exp(z1 - peak)", "exp(z0 - peak), exp(z0 - peak)", id="column"),
        pytest.param(0, "keep + even if column + 3 == label", "keep + even if column + 4 == label", id="label"),
        pytest.param(1, "length, start = n if row < rows else 0,", "length, start = n - 1 if row < rows else 0,", id="tail"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_caught(device, place, old, new, rng, monkeypatch):
    from gdkernels.cuda import cross_entropy

    logits, target, _ = batch_of(rng, "labels", 9, 8 - place, "float32")
    target[0] = 3

    def check():
        value, grad = on_device(device, logits, target, "none", {})
        assert_loss(logits, target, "none", value, grad, {})

    check()
    changed = mutant(cross_entropy, old, new)
    monkeypatch.setitem(cross_entropy.KERNELS, cross_entropy.LABELS, changed.KERNELS[changed.LABELS])
    with pytest.raises(AssertionError):
        check()
