"""Steps by turns, and workers that part: every step once, in order, with the bits of one worker."""

import os

import numpy as np
import pytest

from gdkernels.cpu.engine.pace import Stretch
from gdkernels.cpu.engine.training import Training
from gdkernels.cpu.runtime import team as team_module
from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.layout import Int, Ints
from gdkernels.cpu.runtime.simd import int64_at, nap
from gdkernels.cpu.runtime.team import run_job, team
from gdkernels.cpu.runtime.turns import OVER, RAN, WHOSE, await_turn, close_turns, pass_turn, words_of
from gdkernels.nn.layers import Dropout, LayerNorm, Linear
from gdkernels.nn.network import Network
from gdkernels.nn.place import CPU
from gdkernels.train.optim import AdamW
from gdkernels.train.trainer import Trainer

STEPS = 60


@kernel
def write_down(turns: Int, owners: Ints, steps: Int, microseconds: Int, worker, workers):
    """A job of `steps` pieces by turns, each of which notes who did it."""
    step = await_turn(int64_at(turns), worker)
    while step < steps:
        owners[step] += 1 << (8 * worker)
        nap(microseconds)
        step += 1
        if step < steps and pass_turn(int64_at(turns), worker, workers, step):
            step = await_turn(int64_at(turns), worker)
    if step != OVER:
        close_turns(int64_at(turns), worker)


@pytest.mark.parametrize("workers", [2, 3])
def test_every_step_is_taken_once_and_every_worker_has_turns(workers):
    turns, owners = np.zeros(words_of(workers), np.int64), np.zeros(STEPS, np.int64)
    record = write_down.record(
        np.dtype(np.float32), turns=address(turns), owners=owners, steps=STEPS, microseconds=1000
    )
    run_job(write_down.address("float32"), address(np.frombuffer(record, np.int64)), workers, apart=True)
    assert set(owners) <= {1 << (8 * worker) for worker in range(workers)}
    assert turns[WHOSE] == OVER and turns[RAN] > 0
    assert owners[0] == 1 and len(set(owners)) > 1


def test_a_worker_that_never_comes_is_not_waited_for():
    """Worker 0 alone in a record that is meant for two."""
    turns, owners = np.zeros(words_of(2), np.int64), np.zeros(STEPS, np.int64)
    record = write_down.record(
        np.dtype(np.float32), turns=address(turns), owners=owners, steps=STEPS, microseconds=1000
    )
    run_job(write_down.address("float32"), address(np.frombuffer(record, np.int64)), 1)
    assert (owners == 1).all() and turns[WHOSE] == OVER


@pytest.mark.skipif(team_module._core is None, reason="needs Linux")
def test_workers_that_were_kept_apart_may_go_anywhere_afterwards():
    with team().lock:
        with team().apart(2):
            place = team()._threads[1].native_id
            if len(os.sched_getaffinity(0)) > 1:
                assert len(os.sched_getaffinity(place)) == 1
        assert os.sched_getaffinity(place) == os.sched_getaffinity(0)


# ---------------------------------------------------------------------------------------------- training


class Told:
    """A pace that takes calls in stretches of `steps` in these ways, (workers, whether by turns), one after the other."""

    def __init__(self, ways, steps):
        self._ways, self._steps, self.noted = list(ways), steps, []

    def next(self, left):
        workers, turns = self._ways[len(self.noted) % len(self._ways)]
        return Stretch(workers, min(left, self._steps), turns)

    def note(self, stretch, seconds, on_core, late=False, asleep=False):
        assert on_core <= seconds * 1.5 + 0.02
        self.noted.append((stretch, late))


def new_trainer():
    layers = [Linear(6, 24, "relu"), LayerNorm(24), Dropout(0.25), Linear(24, 3)]
    return Trainer(
        Network(layers, seed=3, dtype="float64"), "softmax_cross_entropy", AdamW(lr=0.01), clip_norm=1.0
    )


def trained(x, labels, pace, monkeypatch):
    """The state after three epochs of five batches, the last of which is smaller."""
    monkeypatch.setattr(Training, "_pace", lambda training, rows: pace)
    trainer = new_trainer()
    try:
        loss = trainer.fit(x, labels, epochs=3, batch_size=8, progress=False).loss.tobytes()
    except FloatingPointError as error:
        loss = str(error)
    state = [trainer.net._flat_params.tobytes(), *(part.tobytes() for part in trainer._update.states)]
    return loss, state, trainer.steps, trainer.epochs, trainer.net.samples


@pytest.mark.parametrize("bad", [None, 17, 38])
@pytest.mark.parametrize("steps", [2, 7, 100])
def test_the_bits_are_those_of_one_worker_however_steps_are_taken(bad, steps, monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((38, 6)), rng.integers(0, 3, 38)
    if bad is not None:
        x[bad - 1] = np.inf  # a step that is not finite: everybody stops
    alone = trained(x, labels, None, monkeypatch)
    for ways in ([(2, True)], [(3, True)], [(1, False), (2, False), (2, True), (3, False)]):
        assert trained(x, labels, Told(ways, steps), monkeypatch) == alone


@kernel
def dawdle(milliseconds: Int, start, stop):
    """An op of which the second worker does its part late."""
    if start > 0:
        nap(1000 * milliseconds)


def test_workers_part_where_one_is_kept_waiting(monkeypatch):
    """After the second step: for the first one some had to wake up."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((64, 6)), rng.integers(0, 3, 64)
    sections = Training._sections

    def with_a_dawdler(training, rows, shared):
        first, *others = sections(training, rows, shared)
        return [[*first, dawdle.op(training.dtype, 2, milliseconds=40)], *others]

    pace = Told([(2, False)], 8)
    alone = trained(x, labels, None, monkeypatch)
    monkeypatch.setattr(Training, "_sections", with_a_dawdler)
    monkeypatch.setattr(CPU, "call_seconds", 100.0)
    assert trained(x, labels, pace, monkeypatch) == alone
    assert [(stretch.steps, late) for stretch, late in pace.noted[:3]] == [(1, False), (2, True), (2, True)]
