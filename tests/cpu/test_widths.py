"""The kernels under every vector width below this machine's: the same tests, each width in its own processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gdkernels.cpu.runtime.machine import VECTOR_BITS

ROOT = Path(__file__).parents[2]
WIDTHS = {128: "generic", 256: "haswell"}
# Two processes a width, for as many workers.
SAME_TESTS = [
    [
        "tests/ops/test_matmul.py",
        "tests/ops/test_linear.py",
        "tests/ops/test_activation.py",
        "tests/cpu/test_elementary.py",
    ],
    [
        "tests/cpu/test_engine.py",
        "tests/ops/test_optim.py",
        "tests/ops/test_loss.py",
        "tests/ops/test_softmax.py",
        "tests/ops/test_cross_entropy.py",
        "tests/ops/test_norm.py",
        "tests/ops/test_scale.py",
        "tests/ops/test_dropout.py",
    ],
]


@pytest.mark.slow
@pytest.mark.skipif("GDKERNELS_WIDTH_TEST" in os.environ, reason="this process is one of the widths already")
@pytest.mark.parametrize("files", SAME_TESTS, ids=["products", "others"])
@pytest.mark.parametrize("bits", [bits for bits in WIDTHS if bits < VECTOR_BITS])
def test_the_kernels_are_right_under_a_smaller_vector_width(bits, files):
    environment = {**os.environ, "NUMBA_CPU_NAME": WIDTHS[bits], "GDKERNELS_WIDTH_TEST": str(bits)}
    if bits == 256:
        environment["NUMBA_CPU_FEATURES"] = "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+movbe"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *files]
    check = [
        sys.executable,
        "-c",
        "from gdkernels.cpu.runtime.machine import VECTOR_BITS; print(VECTOR_BITS)",
    ]
    seen = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(seen.stdout) == bits
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
