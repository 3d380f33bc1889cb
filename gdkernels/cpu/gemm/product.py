"""C = init + op(A) @ op(B): blocking around the panels and register tiles.

A and B have any row and column stride (so that transposed and Fortran-ordered operands need no copy), C has unit column
stride. The order in which the products of one element of C are added depends on k alone, never on how many rows or
columns a thread was given; the result therefore has the same bits for any number of threads.

The blocking is that of Goto and van de Geijn (ACM TOMS 34(3), 2008): a block of B (kc × NC) is packed panel by panel,
blocks of A (MC × kc) stay in the second-level cache, a panel of B (kc × 2 vectors) streams through the first.
"""

import numpy as np

from ..runtime.emit import lanes
from ..runtime.jit import inlined, native
from ..runtime.machine import VECTOR_BITS
from ..runtime.simd import offset, typed
from .panels import full_and_ahead, pack_a, pack_b, row_blocks
from .tile import DOT_COLUMNS, DOT_ROWS, ROWS, make_dots, make_tile

KC_BYTES = 2048  # products added in one pass over a tile: 512 of float32
MC = 256 // ROWS * ROWS  # rows of a packed block of A: half of a second-level cache of 1 MiB
NC = 1024  # columns of a packed block of B, where it is used for more than one block of A
A_OFFSET = 64 << 10  # in a worker's scratch: a small region for the GEMV way, then A, then B
B_OFFSET = A_OFFSET + (2 << 20)
# Limits of `worth_packing_a`, `worth_packing_b` and `worth_asking_ahead`: rows, columns and products that are added, and
# distances of rows in elements or vectors.
WIDE_ROW, SHORT_SUM, APART = 1024, 64, 8
LONG_SUM, MANY_COLUMNS = 256, 256
PACKED_ROWS = 96
AHEAD_ROWS, AHEAD_ELEMENTS = 32, 1 << 14
THIN = 4  # columns, at most, that go the GEMV way
THIN_K = 1 << 15  # where they are no longer than this
STRIP = 4  # vectors of A that are added up at once there, where A is stored by columns

_dots1, _dots4 = make_dots(1), make_dots(DOT_COLUMNS)
_strip = make_tile(1, STRIP)


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
    strip = STRIP * lanes(a)
    zeros = typed(scratch, a)
    product = offset(zeros, strip)
    for j in range(strip):
        zeros[j] = 0
    i = 0
    while i < m:
        block = min(strip, m - i)
        if block == strip:
            for j in range(n):
                target = offset(product, j * strip)
                _strip(k, offset(b, j * csb), 0, rsb, offset(a, i), csa, zeros, 0, target, 0, 0, 0, a, 0, 0)
        else:
            block = min(2 * lanes(a), block)
            row_blocks(n, k, b, csb, rsb, 0, offset(a, i), csa, zeros, 0, product, strip, block, b, 0)
        for r in range(block):
            for j in range(n):
                c[(i + r) * ldc + j] = init[(i + r) * ldi + j * csi] + product[j * strip + r]
        i += block


@inlined
def worth_packing_a(n, k, rsa, csa, width):
    """Whether blocks of A are copied to panels, where a tile finds its rows side by side.

    Always without a unit stride. Rows that are far apart compete for few sets of the caches; columns are read a cache line
    for a few elements. It takes many columns of B to make up for the copy. `python tools/packing.py` measures it: on an
    Intel Xeon with AVX-512, float32, k = 1024, packed rows take 1.17 of the time for 128 columns and 0.95 for 512, packed
    columns 0.91 for 256. The limit for rows suits smaller first-level caches than that machine's 48 KiB.
    """
    has_no_unit_stride = csa != 1 and rsa != 1
    rows_far_apart = max(rsa, csa) >= WIDE_ROW and k >= SHORT_SUM and n >= APART * width
    by_columns = rsa == 1 and k >= LONG_SUM and n >= MANY_COLUMNS
    return has_no_unit_stride or rows_far_apart or by_columns


@inlined
def worth_packing_b(m, n, rsb, csb, width):
    """Whether panels of B are copied, which every tile of rows reads again.

    Always without a unit stride: tiles read vectors. `python tools/packing.py` measures it: on an Intel Xeon with AVX-512,
    float32, k = 256, 512 columns, packed panels take 1.18 of the time for 24 rows, 0.99 for 48, 0.87 for 96 and 0.77 for
    512; for 64 columns, which are not packed, it is 0.96 to 1.03 from 96 rows on.
    """
    return csb != 1 or (m >= PACKED_ROWS and rsb >= APART * width and n > width)


@inlined
def worth_asking_ahead(m, n, k):
    """Whether the next panel of B is asked for, and packed, while the tiles of one are computed."""
    return m >= AHEAD_ROWS and k * n >= AHEAD_ELEMENTS


@native("i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, i8")
def gemm(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, also, scratch):
    """C (m, n) = init + A (m, k) @ B (k, n).

    init[i * ldi + j * csi] is a matrix (ldi, 1), a row that is added to all rows (0, 1) or one number (0, 0), which
    must then stand 2·lanes times in a row. It may be C itself. Where `also` is not 0, a matrix that will be written next
    lies that many elements behind C, and neither has gaps (ldc = n): its lines are claimed on the way. `scratch` is the
    worker's working memory.
    """
    if 1 <= n <= THIN and (csa == 1 or rsa == 1) and k <= THIN_K:
        gemm_thin(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch)
        return
    width = lanes(a)
    panel = 2 * width
    longest = KC_BYTES * 8 * width // VECTOR_BITS
    blocks = max(1, (k + longest - 1) // longest)
    kc = (k + blocks - 1) // blocks
    once = m <= MC  # one block of A: a packed panel is used once, and two places for them are enough
    nc = max(n, 1) if once else NC // panel * panel
    pack_the_a = worth_packing_a(n, k, rsa, csa, width)
    pack_the_b = worth_packing_b(m, n, rsb, csb, width)
    packed_a = typed(scratch + A_OFFSET, a)
    packed_b = typed(scratch + B_OFFSET, a)
    for j0 in range(0, n, nc):
        j1 = min(n, j0 + nc)
        for block in range(blocks):
            p = block * kc
            k_now = min(kc, k - p)
            for i0 in range(0, m, MC):
                m_now = min(MC, m - i0)
                whole = m_now // ROWS * ROWS if worth_asking_ahead(m_now, n, k) else 0
                a_now, rs, cs = offset(a, i0 * rsa + p * csa), rsa, csa
                if pack_the_a:
                    pack_a(m_now, k_now, a_now, rsa, csa, packed_a)
                    a_now, rs, cs = packed_a, 1, ROWS
                step = ROWS * (k_now if pack_the_a else rs)
                ready = False  # whether the panel was packed along with the one before
                for j in range(j0, j1, panel):
                    n_now = min(panel, j1 - j)
                    place = (j - j0) // panel
                    b_now, ldb = offset(b, p * rsb + j * csb), rsb
                    if pack_the_b:
                        b_now, ldb = offset(packed_b, (place & 1 if once else place) * panel * kc), panel
                        if i0 == 0 and not ready:
                            pack_b(0, k_now, n_now, offset(b, p * rsb + j * csb), rsb, csb, b_now)
                    c_now = offset(c, i0 * ldc + j)
                    start, lds = c_now, ldc
                    if block == 0:
                        start, lds = offset(init, i0 * ldi + j * csi), ldi
                    # This panel's share of the rows that will be written next.
                    mine = offset(c, i0 * ldc + also + m_now * j)
                    claimed = m_now * n_now if also != 0 and block == 0 else 0
                    done, ready = 0, False
                    if i0 == 0 and j + panel < j1 and whole > 0:
                        after = typed(0, a)
                        if pack_the_b:
                            after = offset(packed_b, (1 - (place & 1) if once else place + 1) * panel * kc)
                        full_and_ahead(
                            whole, k_now, a_now, step, rs, cs, b_now, ldb, start, lds, c_now, ldc, mine, claimed,
                            k_now, min(panel, j1 - j - panel), offset(b, p * rsb + (j + panel) * csb), rsb, csb, after,
                        )  # fmt: skip
                        done, claimed, ready = whole, 0, True
                    row_blocks(
                        m_now - done, k_now, offset(a_now, done // ROWS * step), rs, cs, pack_the_a, b_now, ldb,
                        offset(start, done * lds), lds, offset(c_now, done * ldc), ldc, n_now, mine, claimed,
                    )  # fmt: skip


ZEROS = {
    8: np.zeros(512),
    4: np.zeros(512, np.float32),
}  # by itemsize: what products without an initial value begin with
