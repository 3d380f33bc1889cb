"""Lowering: every network's forward pass is the reference's, its backward pass the derivative of that."""

import math
import re

import numpy as np
import pytest

import reference as ref
from gdkernels.nn.layers import Activation, Dropout, LayerNorm, Linear, Residual, RMSNorm
from gdkernels.nn.plan import ALIGNMENT, Buffer, lower
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


@pytest.mark.parametrize("name", NETWORKS)
def test_backward_is_the_derivative_of_forward(name):
    machine, params, rng = bound(NETWORKS[name])
    x = rng.standard_normal((BATCH, machine.plan.input.columns))
    dy = rng.standard_normal((BATCH, machine.plan.output.columns))

    def loss(_):
        return float((independent_forward(NETWORKS[name], params, x, True, 5) * dy).sum())

    machine.forward(x, train=True, samples=5)
    dx = machine.backward(dy)
    gradients = {
        p.name: machine.grads[p.offset : p.offset + math.prod(p.shape)].reshape(p.shape).copy()
        for p in machine.plan.parameters
    }
    gradients["x"] = dx
    for key, array in {**params, "x": x}.items():

        def shifted(value, array=array):
            kept = array.copy()
            array[...] = value
            result = loss(value)
            array[...] = kept
            return result

        # Central differences at h = eps^(1/3) have an error of h² f'''/6 + eps S / h, both multiples of
        # eps^(2/3). S, the sum of the terms of the loss, is below 30 here, and f''' (which layers multiply,
        # and which 1/std of a short row makes large) below 6000.
        numerical = ref.numerical_gradient(shifted, array.copy())
        size = max(1.0, float(np.abs(numerical).max()))
        np.testing.assert_allclose(
            gradients[key], numerical, rtol=0, atol=1000 * EPS ** (2 / 3) * size, err_msg=f"{name}: {key}"
        )


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
        for operand in call.operands
        if isinstance(operand, Buffer)
    }
    assert used | {plan.output_gradient} == set(plan.buffers)
    assert not {call.kernel for call in plan.evaluation} & {"dropout", "activation_backward"}
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


def test_a_linear_chain_lowers_to_the_fewest_calls():
    plan = lower([Linear(4, 5, "tanh"), Linear(5, 2)], input_gradient=False)
    assert [call.kernel for call in plan.evaluation] == ["linear", "linear"]
    assert [call.kernel for call in plan.backward] == ["linear_dx", "activation_backward"]
    assert sorted(call.kernel for call in plan.gradients) == ["bias_gradient"] * 2 + ["linear_dw"] * 2
    assert [buffer.name for buffer in plan.buffers] == ["x", "0.a", "1.a", "dy", "1.dx"]


def test_sums_are_fused_into_products_and_norms():
    skip = lower([Residual(Linear(4, 4, "tanh")), Linear(4, 2)], input_gradient=True)
    assert [call.kernel for call in skip.backward] == ["linear_dx", "activation_backward", "linear_dx"]
    post_norm = lower([Residual(Linear(4, 4, "tanh")), LayerNorm(4)], input_gradient=False)
    assert [call.kernel for call in post_norm.forward] == ["linear", "layernorm"]


def test_every_dropout_has_a_stream_of_its_own():
    def seeds(seed):
        plan = lower(NETWORKS["dropout"], input_gradient=True, seed=seed)
        return [call.operands[4] for call in plan.forward if call.kernel == "dropout"]

    assert len(set(seeds(0)) | set(seeds(1))) == 6
    backward = lower(NETWORKS["dropout"], input_gradient=True).backward
    assert sorted(call.operands[4] for call in backward if call.kernel == "dropout") == seeds(0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Linear(4, 128), Linear(64, 2)], "layer 1 (Linear) expects 64 inputs, layer 0 gives 128"),
        ([Linear(4, 5), Dropout(0.1), LayerNorm(6)], "layer 2 (LayerNorm) expects 6 inputs, layer 0 gives 5"),
        ([LayerNorm(4), Residual(Linear(5, 4))], "layer 1.0 (Linear) expects 5 inputs, layer 0 gives 4"),
        ([Residual(Linear(4, 5))], "layer 0 (Residual) takes 4 inputs, its layers give 5"),
        ([Residual(Linear(4, 4), RMSNorm(3))], "layer 0.1 (RMSNorm) expects 3 inputs, layer 0.0 gives 4"),
        ([Activation("relu"), Dropout(0.5)], "no layer tells the number of inputs"),
    ],
)
def test_widths_that_do_not_agree_are_named(layers, message):
    with pytest.raises(ValueError, match=re.escape(f"Network: {message}")):
        lower(layers, input_gradient=True)
