"""The choice of how steps are taken, with made-up times of a step."""

import pytest

from gdkernels.cpu.engine.pace import FIRST_REVIEW, LAST_REVIEW, MOST_STEPS, Pace

ONE, TWO = 20e-6, 15e-6
QUIET, BUSY = 1.0, 0.5  # the part of its time for which one worker has a core


def go(pace, seconds, steps, epoch=500, core=QUIET, late=None):
    """Take this many steps in epochs of `epoch`; `seconds` gives the time of a step by the number of workers, "turns" that
    of one taken by turns, and workers that share a step part after `late` of them.

    How each step was taken, a number of workers or "turns", and the time that they took.
    """
    chosen, spent = [], 0.0
    while len(chosen) < steps:
        left = epoch - len(chosen) % epoch
        stretch = pace.next(left)
        assert 1 <= stretch.steps <= left
        way = "turns" if stretch.turns else stretch.workers
        parted = late is not None and way not in (1, "turns") and stretch.steps > late
        if parted:
            stretch = stretch._replace(steps=late)
        took = stretch.steps * seconds[way]
        pace.note(stretch, took, took * core, parted)
        chosen += [way] * stretch.steps
        spent += took
    return chosen, spent


def share(chosen, way):
    return chosen.count(way) / len(chosen)


@pytest.mark.parametrize("several", [2, 7])
def test_the_faster_number_wins(several):
    for seconds, best in (({1: ONE, several: TWO}, several), ({1: TWO, several: ONE}, 1)):
        chosen, _ = go(Pace(several, ONE), seconds, 20_000)
        assert share(chosen, best) > 0.95


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
    assert share(chosen, 1) > 0.9
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
    assert pace.next(1000) == (1, 1, False)


# ---------------------------------------------------------------------------------------------- a busy machine


def together():
    """A pace that has settled on two workers."""
    pace = Pace(2, ONE)
    go(pace, {1: ONE, 2: TWO}, 20_000)
    assert pace.workers == 2
    return pace


def test_workers_that_wait_for_each_other_part_at_once():
    chosen, spent = go(together(), {1: ONE, 2: 3e-3}, 20_000, late=3)
    assert chosen[:3] == [2, 2, 2] and chosen[3:500] == [1] * 497
    assert spent < 20_000 * ONE + 10 * 3e-3


def test_workers_that_part_again_and_again_meet_ever_more_rarely():
    """Their trials win, which are short, and then one of them is kept from its core."""
    pace, parted = together(), []
    for _ in range(4000):
        stretch, step = pace.next(5000), {1: ONE, 2: TWO}
        late = stretch.workers == 2 and stretch.steps > MOST_STEPS
        if late:
            stretch, step = stretch._replace(steps=3), {2: 3e-3}
        took = stretch.steps * step[stretch.workers]
        pace.note(stretch, took, took, late)
        parted.append(late)
    assert 0 < sum(parted) < len(parted) / 20
    assert sum(parted[2000:]) <= sum(parted[:2000])


def test_a_hiccup_of_workers_that_are_faster_all_the_same_is_forgiven():
    chosen, _ = go(together(), {1: ONE, 2: 0.99 * ONE}, 500, late=50)
    assert set(chosen) == {2}


def test_on_a_busy_machine_steps_are_taken_by_turns_and_nothing_else_is_tried():
    pace = Pace(2, ONE)
    seconds = {1: 2 * ONE, 2: 3e-3, "turns": 1.5 * ONE}
    go(pace, seconds, 20_000, epoch=2000, core=BUSY)
    assert pace.busy
    chosen, _ = go(pace, seconds, int(4 * LAST_REVIEW / ONE), epoch=2000, core=BUSY)
    assert set(chosen) == {"turns"}


def test_when_the_machine_is_quiet_again_several_workers_are_tried_at_once():
    pace, busy, quiet = (
        Pace(2, ONE),
        {1: 2 * ONE, 2: 3e-3, "turns": 1.5 * ONE},
        {1: ONE, 2: TWO, "turns": ONE},
    )
    go(pace, busy, 20_000, epoch=2000, core=BUSY)
    chosen, _ = go(pace, quiet, 8000, epoch=2000)
    assert not pace.busy and pace.workers == 2
    assert chosen[-2000:].count(2) > 1900


def test_what_is_over_before_a_turn_is_and_steps_longer_than_turns_stay_with_one_worker():
    for step, epoch in ((ONE, 50), (10e-3, 100)):
        seconds = {1: 2 * step, 2: 1.0, "turns": step}
        chosen, _ = go(Pace(2, step), seconds, 40 * epoch, epoch, core=BUSY)
        assert share(chosen, 1) > 0.95 and "turns" not in chosen


def test_workers_that_had_to_wake_up_are_not_judged_by_a_short_stretch():
    """Waking takes 5 ms: a stretch of 10 steps behind a pause says nothing of a step."""
    pace = Pace(2, ONE)
    go(pace, {1: ONE, 2: TWO}, 20_000)
    stretch = pace.next(10)
    assert stretch.workers == 2
    pace.note(stretch, stretch.steps * TWO + 5e-3, stretch.steps * TWO, asleep=True)
    assert pace.workers == 2
    chosen, _ = go(pace, {1: ONE, 2: TWO}, 1000)
    assert share(chosen, 2) > 0.9


def test_the_fastest_of_some_trials_counts():
    """The first trial of two workers is disturbed, and takes a little longer than one worker does."""
    pace = Pace(2, 1e-3)
    trials = 0
    for _ in range(8):
        stretch = pace.next(100)
        trials += stretch.workers == 2
        disturbed = stretch.workers == 2 and trials <= 2  # the step that wakes them, and the first trial
        seconds = stretch.steps * (1.2e-3 if disturbed else {1: 1e-3, 2: 0.6e-3}[stretch.workers])
        pace.note(stretch, seconds, seconds)
    assert pace.workers == 2
