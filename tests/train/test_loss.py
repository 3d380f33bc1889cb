"""The losses at work: training with every option equals PyTorch's; targets are checked, and complained of by row."""

import math
import re

import numpy as np
import pytest

from gdkernels.nn.layers import Linear
from gdkernels.nn.network import Network
from gdkernels.train.loss import MSE, BinaryCrossEntropy, Huber, LogCosh, SoftmaxCrossEntropy, classes, r2
from gdkernels.train.optim import SGD
from gdkernels.train.trainer import Trainer
from tests.layouts import LAYOUTS, laid_out

BATCH, N_IN, N_OUT = 9, 4, 3
WEIGHTS = (0.5, 2.0, 1.25)
EPS = float(np.finfo(np.float64).eps)


def values(rng):
    return rng.standard_normal((BATCH, N_OUT))


def bits(rng):
    return rng.integers(0, 2, (BATCH, N_OUT)).astype(np.float64)


def labels(rng):
    return rng.integers(0, N_OUT, BATCH)


def some_ignored(rng):
    y = labels(rng)
    y[[1, 4]] = -100
    return y


def probabilities(rng):
    y = rng.random((BATCH, N_OUT))
    return y / y.sum(axis=1, keepdims=True)


def log_cosh(output, target):
    """PyTorch has none of its own."""
    return (output - target).cosh().log().mean()


# Ours, PyTorch's function and arguments, and the targets.
CASES = {
    "mse": (MSE(), "mse_loss", {}, values),
    "huber": (Huber(delta=0.4), "huber_loss", {"delta": 0.4}, values),
    "log_cosh": (LogCosh(), log_cosh, {}, values),
    "bce": (BinaryCrossEntropy(), "binary_cross_entropy_with_logits", {}, bits),
    "bce_pos_weight": (BinaryCrossEntropy(2.5), "binary_cross_entropy_with_logits", {"pos_weight": 2.5}, bits),
    "ce": (SoftmaxCrossEntropy(), "cross_entropy", {}, labels),
    "ce_ignored": (SoftmaxCrossEntropy(), "cross_entropy", {}, some_ignored),
    "ce_ignored_class": (SoftmaxCrossEntropy(ignore_index=1), "cross_entropy", {"ignore_index": 1}, labels),
    "ce_smoothing": (SoftmaxCrossEntropy(0.2), "cross_entropy", {"label_smoothing": 0.2}, some_ignored),
    "ce_weights": (SoftmaxCrossEntropy(class_weight=WEIGHTS), "cross_entropy", {"weight": WEIGHTS}, some_ignored),
    "ce_all": (
        SoftmaxCrossEntropy(0.1, WEIGHTS, 2),
        "cross_entropy",
        {"label_smoothing": 0.1, "weight": WEIGHTS, "ignore_index": 2},
        labels,
    ),
    "ce_probabilities": (SoftmaxCrossEntropy(), "cross_entropy", {}, probabilities),
    "ce_probabilities_all": (
        SoftmaxCrossEntropy(0.1, WEIGHTS),
        "cross_entropy",
        {"label_smoothing": 0.1, "weight": WEIGHTS},
        probabilities,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_training_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    loss, function, options, targets = CASES[name]
    options = {k: torch.tensor(v, dtype=torch.float64) if "weight" in k else v for k, v in options.items()}
    rng = np.random.default_rng(31)
    net = Network([Linear(N_IN, 6, "tanh"), Linear(6, N_OUT)], seed=2, dtype="float64")
    leaves = {key: torch.tensor(p.copy(), requires_grad=True) for key, p in net.params.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.3)
    trainer = Trainer(net, loss, SGD(lr=0.3))
    for _ in range(5):
        x, y = rng.standard_normal((BATCH, N_IN)), targets(rng)
        output = torch.tanh(torch.tensor(x) @ leaves["0.w"] + leaves["0.b"]) @ leaves["1.w"] + leaves["1.b"]
        compute = function if callable(function) else getattr(torch.nn.functional, function)
        value = compute(output, torch.tensor(y), **options)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        # Sums of at most 6 products, two layers, 5 steps of size below 1: 5 * 4 * 10 eps.
        assert trainer.evaluate(x, y)["loss"] == pytest.approx(value.item(), rel=1000 * EPS)
        assert trainer.step(x, y) == pytest.approx(value.item(), rel=1000 * EPS)
    for key, leaf in leaves.items():
        np.testing.assert_allclose(net.params[key], leaf.detach().numpy(), rtol=0, atol=1000 * EPS)


def trainer_for(loss, n_out=N_OUT, dtype="float64"):
    return Trainer(Network([Linear(N_IN, n_out)], seed=1, dtype=dtype), loss, SGD(lr=0.1))


# ---------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_of_any_layout_train_alike(layout, dtype):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((BATCH, N_IN)), labels(rng)
    one, other = trainer_for("softmax_cross_entropy"), trainer_for("softmax_cross_entropy")
    given = laid_out(y, layout, dtype)
    assert one.step(x, y) == other.step(x, given)
    np.testing.assert_array_equal(one.net._flat_params, other.net._flat_params)
    np.testing.assert_array_equal(given, y)


@pytest.mark.parametrize(
    "loss", ["mse", "huber", "log_cosh", "binary_cross_entropy", "softmax_cross_entropy"]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_of_any_layout_train_alike(layout, loss):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((BATCH, N_IN)), probabilities(rng)
    one, other = trainer_for(loss), trainer_for(loss)
    given = laid_out(y, layout)
    assert one.step(x, y) == other.step(laid_out(x, layout), given)
    np.testing.assert_array_equal(one.net._flat_params, other.net._flat_params)
    np.testing.assert_array_equal(given, y)


@pytest.mark.parametrize("loss", ["mse", "huber", "log_cosh", "binary_cross_entropy"])
def test_one_output_takes_a_vector(loss):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((BATCH, N_IN)), rng.random(BATCH)
    one, other = trainer_for(loss, n_out=1), trainer_for(loss, n_out=1)
    assert one.step(x, y) == other.step(x, y[:, None])


def test_labels_and_probabilities_may_take_turns():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((BATCH, N_IN)), labels(rng)
    one, other = trainer_for("softmax_cross_entropy"), trainer_for("softmax_cross_entropy")
    for _ in range(2):
        one.step(x, y)
        one.step(x, np.eye(N_OUT)[y])
        other.step(x, y)
        other.step(x, y)
    # Sums of at most 9 products in each of four steps.
    np.testing.assert_allclose(one.net._flat_params, other.net._flat_params, rtol=0, atol=100 * EPS)


def test_a_batch_in_which_nothing_counts_changes_nothing():
    trainer = trainer_for("softmax_cross_entropy")
    before = trainer.net._flat_params.copy()
    x = np.ones((2, N_IN))
    assert trainer.step(x, np.array([-100, -100])) == 0.0
    np.testing.assert_array_equal(trainer.net._flat_params, before)
    assert math.isnan(trainer.evaluate(x, np.array([-100, -100]))["loss"])
    # In an epoch of batches of one, the ignored ones are as if they were not there.
    y = np.array([0, -100, 2, -100, 1])
    x = np.random.default_rng(1).standard_normal((5, N_IN))
    options = {"epochs": 1, "batch_size": 1, "shuffle": False, "progress": False}
    history = trainer.fit(x, y, **options)
    other = trainer_for("softmax_cross_entropy")
    kept = other.fit(x[::2], y[::2], **options)
    np.testing.assert_array_equal(trainer.net._flat_params, other.net._flat_params)
    np.testing.assert_array_equal(history.loss[::2], kept.loss)
    assert history.epochs[0]["train_loss"] == kept.epochs[0]["train_loss"]


def array(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


def with_one(y, place, value):
    y[place] = value
    return y


CE, BCE = "softmax_cross_entropy", "binary_cross_entropy"
WRONG = {
    "label too large": (CE, with_one(array(9, dtype=np.int64), 7, 3), ValueError, "y[7] is 3, expected a class in [0, 3)"),
    "label negative": (CE, with_one(array(9, dtype=np.int32), 2, -1), ValueError, "y[2] is -1, expected a class in [0, 3)"),
    "ignored is not out of range": (
        SoftmaxCrossEntropy(ignore_index=-1), with_one(np.full(9, -1), 5, -100), ValueError, "y[5] is -100",
    ),
    "labels as uint8": (CE, array(9, dtype=np.uint8), TypeError, "y has dtype uint8, expected labels in int32 or"),
    "labels as floats": (CE, array(9), TypeError, "y has dtype float64, expected labels in int32 or int64"),
    "too few labels": (CE, array(8, dtype=np.int64), ValueError, "y has shape (8,), expected (9,) because x has 9"),
    "a column of labels": (CE, array(9, 1, dtype=np.int64), ValueError, "y has shape (9, 1), expected (9,)"),
    "list": (CE, [0] * 9, TypeError, "y is of type list, expected a NumPy array"),
    "probabilities in float32": (CE, array(9, 3, dtype=np.float32), TypeError, "y has dtype float32, expected float64"),
    "probabilities of too many classes": (CE, array(9, 4), ValueError, "y has shape (9, 4), expected (9, 3)"),
    "vector for three outputs": ("mse", array(9), ValueError, "y has shape (9,), expected (9, 3) because x has 9 rows"),
    "too few rows": ("huber", array(8, 3), ValueError, "y has shape (8, 3), expected (9, 3) because x has 9 rows"),
    "integers": ("mse", array(9, 3, dtype=np.int64), TypeError, "y has dtype int64, expected float64 like the network"),
    "not a probability": (BCE, with_one(array(9, 3), (4, 1), 1.5), ValueError, "y[4, 1] is 1.5, expected a number in"),
    "not a number": (BCE, with_one(array(9, 3), (4, 1), np.nan), ValueError, "y[4, 1] is nan, expected a number in [0, 1]"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_targets_are_named_before_anything_changes(name):
    loss, y, error, message = WRONG[name]
    trainer = trainer_for(loss)
    before = trainer.net._flat_params.copy()
    x = np.ones((BATCH, N_IN))
    with pytest.raises(error, match=re.escape(f"Trainer.step: {message}")):
        trainer.step(x, y)
    with pytest.raises(error, match=re.escape(f"Trainer.fit: {message}")):
        trainer.fit(x, y, epochs=1, batch_size=3, progress=False)
    with pytest.raises(error, match=re.escape(f"Trainer.evaluate: {message}")):
        trainer.evaluate(x, y)
    np.testing.assert_array_equal(trainer.net._flat_params, before)
    assert trainer.steps == 0


# ---------------------------------------------------------------------------------------------- quality


def test_accuracy_counts_what_is_found_among_what_counts():
    output = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]])
    ce = SoftmaxCrossEntropy()
    assert ce.quality(output, np.array([0, 1, 1, 0])) == ("accuracy", 0.75)
    assert ce.quality(output, np.array([0, 1, 1, -100])) == ("accuracy", 2 / 3)
    assert ce.quality(output, np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])) == ("accuracy", 0.5)
    assert math.isnan(ce.quality(output, np.full(4, -100))[1])
    bce = BinaryCrossEntropy()
    assert bce.quality(np.array([[1.0], [-1.0], [2.0]]), np.array([[1.0], [1.0], [0.0]])) == (
        "accuracy",
        1 / 3,
    )


def test_r2_is_one_for_the_target_and_zero_for_its_mean():
    y = np.array([[1.0, 10.0], [2.0, 30.0], [6.0, 20.0]])
    assert MSE().quality(y, y) == ("r2", 1.0)
    assert r2(np.broadcast_to(y.mean(axis=0), y.shape), y) == 0.0
    half = y.copy()
    half[:, 1] = 20.0
    assert r2(half, y) == 0.5
    assert math.isnan(r2(y, np.ones_like(y)))


def test_r2_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, output = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    assert r2(output, y) == pytest.approx(metrics.r2_score(y, output), rel=1e-12)


def test_a_single_output_decides_by_its_sign():
    assert classes(np.array([[-0.5], [0.0], [2.0]])).tolist() == [0, 0, 1]
    assert classes(np.array([[1.0, 3.0], [2.0, -1.0]])).tolist() == [1, 0]


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Huber(delta=0.0), ValueError, "Huber: delta is 0.0, expected a positive number"),
        (lambda: Huber(delta="1"), TypeError, "Huber: delta is '1', expected a positive number"),
        (lambda: BinaryCrossEntropy(-1), ValueError, "BinaryCrossEntropy: pos_weight is -1, expected a finite number > 0"),
        (lambda: SoftmaxCrossEntropy(1.5), ValueError, "label_smoothing is 1.5, expected a number in [0, 1]"),
        (lambda: SoftmaxCrossEntropy(class_weight=[1, -1]), ValueError, "class_weight[1] is -1, expected a finite"),
        (lambda: SoftmaxCrossEntropy(ignore_index=0.5), TypeError, "ignore_index is 0.5, expected an integer"),
        (lambda: trainer_for("hinge"), ValueError, "Trainer: loss is 'hinge', expected one of mse, huber, log_cosh, b"),
        (lambda: trainer_for(SoftmaxCrossEntropy(class_weight=[1, 2])), ValueError, "has 2 numbers, expected 3"),
        (lambda: trainer_for(CE, n_out=1), ValueError, "the network has 1 output, expected one for each class"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_losses_are_equal_by_value_and_hashable():
    weights = np.array([1.0, 2.0])
    assert SoftmaxCrossEntropy(class_weight=weights) == SoftmaxCrossEntropy(class_weight=[1, 2])
    assert len({Huber(1), Huber(1.0), MSE(), SoftmaxCrossEntropy(class_weight=weights)}) == 3
