"""`import gdkernels` is cheap, and every public name is there when it is asked for."""

import ast
import importlib
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import gdkernels as gd

ROOT = Path(__file__).resolve().parents[1]


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after this code."""
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def typed_names() -> dict[str, str]:
    """What the TYPE_CHECKING block of the package imports: name and module."""
    tree = ast.parse(Path(gd.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    found = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        (alias,) = line.names
        module = f".{line.module or ''}"
        if alias.name == "*":
            found |= dict.fromkeys(importlib.import_module(module, "gdkernels").__all__, module)
        else:
            assert alias.asname == alias.name, "type checkers take `x as x` for a public name"
            found[alias.name] = module
    return found


def test_the_import_brings_in_a_handful_of_light_modules():
    """Time is counted in modules here: NumPy alone is over 100 of them and 70 ms, Numba over 500 and 400 ms."""
    modules = modules_after("import gdkernels")
    assert {name for name in modules if name.partition(".")[0] == "gdkernels"} == {"gdkernels"}
    assert not modules & {"numpy", "numba", "llvmlite", "safetensors", "tqdm"}
    assert len(modules) < 10


def test_listing_and_asking_for_what_is_not_there_import_nothing():
    modules = modules_after(
        "import gdkernels as gd; dir(gd), gd.__all__, gd.__version__, hasattr(gd, 'relu')"
    )
    assert "numpy" not in modules


@pytest.mark.parametrize("name", ["schedules", "init", "testing"])
def test_what_computes_nothing_needs_no_numba(name):
    modules = modules_after(f"import gdkernels as gd; gd.{name}")
    assert "numpy" in modules
    assert "numba" not in modules


@pytest.mark.parametrize("name", gd.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(gd, name)
    assert value is getattr(gd, name)
    assert value.__doc__
    assert name in dir(gd)


def test_type_checkers_see_the_same_names_from_the_same_modules():
    typed = typed_names()
    assert sorted(typed) == gd.__all__
    for name, module in typed.items():
        assert getattr(importlib.import_module(module, "gdkernels"), name) is getattr(gd, name)


def test_a_listing_holds_what_is_public_and_nothing_else():
    assert dir(gd) == sorted([*gd.__all__, "__version__"])
    for name in ("importlib", "TYPE_CHECKING", "check", "plan"):
        assert name not in dir(gd)


def test_threads_that_ask_at_once_for_a_first_name_all_get_it():
    code = """
        import threading, gdkernels as gd
        start, found = threading.Barrier(8), []
        def ask():
            start.wait()
            found.append(gd.schedules.Cosine)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(found) == 8
    """
    modules_after(textwrap.dedent(code))


def test_functions_of_the_reference_are_public_under_the_same_names():
    """What the reference computes and gdkernels has not: the reference's own tools."""
    import reference

    tools = {"KINDS", "activation_slope", "dropout_mask", "numerical_gradient", "philox4x32", "uniform_words"}
    assert set(reference.__all__) - tools <= set(gd.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gdkernels' has no attribute 'relu'"):
        gd.relu  # noqa: B018


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gd.__version__ == project["version"]


def test_threads_can_be_set_and_read():
    before = gd.get_threads()
    try:
        gd.set_threads(2)
        assert gd.get_threads() == 2
    finally:
        gd.set_threads(before)
    with pytest.raises(ValueError, match=r"set_threads: count is 0, expected an integer in \[1, 256\]"):
        gd.set_threads(0)
