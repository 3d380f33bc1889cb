"""The matrix product on tensor cores: bfloat16, float16, and float32 as tf32, all with float32 sums.

A block computes a tile of the result. Its warps walk along k in stages (`tensorcore_tiles`), three of which are in shared
memory: while one is multiplied, `cp.async` brings the next two, so that one barrier a stage is enough. Behind the last
stage the sums go, 32 rows of a warp at a time, through the same memory, so that each row is finished and stored by eight
lanes with 16 bytes each.

`cp.async` takes 16 bytes at multiples of 16 bytes. Operands that do not offer them are copied first.
"""

from functools import cache

from . import driver, gemm_epilogue
from .gemm_epilogue import epilogue, row_of
from .intrinsics import (
    address,
    all_copies,
    copies_but_one,
    copy_commit,
    is_wide,
    load4,
    multiply_add,
    store2,
    unrolled,
)
from .jit import Kernel, Launch, device, kernel
from .pointer import BYTES, offset, real, shared
from .target import cuda, types
from .tensorcore_tiles import LARGE, SLAB, SMALL, Tile, operand

STAGES = 3
GROUP = 8  # rows of tiles that are computed together, so that they find each other's operands in the L2 cache
PIECE = 32  # rows of a warp that are finished together
PITCH = 40  # floats from row to row of a piece: no two lanes meet in a bank
int32, uint32, float32 = types.int32, types.uint32, types.float32


@cache
def product(size: int, tile: Tile, a_along_k: bool, b_along_k: bool, kind: str, wide: bool) -> Kernel:
    """The kernel for elements of `size` bytes, of this tile, form and activation; `wide` has float32 results."""
    begin_a, fetch_a, place_a, block_a = operand(tile, size, a_along_k, is_left=True)
    begin_b, fetch_b, place_b, block_b = operand(tile, size, b_along_k, is_left=False)
    finish4, finish1 = epilogue(kind)
    down, rows, columns = tile.down, tile.rows, tile.columns
    warps_across = tile.warps_across
    depth = SLAB // size
    stage, part_a = tile.stage, SLAB * rows
    memory_size = STAGES * stage // 4
    registers, sums_count, pieces = 4 * down, 16 * down, down // 2
    eight = 8 * PITCH

    @device
    def read_a(i, half, a, at, place):
        a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3] = block_a(i, half, at, place)

    @device
    def read_b(j, half, b, at, place):
        b[4 * j], b[4 * j + 1], b[4 * j + 2], b[4 * j + 3] = block_b(j, half, at, place)

    @device
    def multiply1(q, like, a, b, sums):
        """The q-th 16 x 8 sums of the warp: row q / 4 of these, column q % 4."""
        i, j, s = 4 * (q >> 2), 2 * (q & 3), 4 * q
        sums[s], sums[s + 1], sums[s + 2], sums[s + 3] = multiply_add(
            like,
            (a[i], a[i + 1], a[i + 2], a[i + 3]),
            (b[j], b[j + 1]),
            (sums[s], sums[s + 1], sums[s + 2], sums[s + 3]),
        )

    reads_a, reads_b, multiply = unrolled(read_a, down), unrolled(read_b, 2), unrolled(multiply1, 4 * down)

    @device
    def multiply_half(half, like, sums, at, at_a, at_b):
        a = cuda.local.array(registers, uint32)
        b = cuda.local.array(8, uint32)
        reads_a(0, half, a, at, at_a)
        reads_b(0, half, b, at + part_a, at_b)
        multiply(0, like, a, b, sums)

    multiply_stage = unrolled(multiply_half, 2)

    @device
    def put1(q, piece, area, at, sums):
        """The q-th 16 x 8 sums of a piece."""
        to, s = at + (q >> 2) * 2 * eight + (q & 3) * 8, 4 * q + 32 * piece
        store2(area, to, (sums[s], sums[s + 1]))
        store2(area, to + eight, (sums[s + 2], sums[s + 3]))

    put = unrolled(put1, 8)

    @device
    def finish_piece(piece, sums, area, lane, turns, row0, column0, m, n, bias, add, ldadd, z, out, ldo, fours, accumulate):
        put(0, piece, area, (lane >> 2) * PITCH + (lane & 3) * 2, sums)
        cuda.syncwarp()
        first = row0 + PIECE * piece
        down, right, across = (lane >> 3, 4 * (lane & 7), 4) if fours != 0 else (int32(0), lane, 1)
        for _ in range(turns):
            row, column = first + down, column0 + right
            if row < m and column < n:
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                if fours != 0:
                    v0, v1, v2, v3 = load4(area, down * PITCH + right)
                    finish4(v0, v1, v2, v3, column, bias, add_row, z_row, out_row, accumulate)
                else:
                    finish1(area[down * PITCH + right], column, bias, add_row, z_row, out_row, accumulate)
            down += across
        cuda.syncthreads()

    finish = unrolled(finish_piece, pieces)

    def body(
        a, lda, b, ldb, out, ldo, bias, add, ldadd, z, m, n, k, chunk, part, shift, fours, accumulate
    ):  # fmt: skip
        # 2^shift rows of tiles are computed column by column
        row0 = ((cuda.blockIdx.y << shift) + (cuda.blockIdx.x & ((1 << shift) - 1))) * rows
        column0 = (cuda.blockIdx.x >> shift) * columns
        k0 = cuda.blockIdx.z * chunk
        if row0 >= m:
            return
        left = int32(min(k - k0, chunk))
        t = cuda.threadIdx.x
        memory = shared(a, memory_size)
        base = address(memory)
        sums = cuda.local.array(sums_count, float32)
        for i in range(sums_count):
            sums[i] = float32(0)

        warp, lane = t >> 5, t & 31
        warp_row, warp_column = warp // warps_across * (16 * down), warp % warps_across * 32
        at_a, at_b = place_a(warp_row, lane), place_b(warp_column, lane)
        a0, a1, step_a, a0_end, a1_end, to_a = begin_a(address(a), lda, row0, m, k0, left, t)
        b0, b1, step_b, b0_end, b1_end, to_b = begin_b(address(b), ldb, column0, n, k0, left, t)
        to_b += part_a

        ahead = int32(0)  # k of the stage that is fetched
        for s in range(STAGES - 1):
            to = base + s * stage
            fetch_a(to + to_a, a0, a1, ahead, a0_end, a1_end)
            fetch_b(to + to_b, b0, b1, ahead, b0_end, b1_end)
            copy_commit()
            ahead = int32(ahead + depth)
            a0, a1, b0, b1 = a0 + step_a, a1 + step_a, b0 + step_b, b1 + step_b
        read, write = int32(0), int32((STAGES - 1) * stage)
        end = int32(left + (STAGES - 1) * depth)
        while ahead < end:
            copies_but_one()
            cuda.syncthreads()  # the stage has come for all, and nobody reads the one before any more
            to = base + write
            fetch_a(to + to_a, a0, a1, ahead, a0_end, a1_end)
            fetch_b(to + to_b, b0, b1, ahead, b0_end, b1_end)
            copy_commit()
            ahead = int32(ahead + depth)
            a0, a1, b0, b1 = a0 + step_a, a1 + step_a, b0 + step_b, b1 + step_b
            multiply_stage(0, a, sums, base + read, at_a, at_b)
            write = read
            read = int32(0) if read == (STAGES - 1) * stage else int32(read + stage)
        all_copies()
        cuda.syncthreads()

        turns = PIECE // 4 if fours != 0 else PIECE
        area = offset(memory, warp * (PIECE * PITCH))
        finish(
            0, sums, area, lane, turns, row0 + warp_row, column0 + warp_column, m, n,
            bias, add, ldadd, z, offset(out, cuda.blockIdx.z * part), ldo, fours, accumulate,
        )  # fmt: skip

    form = f"{'n' if a_along_k else 't'}{'t' if b_along_k else 'n'}"
    body.__name__ = f"{form}_{rows}x{columns}_{kind}{'_wide' if wide else ''}"
    body.__doc__ = f"out (+)= {kind}(A @ B + bias + add), form {form.upper()}; part by part of k where these are many."
    signature = f"F*, i8, F*, i8, {'R*' if wide else 'F*'}, i8, F*, F*, i8, F*, i8, i8, i8, i8, i8, i4, i4, i4"
    variants = ("bfloat16", "float16") if size == 2 else ("float32",)
    return kernel(signature, threads=tile.threads, blocks=tile.blocks, variants=variants)(body)


# ---------------------------------------------------------------------------------------------- launches


def launches(
    room, storage: str, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int, ldo: int,
    *, out_storage=None, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list[Launch]:  # fmt: skip
    tile = SMALL if min(m, n) <= 64 else LARGE
    size = BYTES[storage]
    wide = (out_storage or storage) != storage
    fours = is_wide(out_storage or storage, out, ldo * BYTES[out_storage or storage]) and is_wide(storage, z, ldo * size, bias, add, ldadd * size) and n % 4 == 0
    a_along_k, b_along_k = csa == 1, rsb == 1
    lda, ldb = rsa if a_along_k else csa, csb if b_along_k else rsb
    shift = min(GROUP, -(-m // tile.rows)).bit_length() - 1
    grid = -(-n // tile.columns) << shift, -(-m // (tile.rows << shift)), 1
    chosen = product(size, tile, a_along_k, b_along_k, activation, wide)
    return [Launch(chosen, storage, grid, (a, lda, b, ldb, out, ldo, bias, add, ldadd, z, m, n, k, k, 0, shift, int(fours), int(accumulate)))]
