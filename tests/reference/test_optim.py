"""Each optimizer over ten steps against PyTorch; Lion, which PyTorch lacks, against its paper."""

import math

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)
STEPS = 10


def zeros():
    return np.zeros((3, 4))


# name: (reference step, number of state arrays, whether it takes `step`, PyTorch class, its fixed options)
OPTIMIZERS = {
    "rmsprop": (ref.rmsprop_step, 1, False, "RMSprop", {}),
    "adagrad": (ref.adagrad_step, 1, False, "Adagrad", {}),
    "adam": (ref.adam_step, 2, True, "Adam", {}),
    "adamw": (ref.adamw_step, 2, True, "AdamW", {}),
    "amsgrad": (ref.amsgrad_step, 3, True, "Adam", {"amsgrad": True}),
    "nadam": (ref.nadam_step, 2, True, "NAdam", {}),
}
OPTIONS = {
    "rmsprop": [{}, {"alpha": 0.9, "eps": 1e-3}],
    "adagrad": [{}, {"eps": 1e-3}],
    "adam": [{}, {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}],
    "adamw": [{}, {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}],
    "amsgrad": [{}, {"beta1": 0.8, "beta2": 0.5, "eps": 1e-3}],
    "nadam": [{}, {"beta1": 0.8, "beta2": 0.5, "eps": 1e-3, "momentum_decay": 0.3}],
}
CASES = [
    pytest.param(name, options | decay, id="-".join([name, *options, *decay]))
    for name in OPTIMIZERS
    for options in OPTIONS[name]
    for decay in ({}, {"weight_decay": 0.1})
]


def gradients(rng):
    """Of falling size, so that the maximum of amsgrad matters."""
    return [rng.standard_normal((3, 4)) / (1 + i) for i in range(STEPS)]


def run_pytorch(torch, optimizer_class, p, gradients, **options):
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    parameter = torch.nn.Parameter(torch.tensor(p))
    optimizer = getattr(torch.optim, optimizer_class)([parameter], **options)
    for g in gradients:
        parameter.grad = torch.tensor(g)
        optimizer.step()
        yield parameter.detach().numpy().copy()


# Per step: about 10 roundings of numbers of the size of p (< 4) and of the update (rmsprop's first is
# lr / √(1 - alpha) = 10 lr = 1), in either of the two calculations, added up over the steps.
BOUND = 2 * 10 * STEPS * 4 * EPS


@pytest.mark.parametrize("name, options", CASES)
def test_step_matches_pytorch(name, options, rng, torch64):
    step_function, states, counts, torch_class, fixed = OPTIMIZERS[name]
    p, gs = rng.standard_normal((3, 4)), gradients(rng)
    expected = run_pytorch(torch64, torch_class, p, gs, lr=0.1, **options, **fixed)
    state = [zeros()] * states
    for step, (g, theirs) in enumerate(zip(gs, expected, strict=True), start=1):
        p, *state = step_function(p, g, *state, *([step] if counts else []), 0.1, **options)
        np.testing.assert_allclose(p, theirs, rtol=0, atol=BOUND)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_matches_pytorch(momentum, nesterov, weight_decay, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    p, gs = rng.standard_normal((3, 4)), gradients(rng)
    velocity = zeros() if momentum else None
    for g, theirs in zip(gs, run_pytorch(torch, "SGD", p, gs, lr=0.1, **options), strict=True):
        p, velocity = ref.sgd_step(p, g, velocity, 0.1, **options)
        np.testing.assert_allclose(p, theirs, rtol=0, atol=BOUND)
    assert (velocity is None) == (momentum == 0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.8)])
def test_lion_is_algorithm_2_of_its_paper(betas, weight_decay, rng):
    """arXiv 2302.06675: c_t = β1 m + (1 - β1) g; θ -= η (sign(c_t) + λ θ); m = β2 m + (1 - β2) g."""
    p, gs = rng.standard_normal((3, 4)), gradients(rng)
    m, eta = zeros(), 0.1
    theta, memory = p.ravel().tolist(), [0.0] * 12
    for g in gs:
        for i, g_i in enumerate(g.ravel().tolist()):
            c = betas[0] * memory[i] + (1 - betas[0]) * g_i
            theta[i] -= eta * ((c > 0) - (c < 0) + weight_decay * theta[i])
            memory[i] = betas[1] * memory[i] + (1 - betas[1]) * g_i
        p, m = ref.lion_step(p, g, m, eta, *betas, weight_decay)
        np.testing.assert_allclose(p.ravel(), theta, rtol=0, atol=BOUND)
        np.testing.assert_allclose(m.ravel(), memory, rtol=0, atol=BOUND)


def test_lion_stands_still_without_gradient_and_memory():
    p, m = ref.lion_step([1.0, 1.0, 1.0], [0.0, 5.0, -1e-300], zeros()[0, :3], 0.25)
    np.testing.assert_array_equal(p, [1.0, 0.75, 1.25])
    assert m[0] == 0.0


@pytest.mark.parametrize("step_function", [ref.adam_step, ref.adamw_step])
def test_the_first_step_of_adam_has_length_lr_whatever_the_gradient(step_function):
    g = np.array([1e-3, -1.0, 1e4])
    p, _, _ = step_function(np.zeros(3), g, np.zeros(3), np.zeros(3), 1, 0.1, weight_decay=0.0)
    # m̂ = g, v̂ = g²; eps = 1e-8 shortens the step of g = 1e-3 by 1e-5
    np.testing.assert_allclose(p, -0.1 * np.sign(g), rtol=1.1e-5)


def test_decoupled_decay_is_the_same_share_for_all_and_l2_is_not():
    p, g, zero = np.ones(2), np.array([1e-6, 1e3]), np.zeros(2)
    decoupled = ref.adamw_step(p, g, zero, zero, 1, 0.1, weight_decay=0.1)[0]
    without = ref.adamw_step(p, g, zero, zero, 1, 0.1, weight_decay=0.0)[0]
    np.testing.assert_allclose(without - decoupled, 0.01, rtol=100 * EPS)
    l2 = ref.adam_step(p, g, zero, zero, 1, 0.1, weight_decay=0.1)[0]
    assert abs(without - l2)[0] > 1e-4 > abs(without - l2)[1]


def test_momentum_grows_to_g_over_1_minus_momentum():
    p, velocity = np.zeros(1), np.zeros(1)
    for _ in range(400):
        p, velocity = ref.sgd_step(p, np.ones(1), velocity, 0.1, momentum=0.9)
    assert velocity[0] == pytest.approx(10 * (1 - 0.9**400), rel=100 * EPS)


def test_amsgrad_never_forgets_a_large_gradient():
    state = [np.zeros(1)] * 3
    for step, g in enumerate([100.0] + [1.0] * 200, start=1):
        p, *state = ref.amsgrad_step(np.zeros(1), [g], *state, step, 0.1, beta2=0.5)
    assert state[2][0] == 0.5 * 100.0**2
    assert state[1][0] == pytest.approx(1.0)
    assert abs(p[0]) == pytest.approx(0.1 / math.sqrt(5000), rel=1e-6)


def test_sgd_with_momentum_wants_a_velocity():
    with pytest.raises(
        ValueError, match=r"sgd_step: velocity is None, expected an array because momentum is 0.9"
    ):
        ref.sgd_step([1.0], [1.0], None, 0.1, momentum=0.9)


@pytest.mark.parametrize("g", [np.nan, np.inf, 1e200])
def test_gradients_beyond_all_bounds_make_no_noise_and_do_not_spread(g):
    """1e200 squared overflows: v is inf, the step 0. inf / inf is NaN."""
    p = np.ones(2)
    g, zero = np.array([g, 0.0]), np.zeros(2)
    stepped = {
        "sgd": ref.sgd_step(p, g, zero, 0.1, 0.9),
        "rmsprop": ref.rmsprop_step(p, g, zero, 0.1),
        "adagrad": ref.adagrad_step(p, g, zero, 0.1),
        "adam": ref.adam_step(p, g, zero, zero, 1, 0.1),
        "adamw": ref.adamw_step(p, g, zero, zero, 1, 0.1, weight_decay=0.0),
        "amsgrad": ref.amsgrad_step(p, g, zero, zero, zero, 1, 0.1),
        "nadam": ref.nadam_step(p, g, zero, zero, 1, 0.1),
        "lion": ref.lion_step(p, g, zero, 0.1),
    }
    for name, (new, *_) in stepped.items():
        assert new[1] == 1.0, name
        if np.isnan(g[0]):
            assert np.isnan(new[0]), name


def test_no_parameters_is_no_work():
    nothing = np.zeros((0, 3))
    for array in ref.amsgrad_step(nothing, nothing, nothing, nothing, nothing, 1, 0.1):
        assert array.shape == (0, 3)
