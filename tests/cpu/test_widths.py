"""The kernels under every vector width that this machine can run: the same tests, each width in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gdkernels.cpu.runtime.machine import VECTOR_BITS

ROOT = Path(__file__).parents[2]
WIDTHS = {128: "generic", 256: "haswell"}
SAME_TESTS = [
    "tests/ops/test_matmul.py",
    "tests/ops/test_linear.py",
    "tests/ops/test_activation.py",
    "tests/ops/test_optim.py",
    "tests/ops/test_loss.py",
    "tests/ops/test_softmax.py",
    "tests/ops/test_cross_entropy.py",
    "tests/ops/test_norm.py",
    "tests/ops/test_dropout.py",
    "tests/cpu/test_elementary.py",
    "tests/cpu/test_engine.py",
]


@pytest.mark.skipif("GDKERNELS_WIDTH_TEST" in os.environ, reason="this process is one of the widths already")
@pytest.mark.parametrize("bits", sorted(WIDTHS))
def test_the_kernels_are_right_under_a_smaller_vector_width(bits, tmp_path):
    if bits > VECTOR_BITS:
        pytest.skip(f"this CPU has vectors of {VECTOR_BITS} bits only")
    environment = {**os.environ, "NUMBA_CPU_NAME": WIDTHS[bits], "GDKERNELS_WIDTH_TEST": str(bits)}
    if bits == 256:
        environment["NUMBA_CPU_FEATURES"] = "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+movbe"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SAME_TESTS]
    check = [
        sys.executable,
        "-c",
        "from gdkernels.cpu.runtime.machine import VECTOR_BITS; print(VECTOR_BITS)",
    ]
    seen = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(seen.stdout) == bits
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
