"""The norm of a gradient, and clipping by it.

A norm is the root of sums of `STRETCH` squares, summed in an order that depends on the number of elements alone. Squares of
float32 may overflow or vanish: they are summed in three scales, since float64 arithmetic is slow on most GPUs.
"""

import math
from collections.abc import Sequence

import numpy as np

from . import elements
from .rows import FOURS, THREADS, WARPS
from .runtime.arrays import Array
from .runtime.intrinsics import is_wide, load4, times, warp_sum
from .runtime.jit import Launch, device, kernel, run
from .runtime.pointer import BYTES, real, shared
from .runtime.target import cuda
from .runtime.widths import both_widths

STRETCH = 4096  # elements whose squares are one sum
TURNS = STRETCH // FOURS
SUMS = 3 * WARPS

# Squares are summed three times: of elements as they are, scaled down, and scaled up. Down: the square of the largest
# float32 becomes 2⁶⁴. Up: that of the smallest, 2⁻¹⁴⁹, becomes 2⁻¹¹⁸. The sum of the elements as they are will do from
# TINY on: what it lacks of squares below the smallest normal number, 2⁻¹²⁶, is nothing beside it. Below TINY no element
# is above 2⁻²⁸, whose square becomes 2¹²⁴. These are powers of two, by which scaling is exact.
DOWN, UP, TINY = 2.0**-96, 2.0**90, 2.0**-56


@device
def _add_square(sums, x):
    """(Σ x², Σ (DOWN x)², Σ (UP x)²) with one more x."""
    plain, down, up = sums
    less, more = type(x)(DOWN) * x, type(x)(UP) * x
    return plain + x * x, down + less * less, up + more * more


@device
def sum_of_block(like, sums):
    """The sums over the threads of a block, lane by lane and warp by warp; they are right in thread 0."""
    plain, down, up = warp_sum(sums[0], 5), warp_sum(sums[1], 5), warp_sum(sums[2], 5)
    warp = cuda.threadIdx.x >> 5
    of_warps = shared(like, SUMS)
    if cuda.threadIdx.x & 31 == 0:
        of_warps[warp], of_warps[WARPS + warp], of_warps[2 * WARPS + warp] = plain, down, up
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for w in range(1, WARPS):
            plain += of_warps[w]
            down += of_warps[WARPS + w]
            up += of_warps[2 * WARPS + w]
    return plain, down, up


@device
def _write_sums(partial, planes, sums):
    plain, down, up = sum_of_block(partial, sums)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = plain
        if planes > 0:
            partial[planes + cuda.blockIdx.x] = down
            partial[2 * planes + cuda.blockIdx.x] = up


@device
def root(plain, down, up):
    """√Σ x² from the one of the three sums that neither overflowed nor vanished; NaN and infinity pass."""
    if plain <= type(plain)(TINY):
        return math.sqrt(up) * type(plain)(1.0 / UP)
    if plain < type(plain)(math.inf):
        return math.sqrt(plain)
    return math.sqrt(down) * type(plain)(1.0 / DOWN)


@kernel("F*, R*, i8, i8", threads=THREADS)
def squares4(g, partial, planes, fours):
    """partial[b] = Σ g² over STRETCH elements; if planes > 0, partial[planes + b] and partial[2 planes + b] are the sums of
    (DOWN g)² and (UP g)²."""
    sums = real(partial, 0), real(partial, 0), real(partial, 0)
    for turn in range(TURNS):
        place = (cuda.blockIdx.x * TURNS + turn) * THREADS + cuda.threadIdx.x
        if place < fours:
            g0, g1, g2, g3 = load4(g, 4 * place)
            sums = _add_square(_add_square(_add_square(_add_square(sums, g0), g1), g2), g3)
    _write_sums(partial, planes, sums)


@kernel("F*, R*, i8, i8", threads=THREADS)
def squares1(g, partial, planes, count):
    """As `squares4` and with its bits, for any count and address."""
    sums = real(partial, 0), real(partial, 0), real(partial, 0)
    for turn in range(TURNS):
        place = 4 * ((cuda.blockIdx.x * TURNS + turn) * THREADS + cuda.threadIdx.x)
        for lane in range(4):
            if place + lane < count:
                sums = _add_square(sums, g[place + lane])
    _write_sums(partial, planes, sums)


@device
def sum_of_planes(partial, planes, first, last):
    """The three sums over the blocks [first, last) of the gradient, by one block of threads; right in thread 0."""
    plain = down = up = real(partial, 0)
    place = first + cuda.threadIdx.x
    while place < last:
        plain += partial[place]
        down += partial[planes + place]
        up += partial[2 * planes + place]
        place += THREADS
    return sum_of_block(partial, (plain, down, up))


@kernel("R*, i8, R*", threads=THREADS)
def norm_of_sums(partial, blocks, norm):
    """norm = √Σ g² from the sums of all blocks, by one block of threads; partial has three planes of `blocks` sums."""
    plain, down, up = sum_of_planes(partial, blocks, 0, blocks)
    if cuda.threadIdx.x == 0:
        norm[0] = root(plain, down, up)


@device
def clip_factor(norm, max_norm):
    """max_norm / (norm + 1e-6), to be applied where it is not ≥ 1: also where it is NaN."""
    return max_norm / (norm + type(norm)(1e-6))


@both_widths("F*, R*, R, i8")
def clipped(width):
    """g = factor g, if the factor of clipping is below 1 (or NaN)."""
    load, store, scale, size = width.load, width.store, width.each(times, 1), width.size

    def body(g, norm, max_norm, groups):
        place = cuda.grid(1)
        factor = clip_factor(norm[0], max_norm)
        if place < groups and not factor >= 1:
            store(g, size * place, scale(load(g, size * place), factor))

    return body


# ---------------------------------------------------------------------------------------------- launches


def squares_count(count: int) -> int:
    """How many sums `squares_launches` writes for `count` elements."""
    return -(-count // STRETCH)


def squares_launches(storage: str, g: int, count: int, partial: int, planes: int = 0) -> list[Launch]:
    """partial = Σ g² over each STRETCH of elements, in the type that is computed with.

    With planes > 0 the sums in the scales DOWN and UP follow `planes` and 2 `planes` elements further on (`root`).
    """
    whole = 0
    if is_wide(storage, g):
        whole = count if count % 4 == 0 else count // STRETCH * STRETCH
    launches = []
    if whole:
        grid = squares_count(whole), 1, 1
        launches.append(squares4.on(storage, grid, g=g, partial=partial, planes=planes, fours=whole // 4))
    if rest := count - whole:
        behind = partial + squares_count(whole) * _real_bytes(storage)
        grid, place = (squares_count(rest), 1, 1), g + whole * BYTES[storage]
        launches.append(squares1.on(storage, grid, g=place, partial=behind, planes=planes, count=rest))
    return launches


def _real_bytes(storage: str) -> int:
    return 8 if storage == "float64" else 4


# ---------------------------------------------------------------------------------------------- entry points


def norm(arrays: Sequence[Array]) -> Array:
    """√(Σ g²) over C-contiguous arrays of one library, which stays on the device: an array without axes."""
    first = arrays[0]
    storage, size = first.storage, first.itemsize
    total = sum(squares_count(array.size) for array in arrays)
    place = partial = first.workspace(3 * total * size)
    result = first.empty(())
    launches = []
    for array in arrays:
        launches += squares_launches(storage, array.address, array.size, place, total)
        place += squares_count(array.size) * size
    launches.append(norm_of_sums.on(storage, (1, 1, 1), partial=partial, blocks=total, norm=result.address))
    run(launches, first.stream)
    return result


def clip(max_norm: float, arrays: Sequence[Array]) -> Array:
    """Scale C-contiguous arrays by min(1, max_norm / (norm + 1e-6)); the norm before. Nothing waits for the device."""
    result = norm(arrays)
    storage = arrays[0].storage
    limit = max_norm if math.isinf(max_norm) else min(max_norm, float(np.finfo(arrays[0].dtype).max))
    for array in arrays:
        launches = elements.launches(
            clipped, storage, array.size, {"g": array.address}, norm=result.address, max_norm=limit
        )
        run(launches, array.stream)
    return result
