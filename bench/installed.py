"""What a library occupies on disk with all that it requires: the files of the installed distributions.

Bytecode is not counted: installers differ in whether they write it. Of a distribution that is installed for editing,
the files of its package are counted.
"""

import importlib.metadata as metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

# What somebody installs to train as our contestants do.
NAMES = {
    "gdkernels": ("gdkernels",),
    "torch": ("torch",),
    "jax": ("jax", "optax"),
    "tinygrad": ("tinygrad",),
    "scikit-learn": ("scikit-learn",),
}

Requires = Callable[[str], list[str]]


def requirements(name: str) -> list[str]:
    """The distributions that one requires here, without extras. PackageNotFoundError where it is not installed."""
    from packaging.requirements import Requirement

    found = map(Requirement, metadata.requires(name) or ())
    return [each.name for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def closure(names: tuple[str, ...], requires: Requires = requirements) -> list[str]:
    """These distributions and all that they require, each once."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        key = name.lower().replace("_", "-").replace(".", "-")
        if key not in found:
            found[key] = name
            waiting += requires(name)
    return list(found.values())


def size(name: str) -> int:
    """Bytes of the files of one distribution."""
    distribution = metadata.distribution(name)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        spec = importlib.util.find_spec(name)
        folders = (spec.submodule_search_locations or ()) if spec else ()
        return sum(_bytes(path) for folder in folders for path in Path(folder).rglob("*.py*"))
    return sum(_bytes(Path(str(file.locate()))) for file in distribution.files or ())


def _bytes(path: Path) -> int:
    if path.suffix == ".pyc" or not path.is_file() or path.is_symlink():
        return 0
    return path.stat().st_size


def total(library: str) -> int:
    """Bytes of a library of `NAMES` with all that it requires."""
    return sum(size(name) for name in closure(NAMES[library]))
