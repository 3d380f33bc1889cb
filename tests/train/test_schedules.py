"""The schedules against the reference and PyTorch, compiled by Numba, and as objects with checked parameters."""

import dataclasses
import pickle
import warnings

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdkernels as gd
import reference
from gdkernels.train import schedules
from gdkernels.train.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    LinearWarmup,
    StepDecay,
    WarmupCosine,
    WarmupLinear,
)

# function name: (class, parameter sets)
SCHEDULES = {
    "constant": (Constant, [(0.1,)]),
    "linear_warmup": (LinearWarmup, [(0.1, 10), (0.1, 1), (0.1, 0)]),
    "cosine": (Cosine, [(0.1, 30), (0.1, 30, 0.02), (0.1, 1)]),
    "warmup_cosine": (WarmupCosine, [(0.1, 7, 30), (0.1, 7, 30, 0.02), (0.1, 0, 30), (0.1, 30, 30)]),
    "warmup_linear": (WarmupLinear, [(0.1, 7, 30), (0.1, 7, 30, 0.02), (0.1, 0, 30), (0.1, 30, 30)]),
    "step_decay": (StepDecay, [(0.1, 10), (0.1, 7, 0.5), (0.1, 1, 1.0)]),
    "cosine_restarts": (CosineRestarts, [(0.1, 10), (0.1, 6, 2), (0.1, 6, 3, 0.02), (0.1, 1)]),
}
CASES = [(name, parameters) for name, (_, sets) in SCHEDULES.items() for parameters in sets]
STEPS = range(100)

# A rate is at most peak; cos, its argument π step / total and the four other operations round it by a few eps of that.
BOUND = 8 * float(np.finfo(float).eps) * 0.1


@pytest.mark.parametrize("name, parameters", CASES)
def test_schedule_matches_the_reference(name, parameters):
    found = [getattr(schedules, name)(step, *parameters) for step in STEPS]
    expected = [getattr(reference.schedules, name)(step, *parameters) for step in STEPS]
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


@given(
    step=st.integers(0, 10**7),
    peak=st.floats(1e-6, 0.1),
    warmup=st.integers(0, 1000),
    rest=st.integers(1, 10**6),
    share=st.floats(0.0, 1.0),
)
def test_warmup_schedules_match_the_reference_anywhere(step, peak, warmup, rest, share):
    for name in ("warmup_cosine", "warmup_linear"):
        parameters = (step, peak, warmup, warmup + rest, share * peak)
        found, expected = (
            getattr(schedules, name)(*parameters),
            getattr(reference.schedules, name)(*parameters),
        )
        assert abs(found - expected) <= BOUND
        assert 0.0 <= found <= peak * (1 + 1e-15)


@pytest.mark.parametrize("name, parameters", CASES)
def test_schedule_compiles_and_agrees(name, parameters):
    compiled = numba.njit(getattr(schedules, name))
    found = [compiled(step, *parameters) for step in STEPS]
    expected = [getattr(schedules, name)(step, *parameters) for step in STEPS]
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize("name, parameters", CASES)
def test_object_gives_the_rates_of_the_function(name, parameters):
    schedule = SCHEDULES[name][0](*parameters)
    expected = [getattr(schedules, name)(step, *parameters) for step in STEPS]
    assert [schedule(step) for step in STEPS] == expected
    rates = schedule.rates(0, len(STEPS))
    assert rates.dtype == np.float64
    np.testing.assert_array_equal(rates, expected)
    np.testing.assert_array_equal(schedule.rates(40, 7), expected[40:47])
    assert schedule.rates(5, 0).shape == (0,)


def by_pytorch(make):
    """The rates that a scheduler of PyTorch sets, step by step, for a learning rate of 0.1."""
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    for _ in range(30):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CosineAnnealingWarmRestarts itself uses what it deprecates
            scheduler.step()


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Cosine(0.1, 30, 0.02), lambda lr, optimizer: lr.CosineAnnealingLR(optimizer, 30, eta_min=0.02)),
        (StepDecay(0.1, 7, 0.5), lambda lr, optimizer: lr.StepLR(optimizer, 7, 0.5)),
        (LinearWarmup(0.1, 8), lambda lr, optimizer: lr.LinearLR(optimizer, 1 / 8, total_iters=7)),
        (
            CosineRestarts(0.1, 4, 2, 0.01),
            lambda lr, optimizer: lr.CosineAnnealingWarmRestarts(optimizer, 4, 2, eta_min=0.01),
        ),
    ],
    ids=["Cosine", "StepDecay", "LinearWarmup", "CosineRestarts"],
)
def test_schedule_matches_pytorch(schedule, make):
    expected = list(by_pytorch(make))
    # PyTorch multiplies each rate into the next, which adds up the roundings of 30 steps.
    np.testing.assert_allclose(schedule.rates(0, 30), expected, rtol=0, atol=30 * BOUND)


def test_a_warmup_meets_its_peak_and_the_end_its_floor():
    for schedule in (WarmupCosine(0.3, 10, 50, 0.01), WarmupLinear(0.3, 10, 50, 0.01)):
        assert schedule(0) == 0.03
        assert schedule(9) == schedule(10) == 0.3
        assert schedule(50) == schedule(10**9) == 0.01


def test_a_restart_goes_back_to_the_peak():
    schedule = CosineRestarts(0.5, period=3, factor=2)
    assert [step for step in range(50) if schedule(step) == 0.5] == [0, 3, 9, 21, 45]


def test_objects_are_frozen_compare_by_value_and_pickle():
    schedule = WarmupCosine(1, np.int64(5), 10)
    assert schedule == WarmupCosine(1.0, 5, 10) != WarmupCosine(1.0, 5, 11)
    assert type(schedule.peak) is float
    assert type(schedule.warmup) is int
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.peak = 2.0


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Constant(-1.0), ValueError, "Constant: lr is -1.0, expected a finite number ≥ 0"),
        (lambda: Constant(float("nan")), ValueError, "Constant: lr is nan, expected a finite number"),
        (lambda: Cosine("0.1", 10), TypeError, "Cosine: peak is '0.1', expected a finite number"),
        (lambda: Cosine(0.1, 0), ValueError, "Cosine: total is 0, expected a positive integer"),
        (lambda: Cosine(0.1, 10.0), TypeError, "Cosine: total is 10.0, expected a positive integer"),
        (lambda: Cosine(0.1, 10, 0.2), ValueError, r"Cosine: floor is 0.2, expected a number in \[0, 0.1\] because peak"),
        (lambda: LinearWarmup(0.1, -1), ValueError, "LinearWarmup: warmup is -1, expected an integer ≥ 0"),
        (lambda: WarmupCosine(0.1, 11, 10), ValueError, "warmup is 11, expected at most 10 because total is 10"),
        (lambda: WarmupLinear(0.1, 5, 10, -0.1), ValueError, "WarmupLinear: floor is -0.1"),
        (lambda: StepDecay(0.1, 0), ValueError, "StepDecay: every is 0, expected a positive integer"),
        (lambda: StepDecay(0.1, 5, 1.5), ValueError, r"StepDecay: factor is 1.5, expected a number in \[0, 1\]"),
        (lambda: CosineRestarts(0.1, 0), ValueError, "CosineRestarts: period is 0"),
        (lambda: CosineRestarts(0.1, 5, 1.5), TypeError, "CosineRestarts: factor is 1.5, expected a positive integer"),
        (lambda: schedules.cosine_restarts(7, 0.1, 5, 0), ValueError, "cosine_restarts: period and factor must be"),
        (lambda: Constant(0.1).rates(-1, 5), ValueError, "rates: first_step is -1, expected an integer ≥ 0"),
        (lambda: Constant(0.1).rates(0, 2.5), TypeError, "rates: count is 2.5, expected an integer ≥ 0"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_package_offers_them_as_gd_schedules():
    assert gd.schedules is schedules
    assert {*SCHEDULES, "Schedule", *(made.__name__ for made, _ in SCHEDULES.values())} == set(
        schedules.__all__
    )


def test_a_schedule_one_step_late_would_be_caught():
    """The bound sees it even where 10,000 steps make the curve flat."""
    found = [schedules.warmup_cosine(step + 1, 0.1, 7, 10_000) for step in STEPS]
    expected = [reference.schedules.warmup_cosine(step, 0.1, 7, 10_000) for step in STEPS]
    wrong = np.abs(np.subtract(found, expected)) > BOUND
    assert np.flatnonzero(~wrong).tolist() == [6]  # the peak, which lasts two steps
