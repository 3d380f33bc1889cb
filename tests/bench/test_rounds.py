"""Turns of simulated contestants on a simulated machine: block lengths, foreign load, failures, ratios."""

import math

import pytest

from bench import clock, machine, rounds
from bench.clock import Quiet
from bench.process import Failed
from bench.rounds import Samples, calibrate, compare, ratio


class Machine:
    """A clock, and what has used how much of it. `foreign` is the share of a core that others use at a time."""

    def __init__(self, foreign=lambda now: 0.0):
        self.now = self.used = 0.0
        self.foreign, self.slept = foreign, 0

    def work(self, seconds, cores=1.0):
        self.used += seconds * (cores + self.foreign(self.now))
        self.now += seconds

    def busy(self):
        return self.used

    @property
    def clock(self):
        return Quiet(self.busy, self.sleep)

    def sleep(self, seconds):
        self.slept += 1
        self.now += seconds


class Fake:
    """A contestant: seconds of a unit, of the first call, cores that it uses, and the call in which it dies."""

    def __init__(self, machine, unit, first=0.0, cores=1.0, dies=math.inf):
        self.machine, self.unit, self.first, self.cores, self.dies = machine, unit, first, cores, dies
        self.calls, self.own = 0, 0.0

    def run(self, times):
        self.calls += 1
        if self.calls >= self.dies:
            raise Failed("it died")
        seconds = times * self.unit + (self.first if self.calls == 1 else 0.0)
        self.machine.work(seconds, self.cores)
        self.own += seconds * self.cores
        return seconds

    def cpu_seconds(self):
        return self.own


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e-3, 0.29, 2.0])
def test_a_block_lasts_as_long_as_it_should(unit):
    times, seconds = calibrate(Fake(Machine(), unit, first=1.0), 0.3, Quiet())
    assert times == max(1, round(0.3 / unit)) and seconds == pytest.approx(times * unit)


def test_contestants_take_turns_and_their_time_is_of_one_unit():
    simulated = Machine()
    order = []
    runners = {name: Fake(simulated, unit, cores=2.0) for name, unit in (("a", 1e-3), ("b", 2e-3))}
    for name, runner in runners.items():
        runner.run = lambda times, name=name, run=runner.run: order.append(name) or run(times)
    found = compare(runners, 4, 0.1, clock=simulated.clock)
    assert order[-8:] == ["a", "b"] * 4
    assert found["a"].seconds == pytest.approx([1e-3] * 4) and found["b"].seconds == pytest.approx([2e-3] * 4)
    assert found["a"].cores == pytest.approx([2.0] * 4)
    assert found["a"].thrown_away == found["a"].dirty == simulated.slept == 0


def test_a_block_with_foreign_load_is_thrown_away_and_repeated():
    simulated = Machine(foreign=lambda now: 0.5 if 1.0 < now < 3.0 else 0.0)
    found = compare({"a": Fake(simulated, 1e-3)}, 20, 0.3, clock=simulated.clock)["a"]
    assert found.thrown_away == simulated.slept > 2 and found.dirty == 0
    assert len(found.seconds) == len(found.cores) == 20


def test_a_little_foreign_load_is_no_reason():
    simulated = Machine(foreign=lambda now: 0.09)
    found = compare({"a": Fake(simulated, 1e-3)}, 3, 1.0, clock=simulated.clock)["a"]
    assert found.thrown_away == found.dirty == 0


def test_where_the_load_never_ends_a_dirty_block_is_taken_and_counted():
    simulated = Machine(foreign=lambda now: 1.0)
    found = compare({"a": Fake(simulated, 1e-3)}, 3, 0.3, clock=simulated.clock)["a"]
    assert found.dirty == len(found.seconds) == 3 and found.thrown_away == 3 * clock.RETRIES


def test_without_counters_nothing_is_thrown_away():
    found = compare({"a": Fake(Machine(), 1e-3)}, 3, 0.1, clock=Quiet(lambda: None))["a"]
    assert len(found.seconds) == 3 and found.thrown_away == found.dirty == 0 and found.cores == []


def test_when_there_is_no_time_left_the_fewest_rounds_are_made_and_nothing_is_repeated():
    simulated = Machine(foreign=lambda now: 1.0)
    left = lambda: 1.0 - simulated.now  # noqa: E731
    found = compare({"a": Fake(simulated, 1e-3)}, 50, 0.3, left, simulated.clock)["a"]
    assert len(found.seconds) == len(found.cores) == rounds.FEWEST_ROUNDS == found.dirty
    assert simulated.slept < clock.RETRIES


def test_a_slow_contestant_takes_part_in_fewer_rounds():
    simulated = Machine()
    found = compare(
        {"slow": Fake(simulated, 100.0), "a": Fake(simulated, 1e-3)}, 9, 0.3, clock=simulated.clock
    )
    assert len(found["slow"].seconds) == rounds.FEWEST_TURNS and len(found["a"].seconds) == 9


@pytest.mark.parametrize("dies", [1, 8])
def test_one_that_dies_drops_out_and_says_why(dies):
    simulated = Machine()
    runners = {"a": Fake(simulated, 1e-3, dies=dies), "b": Fake(simulated, 1e-3)}
    found = compare(runners, 9, 0.1, clock=simulated.clock)
    assert found["a"].failed == "it died" and len(found["a"].seconds) < 9
    assert not found["b"].failed and len(found["b"].seconds) == 9


def test_a_ratio_is_formed_round_by_round():
    ours, theirs = Samples(seconds=[1.0, 2.0, 4.0]), Samples(seconds=[2.0, 6.0, 4.0])
    assert ratio(ours, theirs) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_the_machine_tells_how_busy_it_is():
    before = machine.busy_seconds(), machine.cpu_seconds(1 << 30)
    if before[0] is None:
        pytest.skip("no /proc/stat")
    assert machine.busy_seconds() >= before[0] > 0 and before[1] is None
