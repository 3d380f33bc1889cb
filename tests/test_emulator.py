"""The tests of the CUDA wing on the GPU that tools/ptxemu emulates, for machines without one.

Where there is a real GPU, tests/cuda runs on it in this very run and nothing is done here. The files run in processes of
their own, as many at a time as there are cores; then everything marked `every_kernel` runs again with the detectors of
races and of uninitialised shared memory, in reverse and in random order of blocks, warps and lanes, and what concerns
arrays runs with the emulator's stand-in for CuPy.
"""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "tools/ptxemu/run"
WITHOUT_DEVICE = {"test_sass.py", "test_static_gate.py"}  # they need no device, and run in the default run
FILES = [
    path.name for path in sorted((ROOT / "tests/cuda").glob("test_*.py")) if path.name not in WITHOUT_DEVICE
]
WATCHED = {"PTXEMU_RACE": "1", "PTXEMU_UNINIT": "1"}
ARRAYS = ("test_arrays.py", "test_activation.py")
PASSES: dict[str, tuple[list[str], dict[str, str]]] = {
    "as it is": ([], {}),
    "races, reverse": (["-m", "every_kernel"], {**WATCHED, "PTXEMU_ORDER": "reverse"}),
    "races, random": (["-m", "every_kernel"], {**WATCHED, "PTXEMU_ORDER": "random", "PTXEMU_SEED": "1"}),
    "arrays of CuPy": (["-k", "not all_floats"], {"PTXEMU_CUPY": "1"}),
}
RUNS = [(file, name) for name in PASSES for file in FILES if name != "arrays of CuPy" or file in ARRAYS]
NOTHING_SELECTED = 5  # pytest's exit code


def reason_to_skip() -> str | None:
    """Why there is nothing to do, or None."""
    if "PTXEMU_BUILD" in os.environ:
        return "this run is itself on the emulator"
    from gdkernels import cuda

    if cuda.is_available():
        return f"a real GPU runs tests/cuda in this run: {cuda.describe()}"
    checked = subprocess.run([str(RUN), "--check", sys.executable], capture_output=True, text=True)
    if checked.returncode:
        said = " ".join((checked.stdout + checked.stderr).split())
        return f"the CUDA tests are not run, the emulator cannot start: {said}"
    return None


def emulated(file: str, arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [
        str(RUN),
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-header",
        f"tests/cuda/{file}",
        *arguments,
    ]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def stage():
    """All runs, on their way: by file and pass."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        runs = {(file, name): pool.submit(emulated, file, *PASSES[name]) for file, name in RUNS}
        yield runs
        for run in runs.values():
            run.cancel()


@pytest.mark.parametrize(("file", "name"), RUNS)
def test_the_gpu_tests_pass_on_the_emulator(file, name, stage):
    run: Future[subprocess.CompletedProcess[str]] = stage[file, name]
    done = run.result()
    if done.returncode == NOTHING_SELECTED and PASSES[name][0]:
        pytest.skip(f"nothing in {file} is marked every_kernel")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert " passed" in summary, summary
    assert "no GPU and no emulator" not in done.stdout
    print(f"{file} ({name}): {summary}")
