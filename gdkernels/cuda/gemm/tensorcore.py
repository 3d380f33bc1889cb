"""The matrix product on tensor cores: bfloat16, float16, and float32 as tf32, all with float32 sums.

A block computes a tile of the result. Its warps walk along k in stages (`tensorcore_tiles`), three of which are in shared
memory: while one is multiplied, `cp.async` brings the next two, so that one barrier a stage is enough. Behind the last
stage the sums go, 32 rows of a warp at a time, through the same memory, so that each row is finished and stored by eight
lanes with 16 bytes each.

`cp.async` takes 16 bytes at multiples of 16 bytes. Operands that do not offer them are copied first.
"""

from functools import cache

from ..runtime import driver
from ..runtime.intrinsics import address, all_copies, copies_but_one, copy_commit, is_wide, load4, unrolled
from ..runtime.jit import BLOCKS_DOWN, Kernel, Launch, device, kernel
from ..runtime.pointer import BYTES, offset, real, shared
from ..runtime.storages import HALVES
from ..runtime.target import cuda, types
from .epilogue import epilogue, row_of, sum_launches
from .tensorcore_tiles import (
    COPY_BYTES,
    CORE_64,
    CORE_128,
    K_BYTES,
    PIECE_ROWS,
    PITCH_FLOATS,
    CoreTile,
    operand,
    warp,
)
from .tiling import choose

TILES = CORE_128, CORE_64
STAGES = 3
int32, uint32, float32 = types.int32, types.uint32, types.float32


@cache
def product(size: int, tile: CoreTile, a_along_k: bool, b_along_k: bool, kind: str, wide: bool) -> Kernel:
    """The kernel for elements of `size` bytes, of this tile, form and activation; `wide` has float32 results."""
    begin_a, fetch_a, place_a, read_a = operand(tile, size, a_along_k, is_left=True)
    begin_b, fetch_b, place_b, read_b = operand(tile, size, b_along_k, is_left=False)
    multiply, put = warp(tile)
    finish4, finish1 = epilogue(kind)
    side, down, warps_across = tile.side, tile.down, tile.warps_across
    depth, stage, part_a = K_BYTES // size, tile.stage, K_BYTES * tile.side
    memory_size = STAGES * stage // 4
    registers, sums_count, pieces = 4 * down, 16 * down, 16 * down // PIECE_ROWS

    @device
    def multiply_half(half, like, sums, at, at_a, at_b):
        """sums += half of a stage."""
        a = cuda.local.array(registers, uint32)
        b = cuda.local.array(8, uint32)
        read_a(0, half, a, at, at_a)
        read_b(0, half, b, at + part_a, at_b)
        multiply(0, like, a, b, sums)

    @device
    def finish_piece(
        piece, sums, area, lane, turns, row0, column0, m, n, bias, add, ldadd, z, out, ldo, fours, accumulate
    ):
        """What follows the product, for some rows of a warp: eight lanes a row, or all lanes a row element by element."""
        put(0, piece, area, (lane >> 2) * PITCH_FLOATS + (lane & 3) * 2, sums)
        cuda.syncwarp()
        first = row0 + PIECE_ROWS * piece
        down, right, step = (lane >> 3, 4 * (lane & 7), 4) if fours != 0 else (int32(0), lane, 1)
        for _ in range(turns):
            row, column = first + down, column0 + right
            if row < m and column < n:
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                if fours != 0:
                    v0, v1, v2, v3 = load4(area, down * PITCH_FLOATS + right)
                    finish4(v0, v1, v2, v3, column, bias, add_row, z_row, out_row, accumulate)
                else:
                    finish1(
                        area[down * PITCH_FLOATS + right], column, bias, add_row, z_row, out_row, accumulate
                    )
            down += step
        cuda.syncwarp()

    multiply_stage, finish = unrolled(multiply_half, 2), unrolled(finish_piece, pieces)

    def body(
        a, lda, b, ldb, out, ldo, bias, add, ldadd, z, m, n, k, span, part, shift, fours, accumulate
    ):  # fmt: skip
        # 2^shift rows of tiles are computed column by column, so that they find each other's operands in the L2 cache
        row0 = ((cuda.blockIdx.y << shift) + (cuda.blockIdx.x & ((1 << shift) - 1))) * side
        column0 = (cuda.blockIdx.x >> shift) * side
        k0 = cuda.blockIdx.z * span
        if row0 >= m:
            return
        left = int32(min(k - k0, span))
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

        turns = PIECE_ROWS // 4 if fours != 0 else PIECE_ROWS
        area = offset(memory, warp * (PIECE_ROWS * PITCH_FLOATS))
        finish(
            0, sums, area, lane, turns, row0 + warp_row, column0 + warp_column, m, n,
            bias, add, ldadd, z, offset(out, cuda.blockIdx.z * part), ldo, fours, accumulate,
        )  # fmt: skip

    form = f"{'n' if a_along_k else 't'}{'t' if b_along_k else 'n'}"
    body.__name__ = f"{form}_{side}x{side}_{kind}{'_wide' if wide else ''}"
    body.__doc__ = (
        f"out (+)= {kind}(A @ B + bias + add), form {form.upper()}; part by part of k where these are many."
    )
    result = "R*" if wide else "F*"
    signature = f"F*, i8, F*, i8, {result}, i8, F*, F*, i8, F*, i8, i8, i8, i8, i8, i4, i4, i4"
    variants = HALVES if size == 2 else ("float32",)
    return kernel(signature, threads=tile.threads, blocks=tile.blocks, variants=variants)(body)


# ---------------------------------------------------------------------------------------------- launches

_CARRIERS = {2: "int16", 4: "int32"}  # integers that carry the bits


@kernel("F*, F*, i8, i8, i8, i8, i8, i8", variants=tuple(_CARRIERS.values()))
def pad(source, target, count, length, ld, step, step_within, turns):
    """Rows of any strides into rows of `ld` contiguous elements, with zeros behind the `length` that they have."""
    row = cuda.grid(1) >> 5
    place = cuda.blockIdx.y * 32 + (cuda.threadIdx.x & 31)
    for _ in range(turns):
        if row < count and place < ld:
            target[row * ld + place] = (
                source[row * step + place * step_within] if place < length else real(source, 0)
            )
        place += 32 * cuda.gridDim.y


def _in_chunks(room, storage: str, rows: int, k: int, address: int, stride: int, stride_k: int):
    """(launches, address, along k?, row length) of an operand in chunks of 16 bytes, copied where it does not lie so.

    The stride along an axis of one element means nothing.
    """
    if k == 0:
        return [], address, True, 0
    size = BYTES[storage]
    each = COPY_BYTES // size
    if address % COPY_BYTES == 0:
        if stride_k == 1 and k % each == 0 and (rows == 1 or stride % each == 0):
            return [], address, True, stride
        if stride == 1 and rows % each == 0 and (k == 1 or stride_k % each == 0):
            return [], address, False, stride_k
    along_k = k > 1 and (rows == 1 or abs(stride_k) <= abs(stride))
    count, length, step, step_within = (rows, k, stride, stride_k) if along_k else (k, rows, stride_k, stride)
    ld = -(-length // each) * each
    target = room(count * ld * size)
    across = -(-ld // 32)
    grid, turns = (pad.grid(32 * count)[0], min(BLOCKS_DOWN, across), 1), -(-across // BLOCKS_DOWN)
    copy = pad.on(
        _CARRIERS[size], grid, source=address, target=target, count=count, length=length, ld=ld, step=step,
        step_within=step_within, turns=turns,
    )  # fmt: skip
    return [copy], target, along_k, ld


def launches(
    room, storage: str, *, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, out_storage=None, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list[Launch]:  # fmt: skip
    """As `product.launches`, for bfloat16, float16 and (as tf32) float32; A and B may have any strides.

    `room` gives addresses that are multiples of 16.
    """
    number = driver.use()
    major, minor = driver.capability(number)
    if major < 8:
        name = "float32 as tf32" if storage == "float32" else storage
        raise RuntimeError(
            f"gdkernels: matrix products of {name} need a GPU of compute capability 8.0 or newer, "
            f"this one has {major}.{minor}"
        )
    if m == 0 or n == 0:
        return []
    first, a, a_along_k, lda = _in_chunks(room, storage, m, k, a, rsa, csa)
    second, b, b_along_k, ldb = _in_chunks(room, storage, n, k, b, csb, rsb)
    operands = {
        "m": m, "n": n, "k": k, "a": a, "lda": lda, "a_along_k": a_along_k, "b": b, "ldb": ldb, "b_along_k": b_along_k,
    }  # fmt: skip
    tail = {
        "accumulate": accumulate, "bias": bias, "activation": activation, "z": z, "add": add, "ldadd": ldadd,
    }  # fmt: skip
    result, sums = out_storage or storage, BYTES["float32"]
    speed = 2 / BYTES[storage]  # tensor cores take the same number of bytes of k at a time
    tiling = choose(TILES, m, n, max(k, 1), sums, driver.processors(number), speed)
    is_mixed = result != storage and (bias or z or add)  # the second stage takes all in one storage
    if tiling.parts == 1 or is_mixed:
        whole = tiling._replace(parts=1, span=k)
        return [*first, *second, _product(storage, result, whole, **operands, out=out, ldo=ldo, **tail)]
    part = room(tiling.parts * m * n * sums)
    parts = _product(storage, "float32", tiling, **operands, out=part, ldo=n)
    rest = sum_launches(result, part=part, count=tiling.parts, m=m, n=n, out=out, ldo=ldo, **tail)
    return [*first, *second, parts, *rest]


def _product(
    storage, result, tiling, *, m, n, k, a, lda, a_along_k, b, ldb, b_along_k, out, ldo,
    accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> Launch:  # fmt: skip
    """The launch of a product, or of its parts along k, `m · n` apart."""
    tile, parts, span = tiling
    size = BYTES[storage]
    fours = (
        n % 4 == 0
        and is_wide(result, out, ldo * BYTES[result])
        and is_wide(storage, bias, z, z and ldo * size, add, add and ldadd * size)
    )
    down, across = -(-m // tile.side), -(-n // tile.side)
    # of the blocks, no more than one in nine may find nothing to do
    shift = next(s for s in (3, 2, 1, 0) if (-down % (1 << s)) * 8 <= down)
    shift = max(shift, (down // BLOCKS_DOWN).bit_length())
    chosen = product(size, tile, a_along_k, b_along_k, activation, result != storage)
    return chosen.on(
        storage, (across << shift, -(-down >> shift), parts), a=a, lda=lda, b=b, ldb=ldb, out=out, ldo=ldo, bias=bias,
        add=add, ldadd=ldadd, z=z, m=m, n=n, k=k, span=span, part=m * n, shift=shift, fours=int(fours),
        accumulate=int(accumulate),
    )  # fmt: skip
