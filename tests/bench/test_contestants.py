"""The contestants' processes: their protocol, time limits and threads, and what is said of those that are missing."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

from bench import contestants, process, worker
from bench.cases import Case
from bench.contestants import Missing
from bench.contestants.turns import Turns
from bench.process import Contestant, Failed

SMALL = Case((6, 8, 3), 4, "relu", "ce", 2)

FAKE = """
import json, sys, time
from bench import worker
class Fake:
    facts = {"eps hat": True}
    def run(self, times):
        print("a library prints")
        if times == 13:
            raise ValueError("thirteen")
        if times == 99:
            sys.exit("it dies")
        time.sleep(600 if times == 77 else 0)
    def outcome(self, steps):
        return {"losses": [1.0] * steps}
    def turn(self, number):
        self.number = number
from bench import contestants
contestants.build = lambda *request: Fake() if request[0] == "fake" else missing(request[0])
def missing(name):
    if name == "mute":
        time.sleep(600)
    if name == "broken":
        raise RuntimeError("no good")
    raise contestants.Missing(f"{name} is not installed")
worker.main()
"""


def start(name="fake", patience=60.0):
    return Contestant(name, {"kind": "train"}, 1, patience, (sys.executable, "-c", FAKE))


def test_a_contestant_answers_and_libraries_may_print():
    with start() as contestant:
        assert contestant.facts["eps hat"] is True and contestant.facts["seconds"] >= 0
        assert contestant.run(3) >= 0
        np.testing.assert_array_equal(contestant.outcome(4)["losses"], np.ones(4))
        contestant.turn(5)
        assert contestant.run(1) >= 0
    assert contestant._process.returncode == 0


def test_its_threads_are_limited_and_reported():
    with start() as contestant:
        told = contestant.facts["threads"]
    if hasattr(os, "sched_getaffinity"):
        assert told["cores"] == 1
    assert all(count == 1 for count in told.values())


def test_the_environment_is_set_before_a_library_is_loaded():
    code = (
        "import os, sys; from bench.worker import THREAD_VARIABLES, confine; confine(1);"
        "assert not {'numpy', 'numba', 'torch', 'jax', 'sklearn'} & set(sys.modules), 'too early';"
        "assert all(os.environ[name] == '1' for name in THREAD_VARIABLES);"
        "assert 'OPENBLAS_CORETYPE' not in os.environ"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"OPENBLAS_CORETYPE": "Prescott"}
    )


@pytest.mark.parametrize(
    "times, why", [(13, "ValueError: thirteen"), (99, "the process ended with status 1: it dies")]
)
def test_one_that_fails_says_why(times, why):
    with start() as contestant:
        with pytest.raises(Failed, match=why):
            contestant.run(times)
        with pytest.raises(Failed):
            contestant.run(1)


def test_one_that_hangs_is_killed():
    begin = time.monotonic()
    with start() as contestant, pytest.raises(Failed, match="did not do 77 units within 1 seconds"):
        contestant.run(77, patience=1.0)
    with pytest.raises(Failed, match="did not become ready within 2 seconds"):
        start("mute", patience=2.0)
    assert time.monotonic() - begin < 60


def test_one_that_cannot_be_built_says_why():
    with pytest.raises(Failed, match="RuntimeError: no good"):
        start("broken")


def test_a_missing_peer_is_named():
    with pytest.raises(Missing, match="nolib is not installed"):
        start("nolib")


def test_a_library_that_is_not_installed_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "bench.contestants.jax_training", None)
    monkeypatch.setitem(contestants.TRAINING, "jax scan", "jax_training")
    with pytest.raises((Missing, ModuleNotFoundError)):
        contestants.build("jax scan", {"kind": "train", "case": asdict(SMALL)}, 1)


def test_requests_and_answers_are_lines_of_json(tmp_path):
    class Fake:
        def run(self, times):
            pass

        def outcome(self, steps):
            return {"losses": np.zeros(steps)}

    path = str(tmp_path / "outcome.npz")
    assert set(worker.answer(Fake(), {"times": 2})) == {"seconds"}
    assert json.loads(json.dumps(worker.answer(Fake(), {"outcome": 3, "path": path}))) == {"outcome": path}
    with np.load(path) as arrays:
        assert arrays["losses"].shape == (3,)


def test_ours_trains_in_a_process_of_its_own():
    with Contestant("gdkernels", {"kind": "train", "case": asdict(SMALL)}, 1) as contestant:
        outcome = contestant.outcome(3)
        assert contestant.facts["threads"]["gdkernels"] == 1
        assert contestant.run(2) > 0
    assert set(outcome) == {"losses", "0.w", "0.b", "1.w", "1.b"} and outcome["losses"].shape == (3,)


def test_turns_make_each_network_anew():
    made = []

    class Network:
        def __init__(self, case, threads):
            made.append((case.sizes, threads))
            self.facts = {"width": case.sizes[1]}
            self.run, self.outcome = made.append, lambda steps: {"steps": steps}

    turns = Turns(lambda case: Network(case, 2), [SMALL, Case((6, 9, 3), 4, "relu", "ce", 2)])
    assert turns.facts == {}
    turns.turn(1)
    assert turns.facts == {"width": 9} and turns.outcome(3) == {"steps": 3}
    turns.turn(0)
    assert made == [((6, 9, 3), 2), ((6, 8, 3), 2)]


def test_a_case_survives_json():
    assert Case.of(json.loads(json.dumps(asdict(SMALL)))) == SMALL


def test_batches_go_on_from_the_first_after_the_last():
    x, y = SMALL.batched(5)
    assert x.shape == (5, 4, 6) and y.shape == (5, 4)
    np.testing.assert_array_equal(x[4], x[0])
    np.testing.assert_array_equal(y[3], SMALL.batched()[1][1])


def test_a_process_ends_with_what_it_started(tmp_path):
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(note)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True)
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    process.kill(leader)
    leader.wait()
    child, end = int(note.read_text()), time.monotonic() + 30
    while time.monotonic() < end and _is_alive(child):
        time.sleep(0.01)
    assert not _is_alive(child)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
