"""The wheel carries every folder of the package, and what it asks for fits together."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tools.gate import sass

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_of(package):
    return {path.parent for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts}


def test_every_folder_is_packed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    present = {".".join(folder.relative_to(ROOT).parts) for folder in folders_of("gdkernels")}
    assert listed == present | {"gdkernels.reference"}


def test_reference_has_no_folders_that_would_be_left_out():
    assert folders_of("reference") == {ROOT / "reference"}


def requirements_of(extra):
    """What an extra asks for on Linux x86-64: the versions by the names."""
    lines = map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    return {one.name: one.specifier for one in lines if not one.marker or one.marker.evaluate(linux)}


def test_what_compiles_cuda_is_asked_for_in_the_same_versions():
    extras = [requirements_of(extra) for extra in ("cuda12", "cuda13", "test")]
    for name in ("numba-cuda", "numpy"):
        assert len({str(extra[name]) for extra in extras}) == 1, name


def test_tests_get_the_compilers_and_disassemblers_of_one_release():
    wanted = requirements_of("test")
    wheels = {"nvidia-nvvm", "nvidia-cuda-nvrtc", *sass.WHEELS.values()}
    assert {name: str(wanted[name]) for name in wheels} == dict.fromkeys(wheels, "<14,>=13")


def test_cuda_packages_are_left_out_where_there_are_none():
    """Their wheels are for Linux x86-64 (and Windows, where neither the emulator nor the gate runs)."""
    lines = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["test"]]
    for system, machine in (("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64")):
        there = {"sys_platform": system, "platform_machine": machine}
        kept = {one.name for one in lines if not one.marker or one.marker.evaluate(there)}
        assert not {name for name in kept if name.startswith(("nvidia", "numba-cuda"))}


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_importing_the_package_does_not_import_numba():
    assert (
        run("import sys, gdkernels; print('numba' in sys.modules, 'numpy' in sys.modules)").split()[0]
        == "False"
    )


def test_help_answers_without_numpy():
    code = (
        "import sys\nfrom gdkernels.cli.main import parser\nparser().format_help()\n"
        "print('numpy' in sys.modules, 'numba' in sys.modules)"
    )
    assert run(code).split() == ["False", "False"]
