"""Compiled kernels on disk: found again, never stale, never in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gdkernels
from gdkernels import cache

PACKAGE = Path(gdkernels.__file__).parent

PROGRAM = """
import sys, numpy as np
from gdkernels.cpu.runtime import jit
built = []
compile_one = jit.cfunc
jit.cfunc = lambda *a, **k: built.append(1) or compile_one(*a, **k)
from gdkernels.ops.clip import global_norm
assert global_norm(np.ones((4, 9), "f4")) == 6
print(len(built))
"""


def compilations(folder, **variables) -> int:
    """How many functions a fresh process compiles for a short operation, with the package in `folder`.

    The user's home is `folder / "home"`, and nothing but the variables says where kernels belong.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in ("GDKERNELS_CACHE_DIR", "XDG_CACHE_HOME")}
    environment = {**inherited, "PYTHONPATH": str(folder), "HOME": str(folder / "home"), **variables}
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
    kernels = list((copy / "home").rglob("*clip.add_squares.float32*"))
    assert len(kernels) == 1, "the code of older sources is deleted"


OWN_KERNEL = """
import numpy as np
from gdkernels.cpu.runtime.jit import inlined, kernel, native
from gdkernels.cpu.runtime.layout import Floats
from gdkernels.cpu.runtime.simd import offset
from gdkernels.cpu.runtime.team import run

@native("F*, i8")
def clear(x, n):
    for i in range(n):
        x[i] = 0

@inlined
def part(x, start, stop):
    clear(offset(x, start), stop - start)

@kernel
def cleared(x: Floats, start, stop):
    part(x, start, stop)

x = np.ones(9, np.float32)
run(cleared.op(x.dtype, 9, x=x))
assert not x.any()
"""


def test_a_kernel_outside_of_the_package_is_found_with_what_it_calls(tmp_path):
    """Where code that is loaded calls what is not, LLVM ends the process."""
    (tmp_path / "own.py").write_text(OWN_KERNEL)
    environment = {
        **os.environ,
        "GDKERNELS_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(PACKAGE.parent),
    }
    for _ in ("compiled", "loaded"):
        subprocess.run([sys.executable, "own.py"], cwd=tmp_path, env=environment, check=True)
    assert list((tmp_path / "cache").glob("*cleared.float32*"))


def test_another_cpu_has_code_of_its_own(copy):
    assert compilations(copy) > 0
    assert compilations(copy, NUMBA_CPU_NAME="haswell") > 0
    assert compilations(copy) == 0


@pytest.mark.parametrize("damage", [lambda old: old[:100], lambda old: b"\x80N" + old], ids=["cut", "other"])
def test_a_damaged_file_is_compiled_again(copy, damage):
    compilations(copy)
    for path in (copy / "home").rglob("*clip.add_squares.float32*"):
        path.write_bytes(damage(path.read_bytes()))
    assert compilations(copy) == 1
    assert compilations(copy) == 0


def test_a_chosen_folder_is_used(copy, tmp_path):
    chosen = tmp_path / "chosen"
    assert compilations(copy, GDKERNELS_CACHE_DIR=str(chosen)) > 0
    assert list(chosen.glob("*.kernel"))
    assert not (copy / "home").exists()


def test_nothing_is_written_into_the_package(copy):
    """What an installer did not write it does not remove: a left-over folder would be imported as a namespace package."""
    before = sorted((copy / "gdkernels").rglob("*"))
    assert compilations(copy, PYTHONDONTWRITEBYTECODE="1") > 0
    assert sorted((copy / "gdkernels").rglob("*")) == before
    kept = {path.suffix for path in (copy / "home").rglob("*") if path.is_file()}
    assert kept == {".kernel"}


def test_two_installs_have_folders_of_their_own(copy, tmp_path):
    compilations(copy)
    second = tmp_path / "second"
    shutil.copytree(copy / "gdkernels", second / "gdkernels")
    assert compilations(second, HOME=str(copy / "home")) > 0
    assert compilations(copy) == 0


def test_without_a_writable_home_there_is_a_temporary_folder(copy, tmp_path):
    """A file where the folder should be stands for one that cannot be written (the superuser may write any)."""
    (copy / "home").write_text("in the way")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert compilations(copy, TMPDIR=str(temporary)) > 0
    assert list(temporary.rglob("*.kernel"))


def test_a_user_without_a_home_gets_no_folder_called_tilde(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *a, **k: Path("~/.cache/gdkernels"))
    monkeypatch.delenv("GDKERNELS_CACHE_DIR", raising=False)
    assert [path.is_absolute() for path in cache._candidates()] == [True]
