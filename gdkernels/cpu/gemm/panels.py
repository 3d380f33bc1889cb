"""One panel of B, 2 vectors wide, against all rows of A; and how panels come to lie in working memory.

A panel is read once for every tile of rows, so it is packed where it would not stay in the caches. What a product needs
next is asked for, packed or claimed while its tiles are computed: they leave the memory idle.
"""

from ..runtime.emit import lanes, prefetch
from ..runtime.jit import Native, inlined, native
from ..runtime.memory import LINE
from ..runtime.simd import address_of, offset
from .tile import (
    HALF,
    ROWS,
    copy_rows,
    copy_vector,
    make_tile,
    transpose_panels,
    transpose_square,
    transpose_strip,
    write_back,
)

AHEAD = 16  # rows that the packing of B asks for in advance
# Rows of the next panel that are packed after a tile: as many as the second-level cache can hold at once where they are a
# large power of two apart.
SLICE = 32
GROUP = 4  # panels of A that are packed side by side where A is stored by columns
QUANTUM = 16  # elements of a parameter that are claimed together

# ---------------------------------------------------------------------------------------------- packing


@native("i8, i8, F*, i8, i8, F*")
def pack_a(m, k, a, rsa, csa, packed):
    """Panels of ROWS rows, k-major: packed[panel][k][row]. What lies beyond row m in the last panel is undefined."""
    width = lanes(a)
    done_rows, done_k = 0, 0
    if rsa == 1:
        done_rows, done_k = m // ROWS * ROWS, k
        for i0 in range(0, done_rows, GROUP * ROWS):
            for p in range(k):
                prefetch(offset(a, i0 + (p + AHEAD) * csa))
                for i in range(i0, min(i0 + GROUP * ROWS, done_rows), ROWS):
                    copy_rows(offset(packed, i * k + p * ROWS), offset(a, i + p * csa))
    elif csa == 1 and width % ROWS == 0:
        done_rows, done_k = m // width * width, k // width * width
        for i in range(0, done_rows, width):
            for p in range(0, done_k, width):
                transpose_panels(offset(packed, i * k + p * ROWS), ROWS * k, offset(a, i * rsa + p), rsa)
    for i in range(m):
        target, source = offset(packed, i // ROWS * ROWS * k + i % ROWS), offset(a, i * rsa)
        for p in range(done_k if i < done_rows else 0, k):
            target[p * ROWS] = source[p * csa]


@native("i8, i8, i8, F*, i8, i8, F*")
def pack_b(start, stop, n, b, rsb, csb, packed):
    """Rows [start, stop) of a panel of B, n ≤ 2·lanes columns: packed[k][2·lanes]. Columns beyond n are undefined."""
    width = lanes(b)
    stride = 2 * width
    whole = n == stride
    if csb == 1 and whole:
        for p in range(start, stop):
            prefetch(offset(b, (p + AHEAD) * rsb))
            prefetch(offset(b, (p + AHEAD) * rsb + width))
            copy_vector(offset(packed, p * stride), offset(b, p * rsb))
            copy_vector(offset(packed, p * stride + width), offset(b, p * rsb + width))
        return
    done = start
    if rsb == 1 and whole:
        done = start + (stop - start) // width * width
        for p in range(start, done, width):
            transpose_square(offset(packed, p * stride), stride, offset(b, p), csb)
            transpose_square(offset(packed, p * stride + width), stride, offset(b, p + width * csb), csb)
        if done < stop:
            for half in range(0, stride, width):
                target, source = offset(packed, done * stride + half), offset(b, done + half * csb)
                transpose_strip(target, stride, source, csb, stop - done)
        return
    for p in range(done, stop):
        row = offset(b, p * rsb)
        for j in range(n):
            packed[p * stride + j] = row[j * csb]


# ---------------------------------------------------------------------------------------------- tiles


def _column_of_tiles(rows: int, vectors: int, masked: bool, guarded: bool) -> Native:
    """A native function that runs one kind of tile down `m` rows of A, `step` elements of A from tile to tile."""
    tile = make_tile(rows, vectors, masked, guarded)

    def tiles(m, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, tail):
        for i in range((m + rows - 1) // rows):
            a_i, init_i, c_i = offset(a, i * step), offset(init, i * rows * ldi), offset(c, i * rows * ldc)
            tile(k, a_i, rsa, csa, b, ldb, init_i, ldi, c_i, ldc, tail, m - i * rows, b, 0, 0)

    tiles.__name__ = f"tiles{rows}x{vectors}{'_masked' if masked else ''}{'_guarded' if guarded else ''}"
    return native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, i8")(tiles)


# Whole tiles for as many rows as there are, and half ones that may end at any row for the rest. A panel of B has two
# whole vectors, or its last vector is masked, or it is narrow and has but one.
full_masked, full_narrow = (_column_of_tiles(ROWS, vectors, True, False) for vectors in (2, 1))
half, half_masked, half_narrow = (
    _column_of_tiles(HALF, vectors, masked, True) for vectors, masked in ((2, False), (2, True), (1, True))
)
_tile, _asking_tile = make_tile(ROWS, 2), make_tile(ROWS, 2, asking=True)


@inlined
def part_of(count, tiles):
    """Elements of `count` to be claimed along with each of `tiles` tiles: whole lines."""
    return (count // max(tiles, 1) // QUANTUM + 1) * QUANTUM if count > 0 else 0


@inlined
def claim(p, start, stop):
    """Become the owner of the cache lines of p[start:stop], which will be written soon.

    Other cores have read these lines. To call their copies in takes the time of a trip to them, for each line: meanwhile
    there are tiles to compute. A prefetch for writing does not do it on Zen 4.
    """
    for i in range(start, stop, LINE // 4):
        write_back(offset(p, i))


@native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, F*, i8")
def full(m, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, p, count):
    """As `_column_of_tiles`: whole tiles. Meanwhile the lines of p[:count] are claimed."""
    tiles = m // ROWS
    part = part_of(count, tiles)
    for i in range(tiles):
        a_i, init_i, c_i = offset(a, i * step), offset(init, i * ROWS * ldi), offset(c, i * ROWS * ldc)
        claim(p, part * i, min(count, part * (i + 1)))
        _tile(k, a_i, rsa, csa, b, ldb, init_i, ldi, c_i, ldc, 0, 0, b, 0, 0)


@native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, F*, i8, i8, i8, F*, i8, i8, F*")
def full_and_ahead(
    m, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, p, count, next_k, next_n, next_b, rsb, csb, packed
):
    """Whole tiles, as `full`. Meanwhile the next panel of B is asked for, slice by slice, and packed unless `packed` is 0.

    Read where it is, a panel of a wide B would evict itself: its rows compete for a few sets of the cache. Packed all at
    once, it would keep the multiply-add units waiting for memory.
    """
    tiles, slices = m // ROWS, (next_k + SLICE - 1) // SLICE
    done, part = 0, part_of(count, tiles)
    line = rsb if csb == 1 else csb
    for i in range(tiles):
        a_i, init_i, c_i = offset(a, i * step), offset(init, i * ROWS * ldi), offset(c, i * ROWS * ldc)
        claim(p, part * i, min(count, part * (i + 1)))
        goal = slices * (i + 1) // tiles
        soon = offset(next_b, done * SLICE * rsb)
        lines = SLICE if csb != 1 else min(next_k, goal * SLICE) - done * SLICE
        _asking_tile(
            k, a_i, rsa, csa, b, ldb, init_i, ldi, c_i, ldc, 0, 0, soon, line, lines if goal > done else 1
        )
        if goal > done and address_of(packed) != 0:
            pack_b(done * SLICE, min(next_k, goal * SLICE), next_n, next_b, rsb, csb, packed)
        done = goal


@native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, i8, F*, i8")
def row_blocks(m, k, a, rsa, csa, packed, b, ldb, init, ldi, c, ldc, n, p, count):
    """All m rows of A (in panels of ROWS, k-major, if `packed`) against one panel of B with n ≤ 2·lanes columns."""
    width = lanes(b)
    tail = n - width if n > width else n
    whole = m // ROWS * ROWS
    rest = m - whole
    step = ROWS * (k if packed else rsa)
    if whole > 0:
        if n == 2 * width:
            full(whole, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, p, count)
        elif n > width:
            full_masked(whole, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, tail)
        else:
            full_narrow(whole, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, tail)
    if rest > 0:
        a_r, init_r, c_r = offset(a, whole // ROWS * step), offset(init, whole * ldi), offset(c, whole * ldc)
        if n == 2 * width:
            half(rest, k, a_r, HALF * rsa, rsa, csa, b, ldb, init_r, ldi, c_r, ldc, tail)
        elif n > width:
            half_masked(rest, k, a_r, HALF * rsa, rsa, csa, b, ldb, init_r, ldi, c_r, ldc, tail)
        else:
            half_narrow(rest, k, a_r, HALF * rsa, rsa, csa, b, ldb, init_r, ldi, c_r, ldc, tail)
