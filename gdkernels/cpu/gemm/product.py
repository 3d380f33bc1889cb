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
from .narrow import A_OFFSET, THIN, THIN_K, gemm_narrow, gemm_thin, is_narrow
from .panels import full_and_ahead, full_and_ahead_packed, pack_a, pack_b, row_blocks, row_blocks_packed
from .tile import ROWS, STRETCH, UNROLLED

# Products added in one pass over a tile: with vectors of 512 bits 512 of float32, with others so many that a panel of B and
# a tile's rows of A fit in a first-level cache of 32 KiB.
KC_BYTES = 2048 if VECTOR_BITS == 512 else 1408
MC = 264 // ROWS * ROWS  # rows of a block of A, at most: half of a second-level cache of 1 MiB
NC = 1024  # columns of a packed block of B, where it is used for more than one block of A
B_OFFSET = A_OFFSET + (2 << 20)  # in a worker's scratch: what narrow products need, then A, then B
# Limits of `worth_packing_a`, `worth_packing_b` and `worth_asking_ahead`: rows, columns and products that are added, and
# distances of rows in elements or vectors.
WIDE_ROW, SHORT_SUM, APART = 1024, 64, 8
PACKED_ROWS = 96
AHEAD_ROWS, AHEAD_ELEMENTS = 32, 1 << 14


@inlined
def worth_packing_a(n, k, rsa, csa, width):
    """Whether blocks of A are copied to panels, where a tile finds its rows side by side.

    Always where it is not stored by rows, which tiles read as they are. Rows that are far apart compete for few sets of the
    caches, and it takes many columns of B to make up for the copy: `python tools/packing.py` measures it.
    """
    rows_far_apart = rsa >= WIDE_ROW and k >= SHORT_SUM and n >= APART * width
    return csa != 1 or rows_far_apart


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


@inlined
def even_part(count, most, quantum):
    """The size of the parts of `count` items, at most `most` each and as even as multiples of `quantum` allow."""
    parts = max(1, (count + most - 1) // most)
    return max(1, ((count + parts - 1) // parts + quantum - 1) // quantum) * quantum


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
    if is_narrow(n, k, rsa, csa, rsb, csb, width):
        gemm_narrow(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch)
        return
    panel = 2 * width
    longest = KC_BYTES * 8 * width // VECTOR_BITS
    kc, mc = even_part(k, longest, UNROLLED), even_part(m, MC, ROWS)
    blocks, room = max(1, (k + kc - 1) // kc), panel * kc
    group = max(1, STRETCH * 8 // (2 * VECTOR_BITS))  # panels that are packed together
    # With one block of A a packed panel is used once, and places for two groups of them are enough.
    once = m <= MC
    nc = max(n, 1) if once else NC // (group * panel) * group * panel
    pack_the_a = worth_packing_a(n, k, rsa, csa, width)
    pack_the_b = worth_packing_b(m, n, rsb, csb, width)
    packed_a = typed(scratch + A_OFFSET, a)
    packed_b = typed(scratch + B_OFFSET, a)
    for j0 in range(0, n, nc):
        j1 = min(n, j0 + nc)
        for block in range(blocks):
            p = block * kc
            k_now = min(kc, k - p)
            for i0 in range(0, m, mc):
                m_now = min(mc, m - i0)
                whole = m_now // ROWS * ROWS if worth_asking_ahead(m_now, n, k) else 0
                a_now, lda = offset(a, i0 * rsa + p * csa), rsa
                if pack_the_a:
                    pack_a(m_now, k_now, a_now, rsa, csa, packed_a)
                    a_now, lda = packed_a, ROWS
                step = ROWS * (k_now if pack_the_a else lda)
                ready = False  # whether these panels were packed along with those before
                for j in range(j0, j1, panel):
                    n_now = min(panel, j1 - j)
                    at = (j - j0) // panel
                    member = at % group
                    place = at % (2 * group) if once else at
                    b_now, ldb = offset(b, p * rsb + j * csb), rsb
                    if pack_the_b or (n_now < panel and m >= ROWS):
                        here = offset(packed_b, place * room)
                        if i0 == 0 and not pack_the_b:
                            pack_b(0, k_now, n_now, b_now, rsb, csb, here, room)
                        elif i0 == 0 and member == 0 and not ready:
                            pack_b(0, k_now, min(group * panel, j1 - j), b_now, rsb, csb, here, room)
                        b_now, ldb = here, panel
                    c_now = offset(c, i0 * ldc + j)
                    start, lds = c_now, ldc
                    if block == 0:
                        start, lds = offset(init, i0 * ldi + j * csi), ldi
                    # This panel's share of the rows that will be written next.
                    mine = offset(c, i0 * ldc + also + m_now * j)
                    claimed = m_now * n_now if also != 0 and block == 0 else 0
                    done, following = 0, j + (group - member) * panel
                    if i0 == 0 and following < j1 and whole > 0:
                        ready = pack_the_b
                        place += group - member
                        after = offset(packed_b, (place % (2 * group) if once else place) * room)
                        if not pack_the_b:
                            after = typed(0, a)
                        next_n = min(group * panel, j1 - following)
                        next_b = offset(b, p * rsb + following * csb)
                        first, parts = member * (whole // ROWS), group * (whole // ROWS)
                        if pack_the_a:
                            full_and_ahead_packed(
                                whole, k_now, a_now, step, lda, b_now, ldb, start, lds, c_now, ldc, mine, claimed,
                                first, parts, k_now, next_n, next_b, rsb, csb, after, room,
                            )  # fmt: skip
                        else:
                            full_and_ahead(
                                whole, k_now, a_now, step, lda, b_now, ldb, start, lds, c_now, ldc, mine, claimed,
                                first, parts, k_now, next_n, next_b, rsb, csb, after, room,
                            )  # fmt: skip
                        done, claimed = whole, 0
                    left, a_left = m_now - done, offset(a_now, done // ROWS * step)
                    start, c_now = offset(start, done * lds), offset(c_now, done * ldc)
                    if pack_the_a:
                        row_blocks_packed(
                            left, k_now, a_left, lda, b_now, ldb, start, lds, c_now, ldc, n_now, mine, claimed
                        )  # fmt: skip
                    else:
                        row_blocks(
                            left, k_now, a_left, lda, b_now, ldb, start, lds, c_now, ldc, n_now, mine, claimed
                        )


ZEROS = {
    8: np.zeros(512),
    4: np.zeros(512, np.float32),
}  # by itemsize: what products without an initial value begin with
