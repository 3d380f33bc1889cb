"""Views of trainers in compiled code: the bits of `Trainer.step`, whoever takes which step."""

import math
import re
import tracemalloc

import numpy as np
import pytest
from numba import njit, prange
from numba.core.runtime import _nrt_python, rtsys

from gdkernels.nn.layers import Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from gdkernels.nn.network import Network, mlp
from gdkernels.nn.place import Cuda
from gdkernels.scalar.optim import OPTIMIZERS
from gdkernels.train import optim
from gdkernels.train.loss import BinaryCrossEntropy, Huber, LogCosh, SoftmaxCrossEntropy
from gdkernels.train.schedules import CosineRestarts, StepDecay, WarmupCosine
from gdkernels.train.trainer import Trainer
from tests.jitted import step

LAYERS = [
    Linear(4, 12, "relu"),
    Residual(LayerNorm(12), Linear(12, 12, "gelu"), Dropout(0.2)),
    Residual(RMSNorm(12), Linear(12, 12, "tanh"), Scale(12)),
    Linear(12, 3),
]
WEIGHTS = (0.3, 1.7, 2.1)


def twins(*arguments, dtype="float32", layers=LAYERS, **options):
    """Two trainers that begin alike."""
    return [Trainer(Network(layers, 5, dtype), *arguments, **options) for _ in range(2)]


def batches(rng, kind, dtype="float32", count=40, most=90, n_out=3):
    """Batches of many sizes, labels or values in [0, 1] or probabilities."""
    for _ in range(count):
        rows = int(rng.integers(1, most))
        x = rng.standard_normal((rows, 4)).astype(dtype)
        if kind == "labels":
            yield x, rng.integers(0, n_out, rows)
        else:
            y = rng.uniform(0, 1, (rows, n_out))
            yield x, (y / y.sum(1, keepdims=True)).astype(dtype)


def same(one, other):
    """Whether nothing tells two trainers apart."""
    np.testing.assert_array_equal(one.net._flat_params, other.net._flat_params)
    np.testing.assert_array_equal(one.net._flat_grads, other.net._flat_grads)
    for mine, yours in zip(one._update.states, other._update.states, strict=True):
        np.testing.assert_array_equal(mine, yours)
    assert (one.steps, one.net.samples) == (other.steps, other.net.samples)
    return True


LOSSES = {
    "mse": ("mse", "values"),
    "huber": (Huber(0.7), "values"),
    "log_cosh": (LogCosh(), "values"),
    "binary_cross_entropy": (BinaryCrossEntropy(1.5), "values"),
    "labels": ("softmax_cross_entropy", "labels"),
    "smoothed": (SoftmaxCrossEntropy(0.1), "labels"),
    "weighted": (SoftmaxCrossEntropy(0.1, WEIGHTS), "labels"),
    "ignored": (SoftmaxCrossEntropy(ignore_index=1), "labels"),
    "weighted and ignored": (SoftmaxCrossEntropy(0.0, WEIGHTS, 2), "labels"),
    "probabilities": (SoftmaxCrossEntropy(0.1, WEIGHTS), "values"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_any_mixture_of_steps_has_the_bits_of_python_alone(name, dtype, rng):
    """With a schedule, clipping, dropout, norms, residuals."""
    loss, kind = LOSSES[name]
    options = {"schedule": WarmupCosine(1e-2, 5, 30), "clip_norm": 0.05}
    alone, mixed = twins(loss, optim.AdamW(), dtype=dtype, **options)
    view = mixed.jitted()
    for number, (x, y) in enumerate(batches(rng, kind, dtype)):
        expected = alone.step(x, y)
        assert (mixed.step(x, y) if number % 3 == 0 else step(view, x, y)) == expected
    assert same(alone, mixed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_steps_alike(optimizer, rng):
    made = next(kind for kind in vars(optim).values() if getattr(kind, "name", None) == optimizer)
    alone, viewed = twins("mse", made(lr=1e-3, weight_decay=0.01), decay="weights")
    view = viewed.jitted()
    for x, y in batches(rng, "values", count=5):
        assert step(view, x, y) == alone.step(x, y)
    assert same(alone, viewed)


def test_fit_goes_on_where_a_view_stopped(rng):
    alone, mixed = twins("mse", schedule=CosineRestarts(1e-2, 7))
    x, y = rng.standard_normal((50, 4)).astype("f4"), rng.standard_normal((50, 3)).astype("f4")
    view = mixed.jitted()
    for _ in range(2):
        alone.step(x, y), step(view, x, y)
        alone.fit(x, y, 1, 8, progress=False), mixed.fit(x, y, 1, 8, progress=False)
    assert same(alone, mixed)


def test_labels_and_values_may_have_any_form(rng):
    """int32, every second one, a batch from the end to the beginning, Fortran order; a column for one output; one sample."""
    alone, viewed = twins()
    view = viewed.jitted()
    x, labels = np.asfortranarray(rng.standard_normal((10, 4)).astype("f4")), rng.integers(0, 3, 20)
    for x_now, y in (
        (x, labels[::2]),
        (x[::-1], labels.astype(np.int32)[:10]),
        (x, labels.astype(np.int32)[::2]),
    ):
        assert step(view, x_now, y) == alone.step(x_now, y)
    shares = np.asfortranarray(rng.dirichlet(np.ones(3), 10).astype("f4"))
    assert step(view, x, shares) == alone.step(x, shares)
    assert step(view, x[3], shares[3]) == alone.step(x[3:4], shares[3:4])
    assert step(view, x[3], labels[:1]) == alone.step(x[3:4], labels[:1])
    assert same(alone, viewed)
    alone, viewed = twins("mse", layers=[Linear(4, 1)])
    view = viewed.jitted()
    for y in (shares[:, 0], shares[::-1, 1], shares[:, 1:2]):
        assert step(view, x, y) == alone.step(x, y)
    assert same(alone, viewed)


@njit
def many(view, x, y, times):
    total = 0.0
    for _ in range(times):
        total += view.step(x, y)
    return total


def test_thousands_of_steps_follow_the_schedule(rng):
    """More than its rates are asked for at once."""
    schedule = StepDecay(1e-3, 700, 0.9)
    alone, viewed = twins("mse", optim.SGD(), schedule, layers=[Linear(4, 3)])
    x, y = next(batches(rng, "values"))
    total = many(viewed.jitted(), x, y, 9000)
    assert math.isclose(total, sum(alone.step(x, y) for _ in range(9000)))
    assert same(alone, viewed)


def test_a_new_schedule_or_rate_is_heeded_at_the_next_call(rng):
    alone, viewed = twins("mse", optim.SGD(1e-2))
    view = viewed.jitted()
    for x, y in batches(rng, "values", count=6):
        for trainer in (alone, viewed):
            trainer.schedule = StepDecay(1e-3, 2) if trainer.steps % 4 == 2 else None
            trainer.optimizer = optim.SGD(1e-2 / (1 + trainer.steps))
        assert step(view, x, y) == alone.step(x, y)
    assert same(alone, viewed)


def test_a_schedule_that_ends_is_good_for_the_steps_that_it_has(rng):
    """Later it raises an exception, or gives what is no rate; the step that is refused changes nothing."""
    for last in (math.nan, -1.0, None):
        rates = [1e-2, 1e-3, 1e-4, last]

        def schedule(now, rates=rates):
            return float(rates[now])

        (trainer, _), (x, y) = twins("mse", schedule=schedule), next(batches(rng, "values"))
        view = trainer.jitted()
        for _ in range(3):
            step(view, x, y)
        params, found = trainer.net._flat_params.copy(), math.nan if last is None else last
        with pytest.raises(
            ValueError,
            match=rf"^Trainer\.jitted\(\)\.step: schedule\(3\) is {found}, expected a finite number ≥ 0$",
        ):
            step(view, x, y)
        np.testing.assert_array_equal(trainer.net._flat_params, params)
        assert trainer.steps == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_question_for_rates_that_is_interrupted_ends_the_call(monkeypatch, rng):
    """Ctrl-C while Python is asked: the step is refused, and the next call goes on."""
    alone, viewed = twins("mse", schedule=StepDecay(1e-3, 2))
    view, (x, y) = viewed.jitted(), next(batches(rng, "values"))

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(view, "_ask_rates", interrupted)
    with pytest.raises(ValueError, match=r"^Trainer\.jitted\(\)\.step: schedule\(0\) is nan"):
        step(view, x, y)
    monkeypatch.undo()
    assert step(view, x, y) == alone.step(x, y)
    assert same(alone, viewed)


@njit(parallel=True)
def population(views, x, y, times):
    for member in prange(len(views)):
        for _ in range(times):
            views[member].step(x, y)


def test_trainers_side_by_side_are_those_that_train_alone(rng):
    """With schedules that are asked from threads of Numba, and batches that need more room."""
    x, y = rng.standard_normal((9_000, 4)).astype("f4"), rng.standard_normal((9_000, 3)).astype("f4")
    pairs = [twins("mse", schedule=StepDecay(rate, 10)) for rate in (1e-2, 3e-3, 1e-3)]
    population(tuple(viewed.jitted() for _, viewed in pairs), x, y, 40)
    for alone, viewed in pairs:
        for _ in range(40):
            alone.step(x, y)
        assert same(alone, viewed)


def test_a_step_allocates_nothing(rng):
    trainer = Trainer(mlp([4, 8, 3]), "mse", schedule=WarmupCosine(1e-3, 5, 30))
    view, (x, y) = trainer.jitted(), next(batches(rng, "values"))
    _nrt_python.memsys_enable_stats()
    try:
        many(view, x, y, 2100)  # the schedule was asked for the rates up to step 16 + 32 + … + 2048 = 4080
        counts = []
        for times in (1, 1000):
            before = rtsys.get_allocation_stats().alloc
            many(view, x, y, times)
            counts.append(rtsys.get_allocation_stats().alloc - before)
    finally:
        _nrt_python.memsys_disable_stats()
    assert counts[0] == counts[1]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        many(view, x, y, 500)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500  # less than one byte a step


def test_a_step_with_another_rate_would_be_caught(rng):
    alone, viewed = twins("mse", optim.SGD(1e-2), dtype="float64")
    viewed.optimizer = optim.SGD(np.nextafter(1e-2, 1))
    view = viewed.jitted()
    for x, y in batches(rng, "values", "float64", count=5):
        alone.step(x, y), step(view, x, y)
    with pytest.raises(AssertionError):
        same(alone, viewed)


# ---------------------------------------------------------------------------------------------- complaints


def refuses(kind, message, function, *arguments):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        function(*arguments)


def test_arguments_of_step_are_checked(rng):
    trainer = twins()[0]
    view, (x, y), op = trainer.jitted(), next(batches(rng, "labels", count=1)), "Trainer.jitted().step: "
    x, y = np.resize(x, (5, 4)), np.resize(y, 5)
    refuses(
        TypeError,
        f"{op}x has dtype float64, expected float32 like the network",
        step,
        view,
        x.astype(float),
        y,
    )
    refuses(ValueError, f"{op}x has shape (5, 3), expected (n, 4)", step, view, x[:, :3], y)
    refuses(ValueError, f"{op}x has shape (0, 4), expected at least one row", step, view, x[:0], y[:0])
    refuses(ValueError, f"{op}y has shape (4,), expected (5,) because x has 5 rows", step, view, x, y[:4])
    refuses(ValueError, f"{op}y has shape (5, 4), expected (5, 3) because x has 5 rows", step, view, x, x)
    refuses(
        ValueError,
        f"{op}y has shape (5,), expected (5, 3) because x has 5 rows",
        step,
        view,
        x,
        x[:, 0].copy(),
    )
    refuses(TypeError, f"{op}y has dtype bool, expected float32 like the network", step, view, x, y == 1)
    refuses(TypeError, f"{op}y is of type float64, expected an array of float32", step, view, x, 1.5)
    for wrong in (3, -1):
        y[2] = wrong
        refuses(ValueError, f"{op}y[2] is {wrong}, expected a class in [0, 3)", step, view, x, y)
    y[2] = -100  # which is ignored
    assert math.isfinite(step(view, x, y))
    viewed = twins("binary_cross_entropy")[0].jitted()
    targets = np.full((5, 3), 0.5, np.float32)
    targets[3, 1] = 1.5
    refuses(ValueError, f"{op}y[3, 1] is 1.5, expected a number in [0, 1]", step, viewed, x, targets)
    refuses(
        TypeError,
        f"{op}y holds labels, expected values for the loss of the trainer",
        step,
        viewed,
        x,
        np.zeros(5, int),
    )
    assert trainer.steps == 1


def test_what_is_not_finite_is_named_by_its_step_and_changes_nothing(rng):
    trainer = twins("mse")[0]
    view, (x, y) = trainer.jitted(), next(batches(rng, "values"))
    step(view, x, y)
    params, seen = trainer.net._flat_params.copy(), trainer.net.samples
    x[0, 0] = math.nan
    refuses(
        FloatingPointError,
        "Trainer.jitted().step: the loss or a gradient of step 2 is not finite; the parameters are those after step 1",
        step, view, x, y,
    )  # fmt: skip
    np.testing.assert_array_equal(trainer.net._flat_params, params)
    assert (trainer.steps, trainer.net.samples) == (1, seen)


def test_a_view_is_refused_when_the_network_has_moved(rng):
    trainer = twins("mse")[0]
    view, (x, y) = trainer.jitted(), next(batches(rng, "values"))
    trainer.net._settle(type(trainer.net.place)())  # another place, as `to` finds one
    refuses(
        RuntimeError,
        "Trainer.jitted().step: the parameters have moved since the view was made, expected them to stay; make a new view",
        step, view, x, y,
    )  # fmt: skip
    other = twins("mse")[0]
    other.net._flat_params[...] = trainer.net._flat_params
    assert step(trainer.jitted(), x, y) == other.step(x, y)


def test_a_trainer_on_the_gpu_has_no_view():
    trainer = twins("mse")[0]
    trainer.net.place = trainer._place = Cuda.__new__(Cuda)  # which needs no GPU to refuse
    with pytest.raises(
        RuntimeError, match=r"^Trainer\.jitted: the network is on the GPU, expected it on the CPU"
    ):
        trainer.jitted()
