"""Device functions for your own ``@cuda.jit`` kernels: ``from gdkernels.cuda import device``.

Of one element, in float32 and float64, by the names of the tables of `gdkernels.scalar` (`elements`): activations and their
derivatives (``relu``, ``relu_grad``, …), losses (``mse``, …), steps of optimizers (``adam_row``, ``adam_step``, …). Random
words and dropout by a counter (`philox`). Sums and largest numbers of a warp or block (`reductions`). Networks (`Mlp`).

They are compiled into the kernel that calls them, where they take no time of their own.
"""

from ..runtime import jit as jit  # lets Numba compile the functions of `scalar`
from .elements import FUNCTIONS
from .mlp import Mlp
from .philox import is_kept, philox_word, philox_words
from .reductions import block_max, block_sum, thread_count, thread_number, warp_max, warp_sum
from .shared import allow_shared

__all__ = [
    "Mlp", "allow_shared", "block_max", "block_sum", "is_kept", "philox_word", "philox_words", "thread_count",
    "thread_number", "warp_max", "warp_sum",
]  # fmt: skip
__all__ += list(FUNCTIONS)
globals().update(FUNCTIONS)
