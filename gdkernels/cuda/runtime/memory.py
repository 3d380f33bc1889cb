"""Memory as the engine uses it: temporaries of a call, what goes to the device in one piece, and what grows."""

import numpy as np

from .arrays import Array

ALIGNED = 256  # bytes: where a buffer begins


class Room:
    """Temporaries of one call at a time, in one piece of memory as large as the largest call needs."""

    def __init__(self) -> None:
        self.base, self.needed, self._used = 0, 0, 0

    def start(self) -> None:
        self._used = 0

    def __call__(self, size: int) -> int:
        place = self._used
        self._used += -(-size // ALIGNED) * ALIGNED
        self.needed = max(self.needed, self._used)
        return self.base + place


def packed(parts: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Arrays behind one another in bytes, each at a multiple of 16, and where they start."""
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += -(-part.nbytes // 16) * 16
    data = np.zeros(at, np.uint8)
    for start, part in zip(starts, parts, strict=True):
        data[start : start + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    return data, starts


def grown(memory: Array | None, size: int, make) -> Array:
    """Memory of at least `size` bytes."""
    return memory if memory is not None and memory.nbytes >= size else make(size + size // 2)
