"""The wheel carries every folder of the package, and the floors of the house are kept."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.gate import sass

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What the files of a floor may import besides their own floor.
FLOORS = {
    "scalar": set(),
    "cpu": {"scalar"},
    "cuda": {"scalar"},
    "ops": {"scalar", "cpu", "cuda"},
    "nn": {"scalar", "cpu", "cuda"},
    "train": {"scalar", "cpu", "cuda", "nn"},
    "cli": {"scalar", "cpu", "cuda", "ops", "nn", "train", "testing", "reference"},
}

GROUND = {"cache", "files", "plan", "__version__"}  # files below all floors


def folders_of(package):
    return {path.parent for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts}


def imports(path):
    """The dotted names that a file imports, relative ones resolved."""
    package = [*path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{module}.{name.name}" for name in node.names)


def files_of(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def test_every_folder_is_packed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    present = {".".join(folder.relative_to(ROOT).parts) for folder in folders_of("gdkernels")}
    assert listed == present | {"gdkernels.reference"}


def test_reference_has_no_folders_that_would_be_left_out():
    assert folders_of("reference") == {ROOT / "reference"}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down(floor):
    allowed = {floor, *FLOORS[floor], *GROUND}
    for path in files_of(f"gdkernels/{floor}"):
        for name in imports(path):
            inside = name.removeprefix("gdkernels.")
            if inside == name:
                continue
            known = any(inside == one or inside.startswith(f"{one}.") for one in allowed)
            assert known, f"{path.relative_to(ROOT)} imports {name}"


def test_reference_imports_numpy_alone():
    for path in files_of("reference"):
        outside = {name.split(".")[0] for name in imports(path)} - {"reference", "numpy"}
        assert outside <= set(sys.stdlib_module_names), path.name


def test_one_file_imports_numba_cuda():
    using = {
        path.relative_to(ROOT).as_posix()
        for path in files_of("gdkernels")
        if any(name.startswith("numba.cuda") for name in imports(path))
    }
    assert using <= {"gdkernels/cuda/runtime/target.py"}


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
