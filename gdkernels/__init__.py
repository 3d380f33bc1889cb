"""Forward and backward kernels for dense neural networks, written in Numba.

>>> import gdkernels as gd

Array functions (`gd.linear`, `gd.adam_step`, …) work on NumPy arrays; `gd.mlp` builds a network and `gd.Trainer` trains
it. Everything is imported when it is first used, so that the import of the package costs next to nothing.
"""

import importlib

# Type checkers take it for true; importing it from typing would double the time of the import.
TYPE_CHECKING = False

# The public names: modules, and what other modules list in their __all__. `_homes` reads these lines as text.
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
    _found = {}

    def __getattr__(name: str):
        """A public name, at its first use: its module is imported then."""
        if name == "__all__":
            value = sorted(_homes())
        elif name.startswith("_") or name not in _homes():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            module, attribute = _homes()[name]
            value = importlib.import_module(module, __name__)
            if attribute:
                value = getattr(value, attribute)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*_homes(), "__version__"]

    def _homes() -> dict[str, tuple[str, str]]:
        """By public name, the module that it stands for, or the module and the name there.

        Sources are read and not run: that takes a millisecond, and NumPy and Numba stay where they are until they are used.
        """
        if not _found:
            homes = {}
            for line in _source("__init__").splitlines():
                if not line.startswith("    from ."):
                    continue
                _, module, _, name, *_ = line.split()
                if name == "*":
                    listed = _source(module[1:]).partition("\n__all__ = [")[2].partition("]")[0]
                    homes.update((one, (module, one)) for one in listed.split('"')[1::2])
                else:
                    homes[name] = f"{module.rstrip('.')}.{name}", ""
            _found.update(homes)  # at once, for other threads
        return _found

    def _source(module: str) -> str:
        with open(f"{__path__[0]}/{module.replace('.', '/')}.py", encoding="utf-8") as file:
            return file.read()


__version__ = "0.1.0"
