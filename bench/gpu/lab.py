"""What the sections work with: memory on the device, a clock, the time that is left, and comparisons with what is right."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gdkernels.cuda import activation
from gdkernels.cuda.runtime import arrays, driver
from gdkernels.cuda.runtime.jit import Launch, run
from gdkernels.cuda.runtime.pointer import BYTES
from reference.rounding import STORED

from .clock import Blind, Stopwatch
from .peers import Torch
from .rows import Row, failure

EPS = float(np.finfo(np.float32).eps)
# Besides that of float32 arithmetic: of operands that are multiplied as tf32, of results that are stored as bfloat16.
ROUNDOFF = {"float32": 0.0, "tf32": 2.0**-9, "bfloat16": STORED["bfloat16"]}
PIECE = 1 << 20  # random numbers that are drawn; larger arrays repeat them


class Lab:
    """The device, as a section sees it.

    Attributes
    ----------
    tiny : whether shapes are so small that an emulated device can do them
    torch : what PyTorch can do here, or None
    kinds : the storage types and precisions that the device has
    stream : on which everything is launched
    clock : a `Stopwatch`, or, where times mean nothing, `Blind`
    kept : the memory of the item in progress, which launches know by its address alone
    sizes : names and bytes of what memory-bound kernels move: through the cache, and through memory
    seconds : that the next comparison may take
    """

    def __init__(self, tiny: bool, timed: bool, seconds: float, torch: bool = True):
        device = driver.use()
        self.tiny = tiny
        self.kinds = [kind for kind in ROUNDOFF if not lacks(driver.capability(device), kind)]
        self.torch = Torch.find() if torch else None
        self.library = arrays.default_library() if self.torch is None else arrays.Torch
        self.stream = self.library.stream()
        self._end = time.monotonic() + seconds
        self.seconds = 1.0
        self.kept: list[arrays.Array] = []
        cache, free = driver.cache_size(device), driver.memory()[0]
        large = min(max(8 * cache, 1 << 28), free // 8)
        self.sizes = {"tiny": 1 << 14} if tiny else {"cache": cache // 4, "memory": large}
        self.clock: Stopwatch | Blind = Blind(self.wait)
        if timed:
            count = 1 << 10 if tiny else min(1 << 25, free // 64)
            source, target = (self.empty((count,), "float32") for _ in range(2))
            self._stalled, self.kept = self.kept, []
            stall = self.copies(source.address, target.address, source.nbytes)
            self.clock = Stopwatch(self.stream, lambda: self.run(stall), self.wait)

    # ------------------------------------------------------------------------------------------ time

    def left(self) -> float:
        """Seconds until the section has to end."""
        return self._end - time.monotonic()

    def share(self, items: int) -> None:
        """Let each comparison of the next item last so long that all items find time; half goes to other work."""
        self.seconds = min(1.0, max(0.02, 0.5 * self.left() / (items * len(self.sizes))))

    # ------------------------------------------------------------------------------------------ work

    def run(self, launches: list[Launch]) -> None:
        run(launches, self.stream)

    def wait(self) -> None:
        driver.synchronize(self.stream)

    def is_alive(self) -> bool:
        """Whether the device can still be used: after some errors no call of the process succeeds."""
        try:
            self.wait()
            return bool(self.empty((1,), "float32").to_numpy().size)
        except Exception:
            return False

    @staticmethod
    def copies(source: int, target: int, size: int) -> list[Launch]:
        """Our copy of this many bytes: the activation that changes nothing, 16 bytes a thread."""
        return activation.forward_launches("float32", "identity", source, target, size // 4)

    # ------------------------------------------------------------------------------------------ memory

    def empty(self, shape: tuple[int, ...], storage: str) -> arrays.Array:
        """Memory that nobody has written to. It lasts until `forget`."""
        dtype = arrays.BFLOAT16 if storage == "bfloat16" else np.dtype(storage)
        self.kept.append(arrays.read(self.library.empty(shape, dtype)))
        return self.kept[-1]

    def forget(self) -> None:
        """Give back all memory."""
        self.wait()
        self.kept.clear()

    def put(self, values: np.ndarray, storage: str) -> arrays.Array:
        """A copy of values; bfloat16 rounds to nearest even."""
        array = self.empty(values.shape, storage)
        stored = _bfloat16_bits(values) if storage == "bfloat16" else values.astype(storage)
        driver.to_device(array.address, np.ascontiguousarray(stored), self.stream)
        return array

    def normal(
        self, shape: tuple[int, ...], storage: str, seed: int = 0, positive: bool = False
    ) -> arrays.Array:
        """Normal random numbers, or their absolute values."""
        array = self.empty(shape, storage)
        drawn = np.random.default_rng(seed).standard_normal(min(array.size, PIECE), np.float32)
        piece = self.put(abs(drawn) if positive else drawn, storage)
        driver.copy(array.address, piece.address, piece.nbytes, self.stream)
        done = piece.nbytes
        while done < array.nbytes:  # what is there, once more
            size = min(done, array.nbytes - done)
            driver.copy(array.address + done, array.address, size, self.stream)
            done += size
        self.wait()
        return array

    def labels(self, rows: int, classes: int) -> arrays.Array:
        """Random labels."""
        return self.put(np.random.default_rng(1).integers(0, classes, rows), "int64")


def lacks(capability: tuple[int, int], kind: str) -> bool:
    """Whether GPUs of this compute capability have no instructions for a storage type or precision."""
    return kind in ("bfloat16", "tf32") and capability < (8, 0)


def willing(
    makers: dict[str, Callable[[], Any]], trial: Callable[[Any], Any] = lambda work: work()
) -> tuple[dict[str, Any], list[Row]]:
    """What peers do that can do it at all, tried once, and a row for each of the others."""
    found, failures = {}, []
    for name, make in makers.items():
        try:
            work = make()
            trial(work)
        except Exception as error:  # a peer that cannot takes nobody with it
            failures.append(failure(f"{name}: {type(error).__name__}: {error}"))
        else:
            found[name] = work
    return found, failures


def rows_of(total: int, columns: int, arrays_moved: int, storage: str) -> int:
    """Rows of this many arrays, which have `total` bytes together."""
    return max(1, total // (columns * arrays_moved * BYTES[storage]))


def deviation(found: Any, right: Any, size: Any = None) -> float:
    """max |found − right| / size, which is that of the largest of `right` unless given; infinite for NaN."""
    found, right = np.asarray(found, np.float64), np.asarray(right, np.float64)
    if found.size == 0:
        return 0.0
    scale = np.max(np.abs(right)) if size is None else size
    error = float(np.max(np.abs(found - right) / np.maximum(scale, 1e-30)))
    return math.inf if math.isnan(error) else error


def bound(kind: str, roundings: float) -> float:
    """What that many roundings of float32 make of numbers of size 1, that are then stored, or multiplied, as `kind`."""
    return ROUNDOFF[kind] + roundings * EPS


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
