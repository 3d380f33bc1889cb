"""The choice of the number of workers, with made-up times of a step."""

import pytest

from gdkernels.cpu.engine.pace import FIRST_REVIEW, LAST_REVIEW, MOST_STEPS, Pace

ONE, TWO = 20e-6, 15e-6


def go(pace, seconds, steps, epoch=500):
    """Take this many steps in epochs of `epoch`; `seconds` gives the time of a step by the number of workers.

    The workers of every step, and the time that they took.
    """
    chosen, spent = [], 0.0
    while len(chosen) < steps:
        left = epoch - len(chosen) % epoch
        workers, count = pace.next(left)
        assert 1 <= count <= left
        pace.note(count, count * seconds[workers])
        chosen += [workers] * count
        spent += count * seconds[workers]
    return chosen, spent


@pytest.mark.parametrize("several", [2, 7])
def test_the_faster_number_wins(several):
    for seconds, best in (({1: ONE, several: TWO}, several), ({1: TWO, several: ONE}, 1)):
        chosen, _ = go(Pace(several, ONE), seconds, 20_000)
        assert pace_share(chosen, best) > 0.95


def pace_share(chosen, workers):
    return chosen.count(workers) / len(chosen)


def test_both_numbers_are_tried_before_one_is_kept():
    chosen, _ = go(Pace(2, ONE), {1: ONE, 2: TWO}, 200)
    assert {1, 2} <= set(chosen[: 4 * MOST_STEPS])


def test_it_goes_over_at_once_when_its_number_becomes_slow():
    """A foreign process sits down on the second core: steps of two workers take two hundred times as long."""
    pace = Pace(2, ONE)
    go(pace, {1: ONE, 2: TWO}, 20_000)
    assert pace.workers == 2
    chosen, spent = go(pace, {1: ONE, 2: 3e-3}, 20_000)
    assert pace.workers == 1
    assert pace_share(chosen, 1) > 0.9
    # One stretch of an epoch is lost before it is noticed, and the trials after that.
    assert spent < 500 * 3e-3 + 20_000 * ONE + 10 * 3e-3


def test_it_comes_back_when_the_other_number_is_faster_again():
    pace = Pace(2, ONE)
    go(pace, {1: ONE, 2: 3e-3}, 20_000)
    assert pace.workers == 1
    steps = int(4 * LAST_REVIEW / ONE)
    chosen, _ = go(pace, {1: ONE, 2: TWO}, steps)
    assert pace.workers == 2
    assert chosen[-1000:].count(2) > 900


def test_a_number_that_loses_is_tried_less_and_less_often():
    seconds = {1: ONE, 2: 3e-3}
    pace = Pace(2, ONE)
    go(pace, seconds, int(FIRST_REVIEW / ONE))
    chosen, _ = go(pace, seconds, int(10 * LAST_REVIEW / ONE))
    half = len(chosen) // 2
    assert 0 < chosen[half:].count(2) < chosen[:half].count(2)
    assert chosen[half:].count(2) <= 5 + 1  # a single step each time: it is hopeless


def test_a_number_that_is_hopeless_from_the_beginning_gets_one_step():
    chosen, _ = go(Pace(2, ONE), {1: ONE, 2: 3e-3}, 1000)
    assert chosen.count(2) == 1


def test_long_steps_have_short_trials():
    pace = Pace(2, 10e-3)
    assert pace.next(1000) == (1, 1)
