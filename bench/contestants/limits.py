"""What this machine can do at most: multiply-adds, and memory traffic, by Numba kernels that our team of threads runs.

A unit is one floating-point operation, one byte, or one barrier: ``run(times)`` does that many, all threads together. Bytes
are those that the loop reads and writes; a line that is read only because it will be written does not count. Each thread
goes through its own part of the memory again and again, and waits for nobody.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.emit import Emitter
from gdkernels.cpu.runtime.jit import Kernel, kernel, native
from gdkernels.cpu.runtime.layout import Double, Floats, Int, Ints
from gdkernels.cpu.runtime.machine import VECTOR_BITS, VECTOR_REGISTERS
from gdkernels.cpu.runtime.memory import aligned_zeros
from gdkernels.cpu.runtime.simd import I64, noalias, offset
from gdkernels.cpu.runtime.team import team, wait

# Sums that wait for nobody: two units that take 4 or 5 cycles for a multiply-add need 10. Two registers hold the factors.
CHAINS = 3 * VECTOR_REGISTERS // 4
TURNS = 512  # multiply-adds of each chain in one call
CALL_FLOPS = 2 * TURNS * CHAINS * VECTOR_BITS // 32
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


@intrinsic
def multiply_adds(typingctx, a, c, turns):
    """c ← a[:lanes] c + a[lanes:2·lanes], `turns` times, for as many vectors of c as there are chains, all in registers."""

    def generate(context, builder, signature, arguments):
        a, c, turns = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        factor, addend = emit.load(a), emit.load(emit.at(a, I64(emit.lanes)))

        def turn(_, sums):
            return [emit.multiply_add(factor, chain, addend) for chain in sums]

        places = [emit.at(c, I64(chain * emit.lanes)) for chain in range(CHAINS)]
        for place, value in zip(
            places, emit.repeat(turns, [], [], [*map(emit.load, places)], turn), strict=True
        ):
            emit.store(value, place)
        return context.get_dummy_value()

    return types.void(a, c, types.int64), generate


@native("F*, F*, i8")
def chains(a, c, turns):
    """See `multiply_adds`."""
    multiply_adds(a, c, turns)


@kernel
def fma(a: Floats, c: Floats, stride: Int, times: Int, worker, workers):
    """Multiply-adds that need nothing but registers, as fast as they come."""
    own = offset(c, stride * worker)
    for _ in range(times):
        chains(a, own, TURNS)


@kernel
def meet(members: Ints, times: Int, worker, workers):
    """Barrier after barrier: how long it takes until a core knows what another has written."""
    for _ in range(times):
        wait(members, workers)


def _streaming(loop):
    """The job of a loop over memory: each worker takes its part `times` times, and then its beginning."""

    def stream(a: Floats, b: Floats, c: Floats, s: Double, part: Int, times: Int, rest: Int, worker, workers):
        first = worker * part
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
    """Multiply-adds on data in registers."""

    def __init__(self, job: dict[str, Any], threads: int):
        self._threads = threads
        self._operands = np.full(64, 1e-3, np.float32), aligned_zeros(1024 * threads, np.float32)

    def run(self, times: int) -> None:
        calls = max(1, round(times / CALL_FLOPS / self._threads))
        a, c = self._operands
        _run(fma, self._threads, a=a, c=c, stride=1024, times=calls)


class Barrier:
    """Meetings of all threads."""

    def __init__(self, job: dict[str, Any], threads: int):
        self._threads = threads

    def run(self, times: int) -> None:
        _run(meet, self._threads, members=team().memory, times=times)


class Stream:
    """A loop over arrays of ``job["bytes"]`` bytes together, dealt out to the threads."""

    def __init__(self, job: dict[str, Any], threads: int):
        self._job, self._arrays, self._touched = STREAMS[job["op"]]
        self._threads = threads
        self.outcome(job["bytes"])

    def outcome(self, working_set: int) -> dict[str, int]:
        """Turn to arrays of this many bytes together."""
        quantum = LINE * self._threads
        count = max(SMALLEST, working_set // self._arrays) // 4 // quantum * quantum
        self._part = count // self._threads
        self._memory = [aligned_zeros(count, np.float32, 12 * number) for number in range(self._arrays)]
        for memory in self._memory:
            memory[...] = 1.0  # pages are there from now on
        return {"bytes": 4 * count * self._arrays}

    def run(self, times: int) -> None:
        elements = times // (4 * self._touched * self._threads)  # of each thread
        a, b, c = (*self._memory, *[self._memory[0]] * 2)[:3]
        whole, rest = divmod(elements, self._part)
        _run(self._job, self._threads, a=a, b=b, c=c, s=1.0, part=self._part, times=whole, rest=rest)


def _run(job: Kernel, threads: int, **operands: Any) -> None:
    """Run a job on all workers."""
    record = np.frombuffer(job.record(np.dtype(np.float32), **operands), np.int64)
    members = team()
    with members.lock:
        members.run(job.address("float32"), address(record), threads)


LIMITS = {"fma": Fma, "barrier": Barrier} | dict.fromkeys(STREAMS, Stream)
