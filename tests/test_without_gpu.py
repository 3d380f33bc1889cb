"""What is said where something that a GPU needs is missing: in one line, naming what to do, with nothing changed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MOVE = """
import sys
{}
import numpy as np, gdkernels as gd
net = gd.mlp([3, 4, 2])
try:
    net.to("cuda")
except Exception as error:
    print(type(error).__name__, error)
print(net.device, net.forward(np.zeros((2, 3), "f4")).shape, gd.cuda.is_available(), gd.cuda.describe())
"""


def said_by(preparation: str) -> list[str]:
    code = MOVE.format(preparation)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()


def test_missing_packages_are_named_with_the_command_that_installs_them():
    error, after = said_by("sys.modules['numba.cuda'] = None")
    assert error.startswith(
        'ImportError gdkernels: CUDA arrays need the package numba-cuda: pip install "gdkernels[cuda13]"'
    )
    assert after.startswith("cpu (2, 2) False not seen: ")


def test_numbas_old_target_is_told_from_numba_cuda():
    old = "import numba, types\nnumba.cuda = sys.modules['numba.cuda'] = types.ModuleType('numba.cuda')"
    error, after = said_by(old)
    assert error.startswith("ImportError gdkernels: numba.cuda is Numba's old built-in target")
    assert "pip install" in error
    assert after.startswith("cpu (2, 2) False not seen: ")


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="the packages are missing too")
def test_a_missing_driver_is_named():
    from gdkernels import cuda

    if cuda.is_available() or "PTXEMU_BUILD" in os.environ:
        pytest.skip("there is a driver")
    error, after = said_by("")
    assert error.startswith("RuntimeError gdkernels: no GPU can be used: ")
    assert "driver" in error
    assert after.startswith("cpu (2, 2) False not seen: ")
