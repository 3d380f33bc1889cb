"""How the operands of a tensor-core product lie in shared memory, and how a warp takes its fragments from there.

A stage is 64 bytes along k of the rows of A and of the columns of B that a block works on: 32 elements of 16 bits, 16 of
tf32. An operand is called *along k* where its elements of one row (of A) or column (of B) are contiguous, else *across*:

    along k   64 bytes of k for each row: four chunks of 16 bytes
    across    all rows for each k: (64 / size) times as many bytes as the rows have

Copies and fragments both touch eight chunks at a time, which must lie in different banks (16 bytes modulo 128). So chunk
c is put in the place c ^ f, where f depends on what else varies among the eight: the row (along k), or k (across). That
costs no memory, as longer rows would: three stages of both operands take 48 KiB, so that two blocks fit on the processors
that have no more than 100.
"""

from functools import cache
from typing import NamedTuple

from ..runtime.intrinsics import (
    copy_async,
    ldmatrix,
    ldmatrix_transposed,
    load_word,
    multiply_add,
    store2,
    to_tf32,
    unrolled,
)
from ..runtime.jit import device
from ..runtime.target import types

COPY_BYTES = 16  # of one copy
K_BYTES = 64  # of a stage, along k
PIECE_ROWS = 32  # of a warp, that are finished together
PITCH_FLOATS = 40  # from row to row of a piece: no two lanes meet in a bank
int32 = types.int32


class CoreTile(NamedTuple):
    """What a block computes: side x side elements, of which each warp has 16·down rows and 32 columns.

    `blocks` of them must fit on a processor, which bounds the registers. `depth` is what parts of k are a multiple of,
    `share` the speed for 16 bits in the model of `tiling`, where 1 is the peak of the ordinary units.
    """

    side: int
    down: int
    blocks: int
    share: float
    depth: int = 32

    @property
    def warps_across(self) -> int:
        return self.side // 32

    @property
    def threads(self) -> int:
        return 32 * self.warps_across * (self.side // (16 * self.down))

    @property
    def stage(self) -> int:
        """Bytes of a stage."""
        return 2 * K_BYTES * self.side


CORE_128 = CoreTile(side=128, down=4, blocks=2, share=5.0)
CORE_64 = CoreTile(side=64, down=2, blocks=4, share=3.3)


@cache
def operand(tile: CoreTile, size: int, along_k: bool, is_left: bool):
    """(begin, fetch, place, read): device functions for A (`is_left`) or B, with elements of `size` bytes."""
    threads = tile.threads
    each = COPY_BYTES // size  # elements of a chunk
    pitch = K_BYTES if along_k else tile.side * size  # bytes of a row in shared memory
    chunks = pitch // COPY_BYTES
    deeper = threads // chunks  # rows in shared memory from a thread's first chunk to its second

    @device
    def swizzled(row, chunk):
        """The offset of a chunk in the operand's part of a stage."""
        if along_k:
            return row * pitch + ((chunk ^ ((row >> 1) & 3)) << 4)
        if size == 2:
            return row * pitch + ((chunk ^ (row & 7)) << 4)
        return row * pitch + ((chunk ^ (2 * (row & 3))) << 4)

    @device
    def begin(start, ld, first, count, k0, left, t):
        """What a thread copies, two chunks a stage: their global addresses, the bytes to the next stage, the bounds of k at
        which they end, and the offset of the first in shared memory.

        `start` is the operand's address, `first` the row that the block begins with, of `count`. Rows beyond are replaced
        by one that exists: what is computed of them is never stored.
        """
        row, chunk = t // chunks, t % chunks
        to = int32(swizzled(row, chunk))
        if along_k:
            row0, row1 = min(first + row, count - 1), min(first + row + deeper, count - 1)
            k = k0 + chunk * each
            end = int32(left - chunk * each)
            return start + (row0 * ld + k) * size, start + (row1 * ld + k) * size, K_BYTES, end, end, to
        column = min(first + chunk * each, (count - 1) // each * each)
        from0 = start + ((k0 + row) * ld + column) * size
        end = int32(left - row)
        return from0, from0 + deeper * ld * size, K_BYTES * ld, end, int32(end - deeper), to

    @device
    def fetch(to, from0, from1, k, bound0, bound1):
        """Start to copy the two chunks; zeros behind the end of k. Sizes of 16 or 0 become predicates and cost nothing."""
        copy_async(to, from0, 16 if k < bound0 else 0)
        copy_async(to + COPY_BYTES * threads, from1, 16 if k < bound1 else 0)

    @device
    def place(first, lane):
        """The offset that the lane reads first for the rows that begin with `first`."""
        low, high = lane >> 3 & 1, lane >> 4  # the four matrices of ldmatrix: the halves of the rows and of k
        row, k = (low, high) if is_left else (high, low)
        if along_k:
            return int32(swizzled(first + 8 * row + (lane & 7), k))
        if size == 2:
            return int32(swizzled(8 * k + (lane & 7), (first >> 3) + row))
        return int32(swizzled(lane & 3, (first >> 2) + high) + (lane >> 2 & 3) * size)

    @device
    def block(i, half, at, place):
        """The i-th 16 rows of 32 bytes of k, in the order that the tensor cores take: rows 0-7 and 8-15 of the first 16
        bytes, then of the second (A), or first and second of rows 0-7, then of rows 8-15 (B).

        The operand begins at `at`. Steps within 128 bytes are exclusive ors, as they meet the swizzle's bits. ldmatrix gives
        registers that need not be moved, because its order is that of `place`.
        """
        if along_k:
            return ldmatrix(at + (place ^ 32 * half) + i * (16 * pitch))
        if size == 2:
            return ldmatrix_transposed(at + (place ^ 32 * i) + half * (16 * pitch))
        near = at + (place ^ 64 * i) + half * (8 * pitch)
        far = at + (place ^ 64 * i + 32) + half * (8 * pitch)
        first = load_word(near), load_word(far)
        then = load_word(near + 4 * pitch), load_word(far + 4 * pitch)
        return first + then if is_left else (first[0], then[0], first[1], then[1])

    @device
    def read(i, half, registers, at, place):
        """The block as the tensor cores take it, into the i-th four registers."""
        m = block(i, half, at, place)
        q = 4 * i
        if size == 2:
            registers[q], registers[q + 1], registers[q + 2], registers[q + 3] = m
        else:
            registers[q], registers[q + 1] = to_tf32(m[0]), to_tf32(m[1])
            registers[q + 2], registers[q + 3] = to_tf32(m[2]), to_tf32(m[3])

    return begin, fetch, place, unrolled(read, tile.down if is_left else 2)


@cache
def warp(tile: CoreTile):
    """(multiply, put): device functions for the sums of a warp, 16·down rows and 32 columns: a square of 16 x 8 is four a
    lane, in rows lane / 4 and lane / 4 + 8, columns 2(lane % 4) and the next."""
    below = 8 * PITCH_FLOATS

    @device
    def multiply(q, like, a, b, sums):
        """The q-th square, four of them across, gains the product of its fragments."""
        i, j, s = 4 * (q >> 2), 2 * (q & 3), 4 * q
        sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = multiply_add(
            like,
            (a[i], a[i + 1], a[i + 2], a[i + 3]),
            (b[j], b[j + 1]),
            (sums[s], sums[s + 1], sums[s + 2], sums[s + 3]),
        )

    @device
    def put(q, piece, area, place, sums):
        """The q-th square of a piece into rows of shared memory."""
        to, s = place + (q >> 2) * 2 * below + (q & 3) * 8, 4 * q + 32 * piece
        store2(area, to, (sums[s], sums[s + 1]))
        store2(area, to + below, (sums[s + 2], sums[s + 3]))

    return unrolled(multiply, 4 * tile.down), unrolled(put, PIECE_ROWS // 4)
