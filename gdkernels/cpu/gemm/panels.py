"""One panel of B, 2 vectors wide, against all rows of A; and how panels come to lie in working memory.

A panel is read once for every tile of rows, so it is packed where it would not stay in the caches. What a product needs
next is asked for, packed or claimed while its tiles are computed: they leave the memory idle.
"""

from ..runtime.emit import lanes, prefetch
from ..runtime.jit import Native, inlined, native
from ..runtime.machine import VECTOR_BITS
from ..runtime.memory import LINE
from ..runtime.simd import address_of, offset
from .tile import (
    HALF,
    ROWS,
    STRETCH,
    copy_rows,
    copy_some,
    copy_vector,
    make_tile,
    transpose_panels,
    transpose_rows,
    transpose_square,
    transpose_strip,
    write_back,
)

AHEAD = 16  # columns that the packing of A asks for in advance
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
    elif csa == 1:
        together = width if width % ROWS == 0 else ROWS
        done_rows, done_k = m // together * together, k // width * width
        for i in range(0, done_rows, together):
            for p in range(0, done_k, width):
                target, source = offset(packed, i * k + p * ROWS), offset(a, i * rsa + p)
                if width % ROWS == 0:
                    transpose_panels(target, ROWS * k, source, rsa)
                else:
                    transpose_rows(target, source, rsa)
    for i in range(m):
        target, source = offset(packed, i // ROWS * ROWS * k + i % ROWS), offset(a, i * rsa)
        for p in range(done_k if i < done_rows else 0, k):
            target[p * ROWS] = source[p * csa]


@native("i8, i8, i8, F*, i8, i8, F*, i8")
def pack_b(start, stop, n, b, rsb, csb, packed, room):
    """Rows [start, stop) of n columns of B, in panels that are `room` elements apart: packed[panel][k][2·lanes].

    Columns beyond n are undefined.
    """
    width = lanes(b)
    stride = 2 * width
    if csb == 1:
        whole, vectors = n // stride * stride, n // width * width
        for p in range(start, stop):
            row, target = offset(b, p * rsb), offset(packed, p * stride)
            for j in range(0, whole, stride):
                copy_vector(target, offset(row, j))
                copy_vector(offset(target, width), offset(row, j + width))
                target = offset(target, room)
            if whole < vectors:
                copy_vector(target, offset(row, whole))
            if vectors < n:
                copy_some(offset(target, vectors - whole), offset(row, vectors), n - vectors)
        return
    if rsb == 1:
        done = start + (stop - start) // width * width
        for j in range(0, n, width):
            target, column = offset(packed, j // stride * room + j % stride), offset(b, j * csb)
            rows = min(width, n - j)
            for p in range(start, done, width):
                transpose_square(offset(target, p * stride), stride, offset(column, p), csb, rows)
            if done < stop:
                transpose_strip(
                    offset(target, done * stride), stride, offset(column, done), csb, stop - done, rows
                )
        return
    for p in range(start, stop):
        row, target = offset(b, p * rsb), offset(packed, p * stride)
        for j in range(n):
            target[j // stride * room + j % stride] = row[j * csb]


# ---------------------------------------------------------------------------------------------- tiles


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


def column_of_tiles(rows: int, vectors: int, packed: bool, masked: bool, guarded: bool) -> Native:
    """A native function that runs one kind of tile down `m` rows of A, `step` elements of A from tile to tile."""
    tile = make_tile(rows, vectors, packed, masked, guarded)

    def tiles(m, k, a, step, lda, b, ldb, init, ldi, c, ldc, tail):
        for i in range((m + rows - 1) // rows):
            a_i, init_i, c_i = offset(a, i * step), offset(init, i * rows * ldi), offset(c, i * rows * ldc)
            tile(k, a_i, lda, b, ldb, init_i, ldi, c_i, ldc, tail, m - i * rows, b, 0, 0)

    tiles.__name__ = "_".join([
        f"tiles{rows}x{vectors}", *(["packed"] if packed else []), *(["masked"] if masked else []),
        *(["guarded"] if guarded else []),
    ])  # fmt: skip
    return native("i8, i8, F*, i8, i8, F*, i8, F*, i8, F*, i8, i8")(tiles)


def _whole(packed: bool) -> Native:
    """A native function that runs whole tiles, and meanwhile has the lines of p[:count] claimed."""
    tile = make_tile(ROWS, 2, packed)

    def full(m, k, a, step, lda, b, ldb, init, ldi, c, ldc, p, count):
        tiles = m // ROWS
        part = part_of(count, tiles)
        for i in range(tiles):
            a_i, init_i, c_i = offset(a, i * step), offset(init, i * ROWS * ldi), offset(c, i * ROWS * ldc)
            claim(p, part * i, min(count, part * (i + 1)))
            tile(k, a_i, lda, b, ldb, init_i, ldi, c_i, ldc, 0, 0, b, 0, 0)

    full.__name__ = "full_packed" if packed else "full"
    return native("i8, i8, F*, i8, i8, F*, i8, F*, i8, F*, i8, F*, i8")(full)


@inlined
def rows_reached(lines, columns, along, quantum, total):
    """Rows of B of which so many lines have been asked for: whole quanta, or all."""
    rows = lines // columns * along
    return total if rows >= total else rows // quantum * quantum


def _ahead(packed: bool) -> Native:
    """As `_whole`. Meanwhile some of `parts` equal parts of the next panels of B, from part `first` on, one with each tile,
    are asked for, and packed unless `into` is 0.

    Read where they are, panels of a wide B would evict themselves: their rows compete for a few sets of the cache. Packed
    all at once, they would keep the multiply-add units waiting for memory.
    """
    tile = make_tile(ROWS, 2, packed, asking=True)

    def full_and_ahead(
        m, k, a, step, lda, b, ldb, init, ldi, c, ldc, p, count, first, parts, next_k, next_n, next_b, rsb, csb, into, room
    ):  # fmt: skip
        tiles, width = m // ROWS, lanes(b)
        claimed = part_of(count, tiles)
        # A line is asked for with what lies beside it: a row of some panels, or some k of a column.
        along, columns, line = (1, 1, rsb) if csb == 1 else (STRETCH * width * 8 // VECTOR_BITS, next_n, csb)
        lines = (next_k + along - 1) // along * columns
        asked = lines * first // parts
        done = rows_reached(asked, columns, along, width, next_k)
        for i in range(tiles):
            a_i, init_i, c_i = offset(a, i * step), offset(init, i * ROWS * ldi), offset(c, i * ROWS * ldc)
            claim(p, claimed * i, min(count, claimed * (i + 1)))
            goal = lines * (first + i + 1) // parts
            soon = offset(next_b, asked // columns * along * rsb + asked % columns * csb)
            now = goal - asked if csb == 1 else min(goal - asked, columns - asked % columns)
            tile(k, a_i, lda, b, ldb, init_i, ldi, c_i, ldc, 0, 0, soon, line, max(1, now))
            asked = goal
            if address_of(into) != 0:
                ready = rows_reached(asked, columns, along, width, next_k)
                if ready > done:
                    pack_b(done, ready, next_n, next_b, rsb, csb, into, room)
                    done = ready

    full_and_ahead.__name__ = "full_and_ahead_packed" if packed else "full_and_ahead"
    return native(
        "i8, i8, F*, i8, i8, F*, i8, F*, i8, F*, i8, F*, i8, i8, i8, i8, i8, F*, i8, i8, F*, i8"
    )(full_and_ahead)  # fmt: skip


def _rest(packed: bool) -> Native:
    """A native function that runs any rows of A, HALF at a time, against one panel of B; no column beyond n ≤ 2·lanes
    is read. It is for what whole tiles leave over.
    """
    half, half_masked, half_narrow = (
        column_of_tiles(HALF, vectors, packed, masked, True)
        for vectors, masked in ((2, False), (2, True), (1, True))
    )

    def rest_of_rows(m, k, a, lda, b, ldb, init, ldi, c, ldc, n):
        width, step = lanes(b), HALF * (1 if packed else lda)
        if n == 2 * width:
            half(m, k, a, step, lda, b, ldb, init, ldi, c, ldc, 0)
        elif n > width:
            half_masked(m, k, a, step, lda, b, ldb, init, ldi, c, ldc, n - width)
        else:
            half_narrow(m, k, a, step, lda, b, ldb, init, ldi, c, ldc, n)

    rest_of_rows.__name__ = "rest_of_packed_rows" if packed else "rest_of_rows"
    return native("i8, i8, F*, i8, F*, i8, F*, i8, F*, i8, i8")(rest_of_rows)


def _row_blocks(packed: bool, whole: Native, part: Native) -> Native:
    """A native function that runs all m rows of A, lda apart, against one panel of B with n ≤ 2·lanes columns.

    A panel that has fewer must be packed if m is not below ROWS: whole tiles read whole vectors of it. If `packed`, A is in
    panels of ROWS rows, k-major, and lda is ROWS. Meanwhile the lines of p[:count] are claimed.
    """
    masked, narrow = (column_of_tiles(ROWS, vectors, packed, True, False) for vectors in (2, 1))

    def row_blocks(m, k, a, lda, b, ldb, init, ldi, c, ldc, n, p, count):
        width = lanes(b)
        whole_rows = m // ROWS * ROWS
        rest = m - whole_rows
        step = ROWS * (k if packed else lda)
        if whole_rows > 0:
            if n == 2 * width:
                whole(whole_rows, k, a, step, lda, b, ldb, init, ldi, c, ldc, p, count)
            elif n > width:
                masked(whole_rows, k, a, step, lda, b, ldb, init, ldi, c, ldc, n - width)
            else:
                narrow(whole_rows, k, a, step, lda, b, ldb, init, ldi, c, ldc, n)
        if rest > 0:
            a, init = offset(a, whole_rows // ROWS * step), offset(init, whole_rows * ldi)
            part(rest, k, a, lda, b, ldb, init, ldi, offset(c, whole_rows * ldc), ldc, n)

    row_blocks.__name__ = "row_blocks_packed" if packed else "row_blocks"
    return native("i8, i8, F*, i8, F*, i8, F*, i8, F*, i8, i8, F*, i8")(row_blocks)


# For A that is stored by rows, and for packed panels of it.
full, full_packed = map(_whole, (False, True))
full_and_ahead, full_and_ahead_packed = map(_ahead, (False, True))
rest_of_rows, rest_of_packed_rows = map(_rest, (False, True))
row_blocks, row_blocks_packed = (
    _row_blocks(False, full, rest_of_rows),
    _row_blocks(True, full_packed, rest_of_packed_rows),
)
