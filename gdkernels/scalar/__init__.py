"""The mathematics of one element, written once and compiled for every target.

Functions here are plain Python on one number. They work for float32 and float64 alike and keep the type they are
given: constants are written ``type(z)(0.5)``, because a bare 0.5 would carry float32 arithmetic into float64.

Nothing here imports Numba. Each target asks for the marked `functions` and registers them with flags of its own
(`cpu.runtime.elementary`, `cuda.runtime.elementary`).
"""

import importlib
import pkgutil


def elementwise(function):
    """Mark a function that targets compile into what calls it."""
    function.is_elementwise = True
    return function


def functions() -> list:
    """Every marked function of this package."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
    ]
    found = {
        one for module in modules for one in vars(module).values() if getattr(one, "is_elementwise", False)
    }
    return sorted(found, key=lambda one: (one.__module__, one.__code__.co_firstlineno))
