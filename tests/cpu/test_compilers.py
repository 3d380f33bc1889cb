"""Several processes compile what one would, and what goes wrong in the others is done in the first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gdkernels import cache
from gdkernels.cpu import matmul
from gdkernels.cpu.gemm import product
from gdkernels.cpu.runtime import compilers, crew
from gdkernels.cpu.runtime.crew import Crew, Job
from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.jit import known, noted

ROOT = Path(__file__).resolve().parents[2]

ANSWERS = "import sys\nfor line in sys.stdin: print({answer!r}, flush=True)"
OTHERS = {
    "ends at once": "raise SystemExit(1)",
    "fails at everything": ANSWERS.format(answer="failed"),
    "speaks of something else": ANSWERS.format(answer="hello"),
    "never answers": "import time; time.sleep(600)",
    "is no Python": "this is no Python",
}


@pytest.fixture
def hands(monkeypatch):
    """A crew of its own, whose processes are gone after the test."""
    monkeypatch.setattr(crew, "PATIENCE", 1.0)
    one = Crew()
    yield one
    one.dismiss()


def jobs_of(names, compile_one, below=()) -> dict[str, Job]:
    """Jobs that only note that they were done here, each standing on those of `below`."""
    return {
        name: Job(name, f"none {name} any", frozenset(below), size, lambda name=name: compile_one(name))
        for size, name in enumerate(names)
    }


def ended(process) -> bool:
    """Whether a process is gone; waits for the thread that sees to it."""
    process.wait(timeout=30)
    return process.returncode is not None


# ---------------------------------------------------------------------------------------------- what is missing


def test_what_a_function_calls_comes_before_it_and_below_it(monkeypatch):
    monkeypatch.setattr("gdkernels.cpu.runtime.jit.Native.is_ready", lambda native, variant: False)
    jobs = compilers.missing([(matmul.product, np.dtype("float32"))])
    order = list(jobs)
    assert order[-1] == matmul.product.symbol("float32")
    assert jobs[order[-1]].below == set(order[:-1])
    for place, job in enumerate(jobs.values()):
        assert job.below <= set(order[:place])
    assert product.gemm.symbol("float32") in order


def test_what_is_ready_is_not_missing():
    product.gemm.address("float64")
    assert compilers.missing([(product.gemm, "float64")]) == {}


def test_asking_for_an_address_can_be_noted_instead_of_compiled(monkeypatch):
    monkeypatch.setattr(product.gemm, "addresses", {})
    monkeypatch.setattr(product.gemm, "_ready", lambda dtype: pytest.fail("it was compiled"))
    given, asked = noted(lambda: product.gemm.address(np.float32))
    assert asked == [(product.gemm, "float32")]
    assert given != 0
    assert product.gemm.addresses == {}


def test_every_request_names_its_function():
    jobs = compilers.missing([(matmul.product, "float32")]) or {"": None}
    for job in filter(None, jobs.values()):
        _, name, variant = job.request.split()
        assert known(name).symbol(variant) == job.symbol
    assert known("matmul.product") is matmul.product


# ---------------------------------------------------------------------------------------------- the crew


def test_alone_it_does_what_others_stand_on_first(hands):
    done = []
    jobs = jobs_of("abc", done.append) | jobs_of("xyz", done.append, below="abc")
    hands.run(jobs, 0, None)
    assert done == ["c", "b", "a", "z", "y", "x"]


@pytest.mark.parametrize("program", OTHERS.values(), ids=OTHERS)
def test_what_another_process_fails_at_is_done_here(hands, monkeypatch, program):
    monkeypatch.setattr(crew, "PROGRAM", program)
    done = []
    hands.run(jobs_of("abcdefgh", done.append), 2, None)
    assert sorted(done) == list("abcdefgh")


def test_what_another_process_has_done_is_not_done_here(hands, monkeypatch):
    """Jobs that stand on themselves can only be done by others."""
    monkeypatch.setattr(crew, "PROGRAM", ANSWERS.format(answer="done"))
    told = []
    jobs = {name: job for name in "abc" for job in jobs_of(name, pytest.fail, below=name).values()}
    hands.run(jobs, 1, lambda job, wrong: told.append((job.symbol, wrong)))
    assert sorted(told) == [("a", None), ("b", None), ("c", None)]


def test_where_no_process_can_be_started_everything_is_done_here(hands, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no more processes")

    monkeypatch.setattr(crew.subprocess, "Popen", refuse)
    done = []
    hands.run(jobs_of("abc", done.append), 2, None)
    assert done == ["c", "b", "a"]


@pytest.mark.parametrize("program", [None, "", "/opt/editor/bin/editor"])
def test_a_program_that_is_no_interpreter_is_not_started(hands, monkeypatch, program):
    monkeypatch.setattr(crew.sys, "executable", program)
    monkeypatch.setattr(crew.subprocess, "Popen", lambda *a, **k: pytest.fail("it was started"))
    hands.hire(2)


def test_an_error_is_raised_or_told_with_its_job(hands):
    def fail(name):
        raise ValueError(f"{name} is wrong")

    with pytest.raises(ValueError, match="a is wrong"):
        hands.run(jobs_of("a", fail), 0, None)
    told = []
    hands.run(jobs_of("ab", fail), 0, lambda job, wrong: told.append(str(wrong)))
    assert told == ["b is wrong", "a is wrong"]


def test_ctrl_c_ends_the_others(hands, monkeypatch):
    monkeypatch.setattr(crew, "PROGRAM", OTHERS["never answers"])

    def interrupt(name):
        raise KeyboardInterrupt

    hands.hire(2)
    processes = list(hands._processes)
    assert len(processes) == 2
    with pytest.raises(KeyboardInterrupt):
        hands.run(jobs_of("abcdefgh", interrupt), 2, None)
    assert all(map(ended, processes))
    done = []
    hands.run(jobs_of("ab", done.append), 0, None)
    assert done == ["b", "a"]


def test_without_work_a_process_is_let_go(hands, monkeypatch):
    monkeypatch.setattr(crew, "IDLE", 0.05)
    hands.hire(1)
    (process,) = hands._processes
    assert ended(process)


@pytest.mark.parametrize("given", ["0", "two", "-1", "1.5"])
def test_the_number_of_compilers_is_checked(monkeypatch, given):
    monkeypatch.setenv("GDKERNELS_COMPILERS", given)
    with pytest.raises(ValueError, match=r"GDKERNELS_COMPILERS is '.*', expected an integer ≥ 1"):
        crew.compilers_at_first()


def test_the_number_of_compilers_is_that_of_the_cores_or_as_given(monkeypatch):
    monkeypatch.delenv("GDKERNELS_COMPILERS", raising=False)
    monkeypatch.setattr(crew, "cpu_count", lambda: 100)
    assert crew.compilers_at_first() == crew.MOST_COMPILERS
    monkeypatch.setattr(crew, "cpu_count", lambda: 2)
    assert crew.compilers_at_first() == 2
    monkeypatch.setenv("GDKERNELS_COMPILERS", "5")
    assert crew.compilers_at_first() == 5


# ---------------------------------------------------------------------------------------------- real compilations

COMPILE = """
from gdkernels.cpu import clip
from gdkernels.cpu.runtime import compilers, crew
jobs = compilers.missing([(clip.gradient_squares, "float32")])
assert len(jobs) > 2
if {others}:  # jobs that stand on themselves can only be done by others
    jobs = {{name: job._replace(below=frozenset([name]), compile=None) for name, job in jobs.items()}}
crew.crew.run(jobs, {others}, None)
assert compilers.missing([(clip.gradient_squares, "float32")]) == {{}}
clip.gradient_squares.address("float32")
"""


def run(program: str, folder: Path, **variables: str) -> None:
    environment = os.environ | {"GDKERNELS_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def kernels(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_others_leave_the_same_files_as_this_process(tmp_path):
    run(COMPILE.format(others=0), tmp_path / "here", GDKERNELS_COMPILERS="1")
    run(COMPILE.format(others=1), tmp_path / "there", GDKERNELS_COMPILERS="1")
    assert kernels(tmp_path / "here") == kernels(tmp_path / "there")


TRAIN = """
import numpy as np, gdkernels as gd
x, y = np.linspace(-1, 1, 96, dtype="f4").reshape(32, 3), np.arange(32) % 2
net = gd.mlp([3, 8, 2], seed=3)
gd.Trainer(net).fit(x, y, epochs=3, batch_size=8, validation=(x, y), progress=False)
np.save({path!r}, net.flat)
"""


@pytest.mark.slow
def test_training_is_the_same_whoever_has_compiled(tmp_path):
    """Nothing guards the main module of this program, and nothing has to."""
    for count in "12":
        path = str(tmp_path / f"{count}.npy")
        run(TRAIN.format(path=path), tmp_path / count, GDKERNELS_COMPILERS=count)
    assert kernels(tmp_path / "1") == kernels(tmp_path / "2")
    assert np.array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))


HOLD = """
import sys, time
from gdkernels.cpu.runtime.crew import crew
crew.hire(1)
print(crew._processes[0].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_no_process_outlives_the_one_that_has_started_it(tmp_path, how):
    environment = os.environ | {"GDKERNELS_CACHE_DIR": str(cache.folder()), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as first:
        other = int(first.stdout.readline())
        first.send_signal(how)
        first.wait(timeout=60)
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            os.kill(other, 0)
            # One that nobody has waited for is gone as well.
            state = Path(f"/proc/{other}/stat")
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


# ---------------------------------------------------------------------------------------------- addresses


def test_the_address_of_an_array_is_where_its_first_element_is(tmp_path):
    x = np.arange(24.0).reshape(4, 6)
    frozen = x[1:, ::2]
    frozen.flags.writeable = False
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3,))
    for array in (x, x[2:, 3:], x.T, frozen, x.astype(np.int64), np.zeros(()), np.empty((0, 3)), mapped):
        assert address(array) == array.ctypes.data


@pytest.mark.parametrize("thing", [None, 3, [1.0], b"abc", np.float64(2.0), np.ndarray, memoryview(b"abc")])
def test_what_is_no_array_has_no_address(thing):
    with pytest.raises(TypeError):
        address(thing)
