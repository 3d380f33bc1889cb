"""Compiled kernels on disk: found again, never stale, never in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gdkernels

PACKAGE = Path(gdkernels.__file__).parent

PROGRAM = """
import sys, numpy as np
from gdkernels.cpu import jit
built = []
compile_one = jit.cfunc
jit.cfunc = lambda *a, **k: built.append(1) or compile_one(*a, **k)
from gdkernels.ops.matmul import matmul
assert (matmul(np.ones((9, 5), "f4"), np.ones((5, 7), "f4")) == 5).all()
print(len(built))
"""


def compilations(folder, **variables) -> int:
    """How many functions a fresh process compiles to multiply two matrices, with the package in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without caches."""
    shutil.copytree(PACKAGE, tmp_path / "gdkernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_second_process_compiles_nothing_and_an_edit_of_any_file_compiles_again(copy):
    assert compilations(copy) > 0
    assert compilations(copy) == 0
    edited = copy / "gdkernels" / "scalar" / "__init__.py"  # not where the kernels are defined
    edited.write_text(edited.read_text() + "\n# edited\n")
    assert compilations(copy) > 0
    assert compilations(copy) == 0
    kernels = list((copy / "gdkernels" / "__pycache__" / "kernels").glob("*gemm.gemm.float32*"))
    assert len(kernels) == 1, "the code of older sources is deleted"


def test_another_cpu_has_code_of_its_own(copy):
    assert compilations(copy) > 0
    assert compilations(copy, NUMBA_CPU_NAME="haswell") > 0
    assert compilations(copy) == 0


@pytest.mark.parametrize("damage", [lambda old: old[:100], lambda old: b"\x80N" + old], ids=["cut", "other"])
def test_a_damaged_file_is_compiled_again(copy, damage):
    compilations(copy)
    for path in (copy / "gdkernels" / "__pycache__" / "kernels").glob("*gemm.gemm.float32*"):
        path.write_bytes(damage(path.read_bytes()))
    assert compilations(copy) == 1
    assert compilations(copy) == 0


def test_a_chosen_folder_is_used(copy, tmp_path):
    chosen = tmp_path / "chosen"
    assert compilations(copy, GDKERNELS_CACHE_DIR=str(chosen)) > 0
    assert list(chosen.glob("*.kernel"))
    assert not (copy / "gdkernels" / "__pycache__" / "kernels").exists()


def test_a_read_only_install_falls_back_to_the_users_cache(copy, tmp_path):
    """A file where the folder should be stands for a folder that cannot be written (the superuser may write any)."""
    (copy / "gdkernels" / "__pycache__").mkdir(exist_ok=True)
    (copy / "gdkernels" / "__pycache__" / "kernels").write_text("in the way")
    home = tmp_path / "home"
    assert compilations(copy, XDG_CACHE_HOME=str(home), HOME=str(home)) > 0
    assert list(home.rglob("*.kernel"))
    assert compilations(copy, XDG_CACHE_HOME=str(home), HOME=str(home)) == 0
