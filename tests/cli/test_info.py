"""`gdkernels info` tells what runs here, and `gdkernels warmup` leaves nothing to compile."""

import os
import subprocess
import sys

import numba
import pytest

import gdkernels as gd
from gdkernels import cache, cuda
from gdkernels.cli.info import facts
from gdkernels.cli.main import main
from gdkernels.cli.warmup import DTYPES, natives
from gdkernels.cpu import activation
from gdkernels.cpu.runtime import machine, team


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
