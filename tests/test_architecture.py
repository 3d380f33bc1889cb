"""The house stands: imports go down its floors and rooms, none in a circle; one noun is one operation in every wing."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gdkernels as gd
from tools import imports

ROOT = Path(__file__).resolve().parents[1]
ARROWS = imports.arrows(ROOT)


# ---------------------------------------------------------------------------------------------- floors


def test_every_module_of_the_package_has_its_room():
    files = {path.relative_to(ROOT) for path in (ROOT / "gdkernels").rglob("*.py")}
    assert {path.relative_to(ROOT) for path in imports.modules(ROOT).values()} == files
    found = {imports.room(module) for module in imports.modules(ROOT)}
    assert found <= set(imports.rooms())
    for wing in imports.WINGS:
        assert {f"{wing}.{room}" for room in imports.ROOMS} - imports.LACKING <= found


def test_imports_go_down():
    assert [f"{arrow.source} imports {arrow.target}" for arrow in imports.upwards(ARROWS)] == []


def test_no_modules_import_each_other():
    assert imports.circles(ARROWS) == []


def test_one_file_imports_numba_cuda():
    using = {
        module
        for module, path in imports.modules(ROOT).items()
        if any(name.startswith("numba.cuda") for name, _ in imports.imports(path, ROOT))
    }
    assert using <= {"gdkernels.cuda.runtime.target"}


def test_reference_imports_numpy_alone():
    for path in (ROOT / "reference").glob("*.py"):
        outside = {name.split(".")[0] for name, _ in imports.imports(path, ROOT)} - {"reference", "numpy"}
        assert outside <= set(sys.stdlib_module_names), path.name


# ---------------------------------------------------------------------------------------------- its drawing

MADE_UP = {
    "__init__": "import typing\nif typing.TYPE_CHECKING:\n    from .ops.norm import norm\n__version__ = '1'",
    "plan": "import numpy",
    "scalar.__init__": "",
    "scalar.norm": "from .. import __version__",
    "cpu.__init__": "",
    "cpu.engine.__init__": "",
    "cpu.engine.walk": "from .. import norm",
    "cpu.norm": "from ..scalar.norm import square\ndef load():\n    from .runtime.jit import native",
    "cpu.runtime.__init__": "",
    "cpu.runtime.jit": "class Native:\n    from ...plan import Plan",
    "ops.__init__": "",
    "ops.norm": "import gdkernels.cpu.norm",
}


def drawn(folder: Path, **changed: str) -> list[imports.Arrow]:
    """The arrows of a small package whose files say so."""
    for name, text in (MADE_UP | {name.replace("_of_", "."): text for name, text in changed.items()}).items():
        path = folder / "gdkernels" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports.arrows(folder)


def test_arrows_are_told_apart_by_when_they_are_followed(tmp_path):
    found = {(arrow.source[10:], arrow.target[10:], arrow.when) for arrow in drawn(tmp_path)}
    assert found == {
        ("__init__", "ops.norm", imports.TYPES),
        ("scalar.norm", "__version__", imports.NOW),
        ("cpu.engine.walk", "cpu.norm", imports.NOW),
        ("cpu.norm", "scalar.norm", imports.NOW),
        ("cpu.norm", "cpu.runtime.jit", imports.LATER),
        ("cpu.runtime.jit", "plan", imports.NOW),
        ("ops.norm", "cpu.norm", imports.NOW),
    }
    assert imports.upwards(imports.arrows(tmp_path)) == []
    assert imports.circles(imports.arrows(tmp_path)) == []
    assert imports.summary(tmp_path) == (
        "12 modules, 7 arrows (5 when imported, 1 inside functions, 1 for type checkers), 0 up, 0 circles"
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("plan", "def late():\n    from .scalar import norm"),  # the ground floor, too
        ("plan", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .scalar import norm"),
        ("scalar_of_norm", "from ..cpu.norm import rows"),
        ("scalar_of_norm", "from gdkernels import norm"),  # the door stands above
        ("cpu_of_runtime_of_jit", "from ..norm import rows"),  # a room above in the wing
        ("cpu_of_norm", "from .engine.walk import walk"),
        ("cpu_of_norm", "from ..cuda import norm"),  # the wing beside
        ("ops_of_norm", "from ..nn import layers"),  # the floor beside
    ],
)
def test_an_import_upwards_is_found(module, text, tmp_path):
    found = drawn(tmp_path, **{"cuda_of_norm": "", "nn_of_layers": "", module: text})
    (up,) = imports.upwards(found)
    assert up.source == f"gdkernels.{module.replace('_of_', '.')}"


def test_a_circle_is_found_round_corners_and_inside_functions(tmp_path):
    found = drawn(
        tmp_path,
        scalar_of_a="from .b import one",
        scalar_of_b="def f():\n    from . import c",
        scalar_of_c="from .a import two",
        scalar_of_d="from .a import two",  # leads into it, and is no part of it
        scalar_of_e="if TYPE_CHECKING:\n    from .d import three",
    )
    assert imports.circles(found) == [[f"gdkernels.scalar.{name}" for name in "abc"]]


def test_the_picture_has_every_room_and_ends_with_the_line_of_counts():
    done = subprocess.run(
        [sys.executable, "tools/imports.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == imports.summary(ROOT)
    assert len({len(line) for line in lines[: lines.index("")]}) == 1, "the walls are straight"
    for room in imports.rooms():
        assert any(line[2:].startswith(f"{room} ") for line in lines), room


# ---------------------------------------------------------------------------------------------- names

PUBLIC = [getattr(gd, name) for name in gd.__all__]
FAMILIES = sorted(
    {
        value.__module__.removeprefix("gdkernels.ops.")
        for value in PUBLIC
        if inspect.isfunction(value) and value.__module__.startswith("gdkernels.ops.")
    }
)
TWINS = (
    "reference/{}.py",
    "gdkernels/cpu/{}.py",
    "gdkernels/cuda/{}.py",
    "tests/reference/test_{}.py",
    "tests/ops/test_{}.py",
    "tests/cuda/test_{}.py",
)
# The product has three test files on the device, named after the rooms of cuda/gemm.
ELSEWHERE = {"tests/cuda/test_matmul.py": "tests/cuda/test_gemm.py"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_operations_has_one_name_in_every_wing(family):
    for pattern in TWINS:
        path = pattern.format(family)
        assert (ROOT / ELSEWHERE.get(path, path)).is_file(), f"{path} is missing"
        assert path not in ELSEWHERE or not (ROOT / path).exists(), f"{path} needs no exemption"


def test_families_are_known():
    assert {"activation", "linear", "norm", "optim"} <= set(FAMILIES)
    present = {path.stem for path in (ROOT / "gdkernels/ops").glob("*.py")}
    assert set(FAMILIES) <= present
