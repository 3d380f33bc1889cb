"""C = init + op(A) @ op(B): packing and blocking around the register tiles.

A and B have any row and column stride (so that transposed and Fortran-ordered operands need no copy), C has unit column
stride. The order in which the products of one element of C are added depends on k alone, never on how many rows a
thread was given; the result therefore has the same bits for any number of threads.

The blocking is that of Goto and van de Geijn (ACM TOMS 34(3), 2008): a block of B (KC × NC) is packed panel by panel,
blocks of A (MC × KC) stay in the second-level cache, a panel of B (KC × 2 vectors) streams through the first.
"""

import numpy as np

from .jit import Native, kernel, native
from .simd import offset, typed, unpack
from .team import SCRATCH_BYTES, address, launch
from .tile import (
    DOT_COLUMNS,
    DOT_ROWS,
    HALF,
    ROWS,
    copy_rows,
    copy_vector,
    lanes,
    make_dots,
    make_tile,
    prefetch,
    transpose_panels,
    transpose_square,
)

KC = 512  # products added in one pass over a tile
MC = 512 // ROWS * ROWS  # rows of a packed block of A: whole panels, no more than fit in front of B
B_BYTES = 2 << 20  # a packed block of B
A_OFFSET = 64 << 10  # in a worker's scratch: a small region for the GEMV way, then A, then B
B_OFFSET = A_OFFSET + (2 << 20)
AHEAD = 16  # rows that the packing of B asks for in advance
GROUP = 4  # panels of A that are packed side by side where A is stored by columns
MANY_ROWS = 1024  # below, packing B costs more (the time of 8 rows) than reading it where it is
THIN = 4  # so few columns go the GEMV way


def _column_of_tiles(rows: int, vectors: int, masked: bool, guarded: bool) -> Native:
    """A native function that runs one kind of tile down `m` rows of A, `step` elements of A from tile to tile."""
    tile = make_tile(rows, vectors, masked, guarded)

    def tiles(m, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, tail):
        for i in range((m + rows - 1) // rows):
            a_i, init_i, c_i = offset(a, i * step), offset(init, i * rows * ldi), offset(c, i * rows * ldc)
            tile(k, a_i, rsa, csa, b, ldb, init_i, ldi, c_i, ldc, tail, m - i * rows)

    tiles.__name__ = f"tiles{rows}x{vectors}{'_masked' if masked else ''}{'_guarded' if guarded else ''}"
    return native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, i8")(tiles)


# Whole tiles for as many rows as there are, and half ones that may end at any row for the rest. A panel of B has two
# whole vectors, or its last vector is masked, or it is narrow and has but one.
full, full_masked, full_narrow = (
    _column_of_tiles(ROWS, vectors, masked, False) for vectors, masked in ((2, False), (2, True), (1, True))
)
half, half_masked, half_narrow = (
    _column_of_tiles(HALF, vectors, masked, True) for vectors, masked in ((2, False), (2, True), (1, True))
)
_dots1, _dots4 = make_dots(1), make_dots(DOT_COLUMNS)


@native("i8, i8, F*, i8, i8, i8, F*, i8, F*, i8, F*, i8, i8")
def row_blocks(m, k, a, rsa, csa, packed, b, ldb, init, ldi, c, ldc, n):
    """All m rows of A (in panels of ROWS, k-major, if `packed`) against one panel of B with n ≤ 2·lanes columns."""
    width = lanes(b)
    tail = n - width if n > width else n
    whole = m // ROWS * ROWS
    rest = m - whole
    step = ROWS * (k if packed else rsa)
    if whole > 0:
        if n == 2 * width:
            full(whole, k, a, step, rsa, csa, b, ldb, init, ldi, c, ldc, tail)
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


@native("i8, i8, F*, i8, i8, F*")
def pack_b(k, n, b, rsb, csb, packed):
    """One panel of B, n ≤ 2·lanes columns, row by row: packed[k][2·lanes]. Columns beyond n are undefined."""
    width = lanes(b)
    stride = 2 * width
    whole = n == stride
    if csb == 1 and whole:
        for p in range(k):
            prefetch(offset(b, (p + AHEAD) * rsb))
            prefetch(offset(b, (p + AHEAD) * rsb + width))
            copy_vector(offset(packed, p * stride), offset(b, p * rsb))
            copy_vector(offset(packed, p * stride + width), offset(b, p * rsb + width))
        return
    done = 0
    if rsb == 1 and whole:
        done = k // width * width
        for p in range(0, done, width):
            transpose_square(offset(packed, p * stride), stride, offset(b, p), csb)
            transpose_square(offset(packed, p * stride + width), stride, offset(b, p + width * csb), csb)
    for p in range(done, k):
        row = offset(b, p * rsb)
        for j in range(n):
            packed[p * stride + j] = row[j * csb]


@native("i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def gemm_thin(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """n ≤ 4 columns: as dot products along rows of A, or, if A is stored by columns, as Cᵀ = Bᵀ Aᵀ."""
    if csa == 1:
        packed = typed(scratch + A_OFFSET, a)
        ldbt = 1
        if n == 1 and rsb == 1:
            packed = b
        else:
            ldbt = k
            for j in range(n):
                for p in range(k):
                    packed[j * k + p] = b[p * rsb + j * csb]
        i = 0
        while i < m:
            live = min(DOT_ROWS, m - i)
            a_i, init_i, c_i = offset(a, i * rsa), offset(init, i * ldi), offset(c, i * ldc)
            if n == 1:
                _dots1(k, a_i, rsa, packed, ldbt, init_i, ldi, csi, c_i, ldc, live, n)
            else:
                _dots4(k, a_i, rsa, packed, ldbt, init_i, ldi, csi, c_i, ldc, live, n)
            i += DOT_ROWS
        return
    width = 2 * lanes(a)
    zeros = typed(scratch, a)
    product = offset(zeros, width)
    for j in range(width):
        zeros[j] = 0
    i = 0
    while i < m:
        block = min(width, m - i)
        row_blocks(n, k, b, csb, rsb, 0, offset(a, i), csa, zeros, 0, product, width, block)
        for r in range(block):
            for j in range(n):
                c[(i + r) * ldc + j] = init[(i + r) * ldi + j * csi] + product[j * width + r]
        i += width


@native("i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def gemm(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """C (m, n) = init + A (m, k) @ B (k, n).

    init[i * ldi + j * csi] is a matrix (ldi, 1), a row that is added to all rows (0, 1) or one number (0, 0), which
    must then stand 2·lanes times in a row. It may be C itself. `scratch` is the worker's working memory.
    """
    if 1 <= n <= THIN and (csa == 1 or rsa == 1) and k <= KC * 64:
        gemm_thin(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch)
        return
    width = lanes(a)
    panel = 2 * width
    blocks = max(1, (k + KC - 1) // KC)
    kc = (k + blocks - 1) // blocks
    nc = B_BYTES // (KC * 64) * width // panel * panel
    pack_the_b = csb != 1 or (m >= MANY_ROWS and rsb >= 8 * width and n > width)
    pack_the_a = (
        (csa != 1 and rsa != 1)
        or (n >= 8 * width and k >= 64 and max(rsa, csa) >= 1024)
        or (rsa == 1 and k >= 256 and n >= 256)
    )
    packed_a = typed(scratch + A_OFFSET, a)
    packed_b = typed(scratch + B_OFFSET, a)
    for j0 in range(0, n, nc):
        j1 = min(n, j0 + nc)
        for block in range(blocks):
            p = block * kc
            k_now = min(kc, k - p)
            for i0 in range(0, m, MC):
                m_now = min(MC, m - i0)
                a_now = offset(a, i0 * rsa + p * csa)
                rs, cs = rsa, csa
                if pack_the_a:
                    pack_a(m_now, k_now, a_now, rsa, csa, packed_a)
                    a_now, rs, cs = packed_a, 1, ROWS
                for j in range(j0, j1, panel):
                    n_now = min(panel, j1 - j)
                    b_now, ldb = offset(b, p * rsb + j * csb), rsb
                    if pack_the_b:
                        target = offset(packed_b, (j - j0) * kc)
                        if i0 == 0:
                            pack_b(k_now, n_now, b_now, rsb, csb, target)
                        b_now, ldb = target, panel
                    c_now = offset(c, i0 * ldc + j)
                    start, lds = c_now, ldc
                    if block == 0:
                        start, lds = offset(init, i0 * ldi + j * csi), ldi
                    row_blocks(
                        m_now, k_now, a_now, rs, cs, pack_the_a, b_now, ldb, start, lds, c_now, ldc, n_now
                    )


@kernel
def product(record, start, stop, worker):
    """Rows [start, stop) of C = init + A @ B."""
    scratch, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc = unpack(
        record, "i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8"
    )
    a, init, c = offset(a, start * rsa), offset(init, start * ldi), offset(c, start * ldc)
    own = scratch + worker * SCRATCH_BYTES
    gemm(stop - start, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, own)


ZEROS = np.zeros(512)  # a row of zeros of either element type, for products without an initial value


def matmul(a, b, out, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a and b may have any strides, out is C-contiguous and overlaps neither."""
    (m, k), n, itemsize = a.shape, b.shape[1], a.itemsize
    init = (address(out), n, 1) if accumulate else (address(ZEROS), 0, 0)
    operands = (
        n, k, address(a), a.strides[0] // itemsize, a.strides[1] // itemsize,
        address(b), b.strides[0] // itemsize, b.strides[1] // itemsize, *init, address(out), n,
    )  # fmt: skip
    launch(product, a.dtype, operands, m, ROWS, m * n * (0.02 * k + 0.2))
