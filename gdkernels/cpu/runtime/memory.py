"""Memory as the kernels like it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes of a cache line, and of the widest vector
PAGE = 4096

# What is dealt out together, at least: a cache line or more, so that no two workers write into one.
QUANTUM = 64  # elements of an array
COLUMN_QUANTUM = 16  # columns of a matrix


def next_page(address: int) -> int:
    """The first address from this one on at which a page begins."""
    return -(-address // PAGE) * PAGE


def aligned_zeros(count: int, dtype: np.dtype[Any] | type, line: int = 0) -> NDArray[Any]:
    """Zeros that begin `line` cache lines after the beginning of a page.

    Buffers that are walked side by side get different lines: at equal places of their pages they would compete for the
    same sets of the first-level cache.
    """
    size = count * np.dtype(dtype).itemsize
    memory = np.zeros(size + PAGE + line * LINE, np.uint8)
    start = -memory.ctypes.data % PAGE + line * LINE
    return memory[start : start + size].view(dtype)
