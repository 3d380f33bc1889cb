"""How the operands of a product on the ordinary units come to shared memory, slab by slab along k.

Both operands lie there as [k][row] (for B: [k][column]). From an operand whose rows are contiguous in that direction
(*across*), four elements are copied as they are; from one that is contiguous *along k*, four are turned.
"""

from functools import cache
from typing import NamedTuple

from ..runtime.intrinsics import load4, store4, unrolled
from ..runtime.jit import device
from ..runtime.pointer import BYTES, COMPUTED, offset, real
from ..runtime.target import cuda, types


class SimtTile(NamedTuple):
    """What a block computes: side x side, `depth` of k at a time; a thread has 4·down x 4·right of it.

    A warp is 4 x 8 threads. `blocks` must fit on a processor, which bounds the registers. `share` is the speed in the model
    of `tiling`, where 1 is the peak.
    """

    side: int
    depth: int
    down: int
    right: int
    blocks: int
    share: float

    @property
    def threads(self) -> int:
        return self.side**2 // self.sums

    @property
    def sums(self) -> int:
        """Elements of the result that a thread has."""
        return 16 * self.down * self.right

    @property
    def brought(self) -> int:
        """Elements of a slab that a thread brings to shared memory: one or two times four."""
        return self.side * self.depth // self.threads

    def stride(self, storage: str) -> int:
        """Elements from k to k + 1 in shared memory: keeps fours aligned, threads that turn them off each other's banks."""
        return self.side + 16 // BYTES[storage]


@cache
def operand(storage: str, tile: SimtTile, along_k: bool, wide: bool):
    """(start, advance, read_first, read, place, write): device functions for an operand, thread `t` of a block.

    Element (row, k) lies at row · ld + k or, across, at row + k · ld. With `wide`, four are read at a time; for that the
    address, ld and the size in the contiguous direction must be multiples of four.
    """
    side, threads, stride = tile.side, tile.threads, tile.stride(storage)
    fours = tile.brought // 4
    across = side // 4
    # from one four to the next, along k
    deeper = 8 * (threads // 2 // side) if along_k else threads // across

    @device
    def mine(t):
        """(row, k) of the thread's first element.

        Along k two threads bring eight elements (32 bytes of float32) of a row, their neighbours those of the next rows.
        """
        if along_k:
            return (t >> 1) % side, 4 * (t & 1) + 8 * ((t >> 1) // side)
        return 4 * (t % across), t // across

    @device
    def start(p, ld, row0, rows, k0, t):
        """Where the thread begins in the tile of `rows` rows at (row0, k0).

        Instead of rows that do not exist it reads the last one again, or the last four: what comes of it is not stored.
        """
        row, k = mine(t)
        if along_k:
            return offset(p, (row0 + min(row, rows - 1)) * ld + k0 + k)
        return offset(p, row0 + (min(row, rows - 4) if wide else row) + (k0 + k) * ld)

    @device
    def advance(p, ld, k):
        """The same place k further."""
        return offset(p, k if along_k else k * ld)

    @device
    def read(p, ld, ahead, rows, t):
        """The thread's elements into its registers."""
        for i in range(fours):
            place = i * deeper if along_k else i * deeper * ld
            if wide:
                ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = load4(p, place)
            else:
                for j in range(4):
                    if along_k or types.int32(mine(t)[0] + j) < rows:
                        ahead[4 * i + j] = p[place + j]

    @device
    def read_first(p, ld, ahead, rows, ks, t):
        """The same from the first slab, which may be shallow: zeros from k = `ks` on."""
        row, k = mine(t)
        for i in range(fours):
            place = i * deeper if along_k else i * deeper * ld
            for j in range(4):
                ahead[4 * i + j] = real(p, 0)
            if wide:
                if k + i * deeper < ks:
                    ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = load4(p, place)
            else:
                for j in range(4):
                    down, deep = (0, j) if along_k else (j, 0)
                    if row + down < rows and k + i * deeper + deep < ks:
                        ahead[4 * i + j] = p[place + j]

    @device
    def place(t):
        """Where the thread's first element goes in a slab."""
        row, k = mine(t)
        return types.int32(k * stride + row)

    @device
    def write(slabs, at, ahead):
        """The thread's elements from its registers into a slab, the first of them to `at`."""
        for i in range(fours):
            to = at + i * deeper * stride
            if along_k:
                for j in range(4):
                    slabs[to + j * stride] = ahead[4 * i + j]
            else:
                store4(slabs, to, (ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3]))

    return start, advance, read_first, read, place, write


@cache
def warp(storage: str, tile: SimtTile):
    """(multiply, gather): device functions for a warp's part of the tile.

    multiply(0, sums, slabs, from_a, from_b)     sums += A's slab @ B's slab, which begin for the thread at from_a and from_b
    gather(0, sums, slabs, down, right)          the thread's sums to row `down` and column `right` of the slabs' memory
    """
    element, stride = COMPUTED[storage], tile.stride(storage)
    down, right = tile.down, tile.right
    rows_each, columns_each = 4 * down, 4 * right

    @device
    def multiply(k, sums, slabs, from_a, from_b):
        """The outer product of the thread's rows and columns at one k."""
        rows = cuda.local.array(rows_each, element)
        columns = cuda.local.array(columns_each, element)
        for q in range(down):
            four = load4(slabs, from_a + k * stride + 16 * q)
            rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3] = four
        for q in range(right):
            four = load4(slabs, from_b + k * stride + 32 * q)
            columns[4 * q], columns[4 * q + 1], columns[4 * q + 2], columns[4 * q + 3] = four
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i * columns_each + j] += rows[i] * columns[j]

    @device
    def gather(i, sums, slabs, row0, column0):
        """The thread's row i."""
        place = (row0 + (i & 3) + 16 * (i >> 2)) * stride + column0
        for q in range(right):
            s = i * columns_each + 4 * q
            store4(slabs, place + 32 * q, (sums[s], sums[s + 1], sums[s + 2], sums[s + 3]))

    return unrolled(multiply, tile.depth), unrolled(gather, rows_each)
