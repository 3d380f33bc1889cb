"""Modules of kernels with a mistake: tests show that it is found out."""

import hashlib
import types
from pathlib import Path


def mutant(module, old: str, new: str) -> types.ModuleType:
    """The module with a piece of its text replaced; its kernels are cached under names of their own."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times"
    text = source.replace(old, new)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    changed = types.ModuleType(f"{module.__package__}.mutant_{digest}")
    changed.__package__ = module.__package__
    exec(compile(text, changed.__name__, "exec"), changed.__dict__)
    return changed
