"""gdkernels in pure NumPy: every operation in a few lines of float64, with its derivation.

The lecture, and the judge: kernels are tested against these functions, and these against finite differences
(`gradcheck`). Names and argument order are the package's; what a kernel writes into an argument (z, stats,
grad, the state of an optimizer) is returned here instead, and nothing is modified.

In reading order: matmul, activation, linear, loss, softmax, cross_entropy, gradcheck; then dropout, norm, init, optim,
schedules, clip. As in the package, schedules and initialisers are called `schedules.cosine`, `init.he_normal`. How far
from all this rounding may take a kernel, `bounds` derives, in the units of `rounding`.
"""

# Every file lists what it shows (`__all__`), so that a function that joins a family changes one file.
# ruff: noqa: F403

from types import ModuleType as _Module

from . import init, schedules
from .activation import *
from .clip import *
from .cross_entropy import *
from .dropout import *
from .gradcheck import *
from .linear import *
from .loss import *
from .matmul import *
from .norm import *
from .optim import *
from .softmax import *

__all__ = ["init", "schedules"]
__all__ += sorted(
    name for name, value in globals().items() if name[0] != "_" and not isinstance(value, _Module)
)
