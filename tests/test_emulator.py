"""The tests of the CUDA backend on the GPU that tools/ptxemu emulates, for machines without one.

Where there is a real GPU, tests/cuda runs on it in this very run and nothing is done here. The files run in processes of
their own, those together that need the same kernels, so that none is compiled twice and few processes have to start. What
concerns arrays runs once more with the emulator's stand-in for CuPy. Among the slow tests everything marked `every_kernel`
runs again with the detectors of races and of uninitialised shared memory, in reverse and in random order of blocks, warps
and lanes.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "tools/ptxemu/run"
WITHOUT_DEVICE = {"test_sass.py", "test_static_gate.py"}  # they need no device, and run in the default run
FILES = {path.name for path in (ROOT / "tests/cuda").glob("test_*.py")} - WITHOUT_DEVICE
BENCH = ["test_bench_gpu.py"]  # it walks the benchmark's whole path, and is slow
# The longest first. Files that are not named here run together, too.
GROUPS = [
    ["test_engine.py"],
    ["test_command_line.py", "test_cross_entropy.py", "test_loss.py"],
    BENCH,
    ["test_activation.py", "test_arrays.py", "test_dropout.py"],
    ["test_gemm.py", "test_gemm_choice.py", "test_gemm_tensorcore.py", "test_linear.py"],
    ["test_device_block.py", "test_device_examples.py"],
    ["test_device.py", "test_device_mlp.py"],
]
GROUPS.append(sorted(FILES.difference(*GROUPS)))
HALVES = [GROUPS[0] + GROUPS[3] + GROUPS[6] + GROUPS[7], GROUPS[1] + GROUPS[2] + GROUPS[4] + GROUPS[5]]
EACH_KERNEL = ["-m", "every_kernel"]
WATCHED = {"PTXEMU_RACE": "1", "PTXEMU_UNINIT": "1"}
REVERSE, RANDOM = {"PTXEMU_ORDER": "reverse"}, {"PTXEMU_ORDER": "random", "PTXEMU_SEED": "1"}


def run(name, files, options=(), variables=None, marks=()):
    """Files, options of pytest and variables of one process."""
    return pytest.param(files, options, variables or {}, marks=marks, id=f"{files[0]} {name}")


RUNS = [
    *(run("as it is", files, marks=pytest.mark.slow if files is BENCH else ()) for files in GROUPS),
    run("arrays of CuPy", GROUPS[3][:2], ["-k", "not all_floats"], {"PTXEMU_CUPY": "1"}),
    *(run("races, reverse", files, EACH_KERNEL, WATCHED | REVERSE, pytest.mark.slow) for files in HALVES),
    *(run("races, random", files, EACH_KERNEL, WATCHED | RANDOM, pytest.mark.slow) for files in HALVES),
    run("slow ones", sorted(FILES), ["-m", "slow"], marks=pytest.mark.slow),
]


def test_every_file_runs_in_one_group():
    assert sorted(file for group in GROUPS for file in group) == sorted(FILES)
    assert sorted(file for half in HALVES for file in half) == sorted(FILES)


@functools.cache
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


@pytest.mark.parametrize(("files", "options", "variables"), RUNS)
def test_the_gpu_tests_pass_on_the_emulator(files, options, variables):
    if reason := reason_to_skip():
        pytest.skip(reason)
    places = [f"tests/cuda/{file}" for file in files]
    command = [str(RUN), sys.executable, "-m", "pytest", "-q", "--no-header", "-n0", *places, *options]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert " passed" in summary, summary
    assert "no GPU and no emulator" not in done.stdout
    print(summary)
