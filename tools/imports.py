"""The imports of gdkernels as a picture: its floors, what each room takes from which, arrows that go up, circles.

    python tools/imports.py             the floors, and what imports from what
    python tools/imports.py --counts    one line: modules, arrows, arrows up, circles
    python tools/imports.py DIRECTORY   of another checkout

Modules are read, not imported. An arrow leads from a module to one that it imports: when it is imported itself, later,
inside a function, or for type checkers alone. Each may only go down: to a floor below, in a wing also to a room below;
floors that stand side by side do not see each other. tests/test_architecture.py holds the package to that.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "gdkernels"

# From top to bottom. "package" is the package itself, whose names the command line uses like anybody else.
FLOORS = (("cli",), ("package",), ("train", "njit"), ("ops", "nn"), ("cpu", "cuda"), ("scalar",), ("ground",))
WINGS = ("cpu", "cuda")
ROOMS = (
    "hall",
    "doors",
    "engine",
    "operations",
    "gemm",
    "device",
    "runtime",
)  # of a wing, from top to bottom
# What is no room: the CPU has no functions for the user's kernels, and calls of CUDA arrays go the way of `ops`.
LACKING = {"cpu.device", "cuda.doors"}
# Files that stand elsewhere than their folder says: budgets looks at every kernel of its wing.
ELSEWHERE = {
    f"{PACKAGE}.__init__": "package",
    f"{PACKAGE}.__main__": "cli",
    f"{PACKAGE}.cuda.budgets": "cuda.hall",
}
VERSION = f"{PACKAGE}.__version__"  # a fact, for which any floor may ask the package

NOW, LATER, TYPES = WHEN = "when imported", "inside functions", "for type checkers"


class Arrow(NamedTuple):
    """One module imports another."""

    source: str
    target: str
    when: str


# ---------------------------------------------------------------------------------------------- reading


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package in a checkout, by its dotted name; that of a folder ends in __init__."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted((root / PACKAGE).rglob("*.py"))
    }


def imports(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """The dotted names that a file imports, relative ones resolved, each with when it does."""
    package = path.relative_to(root).parent.parts
    return _imports(ast.parse(path.read_text(encoding="utf-8")).body, package, NOW)


def _imports(nodes: Iterable[ast.AST], package: tuple[str, ...], when: str) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((name.name, when) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            yield from ((f"{module}.{name.name}", when) for name in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.body, package, TYPES)
            yield from _imports(node.orelse, package, when)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(ast.iter_child_nodes(node), package, LATER if inside else when)


def arrows(root: Path) -> list[Arrow]:
    """Every pair of modules of which one imports the other, once, at its earliest."""
    known = modules(root)
    found: dict[tuple[str, str], str] = {}
    for source, path in known.items():
        for name, when in imports(path, root):
            target = _module(name, known)
            if target and target != source:
                pair = source, target
                found[pair] = min(found.get(pair, when), when, key=WHEN.index)
    return [Arrow(*pair, when) for pair, when in sorted(found.items())]


def _module(name: str, known: dict[str, Path]) -> str:
    """Which module a dotted name leads into, if it is one of ours."""
    while name and name != VERSION:
        for module in (name, f"{name}.__init__"):
            if module in known:
                return module
        name = name.rpartition(".")[0]
    return name


def by_name(root: Path) -> list[str]:
    """Modules that import by a name that they make up at run time, which no arrow shows."""
    return [
        name for name, path in modules(root).items() if "import_module(" in path.read_text(encoding="utf-8")
    ]


# ---------------------------------------------------------------------------------------------- floors and rooms


def room(module: str) -> str:
    """The floor of a module, or wing and room, such as "cpu.engine"."""
    if module in ELSEWHERE:
        return ELSEWHERE[module]
    _, floor, *inside = module.split(".")
    if not any(floor in row for row in FLOORS):
        return "ground"
    if floor not in WINGS:
        return floor
    if inside == ["__init__"]:
        return f"{floor}.hall"
    return f"{floor}.{inside[0] if len(inside) > 1 and inside[0] in ROOMS else 'operations'}"


def rooms() -> list[str]:
    """All of them, from top to bottom."""
    return [
        place
        for row in FLOORS
        for floor in row
        for place in ([f"{floor}.{one}" for one in ROOMS] if floor in WINGS else [floor])
        if place not in LACKING
    ]


def goes_down(source: str, target: str) -> bool:
    """Whether a room may import from another."""
    if source == target:
        return True
    (floor, _, inside), (other, _, below) = source.partition("."), target.partition(".")
    if floor == other:
        return ROOMS.index(inside) < ROOMS.index(below)
    return _level(floor) < _level(other)


def _level(floor: str) -> int:
    return next(level for level, row in enumerate(FLOORS) if floor in row)


def upwards(found: list[Arrow]) -> list[Arrow]:
    """The arrows that go up, or to a floor beside."""
    return [arrow for arrow in found if not goes_down(room(arrow.source), room(arrow.target))]


def circles(found: list[Arrow]) -> list[list[str]]:
    """Modules that import each other, directly or through others, when imported or inside functions."""
    down: dict[str, set[str]] = {}
    for arrow in found:
        if arrow.when != TYPES:
            down.setdefault(arrow.source, set()).add(arrow.target)
    reached = {module: _reached(module, down) for module in down}
    mutual = {
        frozenset(other for other in reached[module] if module in reached.get(other, ()))
        for module in down
        if module in reached[module]
    }
    return sorted(sorted(circle) for circle in mutual)


def _reached(module: str, down: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        new = down.get(waiting.pop(), set()) - seen
        seen |= new
        waiting.extend(new)
    return seen


# ---------------------------------------------------------------------------------------------- drawing

HALF = 31  # characters of one of two floors that stand side by side
# By whether it is split above, and below.
CORNERS = {(False, False): "─", (True, False): "┴", (False, True): "┬", (True, True): "┼"}


def floors(files: Counter[str]) -> Iterator[str]:
    """The floors as boxes, with the number of files in each."""
    above = False
    for row in FLOORS:
        split = len(row) == 2
        left, right = "┌┐" if row == FLOORS[0] else "├┤"
        yield f"{left}{'─' * HALF}{CORNERS[above, split]}{'─' * HALF}{right}"
        for place in ROOMS if row == WINGS else ("",):
            width = HALF if split else 2 * HALF + 1
            yield f"│{'│'.join(_cell(floor, place, files).ljust(width) for floor in row)}│"
        above = split
    yield f"└{'─' * (2 * HALF + 1)}┘"


def _cell(floor: str, place: str, files: Counter[str]) -> str:
    if f"{floor}.{place}" in LACKING:
        return ""
    count = files[f"{floor}.{place}" if place else floor]
    name = f"{floor if place == ROOMS[0] else '':6}{place}" if place else floor
    return f"  {name:18}{count:3} {'file' if count == 1 else 'files'}"


def table(found: list[Arrow], files: Counter[str]) -> Iterator[str]:
    """Rows import from columns; both go from top to bottom, so that what goes up stands left of the diagonal."""
    places = [place for place in rooms() if files[place]]
    counts = Counter((room(arrow.source), room(arrow.target)) for arrow in found)
    letters = [chr(ord("a") + number) for number in range(len(places))]
    yield f"{'':18}" + "".join(f"{letter:>5}" for letter in letters)
    for number, place in enumerate(places):
        cells = [str(counts[place, other] or " ·"[column > number]) for column, other in enumerate(places)]
        cells[number] = f"[{counts[place, place]}]"
        yield f"{letters[number]} {place:16}" + "".join(f"{cell:>5}" for cell in cells).rstrip()


def summary(root: Path) -> str:
    """All of it in one line."""
    found = arrows(root)
    when = Counter(arrow.when for arrow in found)
    told = ", ".join(f"{when[kind]} {kind}" for kind in WHEN)
    up, round_ = len(upwards(found)), len(circles(found))
    return f"{len(modules(root))} modules, {len(found)} arrows ({told}), {up} up, {round_} circles"


def picture(root: Path) -> Iterator[str]:
    """The floors, the table, and what goes up or in a circle."""
    found, files = arrows(root), Counter(map(room, modules(root)))
    yield from floors(files)
    yield "\nWhat imports from what: pairs of modules, in brackets within one room. Left of them would be up.\n"
    yield from table(found, files)
    yield f"\nBy names made up at run time, not counted: {', '.join(by_name(root))}"
    yield from (f"UP: {arrow.source} imports {arrow.target}, {arrow.when}" for arrow in upwards(found))
    yield from (f"CIRCLE: {', '.join(circle)}" for circle in circles(found))
    yield summary(root)


def main(arguments: list[str]) -> None:
    """Print the picture, or the one line."""
    places = [argument for argument in arguments if argument != "--counts"]
    root = Path(places[0]) if places else Path(__file__).resolve().parents[1]
    print(summary(root) if "--counts" in arguments else "\n".join(picture(root)))


if __name__ == "__main__":
    main(sys.argv[1:])
