"""The matrix product on the ordinary units: float32 and float64.

A block computes a tile of the result. It walks along k in slabs: while the slab in shared memory is multiplied, the next
one is on its way from global memory into registers, and goes into the other half of the shared memory (double buffering:
one barrier a slab). The first slab takes what k leaves over, so that the loop asks no questions. Each warp owns a part of
the tile, each thread one, two or four squares of 4 x 4 of it: two to four 128-bit loads from shared memory feed 16 to 64
fused multiply-adds. The sums go through shared memory once more, so that they are written row by row.

There are four forms, N for an operand that is row-major, T for a transposed one:

    NN  A along k,  B across        NT  A along k,  B along k
    TN  A across,   B across        TT  A across,   B along k

and two ways to global memory: four elements at a time where sizes, row lengths and addresses are multiples of four, and one
at a time for everything else.
"""

from functools import cache

from ..runtime.intrinsics import is_wide, load4
from ..runtime.jit import Kernel, Launch, device, kernel
from ..runtime.pointer import BYTES, COMPUTED, offset, real, shared
from ..runtime.target import cuda, types
from .epilogue import epilogue, row_of, sum_launches
from .simt_tiles import SimtTile, operand, warp
from .tiling import choose

TILE_128 = SimtTile(side=128, depth=8, down=2, right=2, blocks=2, share=0.9)
TILE_64 = SimtTile(side=64, depth=16, down=2, right=1, blocks=4, share=0.72)
TILE_64_FLOAT64 = SimtTile(side=64, depth=16, down=1, right=1, blocks=2, share=0.7)


@cache
def product(storage: str, tile: SimtTile, a_along_k: bool, b_along_k: bool, wide: bool, kind: str) -> Kernel:
    """The kernel of this tile, form, way to memory and activation."""
    start_a, advance_a, first_a, read_a, place_a, write_a = operand(storage, tile, a_along_k, wide)
    start_b, advance_b, first_b, read_b, place_b, write_b = operand(storage, tile, b_along_k, wide)
    finish4, finish1 = epilogue(kind)
    multiply, gather = warp(storage, tile)
    element = COMPUTED[storage]
    side, depth, down, right, threads = tile.side, tile.depth, tile.down, tile.right, tile.threads
    stride, brought, count = tile.stride(storage), tile.brought, tile.sums
    slab = depth * stride
    both = 2 * slab  # of an operand
    memory = 2 * both
    held = memory // stride  # rows of the result
    warps_across = side // (32 * right)
    each = 4 if wide else 1  # of the result, at a time
    threads_across = side // each

    @device
    def finish(t, slabs, row0, column0, rows, columns, bias, add, ldadd, z, out, ldo, accumulate):
        """What follows the product, for rows in shared memory: the neighbours of a warp are neighbours in a row."""
        within, beside = types.int32(t // threads_across), types.int32(t % threads_across * each)
        while within < rows:
            if beside < columns:
                row, column = row0 + within, column0 + beside
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                if wide:
                    v0, v1, v2, v3 = load4(slabs, within * stride + beside)
                    finish4(v0, v1, v2, v3, column, bias, add_row, z_row, out_row, accumulate)
                else:
                    v = slabs[within * stride + beside]
                    finish1(v, column, bias, add_row, z_row, out_row, accumulate)
            within = types.int32(within + threads // threads_across)

    def body(a, lda, b, ldb, out, ldo, bias, add, ldadd, z, m, n, k, span, part, shift, accumulate):
        # 2^shift rows of tiles are computed column by column, so that they find each other's operands in the L2 cache
        row0 = ((cuda.blockIdx.y << shift) + (cuda.blockIdx.x & ((1 << shift) - 1))) * side
        column0 = (cuda.blockIdx.x >> shift) * side
        k0 = cuda.blockIdx.z * span
        if row0 >= m:
            return
        rows, columns = types.int32(min(m - row0, side)), types.int32(min(n - column0, side))
        ks = types.int32(min(k - k0, span))
        t = types.int32(cuda.threadIdx.x)
        warp, lane = t >> 5, t & 31
        # lanes 0 and 1 are below each other: so a quarter of a warp reads two fours of A and four of B
        down0 = types.int32(warp // warps_across * (16 * down) + 4 * ((lane & 1) + 2 * (lane >> 4)))
        right0 = types.int32(warp % warps_across * (32 * right) + 4 * ((lane >> 1) & 7))
        slabs = shared(a, memory)
        sums = cuda.local.array(count, element)
        for i in range(count):
            sums[i] = real(a, 0)

        a_ahead, b_ahead = cuda.local.array(brought, element), cuda.local.array(brought, element)
        shallow = types.int32(((ks - 1) & (depth - 1)) + 1)
        pa, pb = start_a(a, lda, row0, rows, k0, t), start_b(b, ldb, column0, columns, k0, t)
        to_a, to_b = place_a(t), types.int32(place_b(t) + both)
        first_a(pa, lda, a_ahead, rows, shallow, t)
        first_b(pb, ldb, b_ahead, columns, shallow, t)
        write_a(slabs, to_a, a_ahead)
        write_b(slabs, to_b, b_ahead)
        cuda.syncthreads()
        pa, pb = advance_a(pa, lda, shallow), advance_b(pb, ldb, shallow)
        ks = types.int32(ks - shallow)
        from_a, from_b = down0, types.int32(right0 + both)
        jump = types.int32(slab)  # to the other half
        while ks >= 0:
            if ks > 0:
                read_a(pa, lda, a_ahead, rows, t)
                read_b(pb, ldb, b_ahead, columns, t)
            pa, pb = advance_a(pa, lda, depth), advance_b(pb, ldb, depth)
            multiply(0, sums, slabs, from_a, from_b)
            to_a, to_b = types.int32(to_a + jump), types.int32(to_b + jump)
            if ks > 0:
                write_a(slabs, to_a, a_ahead)
                write_b(slabs, to_b, b_ahead)
            cuda.syncthreads()
            from_a, from_b = types.int32(from_a + jump), types.int32(from_b + jump)
            jump, ks = types.int32(-jump), types.int32(ks - depth)

        out = offset(out, cuda.blockIdx.z * part)
        first = 0
        # as many rows of the tile at a time as the slabs' memory holds, from the warps that have them
        while first < rows:
            if first <= down0 < first + held:
                gather(0, sums, slabs, down0 - first, right0)
            cuda.syncthreads()
            left = types.int32(min(rows - first, held))
            finish(t, slabs, row0 + first, column0, left, columns, bias, add, ldadd, z, out, ldo, accumulate)
            cuda.syncthreads()
            first = types.int32(first + held)

    form = f"{'n' if a_along_k else 't'}{'t' if b_along_k else 'n'}"
    body.__name__ = f"{form}_{side}x{side}_{kind}{4 if wide else 1}"
    body.__doc__ = (
        f"out (+)= {kind}(A @ B + bias + add) in the form {form.upper()}, or the products of parts of k."
    )
    signature = "F*, i8, F*, i8, F*, i8, F*, F*, i8, F*, i8, i8, i8, i8, i8, i4, i4"
    return kernel(signature, threads=threads, blocks=tile.blocks, variants=(storage,))(body)


# ---------------------------------------------------------------------------------------------- launches

MOST_ROWS = 1 << 24  # of a launch, whose grid is at most 65535 in y


def launches(
    room, storage: str, *, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0, processors: int,
) -> list[Launch]:  # fmt: skip
    """As `product.launches`, for m, n, k > 0 and operands of which one stride is 1 (that along k counts first)."""
    size = BYTES[storage]
    a_along_k, b_along_k = csa == 1, rsb == 1
    lda, ldb = rsa if a_along_k else csa, csb if b_along_k else rsb
    numbers = a, lda * size, b, ldb * size, out, ldo * size, bias, z, add, ldadd * size
    contiguous = k if a_along_k else m, k if b_along_k else n, n
    wide = is_wide(storage, *numbers) and all(length % 4 == 0 for length in contiguous)
    # TT is rare, and single elements are slow in any tile: they have the small one only, which spares kernels.
    large = storage == "float32" and wide and (a_along_k or not b_along_k)
    tiles = (TILE_64_FLOAT64,) if storage == "float64" else (TILE_128, TILE_64) if large else (TILE_64,)
    tile, parts, span = choose(tiles, m, n, k, size, processors)
    operands = {
        "m": m, "n": n, "k": k, "span": span, "a": a, "lda": lda, "a_along_k": a_along_k, "b": b, "ldb": ldb,
        "b_along_k": b_along_k,
    }  # fmt: skip
    tail = {
        "bias": bias, "add": add, "ldadd": ldadd, "z": z, "accumulate": accumulate, "activation": activation,
    }  # fmt: skip
    if parts == 1:
        return _products(storage, tile, wide, **operands, out=out, ldo=ldo, **tail)
    part = room(parts * m * n * size)
    first = _products(storage, tile, wide, **operands, out=part, ldo=n)
    return first + sum_launches(storage, part=part, count=parts, m=m, n=n, out=out, ldo=ldo, **tail)


def _products(
    storage, tile, wide, *, m, n, k, span, a, lda, a_along_k, b, ldb, b_along_k, out, ldo,
    accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list[Launch]:  # fmt: skip
    """The launches of one product, or of its parts along k, `m · n` apart."""
    chosen = product(storage, tile, a_along_k, b_along_k, wide, activation)
    across, parts, size = -(-n // tile.side), -(-k // span), BYTES[storage]
    made = []
    for first in range(0, m, MOST_ROWS):
        rows = min(m - first, MOST_ROWS)
        down = -(-rows // tile.side)
        # of the blocks, no more than one in nine may find nothing to do
        shift = next(s for s in (3, 2, 1, 0) if (-down % (1 << s)) * 8 <= down)
        below = first * size
        made.append(
            chosen.on(
                storage, (across << shift, -(-down // (1 << shift)), parts),
                a=a + below * (lda if a_along_k else 1), lda=lda, b=b, ldb=ldb, out=out + below * ldo, ldo=ldo, bias=bias,
                add=add and add + below * ldadd, ldadd=ldadd, z=z and z + below * ldo, m=rows, n=n, k=k, span=span,
                part=m * n, shift=shift, accumulate=int(accumulate),
            )
        )  # fmt: skip
    return made
