"""The emulated CUDA device (tools/ptxemu) passes its own tests, where this machine can run it."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "ptxemu"


def call(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def needs_met():
    try:
        check = call(TOOL / "run", "--check", sys.executable)
    except OSError as error:
        pytest.skip(f"tools/ptxemu/run does not start: {error}")
    if check.returncode:
        pytest.skip(check.stdout.strip().replace("\n", "; "))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in TOOL.glob("tests/test_*.py")))
def test_own_tests_pass(needs_met, name):
    done = call(TOOL / "selftest", sys.executable, name)
    assert " passed, 0 failed" in done.stdout, done.stdout + done.stderr


def test_help_names_the_usage():
    try:
        shown = call(TOOL / "run", "--help")
    except OSError as error:
        pytest.skip(f"tools/ptxemu/run does not start: {error}")
    assert shown.stdout.startswith("usage: run COMMAND") and shown.returncode == 0
