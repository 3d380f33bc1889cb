"""Sums and largest numbers over a warp and over a block, in a fixed order: the same numbers give the same bits.

Every thread of the warp, or of the block, must call, and as often as the others: none may have returned, and none may be in
the other branch of an ``if``. That cannot be checked. A GPU may hang, or give anything; the emulator tells.

A block may have any number of threads, in one, two or three dimensions. In a warp pairs at a distance of 16, 8, 4, 2, 1 are
added, then what the warps have, in their order. The largest of numbers of which one is NaN is NaN.
"""

from ..runtime.intrinsics import FULL, divided, plus, warp_reduction
from ..runtime.pointer import shared
from ..runtime.target import cuda, device

WARPS = 32  # that a block can have


@device
def _largest(a, b):
    """The larger of two numbers; NaN where one is NaN."""
    return a if a > b or a != a else b


@device
def thread_number():
    """The number of this thread in its block, x first."""
    return cuda.threadIdx.x + cuda.blockDim.x * (cuda.threadIdx.y + cuda.blockDim.y * cuda.threadIdx.z)


@device
def thread_count():
    """The number of threads of this block."""
    return cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z


@device
def turns(count):
    """How many of `count` numbers this thread has: its own, and one every `thread_count()` from there on.

    A loop over them with a step that only the launch knows would let the compiler divide integers of 64 bits.
    """
    threads = thread_count()
    return divided(count + threads - 1 - thread_number(), threads)[0]


def _of_warp(combine, what: str):
    """(value) → `what` over the lanes of a warp."""
    reduce = warp_reduction(combine)

    def of_warp(value):
        return reduce(value, 5)

    of_warp.__doc__ = f"{what} over the 32 lanes of a warp, in each of them; every lane must call."
    return device(of_warp)


def _of_last_warp(combine):
    """(value, lane, lanes) → as `_of_warp` in the first lane, of the first `lanes` lanes, which are all that there are."""

    @device
    def of_last_warp(value, lane, lanes):
        present, distance = FULL >> (32 - lanes), 16
        while distance > 0:
            other = cuda.shfl_xor_sync(present, value, distance if lane ^ distance < lanes else 0)
            if lane ^ distance < lanes:
                value = combine(value, other)
            distance >>= 1
        return value

    return of_last_warp


def _of_block(combine, what: str):
    """(value) → `what` over the threads of a block."""
    of_warp, of_last_warp = _of_warp(combine, what), _of_last_warp(combine)

    def of_block(value):
        number, count = thread_number(), thread_count()
        lane, lanes = number & 31, count - (number & ~31)
        value = of_warp(value) if lanes >= 32 else of_last_warp(value, lane, lanes)
        if count > 32:
            memory = shared(value, WARPS)
            cuda.syncthreads()
            if lane == 0:
                memory[number >> 5] = value
            cuda.syncthreads()
            value = memory[0]
            for warp in range(1, (count + 31) >> 5):
                value = combine(value, memory[warp])
        else:
            value = cuda.shfl_sync(FULL >> (32 - count), value, 0)
        return value

    of_block.__doc__ = f"{what} over the threads of a block, in each of them; every thread must call."
    return device(of_block)


warp_sum, block_sum = _of_warp(plus, "The sum"), _of_block(plus, "The sum")
warp_max, block_max = _of_warp(_largest, "The largest number"), _of_block(_largest, "The largest number")
