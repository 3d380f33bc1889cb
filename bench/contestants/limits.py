"""What this machine can do at most: multiply-adds, and memory traffic, by Numba kernels that our team of threads runs.

A unit is one floating-point operation, one byte, or one barrier: ``run(times)`` does so many, all threads together. Bytes
are those that the loop reads and writes; a line that is read only because it will be written does not count. Each thread
goes through its own part of the memory again and again, and waits for nobody.
"""

from typing import Any

import numpy as np

from gdkernels.cpu.gemm.panels import full
from gdkernels.cpu.gemm.tile import ROWS, VECTORS
from gdkernels.cpu.runtime.jit import kernel, native
from gdkernels.cpu.runtime.machine import VECTOR_BITS
from gdkernels.cpu.runtime.memory import aligned_zeros
from gdkernels.cpu.runtime.simd import noalias, offset, unpack
from gdkernels.cpu.runtime.team import address, float_bits, team, wait

K = 512  # products that a tile adds in one call
TILE_FLOPS = 2 * K * ROWS * VECTORS * VECTOR_BITS // 32
LINE = 16  # floats; parts of the memory begin on a cache line
SMALLEST = 4096  # bytes of an array


@native("F*, F*, F*, F, i8")
def copy(a, b, c, s, count):
    """a ← b."""
    noalias()
    for i in range(count):
        a[i] = b[i]


@native("F*, F*, F*, F, i8")
def triad(a, b, c, s, count):
    """a ← b + s c."""
    noalias()
    for i in range(count):
        a[i] = b[i] + s * c[i]


@native("F*, F*, F*, F, i8")
def update(a, b, c, s, count):
    """a ← s a, in place."""
    noalias()
    for i in range(count):
        a[i] = s * a[i]


@kernel
def fma(record, start, stop, worker):
    """The register tile on operands that stay in the first-level cache, as fast as multiply-adds come."""
    a, c, stride, times = unpack(record, "F*, F*, i8, i8")
    own = offset(c, stride * start)
    for _ in range(times):
        full(ROWS, K, a, 0, 0, 0, a, 0, own, 0, own, 0, own, 0)


@kernel
def meet(record, start, stop, worker):
    """Barrier after barrier: how long it takes until a core knows what another has written."""
    members, times = unpack(record, "i8*, i8")
    for _ in range(times):
        wait(members, stop)


def _streaming(loop):
    """The job of a loop over memory: worker `start` of `stop` takes its part `times` times, and then its beginning."""

    def stream(record, start, stop, worker):
        a, b, c, s, part, times, rest = unpack(record, "F*, F*, F*, F, i8, i8, i8")
        first = start * part
        for _ in range(times):
            loop(offset(a, first), offset(b, first), offset(c, first), s, part)
        loop(offset(a, first), offset(b, first), offset(c, first), s, rest)

    stream.__name__ = f"stream_{loop.function.__name__}"
    return kernel(stream)


# The job and the number of arrays of each loop, and how often it touches an element (4 bytes each).
STREAMS = {
    "copy": (_streaming(copy), 2, 2),
    "triad": (_streaming(triad), 3, 3),
    "update": (_streaming(update), 1, 2),
}


class Fma:
    """Multiply-adds on data in registers and the first-level cache."""

    def __init__(self, job: dict[str, Any], threads: int):
        self._threads = threads
        self._operands = np.full(64, 1e-3, np.float32), aligned_zeros(1024 * threads, np.float32)
        self._entry = fma.address("float32")

    def run(self, times: int) -> None:
        calls = max(1, round(times / TILE_FLOPS / self._threads))
        _run(self._entry, (*map(address, self._operands), 1024, calls), self._threads)


class Barrier:
    """Meetings of all threads."""

    def __init__(self, job: dict[str, Any], threads: int):
        self._threads, self._entry = threads, meet.address("float32")

    def run(self, times: int) -> None:
        _run(self._entry, (team().address, times), self._threads)


class Stream:
    """A loop over arrays of ``job["bytes"]`` bytes together, dealt out to the threads."""

    def __init__(self, job: dict[str, Any], threads: int):
        kind, self._arrays, self._touched = STREAMS[job["op"]]
        self._threads, self._entry = threads, kind.address("float32")
        self.outcome(job["bytes"])

    def outcome(self, working_set: int) -> dict[str, int]:
        """Turn to arrays of so many bytes together."""
        quantum = LINE * self._threads
        count = max(SMALLEST, working_set // self._arrays) // 4 // quantum * quantum
        self._part = count // self._threads
        self._memory = [aligned_zeros(count, np.float32, 12 * number) for number in range(self._arrays)]
        for memory in self._memory:
            memory[...] = 1.0  # pages are there from now on
        return {"bytes": 4 * count * self._arrays}

    def run(self, times: int) -> None:
        elements = times // (4 * self._touched * self._threads)  # of each thread
        places = [address(memory) for memory in self._memory]
        places += [places[0]] * (3 - self._arrays)
        _run(
            self._entry, (*places, float_bits(1.0), self._part, *divmod(elements, self._part)), self._threads
        )


def _run(entry: int, operands: tuple[int, ...], threads: int) -> None:
    record = np.array(operands, np.int64)
    members = team()
    with members.lock:
        members.run(entry, address(record), threads)


LIMITS = {"fma": Fma, "barrier": Barrier} | dict.fromkeys(STREAMS, Stream)
