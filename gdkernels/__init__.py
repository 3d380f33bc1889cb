"""Forward and backward kernels for dense neural networks, written in Numba.

>>> import gdkernels as gd

Array functions (`gd.linear`, `gd.adam_step`, …) work on NumPy arrays; `gd.mlp` builds a network and `gd.Trainer` trains
it. Everything is imported when it is first used, so that the import of the package costs next to nothing.
"""

import importlib
import sys

# Type checkers take it for true; importing it from typing would double the time of the import.
TYPE_CHECKING = False

# The public names: modules, and what other modules list in their __all__. Type checkers read them here, all others below.
if TYPE_CHECKING:
    from . import cuda as cuda
    from . import testing as testing
    from .cpu.runtime.team import *
    from .nn import init as init
    from .nn.layers import *
    from .nn.network import *
    from .ops.activation import *
    from .ops.clip import *
    from .ops.cross_entropy import *
    from .ops.dropout import *
    from .ops.linear import *
    from .ops.loss import *
    from .ops.matmul import *
    from .ops.norm import *
    from .ops.optim import *
    from .ops.softmax import *
    from .train import schedules as schedules
    from .train.loss import *
    from .train.optim import *
    from .train.trainer import *
else:
    _MODULES = {"cuda": "cuda", "testing": "testing", "init": "nn.init", "schedules": "train.schedules"}
    _LISTING = (
        "cpu.runtime.team", "nn.layers", "nn.network", "ops.activation", "ops.clip", "ops.cross_entropy", "ops.dropout",
        "ops.linear", "ops.loss", "ops.matmul", "ops.norm", "ops.optim", "ops.softmax", "train.loss", "train.optim",
        "train.trainer",
    )  # fmt: skip
    _found = {}

    def __getattr__(name: str):
        """A public name, at its first use: its module is imported then."""
        if name == "__all__":
            value = sorted(_homes())
        elif name.startswith("_") or name not in _homes():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            module, attribute = _homes()[name]
            value = importlib.import_module(f".{module}", __name__)
            if attribute:
                value = getattr(value, attribute)
            if "numba" in sys.modules and module.startswith(("ops.", "train.schedules")):
                importlib.import_module(".njit", __name__).register()
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*_homes(), "__version__"]

    def _homes() -> dict[str, tuple[str, str]]:
        """By public name, the module that it stands for, or the module and the name there."""
        if not _found:
            homes = {name: (module, "") for name, module in _MODULES.items()}
            homes |= {name: (module, name) for module in _LISTING for name in _listed(module)}
            _found.update(homes)  # at once, for other threads
        return _found

    def _listed(module: str) -> list[str]:
        """The `__all__` of a module.

        Its source is read and not run: that takes a millisecond for all of them, and NumPy and Numba stay where they are
        until they are used. A module that comes without its source is imported.
        """
        try:
            source = __loader__.get_data(f"{__path__[0]}/{module.replace('.', '/')}.py").decode()
        except OSError:
            return importlib.import_module(f".{module}", __name__).__all__
        return source.partition("\n__all__ = [")[2].partition("]")[0].split('"')[1::2]


__version__ = "0.1.0"
