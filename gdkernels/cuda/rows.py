"""Rows shared out among threads, and sums over what the threads have.

A row belongs to a team of 2^shift threads: to as many neighbours in a warp as it has loads, at most to the whole warp, and
to a block where it is wide. Narrow rows thus stand side by side in a warp, and a row of one number is one thread.

Which thread adds up which elements, and in which order the threads' sums are added, depends on the length of the row and
on whether four elements are loaded at a time, never on the number of rows or on where a row stands.
"""

import math

from .runtime.intrinsics import is_wide, larger, plus, warp_reduction
from .runtime.jit import Kernel, Launch, device, kernel
from .runtime.pointer import BYTES, is_null, offset, real, shared
from .runtime.storages import EVERY, REALS
from .runtime.target import cuda

THREADS = 256  # of a block that adds up what its threads have
WARPS = THREADS // 32
FOURS = 4 * THREADS
BLOCK_SHIFT = THREADS.bit_length() - 1  # the shift of a team that is a block
HELD = 8  # loads of four elements that a thread may keep in registers
HELD_COLUMNS = 4 * HELD  # of a row that it has then
WIDE_COLUMNS = 1024  # longer rows have a block
SUMMED = 4096  # numbers that a block adds up
STRIPS = 256  # into which columns are cut, at most


def teams(kernel: Kernel, rows: int, n: int, width: int) -> tuple[tuple[int, int, int], int]:
    """The grid, and the shift, for rows of n elements that a kernel loads `width` at a time."""
    assert kernel.threads == THREADS, f"{kernel} has {kernel.threads} threads a block, expected {THREADS}"
    shift = BLOCK_SHIFT if n > WIDE_COLUMNS else min(5, max(0, -(-n // width) - 1).bit_length())
    return kernel.grid(rows << shift), shift


def can_hold(storage: str, n: int, *addresses: int) -> bool:
    """Whether rows of n elements at these addresses can be loaded four elements at a time and kept in registers.

    Not those of float64: a thread would need all registers, and single loads of 8 bytes are as good.
    """
    return (
        storage != "float64"
        and n <= HELD_COLUMNS * THREADS
        and is_wide(storage, n * BYTES[storage], *addresses)
    )


@device
def member(shift):
    """(row, lane): which thread of which team this is."""
    row = (cuda.blockIdx.x * THREADS + cuda.threadIdx.x) >> shift
    return row, cuda.threadIdx.x & ((1 << shift) - 1)


@device
def fours(rows, n, row, lane, shift):
    """(number, step): the groups of four elements that a thread has, one every `step` elements from 4 lane on.

    There are none beyond the last row.
    """
    groups = n >> 2 if row < rows else 0
    return (groups - lane + (1 << shift) - 1) >> shift, 4 << shift


@device
def part(pointer, count):
    """pointer + count elements; an absent array stays absent."""
    return offset(pointer, 0 if is_null(pointer) else count)


def _of_team(combine):
    """A device function of (value, shift, memory): `combine` over a team, the same bits in each of its threads.

    `memory` is shared, one number for each warp. All threads of the block must call it.
    """
    of_neighbours = warp_reduction(combine)

    @device
    def of_team(value, shift, memory):
        value = of_neighbours(value, shift)
        if shift > 5:
            if (cuda.threadIdx.x & 31) == 0:
                memory[cuda.threadIdx.x >> 5] = value
            cuda.syncthreads()
            value = memory[0]
            for warp in range(1, WARPS):
                value = combine(value, memory[warp])
            cuda.syncthreads()
        return value

    return of_team


team_sum = _of_team(plus)
team_max = _of_team(larger)  # of numbers of which none is NaN


# ---------------------------------------------------------------------------------------------- sums of columns


def strips_of(rows: int, least: int) -> tuple[int, int]:
    """(number, height) of the strips of rows whose sums are added up by `add_strips`: of `least` rows at least.

    Where strips are many, adding them up takes longer than the rows: hence no more than `STRIPS`.
    """
    height = max(least, -(-rows // (STRIPS * WARPS)) * WARPS)
    return -(-rows // height), height


def add_warps(width):
    """A device function: partial[strip, column] = Σ of what the warps have, a group of columns a lane, in their order.

    `memory` is shared, a group for each thread of the block, whose columns are those of 32 lanes.
    """
    store, size, columns = width.store, width.size, 32 * width.size

    @device
    def add_up(memory, group, partial, n):
        store(memory, size * cuda.threadIdx.x, group)
        cuda.syncthreads()
        column = cuda.blockIdx.y * columns + cuda.threadIdx.x
        if cuda.threadIdx.x < columns and column < n:
            total = memory[cuda.threadIdx.x]
            for warp in range(1, WARPS):
                total += memory[columns * warp + cuda.threadIdx.x]
            partial[cuda.blockIdx.x * n + column] = total

    return add_up


@kernel("R*, F*, F*, i8, i8, i4", threads=THREADS, variants=EVERY)
def add_strips(partial, first, second, strips, n, accumulate):
    """first (+)= Σ of its strips, and so the second in the blocks with y = 1, whose strips follow.

    For each column eight warps add up the strips in turn, and then what the warps have is added up in their order.
    """
    warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
    column = cuda.blockIdx.x * 32 + lane
    total = real(partial, 0)
    if column < n:
        for strip in range(warp, strips, WARPS):
            total += partial[(cuda.blockIdx.y * strips + strip) * n + column]
    sums = shared(partial, THREADS)
    sums[cuda.threadIdx.x] = total
    cuda.syncthreads()
    if warp == 0 and column < n:
        for other in range(1, WARPS):
            total += sums[32 * other + lane]
        target = first if cuda.blockIdx.y == 0 else second
        target[column] = target[column] + total if accumulate != 0 else total


def columns_launches(
    room, storage: str, computed: str, sums, *, strips: int, n: int, first: int, second: int = 0, accumulate: bool
) -> list[Launch]:  # fmt: skip
    """first (+)= Σ of strips of the sums of n columns, and second likewise unless it is 0, both of type `storage`.

    ``sums(first, second)`` gives the launch that writes the strips' sums, of type `computed`, to these addresses. Where
    there is one strip, its sums are what is wanted.
    """
    if strips == 1 and storage == computed and not accumulate:
        return [sums(first, second)]
    size = max(1, strips) * n * BYTES[computed]
    both = 1 + (second != 0)
    partial = room(both * size)
    add = add_strips.on(
        storage, (-(-n // 32), both, 1), partial=partial, first=first, second=second, strips=strips, n=n,
        accumulate=int(accumulate),
    )  # fmt: skip
    return [sums(partial, partial + size if second else 0), add]


# ---------------------------------------------------------------------------------------------- sums of many numbers


@kernel("R*, R*, i8, R, R*", threads=THREADS, variants=REALS)
def add_up(values, totals, count, divisor, mass):
    """totals[block] = Σ of its `SUMMED` numbers / divisor, or / mass[0] where that is given; NaN where it is 0."""
    start = cuda.blockIdx.x * SUMMED
    last = min(count, start + SUMMED)
    total = real(values, 0)
    index = start + cuda.threadIdx.x
    while index < last:
        total += values[index]
        index += THREADS
    total = team_sum(total, BLOCK_SHIFT, shared(values, WARPS))
    if cuda.threadIdx.x == 0:
        by = divisor if is_null(mass) else mass[0]
        if by == real(values, 0):
            total = real(values, math.nan)
        totals[cuda.blockIdx.x] = total if by == real(values, 1) else total / by


def sum_launches(
    room, computed: str, values: int, total: int, count: int, divisor: float = 1.0, mass: int = 0
) -> list[Launch]:
    """total[0] = Σ values / divisor (or / mass[0]); NaN where that is 0. In a fixed order."""
    launches = []
    while count > SUMMED:
        parts = -(-count // SUMMED)
        partial = room(parts * BYTES[computed])
        grid = parts, 1, 1
        launches.append(
            add_up.on(computed, grid, values=values, totals=partial, count=count, divisor=1.0, mass=0)
        )
        values, count = partial, parts
    last = add_up.on(
        computed, (1, 1, 1), values=values, totals=total, count=count, divisor=divisor, mass=mass
    )
    return [*launches, last]
