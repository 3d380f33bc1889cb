"""Lowering: every network's forward pass is the reference's, its backward pass the derivative of that."""

import math
import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference as ref
from gdkernels import plan as calls
from gdkernels.nn import plan as plan_module
from gdkernels.nn.layers import Activation, Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from gdkernels.nn.plan import lower
from gdkernels.plan import ALIGNMENT, Buffer, Gradient
from tests.nn.networks import NETWORKS
from tests.nn.plan_interpreter import Interpreter

EPS = float(np.finfo(np.float64).eps)
BATCH = 3


def independent_forward(layers, params, x, train, samples=0, path="", seeds=None):
    """The network again, without a plan: recursion over the layers, straight from the reference."""
    seeds = iter(range(100)) if seeds is None else seeds
    for i, layer in enumerate(layers):
        name = f"{path}{i}"
        match layer:
            case Linear():
                x, _ = ref.linear(x, params[f"{name}.w"], params.get(f"{name}.b"), layer.activation)
            case LayerNorm():
                x, _ = ref.layernorm(x, params[f"{name}.gamma"], params[f"{name}.beta"], layer.eps)
            case RMSNorm():
                x, _ = ref.rmsnorm(x, params[f"{name}.gamma"], layer.eps)
            case Scale():
                x = ref.scale(x, params[f"{name}.gamma"])
            case Activation():
                x = ref.activation(x, layer.kind)
            case Dropout() if layer.p > 0:
                seed = (next(seeds) << 32) + 7
                x = ref.dropout(x, layer.p, seed, samples * x.shape[1]) if train else x
            case Residual():
                x = x + independent_forward(layer.layers, params, x, train, samples, f"{name}.", seeds)
    return x


def bound(layers, input_gradient=True):
    """An interpreter over random parameters, and views of these."""
    plan = lower(layers, input_gradient, seed=7)
    rng = np.random.default_rng(3)
    params, grads = np.zeros(plan.size), np.full(plan.size, np.nan)
    machine = Interpreter(plan, params, grads)
    for p in plan.parameters:
        around = 1.0 if p.name.endswith("gamma") else 0.0
        machine._array(p)[...] = around + 0.7 * rng.standard_normal(p.shape)
    return machine, {p.name: machine._array(p) for p in plan.parameters}, rng


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("train", [False, True])
def test_forward_is_the_reference(name, train):
    machine, params, rng = bound(NETWORKS[name])
    x = rng.standard_normal((BATCH, machine.plan.input.columns))
    y = independent_forward(NETWORKS[name], params, x, train, samples=11)
    # The same operations in the same order, but for x + f(x) = f(x) + x: equal bits.
    np.testing.assert_array_equal(machine.forward(x, train, samples=11), y)


def check_gradients(layers):
    """Every gradient of the plan against central differences of the network without a plan."""
    machine, params, rng = bound(layers)
    x = rng.standard_normal((BATCH, machine.plan.input.columns))
    dy = rng.standard_normal((BATCH, machine.plan.output.columns))
    machine.forward(x, train=True, samples=5)
    dx = machine.backward(dy)
    gradients = {p.name: machine._array(Gradient(p)).copy() for p in machine.plan.parameters}
    for key, array, gradient in [("x", x, dx), *((key, params[key], gradients[key]) for key in params)]:

        def loss(value, array=array):
            kept = array.copy()
            array[...] = value
            y = independent_forward(layers, params, x, True, 5)
            array[...] = kept
            return float((y * dy).sum())

        # Central differences at h = eps^(1/3) have an error of h² f'''/6 + eps S / h, both multiples of
        # eps^(2/3). S, the sum of the terms of the loss, is below 30 here, and f''' (which layers multiply,
        # and which 1/std of a short row makes large) below 6000.
        numerical = ref.numerical_gradient(loss, array.copy())
        size = max(1.0, float(np.abs(numerical).max()))
        np.testing.assert_allclose(
            gradient, numerical, rtol=0, atol=1000 * EPS ** (2 / 3) * size, err_msg=key
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_backward_is_the_derivative_of_forward(name):
    check_gradients(NETWORKS[name])


def sequences(width, depth):
    """Lists of layers that take and give this many columns."""
    single = [
        st.builds(lambda kind, bias: [Linear(width, width, kind, bias)], st.sampled_from(SMOOTH), st.booleans()),
        st.builds(
            lambda inner, kind: [Linear(width, inner, kind), Linear(inner, width)],
            st.integers(1, 4), st.sampled_from(SMOOTH),
        ),
        st.builds(lambda kind: [Activation(kind)], st.sampled_from(SMOOTH)),
        st.builds(lambda p: [Dropout(p)], st.sampled_from([0.0, 0.3])),
        st.sampled_from([[LayerNorm(width)], [RMSNorm(width)], [Scale(width)]]),
    ]  # fmt: skip
    if depth:
        single.append(st.builds(lambda inner: [Residual(*inner)], sequences(width, depth - 1)))
    return st.lists(st.one_of(single), min_size=1, max_size=4).map(lambda parts: [*chain(*parts)])


SMOOTH = ["identity", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "softplus", "mish"]


@settings(max_examples=25, deadline=None)
@given(sequences(3, depth=3), st.booleans())
def test_backward_of_any_nesting_is_the_derivative_of_forward(layers, linear_first):
    """Along one random direction of all parameters and inputs: (L(p + h v) - L(p - h v)) / 2h = Σ v dL/dp."""
    layers = [Linear(3, 3), *layers] if linear_first else [*layers, Linear(3, 3)]
    machine, params, rng = bound(layers)
    x, dy = rng.standard_normal((BATCH, 3)), rng.standard_normal((BATCH, 3))
    y = machine.forward(x, train=True, samples=5)
    np.testing.assert_array_equal(y, independent_forward(layers, params, x, True, 5))
    dx = machine.backward(dy)
    point = [x, *params.values()]
    gradient = [dx, *(machine._array(Gradient(p)) for p in machine.plan.parameters)]
    direction = [rng.standard_normal(array.shape) / np.sqrt(machine.plan.size) for array in point]
    slope = sum(float((g * v).sum()) for g, v in zip(gradient, direction, strict=True))

    def loss(h):
        moved = [array + h * v for array, v in zip(point, direction, strict=True)]
        y = independent_forward(layers, dict(zip(params, moved[1:], strict=True)), moved[0], True, 5)
        return float((y * dy).sum())

    # Two steps h and 2h tell the size of the error of central differences, which grows as h²: (D(2h) - D(h)) / 3 is
    # the error of D(h). Rows of 3 that are nearly constant have a curvature that no fixed bound covers.
    h = EPS ** (1 / 3)
    near, far = ((loss(s) - loss(-s)) / (2 * s) for s in (h, 2 * h))
    rounding = 100 * EPS / h * max(1.0, abs(loss(0.0)), abs(slope))
    assert abs(near - slope) <= 2 * abs(far - near) + rounding


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("plus", lambda self, name, flow, add: flow),
        ("through", lambda self, kind, name, da, saved: da),
    ],
)
def test_a_forgotten_term_of_the_chain_rule_would_be_caught(method, wrong, monkeypatch):
    monkeypatch.setattr(plan_module.Lowering, method, wrong)
    with pytest.raises(AssertionError):
        check_gradients(NETWORKS["pre_norm"])


@pytest.mark.parametrize("name", NETWORKS)
def test_without_input_gradient_the_parameters_gradients_are_the_same(name):
    whole, _, rng = bound(NETWORKS[name])
    short, _, _ = bound(NETWORKS[name], input_gradient=False)
    assert short.plan.input_gradient is None
    assert len(short.plan.backward) < len(whole.plan.backward)
    x = rng.standard_normal((BATCH, whole.plan.input.columns))
    dy = rng.standard_normal((BATCH, whole.plan.output.columns))
    for machine in (whole, short):
        machine.forward(x, train=True)
        machine.backward(dy)
    np.testing.assert_array_equal(short.grads, whole.grads)


@pytest.mark.parametrize("name", NETWORKS)
def test_accumulate_adds_to_the_gradients(name):
    machine, _, rng = bound(NETWORKS[name])
    x = rng.standard_normal((BATCH, machine.plan.input.columns))
    dy = rng.standard_normal((BATCH, machine.plan.output.columns))
    machine.forward(x, train=True)
    machine.backward(dy)
    once = machine.grads.copy()
    machine.backward(dy, accumulate=True)
    np.testing.assert_allclose(machine.grads, 2 * once, rtol=8 * EPS)


@pytest.mark.parametrize("name", NETWORKS)
def test_plan_is_well_formed(name):
    plan = lower(NETWORKS[name], input_gradient=True)
    names = [buffer.name for buffer in plan.buffers]
    assert len(set(names)) == len(names)
    used = {
        operand
        for calls in (plan.evaluation, plan.forward, plan.backward, plan.gradients)
        for call in calls
        for operand in call.operands().values()
        if isinstance(operand, Buffer)
    }
    assert used | {plan.output_gradient} == set(plan.buffers)
    assert not {type(call) for call in plan.evaluation} & {calls.Dropout, calls.ActivationBackward}
    # Parameters: aligned, apart, inside the flat buffer.
    stop = 0
    for parameter in plan.parameters:
        assert parameter.offset % ALIGNMENT == 0
        assert parameter.offset >= stop
        stop = parameter.offset + math.prod(parameter.shape)
    assert stop <= plan.size and plan.size % ALIGNMENT == 0


def test_the_input_and_the_output_gradient_are_never_written():
    for layers in NETWORKS.values():
        machine, _, rng = bound(layers)
        x = rng.standard_normal((BATCH, machine.plan.input.columns))
        dy = rng.standard_normal((BATCH, machine.plan.output.columns))
        machine.forward(x, train=True)
        machine.backward(dy)
        np.testing.assert_array_equal(machine._matrices[machine.plan.input], x)
        np.testing.assert_array_equal(machine._matrices[machine.plan.output_gradient], dy)


def kinds(table):
    return [type(call) for call in table]


def test_a_linear_chain_lowers_to_the_fewest_calls():
    plan = lower([Linear(4, 5, "tanh"), Linear(5, 2)], input_gradient=False)
    assert kinds(plan.evaluation) == [calls.LinearForward, calls.LinearForward]
    assert kinds(plan.backward) == [calls.LinearDx, calls.ActivationBackward]
    assert kinds(plan.gradients) == [calls.LinearDw, calls.BiasGradient] * 2
    assert [buffer.name for buffer in plan.buffers] == ["x", "0.a", "1.a", "dy", "1.dx"]


def test_sums_are_fused_into_products_and_norms():
    skip = lower([Residual(Linear(4, 4, "tanh")), Linear(4, 2)], input_gradient=True)
    assert kinds(skip.backward) == [calls.LinearDx, calls.ActivationBackward, calls.LinearDx]
    post_norm = lower([Residual(Linear(4, 4, "tanh")), LayerNorm(4)], input_gradient=False)
    assert kinds(post_norm.forward) == [calls.LinearForward, calls.LayerNormForward]


def test_every_dropout_has_a_stream_of_its_own():
    def seeds(seed):
        plan = lower(NETWORKS["dropout"], input_gradient=True, seed=seed)
        return [call.seed for call in plan.forward if isinstance(call, calls.Dropout)]

    assert len(set(seeds(0)) | set(seeds(1))) == 6
    backward = lower(NETWORKS["dropout"], input_gradient=True).backward
    assert sorted(call.seed for call in backward if isinstance(call, calls.Dropout)) == seeds(0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Linear(4, 128), Linear(64, 2)], "layer 1 (Linear) expects 64 inputs, layer 0 gives 128"),
        ([Linear(4, 5), Dropout(0.1), LayerNorm(6)], "layer 2 (LayerNorm) expects 6 inputs, layer 0 gives 5"),
        ([LayerNorm(4), Residual(Linear(5, 4))], "layer 1.0 (Linear) expects 5 inputs, layer 0 gives 4"),
        ([Residual(Linear(4, 5))], "layer 0 (Residual) takes 4 inputs, its layers give 5"),
        ([Residual(Linear(4, 4), RMSNorm(3))], "layer 0.1 (RMSNorm) expects 3 inputs, layer 0.0 gives 4"),
        ([Activation("relu"), Dropout(0.5)], "no layer determines the number of inputs"),
    ],
)
def test_widths_that_do_not_agree_are_named(layers, message):
    with pytest.raises(ValueError, match=re.escape(f"Network: {message}")):
        lower(layers, input_gradient=True)
