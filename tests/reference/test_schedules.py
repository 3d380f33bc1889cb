"""The schedules: at their edges, and against PyTorch's where it has the same."""

import math

import pytest

from reference import schedules


def test_constant_is_constant():
    assert {schedules.constant(step, 0.3) for step in (0, 1, 10**9)} == {0.3}


def test_warmup_starts_above_zero_and_arrives_at_step_warmup_minus_1():
    rates = [schedules.linear_warmup(step, 2.0, 4) for step in range(7)]
    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_warmup_of_at_most_one_step_is_none(warmup):
    assert schedules.linear_warmup(0, 2.0, warmup) == 2.0
    assert schedules.warmup_cosine(warmup, 2.0, warmup, 10) == 2.0
    assert schedules.warmup_linear(warmup, 2.0, warmup, 10) == 2.0


def test_cosine_goes_from_peak_over_the_middle_to_the_floor_and_stays():
    assert schedules.cosine(0, 1.0, 100, 0.2) == 1.0
    assert schedules.cosine(50, 1.0, 100, 0.2) == pytest.approx(0.6)
    assert schedules.cosine(25, 1.0, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert 0.2 < schedules.cosine(99, 1.0, 100, 0.2) < 0.201
    assert [schedules.cosine(step, 1.0, 100, 0.2) for step in (100, 101, 10**9)] == [0.2] * 3


def pytorch_rates(name, steps, lr, **options):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    for _ in range(steps):
        yield schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()


def test_cosine_is_pytorchs():
    # PyTorch goes from step to step by a recursion: some roundings each
    for step, theirs in enumerate(pytorch_rates("CosineAnnealingLR", 30, 0.5, T_max=30, eta_min=0.1)):
        assert schedules.cosine(step, 0.5, 30, 0.1) == pytest.approx(theirs, rel=1e-13)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cosine_restarts_are_pytorchs(factor):
    theirs = pytorch_rates("CosineAnnealingWarmRestarts", 60, 0.5, T_0=7, T_mult=factor, eta_min=0.1)
    for step, rate in enumerate(theirs):
        assert schedules.cosine_restarts(step, 0.5, 7, factor, 0.1) == pytest.approx(rate, rel=1e-13)


def test_restarts_begin_at_the_peak():
    assert [s for s in range(80) if schedules.cosine_restarts(s, 1.0, 10) == 1.0] == list(range(0, 80, 10))
    assert [s for s in range(80) if schedules.cosine_restarts(s, 1.0, 10, factor=2) == 1.0] == [0, 10, 30, 70]
    assert schedules.cosine_restarts(10**15, 1.0, 10) == 1.0  # without counting the restarts


@pytest.mark.parametrize("period, factor", [(0, 1), (5, 0)])
def test_restarts_that_would_never_end_are_refused(period, factor):
    with pytest.raises(ValueError, match=r"cosine_restarts: period is .* expected both >= 1"):
        schedules.cosine_restarts(7, 1.0, period, factor)


def test_step_decay_is_pytorchs():
    for step, theirs in enumerate(pytorch_rates("StepLR", 25, 0.5, step_size=10, gamma=0.3)):
        assert schedules.step_decay(step, 0.5, 10, 0.3) == pytest.approx(theirs, rel=1e-14)


def test_step_decay_falls_after_every_full_period():
    rates = [schedules.step_decay(step, 8.0, 3, 0.5) for step in range(10)]
    assert rates == [8, 8, 8, 4, 4, 4, 2, 2, 2, 1]


def test_warmup_cosine_rises_then_follows_cosine():
    rates = [schedules.warmup_cosine(step, 2.0, 4, 24, 0.5) for step in range(30)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[4:24] == [schedules.cosine(step, 2.0, 20, 0.5) for step in range(20)]
    assert rates[24:] == [0.5] * 6


def test_warmup_linear_rises_then_falls_on_a_line():
    rates = [schedules.warmup_linear(step, 2.0, 2, 6, 1.0) for step in range(8)]
    assert rates == [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 1.0]


@pytest.mark.parametrize("schedule", [schedules.warmup_cosine, schedules.warmup_linear])
@pytest.mark.parametrize("warmup, total", [(5, 5), (8, 5), (0, 0)])
def test_past_the_total_the_floor_holds_even_within_the_warmup(schedule, warmup, total):
    assert [schedule(step, 1.0, warmup, total, 0.25) for step in range(total, 10)] == [0.25] * (10 - total)
    assert [schedule(step, 1.0, warmup, total, 0.25) for step in range(total)] == [
        (step + 1) / warmup for step in range(total)
    ]
