"""What holds for every test, what most of them take, and how a run is shared by the cores."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The first example of a kernel compiles it, which says nothing about the next: no time limit on an example.
settings.register_profile("gdkernels", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("gdkernels")

DTYPES = ("float32", "float64")


@pytest.fixture(params=DTYPES)
def dtype(request) -> str:
    """An element type: the test runs for each."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture
def torch64():
    """PyTorch, with float64 for what its optimizers keep besides arrays: NAdam's product of momenta."""
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


# ---------------------------------------------------------------------------------------------- cores

HERE = Path(__file__).resolve().parent
MOST = 4  # processes: each imports Numba, PyTorch and what else is there
# Tests that take up to a minute, mostly in processes of their own. The static gate is first: it compiles every kernel of the
# GPU to PTX, each part others, which the emulator's processes then find on disk.
LONG = ("test_static_gate.py", "test_emulator.py", "test_widths.py", "test_ptxemu.py", "test_cache.py")

COMPILE = """
from gdkernels.cli.warmup import natives, train_once
for native in natives():
    native.address({dtype!r})
train_once({dtype!r})
"""


def is_whole(config) -> bool:
    """Whether all tests were asked for, not some folder, file or name."""
    places = {Path(argument).resolve() for argument in config.args}
    return bool(places & {HERE, HERE.parent}) and not config.option.keyword


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int:
    """All cores for all tests and for long ones; this process alone for what takes seconds, and inside of a test."""
    long = any(Path(argument.partition("::")[0]).name in LONG for argument in config.args)
    inside = "PYTEST_XDIST_WORKER" in os.environ
    return min(os.cpu_count() or 1, MOST) if (is_whole(config) or long) and not inside else 0


def pytest_sessionstart(session) -> None:
    """Before the workers start: compile the kernels of the CPU, one element type a process.

    Workers find them on disk. Left to themselves they would compile many of them at the same time, each for itself.
    """
    config = session.config
    if not getattr(config.option, "numprocesses", None) or not is_whole(config):
        return
    from gdkernels import cache

    if cache.is_empty():
        config.get_terminal_writer().line("compiling the kernels of the CPU, once for all workers")
        processes = [subprocess.Popen([sys.executable, "-c", COMPILE.format(dtype=each)]) for each in DTYPES]
        for process in processes:
            process.wait()  # a kernel that does not compile fails its own tests


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Of workers each gets an equal part of the list and steals when it is done: let each part begin with long tests."""
    workers = getattr(config, "workerinput", {}).get("workercount", 0)
    long = [item for name in LONG for item in items if item.path.name == name]
    short = [item for item in items if item.path.name not in LONG]
    if workers:
        share = -(-len(short) // workers)
        parts = [long[number::workers] + short[number * share :][:share] for number in range(workers)]
        items[:] = [item for part in parts for item in part]
