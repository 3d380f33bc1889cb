"""The Trainer: what an epoch is, what is repeatable, what it records, and how it fails."""

import copy
import pickle
import re

import numpy as np
import pytest

from gdkernels.cpu.engine.training import Training
from gdkernels.nn.layers import Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from gdkernels.nn.network import Network, mlp
from gdkernels.nn.place import CPU
from gdkernels.train.batches import Orders
from gdkernels.train.loss import SoftmaxCrossEntropy
from gdkernels.train.optim import SGD, AdamW
from gdkernels.train.trainer import Trainer
from tests.layouts import LAYOUTS, laid_out
from tests.nn.plan_interpreter import Interpreter

SAMPLES, N_IN, N_OUT = 23, 4, 3
LAYERS = [
    Linear(N_IN, 8, "tanh"),
    Residual(LayerNorm(8), Linear(8, 8, "gelu"), Dropout(0.3), Scale(8)),
    RMSNorm(8),
    Linear(8, N_OUT),
]


@pytest.fixture
def data(rng):
    """x, labels."""
    return rng.standard_normal((SAMPLES, N_IN)), rng.integers(0, N_OUT, SAMPLES)


def new_trainer(layers=LAYERS, loss="softmax_cross_entropy", optimizer=None, dtype="float64", **options):
    return Trainer(Network(layers, seed=2, dtype=dtype), loss, optimizer or AdamW(lr=0.02), **options)


def fit(trainer, data, epochs=2, batch_size=5, **options):
    return trainer.fit(*data, epochs=epochs, batch_size=batch_size, **{"progress": False, **options})


def state(trainer):
    """Everything that training changes, as bytes."""
    return (trainer.net._flat_params.tobytes(), *(part.tobytes() for part in trainer._update.states))


def interpreted(monkeypatch):
    """From here on trainers run on the interpreter."""
    monkeypatch.setattr(
        Network, "new_engine", lambda net, plan, _: Interpreter(plan, net._flat_params, net._flat_grads)
    )


# ---------------------------------------------------------------------------------------------- epochs


@pytest.mark.parametrize(
    "options", [{}, {"clip_norm": 0.3}, {"schedule": lambda step: 0.05 / (1 + step)}, {"decay": "weights"}]
)
def test_training_equals_the_interpreter(options, data, monkeypatch):
    trainer = new_trainer(**options)
    history = fit(trainer, data, grad_norms=True)
    interpreted(monkeypatch)
    judge = new_trainer(**options)
    wanted = fit(judge, data, grad_norms=True)
    # 10 steps, each with an error of some 1000 eps (four layers, sums of 8 products, a norm) relative to the
    # gradient, which Adam divides by its own size: 1e4 * eps relative to the rate, for gradients above 1e-4 of the
    # largest 1e8 eps. Passed on from step to step, tenfold.
    for ours, theirs in (
        (history.loss, wanted.loss),
        (history.grad_norms, wanted.grad_norms),
        (trainer.net._flat_params, judge.net._flat_params),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e9 * np.finfo(np.float64).eps)
    np.testing.assert_array_equal(history.lr, wanted.lr)
    assert trainer.net.samples == judge.net.samples == 2 * SAMPLES


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 100, "full"])
def test_an_epoch_is_a_step_for_each_batch_of_the_drawn_order(batch_size, data):
    trainer, by_hand = new_trainer(), new_trainer()
    history = fit(trainer, data, 2, batch_size, seed=9)
    x, y = data
    size = SAMPLES if batch_size == "full" else batch_size
    losses = []
    for epoch in range(2):
        order = np.random.default_rng((9, epoch)).permutation(SAMPLES)
        for start in range(0, SAMPLES, size):
            rows = order[start : start + size]
            losses.append(by_hand.step(x[rows], y[rows]))
    np.testing.assert_array_equal(history.loss, losses)
    assert state(trainer) == state(by_hand)
    assert trainer.steps == by_hand.steps == len(history.loss)


def test_without_shuffle_the_order_is_that_of_the_data(data):
    trainer, by_hand = new_trainer(), new_trainer()
    fit(trainer, data, 1, 10, shuffle=False)
    for start in (0, 10, 20):
        by_hand.step(data[0][start : start + 10], data[1][start : start + 10])
    assert state(trainer) == state(by_hand)


def test_seeds_and_epochs_have_orders_of_their_own(data):
    def losses(**options):
        return fit(new_trainer([Linear(N_IN, N_OUT)], optimizer=SGD(lr=0.0)), data, 2, 1, **options).loss

    first, second = np.split(losses(seed=0), 2)
    other = losses(seed=1)[:SAMPLES]
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    np.testing.assert_array_equal(np.sort(first), np.sort(other))
    assert (first != second).any() and (first != other).any()


def test_a_second_fit_goes_on_where_the_first_stopped(data):
    whole, halves = new_trainer(), new_trainer()
    history = fit(whole, data, 5)
    first, second = fit(halves, data, 2), fit(halves, data, 3)
    assert state(whole) == state(halves)
    np.testing.assert_array_equal(history.loss, np.concatenate([first.loss, second.loss]))
    assert [record["epoch"] for record in second.epochs] == [3, 4, 5]
    assert whole.epochs == halves.epochs == 5


def test_the_same_bits_in_every_run_for_any_threads_and_any_length_of_calls(dtype, rng, monkeypatch):
    layers = [
        Linear(20, 64, "relu"),
        Residual(LayerNorm(64), Linear(64, 64, "tanh"), Dropout(0.2)),
        Linear(64, 3),
    ]
    data = rng.standard_normal((150, 20)).astype(dtype), rng.integers(0, 3, 150)

    def run(threads, seconds):
        monkeypatch.setattr(CPU, "call_seconds", seconds)
        trainer = new_trainer(layers, dtype=dtype, threads=threads, clip_norm=1.0)
        history = fit(trainer, data, 2, 32, validation=data)
        last = history.epochs[-1]
        return state(trainer), history.loss.tobytes(), last["train_loss"], last["validation_loss"]

    first = run(1, 0.25)
    assert run(1, 0.0) == first  # a call for each step
    assert run(2, 0.25) == first
    assert run(3, 0.0) == first
    assert run(None, 10.0) == first


@pytest.mark.parametrize("batch_size", [1, 5, SAMPLES])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_epochs_that_share_a_call_give_what_each_by_itself_gives(
    batch_size, shuffle, weighted, data, monkeypatch
):
    """A call for each step, a call for each epoch because of a callback, and calls of many epochs."""
    layers = [Linear(N_IN, 12, "relu"), Dropout(0.3), Linear(12, N_OUT)]
    loss = (
        SoftmaxCrossEntropy(class_weight=np.linspace(0.5, 2.0, N_OUT))
        if weighted
        else "softmax_cross_entropy"
    )

    def run(seconds, **options):
        monkeypatch.setattr(CPU, "call_seconds", seconds)
        trainer = new_trainer(layers, loss, schedule=lambda step: 0.05 / (1 + step))
        history = fit(trainer, data, 40, batch_size, shuffle=shuffle, grad_norms=True, seed=5, **options)
        told = [(record["epoch"], record["train_loss"]) for record in history.epochs]
        assert all(record["seconds"] > 0.0 for record in history.epochs)
        arrays = history.loss.tobytes(), history.lr.tobytes(), history.grad_norms.tobytes()
        return state(trainer), told, *arrays, trainer.steps, trainer.epochs, trainer.net.samples

    first = run(0.0)
    assert run(0.25, callbacks=[lambda trainer, record: False]) == first
    calls = []
    train = Training.train
    monkeypatch.setattr(Training, "train", lambda *args: calls.append(args[10]) or train(*args))
    assert run(10.0) == first
    assert max(calls) > 1 and len(calls) < 40


def test_an_epoch_of_a_call_that_is_not_finite_is_named_and_those_before_it_are_done(
    data, monkeypatch, capsys
):
    """The same whether epochs share calls or not, in what is left and in what was shown."""

    def run(seconds):
        monkeypatch.setattr(CPU, "call_seconds", seconds)
        trainer = new_trainer(optimizer=SGD(lr=0.1), schedule=lambda step: 1e200 if step == 60 else 0.01)
        with pytest.raises(FloatingPointError, match=r"step 62 is not finite; .* those after step 61"):
            fit(trainer, data, 40, 10, progress=True)
        return state(trainer), trainer.steps, trainer.epochs, trainer.net.samples, capsys.readouterr().err

    shared = run(10.0)
    assert shared == run(0.0)
    assert shared[1] == 61 and shared[2] == 61 // -(-SAMPLES // 10)


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_epochs_before_one_whose_rate_is_wrong_are_done(seconds, data, monkeypatch):
    monkeypatch.setattr(CPU, "call_seconds", seconds)
    trainer = new_trainer(schedule=lambda step: 1 / (50 - step))
    with pytest.raises(ZeroDivisionError):
        fit(trainer, data, 60, SAMPLES)
    assert trainer.epochs == trainer.steps == 50


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 10**30])
@pytest.mark.parametrize("first", [0, 3, 2**32 - 40])
def test_orders_are_those_that_numpy_draws_from_seed_and_epoch(seed, first):
    drawn = Orders(11, True, seed)
    wanted = [np.random.default_rng((seed, first + number)).permutation(11) for number in range(80)]
    found = [
        drawn.of(first, 1),
        *drawn.of(first + 1, 69).reshape(-1, 11),
        *drawn.of(first + 70, 10).reshape(-1, 11),
    ]
    np.testing.assert_array_equal(np.concatenate(found).reshape(-1, 11), wanted)
    np.testing.assert_array_equal(drawn.of(first, 1), wanted[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_of_any_layout_gives_the_same_bits_and_stays_as_it_is(layout, data):
    plain, other = new_trainer(), new_trainer()
    fit(plain, data)
    given = tuple(laid_out(array, layout) for array in data)
    fit(other, given)
    assert state(plain) == state(other)
    for array, before in zip(given, data, strict=True):
        np.testing.assert_array_equal(array, before)


def test_exclusive_or_is_learned():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([0, 1, 1, 0])
    trainer = Trainer(mlp([2, 16, 2], "tanh", seed=3), optimizer=AdamW(lr=0.05))
    history = fit(trainer, (x, y), 100, 4)
    # A straight line finds at most three of the four.
    assert trainer.evaluate(x, y)["accuracy"] == 1.0
    assert history.loss[-1] < 0.1 * history.loss[0]


# ---------------------------------------------------------------------------------------------- records


def test_history_holds_every_step_and_every_epoch(data):
    def schedule(step):
        return 0.1 * 0.9**step

    trainer = new_trainer(schedule=schedule)
    history = fit(trainer, data, 2, 10, validation=data)
    sizes = np.array([10, 10, 3] * 2)
    assert history.loss.shape == (6,) and np.isfinite(history.loss).all()
    np.testing.assert_array_equal(history.lr, [schedule(step) for step in range(6)])
    assert history.grad_norms is None
    for epoch, record in enumerate(history.epochs):
        part = slice(3 * epoch, 3 * epoch + 3)
        mean = (history.loss[part] * sizes[part]).sum() / SAMPLES
        assert record["epoch"] == epoch + 1
        assert record["train_loss"] == pytest.approx(mean, rel=1e-15)
        assert record["seconds"] > 0
    assert trainer.evaluate(*data) == {
        "loss": history.epochs[-1]["validation_loss"],
        "accuracy": history.epochs[-1]["validation_accuracy"],
    }
    assert history.epochs[-1].keys() == {
        "epoch", "train_loss", "seconds", "validation_loss", "validation_accuracy",
    }  # fmt: skip


def test_train_loss_is_the_loss_of_the_samples_where_nothing_is_learned(data):
    weighted = SoftmaxCrossEntropy(0.1, class_weight=[1.0, 3.0, 0.5], ignore_index=0)
    trainer = new_trainer([Linear(N_IN, N_OUT)], weighted, SGD(lr=0.0))
    record = fit(trainer, data, 1, 4, validation=data).epochs[0]
    # Two ways to sum 23 terms.
    assert record["train_loss"] == pytest.approx(record["validation_loss"], rel=50 * np.finfo(float).eps)


def test_a_regression_is_measured_by_r2(data):
    x = data[0]
    y = x @ np.array([[1.0], [-2.0], [0.5], [3.0]])
    trainer = new_trainer([Linear(N_IN, 1)], "mse", AdamW(lr=0.1, weight_decay=0.0))
    history = fit(trainer, (x, y[:, 0]), 200, 8, validation=(x, y))
    assert "validation_accuracy" not in history.epochs[-1]
    assert history.epochs[-1]["validation_r2"] > 0.999


def test_grad_norms_are_those_of_every_parameter_before_clipping(data):
    trainer = new_trainer([Linear(N_IN, 5, "tanh"), Linear(5, N_OUT)], optimizer=SGD(lr=0.1), clip_norm=1e-3)
    history = fit(trainer, data, 1, SAMPLES, grad_norms=True)
    net = Network([Linear(N_IN, 5, "tanh"), Linear(5, N_OUT)], seed=2, dtype="float64")
    z = net.forward(data[0], train=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    net.backward((p - np.eye(N_OUT)[data[1]]) / SAMPLES)
    assert history.parameters == tuple(net.params) == ("0.w", "0.b", "1.w", "1.b")
    norms = [np.linalg.norm(g) for g in net.grads.values()]
    np.testing.assert_allclose(history.grad_norms, [norms], rtol=1000 * np.finfo(np.float64).eps)
    assert history.grad_norms.sum() > 1e-3
    for name, gradient in trainer.net.grads.items():
        np.testing.assert_allclose(
            gradient, net.grads[name], rtol=0, atol=1000 * np.finfo(np.float64).eps, err_msg=name
        )


def test_callbacks_see_every_epoch_and_stop_training(data):
    seen = []

    def stop_after_three(trainer, record):
        seen.append((trainer.epochs, record["epoch"], sorted(record)))
        return np.bool_(record["epoch"] == 3)

    trainer = new_trainer()
    history = fit(trainer, data, 10, callbacks=[lambda *_: None, stop_after_three, lambda *_: 1])
    assert [number for number, _, _ in seen] == [1, 2, 3]
    assert len(history.epochs) == trainer.epochs == 3
    assert len(history.loss) == trainer.steps == 15


def test_an_error_in_a_callback_leaves_a_trainer_that_goes_on(data):
    trainer, undisturbed = new_trainer(), new_trainer()

    def fail(trainer, record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trainer, data, 3, callbacks=[fail])
    fit(trainer, data, 2)
    fit(undisturbed, data, 3)
    assert state(trainer) == state(undisturbed)


def test_progress_is_shown_on_standard_error(data, capsys):
    fit(new_trainer(), data, 3, validation=data, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 3 and "accuracy" in shown.err
    fit(new_trainer(), data, 3)
    assert capsys.readouterr().err == ""


def test_dropout_goes_on_through_steps_and_fits(data):
    trainer = new_trainer()
    trainer.step(data[0][:7], data[1][:7])
    assert trainer.net.samples == 7
    fit(trainer, data, 2)
    assert trainer.net.samples == 7 + 2 * SAMPLES
    trainer.evaluate(*data)
    assert trainer.net.samples == 7 + 2 * SAMPLES


# ---------------------------------------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step_with_the_last_good_parameters(bad, data, monkeypatch):
    monkeypatch.setattr(CPU, "call_seconds", 10.0)
    x, y = data
    spoilt = x.copy()
    spoilt[12, 1] = bad
    trainer, good = new_trainer(), new_trainer()
    fit(good, (x[:10], y[:10]), 1, 5, shuffle=False)
    message = (
        "Trainer.fit: the loss or a gradient of step 3 is not finite; the parameters are those after step 2"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(trainer, (spoilt, y), 1, 5, shuffle=False)
    assert state(trainer) == state(good)
    assert trainer.steps == 2 and trainer.epochs == 0 and trainer.net.samples == 10
    # Steps are counted over the trainer's life, and it can go on.
    with pytest.raises(FloatingPointError, match=r"Trainer.step: .* step 3 is not finite"):
        trainer.step(spoilt, y)
    fit(trainer, (x[10:], y[10:]), 1, 5, shuffle=False)
    fit(good, (x[10:], y[10:]), 1, 5, shuffle=False)
    assert state(trainer) == state(good)


def test_a_diverging_rate_is_stopped(data):
    trainer = new_trainer([Linear(N_IN, 8), Linear(8, 2)], "mse", SGD(lr=1e12), dtype="float32")
    x, y = data[0].astype(np.float32), data[0][:, :2].astype(np.float32)
    with pytest.raises(FloatingPointError, match=r"step \d is not finite"):
        fit(trainer, (x, y), 10, 23)


@pytest.mark.parametrize("rate", [np.nan, np.inf, -0.1])
def test_a_schedule_that_gives_no_rate_is_named_with_its_step(rate, data):
    trainer = new_trainer(schedule=lambda step: rate if step == 7 else 0.1)
    with pytest.raises(ValueError, match=rf"schedule\(7\) is {rate}, expected a finite number ≥ 0"):
        fit(trainer, data)
    assert np.isfinite(trainer.net._flat_params).all()


# ---------------------------------------------------------------------------------------------- errors

X, Y = np.zeros((6, N_IN)), np.zeros(6, np.int64)
WRONG_USE = {
    "no rows": (lambda t: fit(t, (X[:0], Y[:0])), ValueError, "Trainer.fit: x has shape (0, 4), expected at least one row"),
    "columns": (lambda t: fit(t, (X[:, :3], Y)), ValueError, "Trainer.fit: x has shape (6, 3), expected (n, 4)"),
    "dtype": (lambda t: t.step(X.astype("f4"), Y), TypeError, "Trainer.step: x has dtype float32, expected float64 like"),
    "list": (lambda t: t.step(X.tolist(), Y), TypeError, "Trainer.step: x is of type list, expected a NumPy array"),
    "epochs": (lambda t: fit(t, (X, Y), 0), ValueError, "Trainer.fit: epochs is 0, expected a positive integer"),
    "half an epoch": (lambda t: fit(t, (X, Y), 0.5), TypeError, "Trainer.fit: epochs is 0.5, expected a positive integer"),
    "batch": (lambda t: fit(t, (X, Y), 1, 0), ValueError, "Trainer.fit: batch_size is 0, expected a positive integer"),
    "batch name": (lambda t: fit(t, (X, Y), 1, "all"), TypeError, "'all', expected a positive integer or 'full'"),
    "seed": (lambda t: fit(t, (X, Y), seed=-1), ValueError, "Trainer.fit: seed is -1, expected an integer ≥ 0"),
    "shuffle": (lambda t: fit(t, (X, Y), shuffle="yes"), TypeError, "Trainer.fit: shuffle is 'yes', expected True or False"),
    "validation": (lambda t: fit(t, (X, Y), validation=X), TypeError, "validation is of type ndarray, expected a pair"),
    "validation x": (
        lambda t: fit(t, (X, Y), validation=(X[:, :2], Y)), ValueError, "Trainer.fit: validation: x has shape (6, 2)",
    ),
    "validation y": (
        lambda t: fit(t, (X, Y), validation=(X, Y + 5)), ValueError, "Trainer.fit: validation: y[0] is 5, expected a class",
    ),
    "callback": (lambda t: fit(t, (X, Y), callbacks=["stop"]), TypeError, "callbacks holds 'stop', expected functions"),
    "net": (lambda t: Trainer("net"), TypeError, "Trainer: net is 'net', expected a Network"),
    "optimizer": (lambda t: Trainer(t.net, optimizer="adam"), TypeError, "optimizer is 'adam', expected an optimizer"),
    "schedule": (lambda t: Trainer(t.net, schedule=0.1), TypeError, "schedule is 0.1, expected None or a function"),
    "clip_norm": (lambda t: Trainer(t.net, clip_norm=0), ValueError, "clip_norm is 0, expected a finite number > 0"),
    "threads": (lambda t: Trainer(t.net, threads=0), ValueError, "Trainer: threads is 0, expected a positive integer"),
    "many threads": (lambda t: Trainer(t.net, threads=300), ValueError, "threads is 300, expected at most 256"),
    "decay": (lambda t: Trainer(t.net, decay="w"), ValueError, "Trainer: decay is 'w', expected one of all, weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_named_before_anything_changes(name):
    use, error, message = WRONG_USE[name]
    trainer = new_trainer()
    before = state(trainer)
    with pytest.raises(error, match=re.escape(message)):
        use(trainer)
    assert state(trainer) == before and trainer.steps == trainer.net.samples == 0


def test_warm_up_trains_nothing():
    net = mlp([5, 7, 3], dropout=0.5)
    trainer = Trainer(net)
    before = {name: value.copy() for name, value in net.params.items()}
    trainer.warm_up(np.zeros((2, 5), np.float32), np.zeros(2, np.int64))
    assert trainer.steps == 0 and net.samples == 0
    for name, value in net.params.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_trainer_refuses_to_be_copied_since_its_programs_are_addresses(copied):
    trainer = Trainer(mlp([3, 4, 2]), "mse")
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(trainer)
