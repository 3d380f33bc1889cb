"""The CPU engine against the interpreter of plans: every network, loss and optimizer, any number of threads."""

from itertools import pairwise

import numpy as np
import pytest

from gdkernels.cpu import binding
from gdkernels.cpu.engine import program
from gdkernels.cpu.engine.arena import PROGRAMS_KEPT
from gdkernels.cpu.engine.engine import Engine
from gdkernels.cpu.runtime import machine, team
from gdkernels.cpu.runtime.memory import aligned_zeros
from gdkernels.nn.layers import Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from gdkernels.nn.plan import lower
from gdkernels.plan import CrossEntropy, ElementLoss, LinearDx, Update
from gdkernels.scalar.optim import OPTIMIZERS, RULES
from tests.nn.plan_interpreter import Interpreter
from tests.nn.test_plan import NETWORKS
from tests.rules import OPTIONS

EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}

# The networks have at most 9 layers of width at most 7 and values of order 1. Each layer adds a few roundings of its
# sums and of its activation (at most 8 ulp) and passes on those before it with a slope of order 1 (the norms divide by
# deviations that may be a few times smaller than 1): a thousand roundings are beyond what a right engine can show,
# while a wrong term changes results by their own size.
ROUNDINGS = 1000

DEEP = [
    Linear(12, 40, "relu"),
    Residual(LayerNorm(40), Linear(40, 40, "gelu"), Dropout(0.2)),
    Residual(RMSNorm(40), Linear(40, 33, "tanh"), Linear(33, 40, "silu"), Scale(40)),
    Linear(40, 5),
]


def flat(plan, dtype, seed=0):
    """Parameters of order 1/sqrt(width), and room for gradients."""
    rng = np.random.default_rng(seed)
    params, grads = aligned_zeros(plan.size, dtype), aligned_zeros(plan.size, dtype)
    for p in plan.parameters:
        count = int(np.prod(p.shape))
        values = (
            rng.standard_normal(count) / np.sqrt(p.shape[0])
            if len(p.shape) == 2
            else rng.uniform(0.5, 1.5, count)
        )
        params[p.offset : p.offset + count] = values
    return params, grads


def pair(layers, dtype, threads=1, input_gradient=True):
    """An engine and an interpreter over equal parameters."""
    plan = lower(layers, input_gradient=input_gradient, seed=3)
    params, grads = flat(plan, dtype)
    return Engine(plan, params, grads, threads), Interpreter(plan, params.astype("f8"), np.zeros(plan.size))


def params_of(engine):
    """The flat parameters of an engine or the interpreter."""
    return engine.arena.params if isinstance(engine, Engine) else engine.params


def close(result, exact, dtype):
    size = max(1.0, float(np.abs(exact).max(initial=0.0)))
    np.testing.assert_allclose(result, exact, rtol=0, atol=ROUNDINGS * EPS[dtype] * size)


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_equal_those_of_the_interpreter(name, dtype):
    engine, oracle = pair(NETWORKS[name], dtype)
    rng = np.random.default_rng(1)
    for rows in (5, 3):
        x = rng.standard_normal((rows, engine.plan.input.columns)).astype(dtype)
        close(engine.forward(x), oracle.forward(x), dtype)
        y = engine.forward(x, train=True, samples=11)
        close(y, oracle.forward(x, train=True, samples=11), dtype)
        dy = rng.standard_normal(y.shape).astype(dtype)
        close(engine.backward(dy), oracle.backward(dy), dtype)
        close(engine.arena.grads, oracle.grads, dtype)
    engine.forward(x, train=True)
    oracle.forward(x, train=True)
    close(engine.backward(dy, accumulate=True), oracle.backward(dy, accumulate=True), dtype)
    close(engine.arena.grads, oracle.grads, dtype)


LOSSES = {
    "mse": ElementLoss("mse"),
    "huber": ElementLoss("huber", (0.7,)),
    "log_cosh": ElementLoss("log_cosh"),
    "binary_cross_entropy": ElementLoss("binary_cross_entropy", (1.5,)),
    "labels": CrossEntropy(True, 0.1),
    "probabilities": CrossEntropy(False),
}


def training_data(kernel, rows, n_in, n_out, dtype, seed=2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, n_in)).astype(dtype)
    if kernel == "labels":
        return x, rng.integers(0, n_out, rows)
    y = rng.uniform(0, 1, (rows, n_out))
    return x, np.ascontiguousarray(y / y.sum(1, keepdims=True), dtype)


def update_of(name, plan, dtype, weight_decay=0.0, segments=1):
    states = [aligned_zeros(plan.size, dtype) for _ in RULES[name].states]
    bounds = [0, *(p.offset for p in plan.parameters[1:segments]), plan.size]
    decay = [(a, b, weight_decay * (i % 2 == 0)) for i, (a, b) in enumerate(pairwise(bounds))]
    return Update(name, tuple(map(float, OPTIONS[name].values())), states, decay)


def trained(
    engine, kernel, optimizer, dtype, clip=None, rows=37, batch=8, epochs=2, weight_decay=0.01, segments=3
):
    """Losses and gradient norms of some epochs; the engine may be the interpreter."""
    plan = engine.plan
    x, y = training_data(kernel, rows, plan.input.columns, plan.output.columns, dtype)
    update = update_of(optimizer, plan, params_of(engine).dtype, weight_decay, segments)
    training = engine.training(LOSSES[kernel], update, clip)
    steps = -(-rows // batch)
    width = 1 if kernel in ("labels", "probabilities") else plan.output.columns
    sizes = np.minimum(batch, rows - batch * np.arange(steps))
    losses, norms = np.zeros((epochs, steps)), np.zeros((epochs, steps, len(plan.parameters)))
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(rows)
        rates = np.full(steps, 1e-2) / (1 + np.arange(steps))
        done = training.train(
            x, y, order, batch, rates, 1.0 / (sizes * width), epoch * rows, losses[epoch], norms[epoch]
        )
        assert done == steps
    return losses, norms


@pytest.mark.parametrize("kernel", LOSSES)
def test_training_with_every_loss_equals_that_of_the_interpreter(kernel, dtype):
    engine, oracle = pair(DEEP, dtype, input_gradient=False)
    losses, norms = trained(engine, kernel, "sgd", dtype)
    exact_losses, exact_norms = trained(oracle, kernel, "sgd", dtype)
    close(losses, exact_losses, dtype)
    close(norms, exact_norms, dtype)
    close(params_of(engine), oracle.params, dtype)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_with_every_optimizer_equals_that_of_the_interpreter(optimizer, clip):
    engine, oracle = pair(DEEP, "float64", input_gradient=False)
    losses, norms = trained(engine, "mse", optimizer, "float64", clip)
    exact_losses, exact_norms = trained(oracle, "mse", optimizer, "float64", clip)
    # The first steps of Adam and its kin divide a gradient by its own size: where it is near zero, its rounding error
    # becomes a step of that relative size, so compare in units of sqrt(eps), far below a step of 1e-2.
    for result, exact in ((losses, exact_losses), (norms, exact_norms), (params_of(engine), oracle.params)):
        np.testing.assert_allclose(
            result, exact, rtol=0, atol=np.sqrt(EPS["float64"]) * max(1.0, np.abs(exact).max())
        )


@pytest.mark.parametrize("width", [9, 40, 130])
def test_the_same_bits_for_any_number_of_threads_and_for_every_run(width, dtype):
    layers = [
        Linear(12, width, "gelu"),
        Residual(LayerNorm(width), Linear(width, width, "tanh"), Dropout(0.3)),
        Linear(width, 3),
    ]
    results = []
    for threads in (1, 2, 3, 2, 1):
        plan = lower(layers, input_gradient=False, seed=3)
        engine = Engine(plan, *flat(plan, dtype), threads)
        losses, norms = trained(engine, "labels", "adamw", dtype, clip=0.5, rows=151, batch=50, epochs=3)
        results.append(
            (losses.tobytes(), norms.tobytes(), params_of(engine).tobytes(), engine.arena.grads.tobytes())
        )
    assert all(result == results[0] for result in results)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    engine, _ = pair([Linear(4, 8, "relu"), Linear(8, 2)], "float32", input_gradient=False)
    x, y = training_data("mse", 40, 4, 2, "float32")
    x[25] = np.nan
    training = engine.training(LOSSES["mse"], update_of("adam", engine.plan, np.float32))
    losses = np.zeros(5)
    order, ones = np.arange(40), np.full(5, 1 / 16)
    assert training.train(x[:24], y[:24], order[:24], 8, ones[:3] * 0.1, ones[:3], 0, losses[:3]) == 3
    good = params_of(engine).copy()
    again, _ = pair([Linear(4, 8, "relu"), Linear(8, 2)], "float32", input_gradient=False)
    training = again.training(LOSSES["mse"], update_of("adam", again.plan, np.float32))
    assert training.train(x, y, order, 8, ones * 0.1, ones, 0, losses) == 3
    np.testing.assert_array_equal(params_of(again), good)
    assert np.isfinite(params_of(again)).all()


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    """The loss is still finite, its gradient with respect to the weights overflows."""
    engine, _ = pair([Linear(1, 1)], "float32", input_gradient=False)
    params_of(engine)[...] = 0
    training = engine.training(LOSSES["mse"], update_of("sgd", engine.plan, np.float32))
    x, y = np.full((2, 1), 1e30, np.float32), np.full((2, 1), 1e15, np.float32)
    losses = np.zeros(1)
    assert training.train(x, y, np.arange(2), 2, np.ones(1), np.full(1, 0.5), 0, losses) == 0
    assert not params_of(engine).any()


def test_an_engine_may_grow_and_shrink():
    engine, oracle = pair(DEEP, "float64")
    rng = np.random.default_rng(5)
    for rows in (1, 64, 2, 200, 1, 0):
        x = rng.standard_normal((rows, 12))
        close(engine.forward(x), oracle.forward(x), "float64")


def test_a_wrong_sign_in_the_backward_pass_would_be_caught():
    """The tolerance is narrow: one dx with the wrong sign of its residual shows."""
    layers = [Linear(4, 4, "tanh"), Residual(Linear(4, 4, "tanh")), Linear(4, 2)]
    engine, oracle = pair(layers, "float64")
    right = oracle._run

    def wrong(call, **given):
        results = right(call, **given)
        if isinstance(call, LinearDx) and given["add"] is not None:
            given["dx"][...] -= 2 * given["add"]
        return results

    oracle._run = wrong
    x, dy = np.ones((3, 4)), np.ones((3, 2))
    engine.forward(x, train=True)
    oracle.forward(x, train=True)
    engine.backward(dy)
    oracle.backward(dy)
    with pytest.raises(AssertionError):
        close(engine.arena.grads, oracle.grads, "float64")


def test_a_step_heeds_a_new_limit_of_threads():
    """Work for two threads; the limit changes between two steps."""
    plan = lower([Linear(300, 300), Linear(300, 4)], input_gradient=False)
    engine = Engine(plan, *flat(plan, np.float32))
    training = engine.training(LOSSES["labels"], update_of("sgd", plan, np.float32))
    x, y = training_data("labels", 128, 300, 4, "float32")
    before = team.get_threads()
    try:
        for threads in (2, 1):
            team.set_threads(threads)
            assert np.isfinite(training.step(x, y, 1e-3, 1 / 128, 0)[0])
            assert training._single.workers == threads
    finally:
        team.set_threads(before)


def test_batches_of_more_sizes_than_programs_are_kept_are_their_own():
    """By single steps and by many; with a rate of 0 what a batch has for a loss does not depend on what went before."""
    plan = lower([Linear(12, 8, "tanh"), Linear(8, 4)], input_gradient=False)
    params, _ = flat(plan, np.float32)
    x, y = training_data("labels", 2 * PROGRAMS_KEPT, 12, 4, "float32")
    sizes = [*range(2 * PROGRAMS_KEPT, PROGRAMS_KEPT - 3, -1), 7, 2 * PROGRAMS_KEPT]

    def new():
        engine = Engine(plan, params.copy(), np.zeros_like(params), 1)
        return engine.training(LOSSES["labels"], update_of("sgd", plan, np.float32))

    def single(training, rows):
        return training.step(x[:rows], y[:rows], 0.0, 1 / rows, 0)[0]

    def several(training, rows):
        losses, steps = np.empty(2), 2
        order = np.arange(rows)
        done = training.train(x, y, order, rows - 2, np.zeros(steps), np.full(steps, 1 / rows), 0, losses)
        return done, losses.tolist()

    used = new()
    for rows in sizes:
        assert single(used, rows) == single(new(), rows)
    for rows in sizes:
        assert several(used, rows) == several(new(), rows)
    for rows in sizes[-3:]:
        assert single(used, rows) == single(new(), rows)


def fitted(layers, threads, steps=3, batch=24):
    """The parameters after some steps with this many threads."""
    plan = lower(layers, input_gradient=False, seed=3)
    params, grads = flat(plan, np.float32)
    engine = Engine(plan, params, grads, threads)
    training = engine.training(LOSSES["labels"], update_of("adam", plan, np.float32), clip_norm=0.5)
    n_in, n_out = plan.input.columns, plan.output.columns
    x, y = training_data("labels", steps * batch, n_in, n_out, "float32")
    ones = np.ones(steps)
    assert (
        training.train(x, y, np.arange(steps * batch), batch, 1e-2 * ones, ones / batch, 0, np.zeros(steps))
        == steps
    )
    return params


@pytest.mark.parametrize("threads", [2, 3])
def test_products_dealt_out_by_columns_have_the_same_bits(threads, monkeypatch):
    """Forward and back, with an activation, where a narrow rest (1054 = 16 · 64 + 30) belongs to the last worker."""
    layers = [Linear(40, 1100, "gelu"), Linear(1100, 1054, "relu"), Linear(1054, 5)]
    alone = fitted(layers, 1)
    monkeypatch.setattr(binding, "BY_COLUMNS_BYTES", 1)
    assert any(op.apart for op in forward_ops(layers, shared=True))
    np.testing.assert_array_equal(fitted(layers, threads), alone)


def test_products_that_end_in_a_thin_rest_are_not_dealt_out_by_columns(monkeypatch):
    """The last worker might get these columns alone, and would add in the order of thin products."""
    monkeypatch.setattr(binding, "BY_COLUMNS_BYTES", 1)
    layers = [Linear(40, 1026), Linear(1026, 5)]
    assert not any(op.apart for op in forward_ops(layers, shared=True))


def forward_ops(layers, shared):
    """The ops of the forward pass."""
    plan = lower(layers, input_gradient=False)
    engine = Engine(plan, *flat(plan, np.float32), 2)
    engine.reserve(8)
    at = engine.arena.binding(8, shared=shared)
    return [program.bind(call, at) for call in plan.forward]


@pytest.mark.skipif(not machine.IS_X86, reason="only x86 has this mode")
def test_denormal_numbers_count_as_zero_in_training_only():
    plan = lower([Linear(20, 4)], input_gradient=False)
    params, grads = flat(plan, np.float32)
    update = update_of("adam", plan, np.float32)
    engine = Engine(plan, params, grads, 1)
    training = engine.training(LOSSES["labels"], update)
    for state in update.states:
        state[...] = 1e-40
    x, y = training_data("labels", 8, 20, 4, "float32")
    x[:, 0] = 0.0  # the gradient of the first row of w is 0
    assert np.isfinite(training.step(x, y, 1e-3, 1 / 8, 0)[0])
    assert all(not state[:4].any() for state in update.states)
    assert (np.full(4, 1e-40, np.float32) * np.float32(0.5)).all()
