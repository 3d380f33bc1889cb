"""Nothing lies about: every function, class and constant of a module is used by something, and not by tests alone.

By reading alone: a name that is also that of an attribute somewhere, or is said in a string, counts as used.
"""

import ast
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("tools/gate/*.py", "gdkernels/**/*.py", "bench/**/*.py", "reference/*.py", "tools/*.py")
USING = (*SEARCHED, "examples/*.py")
# Decorators by which Numba finds what nobody calls by its name.
REGISTRY = re.compile(r"(\w+\.)*(register|lower|infer|overload|unbox)\w*(\(|$)")


class Module:
    """A file: the names that it defines at its top, and how it refers to names."""

    def __init__(self, root: Path, path: Path):
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        parts = path.relative_to(root).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.package = path.relative_to(root).parent.parts
        self.imported = list(self._imports())
        self.aliases = dict(self.imported)  # what a local name stands for, in full

    def _imports(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((one.asname or one.name.partition(".")[0], one.name) for one in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = self.package[: len(self.package) - node.level + 1] if node.level else ()
                module = ".".join([*start, *filter(None, [node.module])])
                yield from ((one.asname or one.name, f"{module}.{one.name}") for one in node.names)

    def definitions(self) -> Iterator[str]:
        """Functions, classes and constants, but for those that Python, `__all__` or a registry gives a meaning."""
        shown: set[str] = set()
        names: list[str] = []
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not any(REGISTRY.match(ast.unparse(decorator)) for decorator in node.decorator_list):
                    names.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found = [one.id for each in targets for one in ast.walk(each) if isinstance(one, ast.Name)]
                if "__all__" in found and isinstance(node.value, ast.List):
                    shown |= {one.value for one in node.value.elts if isinstance(one, ast.Constant)}
                names += found
        yield from (name for name in dict.fromkeys(names) if name not in shown and not name.startswith("__"))

    def own_uses(self, dead: set[str]) -> set[str]:
        """Its own names that it refers to, each elsewhere than in its definition and in what is dead."""
        top = symtable.symtable(self.text, self.name, "exec")
        used = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
        for child in top.get_children():
            if child.get_name() not in dead:
                used |= _global_names(child) - {child.get_name()}
        return used

    def uses(self) -> Iterator[str]:
        """What it refers to by its full name, as far as that can be told."""
        yield from (name for _, name in self.imported)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                base, _, rest = ast.unparse(node.value).partition(".")
                if base in self.aliases:
                    yield ".".join(filter(None, [self.aliases[base], rest, node.attr]))

    def spoken(self) -> Iterator[str]:
        """Patterns of names that may stand in any module: attributes of what is no known module, and strings."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                base = node.value
                while isinstance(base, ast.Attribute):
                    base = base.value
                if not (isinstance(base, ast.Name) and base.id in self.aliases):
                    yield re.escape(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                yield re.escape(node.value)
            elif isinstance(node, ast.JoinedStr):
                said = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                if re.search("[a-z]{3}", "".join(filter(None, said))):  # less says nothing
                    yield "".join(r"\w+" if part is None else re.escape(part) for part in said)


def _global_names(table: symtable.SymbolTable) -> set[str]:
    """What a scope and those inside it refer to in the module."""
    names = {one.get_name() for one in table.get_symbols() if one.is_global() and one.is_referenced()}
    return names.union(*map(_global_names, table.get_children()))


def unused(root: Path, searched=SEARCHED, using=USING) -> list[str]:
    """Full names of what is defined at the top of the searched files and used by none."""
    files = {path for pattern in {*searched, *using} for path in root.glob(pattern)}
    modules = {path: Module(root, path) for path in sorted(files)}
    told = {name for module in modules.values() for name in module.uses()}
    pattern = re.compile(
        "|".join({name for module in modules.values() for name in module.spoken()}) or "(?!)"
    )
    found = []
    for path in sorted({path for one in searched for path in root.glob(one)}):
        module, dead, before = modules[path], set(), None
        spared = {
            name
            for name in module.definitions()
            if f"{module.name}.{name}" in told or pattern.fullmatch(name)
        }
        while dead != before:
            before, own = dead, module.own_uses(dead)
            dead = {name for name in module.definitions() if name not in spared | own}
        found += [f"{module.name}.{name}" for name in module.definitions() if name in dead]
    return found


# ---------------------------------------------------------------------------------------------- the repository

FOR_TESTS = {
    "tools.gate.judgement.unnamed",  # the gate's test calls it in a process of its own
    "gdkernels.cpu.doors.NAMES",  # tests go through all doors
}


def test_every_name_is_used_by_more_than_tests():
    assert set(unused(ROOT)) == FOR_TESTS


# ---------------------------------------------------------------------------------------------- the search

MADE_UP = {
    "package/__init__.py": "from .loops import shown as shown\n__all__ = ['shown', 'listed']\nlisted = 1",
    "package/loops.py": """
import numba
from numba import lower_builtin
from . import numbers as n

LIMIT, FORGOTTEN = 3, 4

def shown(x):
    return _step(x, LIMIT) + n.once + "spoken"

def _step(x, FORGOTTEN):
    return FORGOTTEN  # its own argument

def recursive(x):
    return recursive(x - 1) + only_by_the_dead()

def only_by_the_dead():
    return 1

@lower_builtin("call")
def found_by_numba():
    pass

@numba.njit
def compiled_for_nobody():
    pass
""",
    "package/numbers.py": """
once = 1
spoken = 2
rows_forward = 3
maximum = 4
annotated: int = 5

class Unused:
    once = 2
""",
    "package/dynamic.py": """
import numpy as np

def _call(module, kind, x=np.maximum):
    getattr(module, f"rows_{kind}")(module.annotated)

_call(0, 0)
""",
}


@pytest.fixture
def made_up(tmp_path):
    for name, text in MADE_UP.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_nothing_uses_is_found(made_up):
    """Not by recursion, by what is dead itself, by an argument or another module's attribute of the same name."""
    assert unused(made_up, ["package/*.py"], []) == [
        "package.loops.FORGOTTEN",
        "package.loops.recursive",
        "package.loops.only_by_the_dead",
        "package.loops.compiled_for_nobody",
        "package.numbers.maximum",
        "package.numbers.Unused",
    ]


def test_what_only_tests_use_is_found(made_up):
    (made_up / "tests.py").write_text(
        "from package.loops import recursive\nfrom package import numbers\nnumbers.maximum"
    )
    before = unused(made_up, ["package/*.py"], [])
    with_tests = unused(made_up, ["package/*.py"], ["tests.py"])
    assert set(before) - set(with_tests) == {
        "package.loops.recursive",
        "package.loops.only_by_the_dead",
        "package.numbers.maximum",
    }
