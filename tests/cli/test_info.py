"""`gdkernels info` tells what runs here, and `gdkernels warmup` leaves nothing to compile."""

import os
import subprocess
import sys

import numba
import pytest

import gdkernels as gd
from gdkernels import cache, cuda
from gdkernels.cli import warmup
from gdkernels.cli.info import facts
from gdkernels.cli.main import main
from gdkernels.cli.warmup import DTYPES, natives
from gdkernels.cpu import activation
from gdkernels.cpu.runtime import machine, team
from gdkernels.cpu.runtime.jit import native


def test_info_prints_every_fact(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(facts())


def test_facts_are_those_of_the_modules():
    known = facts()
    assert known["gdkernels"].startswith(f"{gd.__version__} in ")
    assert f"numba {numba.__version__}" in known["packages"]
    assert known["vectors"].startswith(f"{machine.VECTOR_BITS} bits")
    assert known["threads"] == f"{team.get_threads()} used, {machine.cpu_count()} cores"
    assert known["cache"].startswith(str(cache.folder()))


def test_info_says_why_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cuda.describe() == "not seen: numba-cuda is not installed"
    assert facts()["cuda"] == cuda.describe()


def test_info_imports_no_kernels_and_no_cuda_where_there_is_no_driver():
    code = """
import sys
from gdkernels.cli.info import facts
from gdkernels import cuda
cuda.DRIVERS = ("libnone.so",)
facts()
print(*sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GDKERNELS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(done.stdout.split())
    assert "gdkernels.cpu.runtime.machine" in modules
    assert not modules & {"gdkernels.cpu.runtime.team", "gdkernels.cpu.runtime.jit", "numba.cuda"}


def test_info_knows_the_number_of_threads_without_a_team():
    for variables, expected in (({}, None), ({"GDKERNELS_NUM_THREADS": "3"}, "3 used")):
        environment = {name: value for name, value in os.environ.items() if name != "GDKERNELS_NUM_THREADS"}
        shown = subprocess.run(
            [sys.executable, "-m", "gdkernels", "info"], env=environment | variables, capture_output=True, text=True,
            check=True, timeout=60,
        ).stdout  # fmt: skip
        count = machine.cpu_count()
        assert f"threads   {expected or f'{count} used'}, {count} cores" in shown


def test_a_driver_that_is_found_is_asked(monkeypatch):
    monkeypatch.setattr(cuda, "_finds_driver", lambda: True)
    assert "libcuda.so.1" not in cuda.describe()
    monkeypatch.setattr(cuda.sys, "platform", "linux")
    monkeypatch.setattr(cuda, "_finds_driver", lambda: False)
    assert "libcuda.so.1" in cuda.describe()


WARMUP = """
import sys
from gdkernels.cli import warmup
from gdkernels.cli.main import main
from gdkernels.cpu import clip, matmul
warmup.natives = lambda: [clip.square_sum, clip.gradient_squares, clip.square_sum_in_kind]
warmup.train_once = lambda dtype: None
sys.exit(main(["warmup", "--processes", sys.argv[1]]))
"""


def test_a_warmup_by_two_processes_leaves_what_one_leaves(tmp_path):
    left = {}
    for count in "12":
        environment = {**os.environ, "GDKERNELS_CACHE_DIR": str(tmp_path / count)}
        done = subprocess.run(
            [sys.executable, "-c", WARMUP, count],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert "6 kernels ready" in done.stdout
        left[count] = {path.name for path in (tmp_path / count).iterdir()}
    assert left["1"] == left["2"]
    assert len(left["1"]) >= 6


def test_a_warmup_names_the_kernels_that_cannot_be_compiled(monkeypatch, capsys):
    @native("F* -> f8")
    def broken(x):
        return x.nothing_of_the_kind

    monkeypatch.setattr(warmup, "natives", lambda: [broken])
    assert main(["warmup", "--processes", "1"]) == 1
    shown = capsys.readouterr()
    assert "2 kernels cannot be compiled" in shown.out
    for dtype in DTYPES:
        assert f"gdkernels warmup: gdkernels.test_info.broken.{dtype}: " in shown.err


def test_warmup_knows_the_kernels_in_tables_and_in_modules():
    found = natives()
    assert set(activation.FORWARD.values()) <= set(found)
    assert team.do_part in found
    assert len({native.name for native in found}) == len(found)


@pytest.mark.slow
def test_after_a_warmup_training_compiles_nothing(tmp_path):
    """A fresh cache is filled from nothing, which takes the better part of a minute."""
    environment = {**os.environ, "GDKERNELS_CACHE_DIR": str(tmp_path)}

    def run(*arguments):
        subprocess.run(
            [sys.executable, "-m", "gdkernels", *arguments], env=environment, check=True, timeout=600
        )
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    warm = run("warmup")
    assert len([name for name in warm if name.endswith(".kernel")]) >= len(natives()) * len(DTYPES) // 2
    assert run("train", "wine", "--norm", "layer", "--dtype", "float64", "--quiet") == warm
