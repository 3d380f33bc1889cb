"""The optimizers at work: every one equals PyTorch's over several steps; their hyper-parameters are checked."""

import re

import numpy as np
import pytest

from gdkernels.nn.layers import LayerNorm, Linear
from gdkernels.nn.network import Network
from gdkernels.nn.plan import lower
from gdkernels.train.optim import SGD, AdaGrad, Adam, AdamW, AMSGrad, Lion, NAdam, RMSProp
from gdkernels.train.trainer import Trainer
from tests.nn.plan_interpreter import Interpreter

STEPS = 8
LAYERS = [Linear(5, 7, "tanh"), LayerNorm(7), Linear(7, 2)]

# Ours, PyTorch's class and its arguments. Decays and rates are large, so that they show.
PAIRS = {
    "sgd": (SGD(lr=0.1), "SGD", {"lr": 0.1}),
    "sgd_decay": (SGD(lr=0.1, weight_decay=0.3), "SGD", {"lr": 0.1, "weight_decay": 0.3}),
    "momentum": (SGD(lr=0.05, momentum=0.8), "SGD", {"lr": 0.05, "momentum": 0.8}),
    "nesterov": (
        SGD(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "rmsprop": (
        RMSProp(lr=0.01, alpha=0.9, weight_decay=0.1),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.1},
    ),
    "adagrad": (AdaGrad(lr=0.1, weight_decay=0.1), "Adagrad", {"lr": 0.1, "weight_decay": 0.1}),
    "adam": (
        Adam(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1),
        "Adam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamw": (AdamW(lr=0.02, weight_decay=0.5), "AdamW", {"lr": 0.02, "weight_decay": 0.5}),
    "amsgrad": (
        AMSGrad(lr=0.02, beta2=0.5, weight_decay=0.1),
        "Adam",
        {"lr": 0.02, "betas": (0.9, 0.5), "weight_decay": 0.1, "amsgrad": True},
    ),
    "nadam": (
        NAdam(lr=0.02, beta2=0.5, momentum_decay=0.1, weight_decay=0.1),
        "NAdam",
        {"lr": 0.02, "betas": (0.9, 0.5), "momentum_decay": 0.1, "weight_decay": 0.1},
    ),
}


@pytest.fixture
def batches():
    """Inputs and targets of a few steps."""
    rng = np.random.default_rng(21)
    return [(rng.standard_normal((6, 5)), rng.standard_normal((6, 2))) for _ in range(STEPS)]


def assert_equal_training(ours, theirs):
    """Equal parameters after several steps, in float64.

    A gradient sums at most 7 + 6 terms through three layers: some 100 eps off, relative to its size. Dividing by √v
    passes that on relative to the step, wherever the gradient is no smaller than 1e-4 of the largest; the steps
    together move a parameter by less than 1: 1e4 * 100 eps * 8 steps = 2e-9.
    """
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=2e-9, err_msg=name)


def in_pytorch(torch, net):
    """The network again as PyTorch's functions on leaf tensors with the same names."""
    leaves = {name: torch.tensor(values.copy(), requires_grad=True) for name, values in net.params.items()}

    def forward(x):
        a = torch.tanh(x @ leaves["0.w"] + leaves["0.b"])
        a = torch.nn.functional.layer_norm(a, (7,), leaves["1.gamma"], leaves["1.beta"], 1e-5)
        return a @ leaves["2.w"] + leaves["2.b"]

    return leaves, forward


def trained_in_pytorch(torch, net, batches, make, clip_norm=None, schedule=None):
    """The parameters after PyTorch's optimizer has seen the batches."""
    leaves, forward = in_pytorch(torch, net)
    optimizer = make(leaves)
    for step, (x, y) in enumerate(batches):
        for group in optimizer.param_groups:
            if schedule is not None:
                group["lr"] = schedule(step)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(forward(torch.tensor(x)), torch.tensor(y)).backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(leaves.values(), clip_norm)
        optimizer.step()
    return {name: leaf.detach().numpy() for name, leaf in leaves.items()}


def trained(net, batches, optimizer, **options):
    trainer = Trainer(net, "mse", optimizer, **options)
    for x, y in batches:
        trainer.step(x, y)
    assert trainer.steps == len(batches)
    return net.params


@pytest.mark.parametrize("name", PAIRS)
def test_training_equals_pytorch(name, batches):
    torch = pytest.importorskip("torch")
    optimizer, kind, options = PAIRS[name]
    net = Network(LAYERS, seed=1, dtype="float64")
    theirs = trained_in_pytorch(
        torch, net, batches, lambda leaves: getattr(torch.optim, kind)(leaves.values(), **options)
    )
    assert_equal_training(trained(net, batches, optimizer), theirs)


def test_clipping_and_schedule_equal_pytorch(batches):
    torch = pytest.importorskip("torch")

    def schedule(step):
        return 0.1 / (1 + step)

    def make(leaves):
        return torch.optim.SGD(leaves.values(), lr=1.0, momentum=0.9)

    net = Network(LAYERS, seed=1, dtype="float64")
    theirs = trained_in_pytorch(torch, net, batches, make, clip_norm=0.2, schedule=schedule)
    ours = trained(net, batches, SGD(lr=1.0, momentum=0.9), schedule=schedule, clip_norm=0.2)
    assert_equal_training(ours, theirs)


def test_decay_of_weights_alone_equals_two_groups_in_pytorch(batches):
    torch = pytest.importorskip("torch")

    def make(leaves):
        weights = [leaf for name, leaf in leaves.items() if name.endswith(".w")]
        others = [leaf for name, leaf in leaves.items() if not name.endswith(".w")]
        groups = [{"params": weights, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.02)

    net = Network(LAYERS, seed=1, dtype="float64")
    theirs = trained_in_pytorch(torch, net, batches, make)
    ours = trained(net, batches, AdamW(lr=0.02, weight_decay=0.5), decay="weights")
    assert_equal_training(ours, theirs)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_lion_equals_the_interpreter(decay, batches, monkeypatch):
    optimizer = Lion(lr=0.01, beta1=0.7, beta2=0.8, weight_decay=0.5)
    ours = trained(Network(LAYERS, seed=1, dtype="float64"), batches, optimizer, decay=decay, clip_norm=0.5)
    monkeypatch.setattr(
        Network,
        "new_engine",
        lambda net, plan, _: Interpreter(plan, net._flat_params, net._flat_grads),
    )
    theirs = trained(Network(LAYERS, seed=1, dtype="float64"), batches, optimizer, decay=decay, clip_norm=0.5)
    # A sign turns only where its argument is within a rounding error of 0, which no element here is.
    assert_equal_training(ours, theirs)


# ---------------------------------------------------------------------------------------------- at work


@pytest.mark.parametrize(("decay", "count"), [("all", 1), ("weights", 4)])
def test_decay_segments_cover_the_flat_buffer(decay, count):
    plan = lower(LAYERS, input_gradient=False)
    update = AdamW(weight_decay=0.1).update(plan, np.dtype(np.float32), decay)
    assert len(update.decay) == count
    assert update.decay[0][0] == 0 and update.decay[-1][1] == plan.size
    for (_, stop, left), (start, _, right) in zip(update.decay, update.decay[1:], strict=False):
        assert stop == start and left != right
    of = {
        p.name: next(d for start, stop, d in update.decay if start <= p.offset < stop)
        for p in plan.parameters
    }
    assert {name for name, d in of.items() if d == 0.1} == set(of if decay == "all" else ("0.w", "2.w"))


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        (SGD(), 0), (SGD(momentum=0.9), 1), (RMSProp(), 1), (AdaGrad(), 1), (Adam(), 2), (AdamW(), 2), (AMSGrad(), 3),
        (NAdam(), 2), (Lion(), 1),
    ],
)  # fmt: skip
def test_states_are_aligned_zeros_of_the_network_dtype(optimizer, count):
    plan = lower(LAYERS, input_gradient=False)
    update = optimizer.update(plan, np.dtype(np.float64), "all")
    assert len(update.states) == count and update.step == 0
    for state in update.states:
        assert state.shape == (plan.size,) and state.dtype == np.float64 and not state.any()
        assert state.ctypes.data % 64 == 0


def test_one_optimizer_serves_two_trainers_without_shared_memory(batches):
    optimizer = Adam(lr=0.01)
    nets = [Network(LAYERS, seed=1, dtype="float64") for _ in range(2)]
    trainers = [Trainer(net, "mse", optimizer) for net in nets]
    for x, y in batches:
        for trainer in trainers:
            trainer.step(x, y)
    np.testing.assert_array_equal(nets[0]._flat_params, nets[1]._flat_params)


def test_a_rate_of_zero_changes_nothing(batches):
    net = Network(LAYERS, dtype="float64")
    before = net._flat_params.copy()
    trained(net, batches, AdamW(lr=0.0, weight_decay=0.5))
    np.testing.assert_array_equal(net._flat_params, before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(lr=-0.1), ValueError, "SGD: lr is -0.1, expected a finite number ≥ 0"),
        (lambda: Adam(lr=float("nan")), ValueError, "Adam: lr is nan, expected a finite number ≥ 0"),
        (lambda: Adam(lr="1e-3"), TypeError, "Adam: lr is '1e-3', expected a finite number ≥ 0"),
        (lambda: AdamW(beta1=1.0), ValueError, "AdamW: beta1 is 1.0, expected a number in [0, 1)"),
        (lambda: AMSGrad(beta2=-0.5), ValueError, "AMSGrad: beta2 is -0.5, expected a number in [0, 1)"),
        (lambda: RMSProp(alpha=2), ValueError, "RMSProp: alpha is 2, expected a number in [0, 1)"),
        (
            lambda: AdaGrad(eps=-1e-8),
            ValueError,
            "AdaGrad: eps is -1e-08, expected a finite number ≥ 0",
        ),
        (lambda: Lion(weight_decay=-1), ValueError, "Lion: weight_decay is -1, expected a finite number"),
        (lambda: SGD(momentum=1.0), ValueError, "SGD: momentum is 1.0, expected a number in [0, 1)"),
        (
            lambda: SGD(nesterov=True),
            ValueError,
            "SGD: nesterov is True, expected False because momentum is 0",
        ),
        (lambda: SGD(momentum=0.9, nesterov=1), TypeError, "SGD: nesterov is 1, expected True or False"),
    ],
)
def test_wrong_hyper_parameters_are_named(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
