"""The team of threads: shares, jobs, sleep, concurrent callers, fork."""

import os
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from gdkernels.cpu.runtime import machine
from gdkernels.cpu.runtime import team as team_module
from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.layout import Ints
from gdkernels.cpu.runtime.team import get_threads, run, set_threads, share
from gdkernels.nn.network import mlp
from gdkernels.ops.matmul import matmul
from gdkernels.train.trainer import Trainer

FLOAT32 = np.dtype(np.float32)


@kernel
def mark(counts: Ints, owners: Ints, start, stop, scratch):
    """Add one to every element of the range and note whose working memory this is."""
    for i in range(start, stop):
        counts[i] += 1
        owners[i] = scratch


def launch(counts, workers, quantum=8):
    """Run `mark` over all elements, shared by as many workers as there may be."""
    run(mark.op(FLOAT32, counts.size, quantum=quantum, work=1e9, counts=counts, owners=workers))


@pytest.fixture
def threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


@pytest.mark.parametrize("total", [0, 1, 7, 8, 9, 63, 64, 1000])
@pytest.mark.parametrize("quantum", [1, 8, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_shares_cover_the_range_without_overlap(total, quantum, workers):
    bounds = [share(total, quantum, worker, workers) for worker in range(workers + 1)]
    assert bounds[0] == 0 and bounds[-1] == total
    assert all(low <= high for low, high in pairwise(bounds))
    assert all(bound % quantum == 0 for bound in bounds[:-1] if bound != total)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_item_is_done_once(threads, count):
    threads(count)
    counts, workers = np.zeros(999, np.int64), np.full(999, -1)
    for _ in range(50):
        launch(counts, workers)
    assert (counts == 50).all()
    assert len(set(workers)) == count


def test_the_number_of_workers_may_change_from_job_to_job(threads):
    """A worker that is late must not count itself into the next job: it would do its part twice."""
    counts, workers = np.zeros(64, np.int64), np.zeros(64, np.int64)
    sizes = np.random.default_rng(0).integers(2, 7, 3000).tolist()
    for size in sizes:
        threads(size)
        launch(counts, workers)
    assert (counts == len(sizes)).all()


def test_a_team_wakes_up_from_sleep(threads):
    threads(2)
    counts, workers = np.zeros(64, np.int64), np.zeros(64, np.int64)
    for pause in (0.0, 0.2, 0.0, 0.05):
        time.sleep(pause)
        launch(counts, workers)
    assert (counts == 4).all()


def test_an_interrupt_between_two_native_calls_lets_the_job_be_done(threads, monkeypatch):
    """Python notices Ctrl-C after a call: here after the one that posted the job, which others have begun by then."""
    threads(2)
    counts, workers = np.zeros(64, np.int64), np.zeros(64, np.int64)
    post = team_module._post

    def interrupted(*arguments):
        post(*arguments)
        raise KeyboardInterrupt

    for pause in (0.0, 0.2):  # the worker is awake, asleep
        time.sleep(pause)
        monkeypatch.setattr(team_module, "_post", interrupted)
        with pytest.raises(KeyboardInterrupt):
            launch(counts, workers)
        monkeypatch.setattr(team_module, "_post", post)
        launch(counts, workers)
    assert (counts == 4).all()


def test_a_worker_that_cannot_be_started_is_not_waited_for(threads, monkeypatch):
    counts, workers = np.zeros(999, np.int64), np.zeros(999, np.int64)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    one_more = len(team_module.team()._wake) + 1
    threads(one_more)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        launch(counts, workers)
    monkeypatch.undo()
    launch(counts, workers)
    assert (counts == 1).all() and len(set(workers)) == one_more


def test_several_python_threads_may_call_at_once(threads):
    threads(2)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 300)).astype("f4"), rng.standard_normal((300, 300)).astype("f4")
    expected = matmul(a, b).tobytes()
    wrong = []

    def call():
        for _ in range(20):
            if matmul(a, b).tobytes() != expected:
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def runs_in_a_forked_child(test) -> None:
    """A child process finds that test() is true, within a minute."""
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = bool(test())
        finally:
            os._exit(0 if ok else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_team_of_its_own(threads):
    threads(2)
    a = np.ones((400, 400), np.float32)
    matmul(a, a)
    runs_in_a_forked_child(lambda: (matmul(a, a) == 400).all())
    assert (matmul(a, a) == 400).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_trainer_goes_on_in_a_forked_child():
    """Its engine holds the address of the team's memory, where the barrier is."""
    trainer = Trainer(mlp([8, 32, 1]), "mse", threads=2)
    x, y = np.ones((64, 8), np.float32), np.ones((64, 1), np.float32)
    before = team_module.team().address
    trainer.step(x, y)
    trainer.fit(x, y, epochs=2, batch_size=16, progress=False)

    def goes_on():
        losses = [trainer.step(x, y) for _ in range(20)]
        losses += trainer.fit(x, y, epochs=2, batch_size=16, progress=False).loss.tolist()
        return team_module.team().address == before and np.isfinite(losses).all()

    runs_in_a_forked_child(goes_on)
    assert np.isfinite(trainer.step(x, y))


@pytest.mark.parametrize("count", [0, -1, 257, 1.0, True, "2"])
def test_set_threads_refuses_nonsense(count):
    with pytest.raises(ValueError, match=r"set_threads: count is .*, expected an integer in \[1, 256\]"):
        set_threads(count)


@pytest.mark.parametrize("given", ["0", "257", "-2", "two"])
def test_a_number_of_threads_in_the_environment_is_checked(given, monkeypatch):
    monkeypatch.setenv("GDKERNELS_NUM_THREADS", given)
    with pytest.raises(ValueError, match=rf"GDKERNELS_NUM_THREADS is '{given}', expected .* in \[1, 256\]"):
        machine.threads_at_first()


def test_a_machine_of_many_cores_gets_as_many_threads_as_the_team_has_room_for(monkeypatch):
    monkeypatch.delenv("GDKERNELS_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cpu_count", lambda: 768)
    assert machine.threads_at_first() == machine.MOST_WORKERS


def test_the_barrier_is_what_keeps_phases_apart():
    """Without `wait` a worker would read what another has not yet written."""
    from tests.cpu import phases

    assert phases.errors(with_barrier=True) == 0
    assert phases.errors(with_barrier=False) > 0


def test_team_memory_keeps_words_that_threads_write_on_lines_of_their_own():
    lines = [
        team_module.ARRIVED,
        team_module.GENERATION,
        team_module.JOB,
        team_module.DONE,
        team_module.ENTRY,
        team_module.PARKED,
    ]
    assert all(word % 8 == 0 for word in lines) and len(set(lines)) == len(lines)


@pytest.mark.skipif(team_module._core is None or os.cpu_count() == 1, reason="needs Linux and two cores")
def test_a_worker_leaves_the_core_of_its_caller_and_may_go_anywhere_afterwards():
    found = []

    def live(caller):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {caller})
        os.sched_setaffinity(0, allowed)
        team_module._keep_away(caller, 1)
        found.append((team_module._core() != caller, os.sched_getaffinity(0) == allowed))

    for caller in sorted(os.sched_getaffinity(0))[:2]:
        thread = threading.Thread(target=live, args=(caller,))
        thread.start()
        thread.join()
    assert all(allowed for _, allowed in found)
    assert any(away for away, _ in found)  # the system may have moved it back before it was asked
