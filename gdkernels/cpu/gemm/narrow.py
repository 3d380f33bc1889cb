"""Products with few columns, whose rows would fill a part of a vector: the last layer of most networks.

Vectors lie along what is long instead. Where A is stored by rows they lie along k, and elements of C are dot products; where
it is stored by columns they lie along m, and what is computed is Cᵀ = Bᵀ Aᵀ. Which way is taken depends on n, k and how A
and B are stored, never on the number of rows: every worker adds up in the same order.
"""

from ..runtime.emit import lanes
from ..runtime.jit import inlined, native
from ..runtime.machine import VECTOR_BITS
from ..runtime.simd import offset, typed
from .panels import (
    column_of_tiles,
    full,
    full_packed,
    pack_b,
    rest_of_packed_rows,
    rest_of_rows,
    row_blocks,
)
from .tile import (
    DOT_COLUMNS,
    DOT_ROWS,
    ROWS,
    STRETCH,
    make_dots,
    make_tile,
    transpose_part,
    transpose_square,
    transpose_strip,
)

A_OFFSET = 64 << 10  # in a worker's scratch: a small region, then B transposed
THIN = 4  # columns, at most, that go the GEMV way
THIN_K = 1 << 15  # where they are no longer than this
STRIP = 4  # vectors of A that are added up at once there, where A is stored by columns
NARROW = 24  # columns, at most, of other narrow products
NARROW_K = 1 << 14  # where they are no longer than this
FIVE = 5  # columns of a group, where n is a multiple of it: ten classes
# Products to be added in vectors, at least, that make up for adding up the lanes of the vectors at the end.
DOT_VECTORS = 8
# Columns of A are packed, some vectors of rows side by side, where they lie so far apart that they compete for few sets of
# the caches, and where the scratch has room.
FAR, PACKED_K = 512, 1 << 12

_dots1, _dots4, _dots5 = make_dots(1), make_dots(DOT_COLUMNS), make_dots(FIVE)
_strip = make_tile(1, STRIP, packed=True)
fives, packed_fives = (column_of_tiles(FIVE, 2, packed, False, False) for packed in (False, True))


@native("i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def gemm_thin(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """n ≤ 4 columns: as dot products along rows of A, or, if A is stored by columns, as Cᵀ = Bᵀ Aᵀ."""
    bt, ldbt = b, csb
    if rsb != 1:
        bt, ldbt = typed(scratch + A_OFFSET, a), k
        for j in range(n):
            for p in range(k):
                bt[j * k + p] = b[p * rsb + j * csb]
    if csa == 1:
        i = 0
        while i < m:
            live = min(DOT_ROWS, m - i)
            a_i, init_i, c_i = offset(a, i * rsa), offset(init, i * ldi), offset(c, i * ldc)
            if n == 1:
                _dots1(k, a_i, rsa, bt, ldbt, init_i, ldi, csi, c_i, ldc, live, n)
            else:
                _dots4(k, a_i, rsa, bt, ldbt, init_i, ldi, csi, c_i, ldc, live, n)
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
                _strip(k, offset(bt, j * ldbt), 1, offset(a, i), csa, zeros, 0, target, 0, 0, 0, a, 0, 0)
        else:
            block = min(2 * lanes(a), block)
            row_blocks(n, k, bt, ldbt, offset(a, i), csa, zeros, 0, product, strip, block, b, 0)
        for r in range(block):
            for j in range(n):
                c[(i + r) * ldc + j] = init[(i + r) * ldi + j * csi] + product[j * strip + r]
        i += block


@inlined
def is_narrow(n, k, rsa, csa, rsb, csb, width):
    """Whether a product goes one of the ways of `gemm_narrow`: 4 < n ≤ 24 columns.

    Where A is stored by columns, always. Where it is stored by rows, if they would leave three tenths and more of their
    vectors empty, and if k is long: at the end of it the lanes of a vector are added up.
    """
    if n <= THIN or n > NARROW or k > NARROW_K or (rsb != 1 and csb != 1):
        return False
    if csa != 1:
        return rsa == 1
    filled = (n + width - 1) // width * width
    return 10 * n <= 7 * filled and k >= DOT_VECTORS * width


@native("i8, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def gemm_narrow(m, n, k, a, rsa, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """C = init + A @ B for the products that `is_narrow` names. The operands are those of `product.gemm`."""
    if csa == 1:
        _by_dots(m, n, k, a, rsa, b, rsb, csb, init, ldi, csi, c, ldc, scratch)
    else:
        _by_columns(m, n, k, a, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch)


@native("i8, i8, i8, F*, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def _by_dots(m, n, k, a, rsa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """Elements of C are dot products of rows of A and of Bᵀ, of a few rows and a group of columns at a time."""
    width = lanes(a)
    bt, ldbt = b, csb
    if rsb != 1:
        bt, ldbt = typed(scratch + A_OFFSET, a), (k + width - 1) // width * width
        _turn(bt, ldbt, b, rsb, k, n)
    for i in range(0, m, DOT_ROWS):
        live = min(DOT_ROWS, m - i)
        a_i, init_i, c_i = offset(a, i * rsa), offset(init, i * ldi), offset(c, i * ldc)
        if n % FIVE == 0:
            for j in range(0, n, FIVE):
                b_j, init_j, c_j = offset(bt, j * ldbt), offset(init_i, j * csi), offset(c_i, j)
                _dots5(k, a_i, rsa, b_j, ldbt, init_j, ldi, csi, c_j, ldc, live, FIVE)
        else:
            for j in range(0, n, DOT_COLUMNS):
                b_j, init_j, c_j = offset(bt, j * ldbt), offset(init_i, j * csi), offset(c_i, j)
                _dots4(k, a_i, rsa, b_j, ldbt, init_j, ldi, csi, c_j, ldc, live, min(DOT_COLUMNS, n - j))


@native("F*, i8, F*, i8, i8, i8")
def _turn(target, ldt, source, lds, rows, n):
    """target[j, i] = source[i, j] for i < rows, j < n; elements of the target beyond these are undefined."""
    width = lanes(target)
    for r in range(0, rows, width):
        for j in range(0, n, width):
            into, part = offset(target, j * ldt + r), offset(source, r * lds + j)
            if n - j >= width:
                transpose_square(into, ldt, part, lds, min(width, rows - r))
            else:
                transpose_strip(into, ldt, part, lds, n - j, min(width, rows - r))


@native("i8, i8, i8, F*, i8, F*, i8, i8, F*, i8, i8, F*, i8, i8")
def _by_columns(m, n, k, a, csa, b, rsb, csb, init, ldi, csi, c, ldc, scratch):
    """Cᵀ = initᵀ + Bᵀ Aᵀ in strips of 2 vectors of rows of C, which are turned when they are done.

    What is added up, in which order, is what `product.gemm` does for wider matrices.
    """
    width = lanes(a)
    strip = 2 * width
    turned = typed(scratch, a)
    start = offset(turned, NARROW * strip)
    if ldi == 0:
        for j in range(n):
            for r in range(strip):
                start[j * strip + r] = init[j * csi]
    whole = n if n % FIVE == 0 else n // ROWS * ROWS
    stretch = max(strip, STRETCH * 8 * width // VECTOR_BITS)
    far = csa >= FAR and k <= PACKED_K
    panels = typed(scratch + A_OFFSET, a)
    for i in range(0, m, strip):
        a_i, lda, block = offset(a, i), csa, min(strip, m - i)
        if far:
            if i % stretch == 0:
                pack_b(0, k, min(stretch, m - i), a_i, csa, 1, panels, k * strip)
            a_i, lda = offset(panels, i % stretch * k), strip
        if ldi != 0:
            _turn(start, strip, offset(init, i * ldi), ldi, block, n)
        done = whole if block == strip else 0
        if done > 0:
            if csb == 1 and n % FIVE == 0:
                packed_fives(n, k, b, FIVE, rsb, a_i, lda, start, strip, turned, strip, 0)
            elif csb == 1:
                full_packed(done, k, b, ROWS, rsb, a_i, lda, start, strip, turned, strip, c, 0)
            elif n % FIVE == 0:
                fives(n, k, b, FIVE * csb, csb, a_i, lda, start, strip, turned, strip, 0)
            else:
                full(done, k, b, ROWS * csb, csb, a_i, lda, start, strip, turned, strip, c, 0)
        if done < n:
            rest, b_j = n - done, offset(b, done * csb)
            from_j, to_j = offset(start, done * strip), offset(turned, done * strip)
            if csb == 1:
                rest_of_packed_rows(rest, k, b_j, rsb, a_i, lda, from_j, strip, to_j, strip, block)
            else:
                rest_of_rows(rest, k, b_j, csb, a_i, lda, from_j, strip, to_j, strip, block)
        for r in range(0, block, width):
            live = min(width, block - r)
            for j in range(0, n, width):
                columns = min(width, n - j)
                target, source = offset(c, (i + r) * ldc + j), offset(turned, j * strip + r)
                transpose_part(target, ldc, source, strip, live, columns)
