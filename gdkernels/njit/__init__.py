"""The operations inside the functions that users compile with ``@njit``: by the same names, with the same arguments.

Numba asks for `init` when it compiles for the first time (the entry point `numba_extensions`); nothing else of this package
is imported then unless the program uses it. `register` teaches Numba the operations, once.
"""

import importlib
import sys
from types import FunctionType
from typing import Any

FAMILIES = (
    "activation", "clip", "cross_entropy", "dropout", "linear", "loss", "matmul", "norm", "optim", "schedules", "softmax",
)  # fmt: skip
_registered = False


def init() -> None:
    """Let Numba ask for the operations when it meets the first function of this package, or teach them at once.

    They are taught at once where a program has already taken one of them.
    """
    from numba.extending import typeof_impl

    if any(name.startswith(("gdkernels.ops.", "gdkernels.train.schedules")) for name in sys.modules):
        register()
    else:
        typeof_impl.register(FunctionType)(_typeof_function)


def _typeof_function(function: Any, context: Any) -> Any:
    """The type of a Python function as a constant: None, so that Numba looks among what it was taught."""
    if (function.__module__ or "").partition(".")[0] == "gdkernels":
        register()
    return getattr(function, "_numba_type_", None)


def register() -> None:
    """Teach Numba the operations, each under the function that Python calls."""
    global _registered
    if _registered:
        return
    _registered = True
    try:
        for family in FAMILIES:
            importlib.import_module(f".{family}", __name__)
    except BaseException:
        _registered = False
        raise
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    if not global_compiler_lock.is_locked():
        return
    # A function is being compiled that has just met the first operation.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
