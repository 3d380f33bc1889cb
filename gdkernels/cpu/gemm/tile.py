"""The register tiles of the matrix products, written as LLVM vectors.

A tile keeps a small block of C in vector registers while it runs once over k. Left to itself LLVM finds no such
code in a scalar triple loop; written out, it comes to the peak of the multiply-add units. The shape follows the
register file: one accumulator for each (row, vector), the vectors of B, and one register to broadcast A.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..runtime.emit import Emitter
from ..runtime.machine import VECTOR_REGISTERS
from ..runtime.memory import LINE
from ..runtime.simd import I32, I64

ROWS = 8 if VECTOR_REGISTERS == 32 else 6  # 16 or 12 accumulators
HALF = 4  # rows of the tiles for what whole tiles leave over: 8 accumulators are the fewest that keep two units busy
STRETCH = (
    256  # bytes that are read side by side, where there are so many: alone, lines come at half of the speed
)
UNROLLED = 4  # products of one turn of the loop: what stands between them is paid once in four
DOT_ROWS = 4 if VECTOR_REGISTERS == 32 else 2
DOT_COLUMNS = 4


def make_tile(
    rows: int,
    vectors: int,
    packed: bool,
    masked: bool = False,
    guarded: bool = False,
    asking: bool = False,
):
    """C = init + A @ B for one block of `rows` × `vectors` vectors.

    A tile is called as ``tile(k, a, lda, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count)``. Rows of A have unit
    column stride and are lda apart; if `packed`, columns have unit row stride and are lda apart: then one pointer with
    constant offsets serves all rows. B, init and C have unit column stride. The last vector of C has `tail` live lanes if
    `masked`; if `guarded`, only `live` rows (at least 1) are read and written, and of B the live lanes alone. If `asking`,
    the second-level cache is asked, spread over the time of the tile, for what will be needed next: STRETCH bytes from
    ``soon + p step`` on, 0 ≤ p < count.

    Left to itself, LLVM reaches the rows of A by a chain of additions, one after the other for each of the k, which takes as
    long as their multiply-adds: so rows are read for `UNROLLED` k at a time, which lie side by side.
    """

    @intrinsic
    def tile(typingctx, k, a, lda, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count):
        def generate(context, builder, signature, arguments):
            k, a, lda, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count = arguments
            emit = Emitter(context, builder, signature.args[1].dtype)
            mask = emit.mask(tail) if masked else None
            live = live if guarded else None
            masks = [None] * (vectors - 1) + [mask]
            read = masks if guarded else [None] * vectors
            columns = [I64(vector * emit.lanes) for vector in range(vectors)]
            index = [emit.row(row, live) for row in range(rows)]
            a_rows = index if packed else [builder.mul(lda, row) for row in index]
            a_step = lda if packed else I64(1)
            for row in range(rows):  # the next tile's place in C: its lines come while this one adds up
                start = emit.at(c, builder.mul(ldc, I64(rows + row)))
                for column in range(0, vectors * emit.lanes, 64 // emit.align):
                    emit.prefetch(emit.at(start, I64(column)), True)
            sums = []
            for row in index:
                start = emit.at(init, builder.mul(ldi, row))
                sums += [
                    emit.load(emit.at(start, column), m) for column, m in zip(columns, masks, strict=True)
                ]

            def one_k(places, sums):
                a_k, b_k = places
                b_vectors = [
                    emit.load(emit.at(b_k, column), m) for column, m in zip(columns, read, strict=True)
                ]
                results = []
                for row in range(rows):
                    a_value = emit.broadcast(emit.at(a_k, a_rows[row]))
                    for vector in range(vectors):
                        results.append(
                            emit.multiply_add(a_value, b_vectors[vector], sums[row * vectors + vector])
                        )
                return results

            def some_k(places, sums):
                a_k, b_k = places
                for _ in range(UNROLLED):
                    sums = one_k((a_k, b_k), sums)
                    a_k, b_k = emit.at(a_k, a_step), emit.at(b_k, ldb)
                return sums

            def run(turns, of, a, b, sums, body):
                """(a, b, sums) after `turns` turns of a body that adds `of` products."""
                steps = [builder.mul(a_step, I64(of)), builder.mul(ldb, I64(of))]
                sums = emit.repeat(turns, [a, b], steps, sums, body)
                done = [builder.mul(turns, step) for step in steps]
                return emit.at(a, done[0]), emit.at(b, done[1]), sums

            def one_line(places, sums):
                a_k, b_k, soon_p = places
                # One line more where the first begins within one.
                for byte in (*range(0, STRETCH, LINE), STRETCH - emit.align):
                    emit.prefetch(emit.at(soon_p, I64(byte // emit.align)), False, 2)
                return run(part, UNROLLED, a_k, b_k, sums, some_k)[2]

            turns = builder.sdiv(k, I64(UNROLLED))
            rest = builder.srem(k, I64(UNROLLED))
            if asking:
                part = builder.sdiv(turns, count)
                of = builder.mul(part, I64(UNROLLED))
                steps = [builder.mul(a_step, of), builder.mul(ldb, of), step]
                sums = emit.repeat(count, [a, b, soon], steps, sums, one_line)
                a, b = (
                    emit.at(place, builder.mul(count, step))
                    for place, step in zip((a, b), steps, strict=False)
                )
                turns = builder.srem(turns, count)
            a, b, sums = run(turns, UNROLLED, a, b, sums, some_k)
            _, _, sums = run(rest, 1, a, b, sums, one_k)

            def store_row(row):
                start = emit.at(c, builder.mul(ldc, I64(row)))
                for vector in range(vectors):
                    emit.store(sums[row * vectors + vector], emit.at(start, columns[vector]), masks[vector])

            for row in range(rows):
                if guarded and row > 0:
                    with emit.when_live(row, live):
                        store_row(row)
                else:
                    store_row(row)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(i8, a, i8, b, i8, init, i8, c, i8, i8, i8, soon, i8, i8), generate

    return tile


def make_dots(columns: int):
    """C = init + A @ B for a few rows of A and 1 to 4 columns, with k along the vector.

    Called as ``dots(k, a, rsa, bt, ldbt, init, ldi, csi, c, ldc, live, width)``: rows of A and of Bᵀ are contiguous;
    `live` rows and `width` columns are written.
    """
    rows = DOT_ROWS

    @intrinsic
    def dots(typingctx, k, a, rsa, bt, ldbt, init, ldi, csi, c, ldc, live, width):
        def generate(context, builder, signature, arguments):
            k, a, rsa, bt, ldbt, init, ldi, csi, c, ldc, live, width = arguments
            emit = Emitter(context, builder, signature.args[1].dtype)
            lanes = I64(emit.lanes)
            whole, rest = builder.sdiv(k, lanes), builder.srem(k, lanes)
            a_rows = [builder.mul(rsa, emit.row(row, live)) for row in range(rows)]
            b_rows = [builder.mul(ldbt, emit.row(column, width)) for column in range(columns)]

            def step(mask):
                def one_k(places, sums):
                    a_k, b_k = places
                    a_vectors = [emit.load(emit.at(a_k, row), mask) for row in a_rows]
                    b_vectors = [emit.load(emit.at(b_k, row), mask) for row in b_rows]
                    return [
                        emit.multiply_add(a_vectors[row], b_vectors[column], sums[row * columns + column])
                        for row in range(rows)
                        for column in range(columns)
                    ]

                return one_k

            sums = emit.repeat(whole, [a, bt], [lanes, lanes], [emit.zero] * (rows * columns), step(None))
            beyond = builder.mul(whole, lanes)
            tail = [emit.at(a, beyond), emit.at(bt, beyond)]
            some = builder.zext(builder.icmp_signed(">", rest, I64(0)), I64)
            sums = emit.repeat(some, tail, [lanes, lanes], sums, step(emit.mask(rest)))
            totals = emit.totals(sums)
            for row in range(rows):
                with emit.when_live(row, live):
                    for column in range(columns):
                        with emit.when_live(column, width):
                            place = builder.add(builder.mul(ldi, I64(row)), builder.mul(csi, I64(column)))
                            value = builder.fadd(
                                builder.load(emit.at(init, place)), totals[row * columns + column]
                            )
                            target = builder.add(builder.mul(ldc, I64(row)), I64(column))
                            builder.store(value, emit.at(c, target))
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(i8, a, i8, bt, i8, init, i8, i8, c, i8, i8, i8), generate

    return dots


@intrinsic
def write_back(typingctx, pointer):
    """Write a number back as it is, which makes this core the owner of its cache line."""

    def generate(context, builder, signature, arguments):
        place = builder.bitcast(arguments[0], I32.as_pointer())
        builder.store_atomic(builder.load_atomic(place, "monotonic", 4), place, "monotonic", 4)
        return context.get_dummy_value()

    return types.void(pointer), generate


@intrinsic
def copy_vector(typingctx, target, source):
    """target[:lanes] = source[:lanes]."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)
        emit.store(emit.load(arguments[1]), arguments[0])
        return context.get_dummy_value()

    return types.void(target, source), generate


@intrinsic
def copy_some(typingctx, target, source, live):
    """target[:lanes] = source[:live], and zeros."""

    def generate(context, builder, signature, arguments):
        target, source, live = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        emit.store(emit.load(source, emit.mask(live)), target)
        return context.get_dummy_value()

    return types.void(target, source, types.int64), generate


@intrinsic
def copy_rows(typingctx, target, source):
    """target[:ROWS] = source[:ROWS]."""

    def generate(context, builder, signature, arguments):
        element = context.get_value_type(signature.args[0].dtype)
        place = ir.VectorType(element, ROWS).as_pointer()
        align = signature.args[0].dtype.bitwidth // 8
        value = builder.load(builder.bitcast(arguments[1], place), align=align)
        builder.store(value, builder.bitcast(arguments[0], place), align=align)
        return context.get_dummy_value()

    return types.void(target, source), generate


def _transposed(emit, source, lds, mask=None, live=None, rows=None):
    """The columns of a block of lanes × lanes elements, by log2(lanes) rounds of exchanges.

    Of fewer rows, the first `rows` (known when compiled) or `live` ones (not known) alone are read, and lanes beyond these
    are undefined.
    """
    builder, size = emit.builder, emit.lanes
    read = size if rows is None else rows
    places = [emit.at(source, builder.mul(lds, emit.row(row, live))) for row in range(read)]
    rows = [emit.load(place, mask) for place in places]
    rows += [ir.Constant(emit.vector, ir.Undefined)] * (size - read)
    distance = 1
    while distance < size:  # exchange bit `distance` of the row number with that of the lane number
        low = [lane if not lane & distance else size + (lane ^ distance) for lane in range(size)]
        high = [lane | distance if not lane & distance else size + lane for lane in range(size)]
        exchanged = list(rows)
        for row in range(size):
            if not row & distance:
                pair = rows[row], rows[row | distance]
                for place, lanes_taken in ((row, low), (row | distance, high)):
                    pattern = ir.Constant(ir.VectorType(I32, size), lanes_taken)
                    exchanged[place] = builder.shuffle_vector(*pair, pattern)
        rows = exchanged
        distance *= 2
    return rows


@intrinsic
def transpose_square(typingctx, target, ldt, source, lds, rows):
    """target[j, i] = source[i, j] for `rows` (at least 1) rows of lanes elements. Lanes beyond are undefined."""

    def generate(context, builder, signature, arguments):
        target, ldt, source, lds, rows = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        for row, column in enumerate(_transposed(emit, source, lds, live=rows)):
            emit.store(column, emit.at(target, builder.mul(ldt, I64(row))))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


@intrinsic
def transpose_strip(typingctx, target, ldt, source, lds, live, rows):
    """As `transpose_square`, for rows of fewer than lanes elements, `live` of them."""

    def generate(context, builder, signature, arguments):
        target, ldt, source, lds, live, rows = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        for row, column in enumerate(_transposed(emit, source, lds, emit.mask(live), rows)[:-1]):
            with emit.when_live(row, live):
                emit.store(column, emit.at(target, builder.mul(ldt, I64(row))))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(target, i8, source, i8, i8, i8), generate


@intrinsic
def transpose_part(typingctx, target, ldt, source, lds, live, rows):
    """target[j, i] = source[i, j] for `rows` (1 to lanes) rows of `live` ≤ lanes elements; nothing else is written."""

    def generate(context, builder, signature, arguments):
        target, ldt, source, lds, live, rows = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        mask = emit.mask(rows)
        for row, column in enumerate(_transposed(emit, source, lds, live=rows)):
            with emit.when_live(row, live):
                emit.store(column, emit.at(target, builder.mul(ldt, I64(row))), mask)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(target, i8, source, i8, i8, i8), generate


@intrinsic
def transpose_rows(typingctx, target, source, lds):
    """target[j ROWS + i] = source[i, j] for ROWS rows of lanes elements: a part of a panel of A.

    Whole vectors are written one after the other, of which the last may leave undefined elements behind.
    """

    def generate(context, builder, signature, arguments):
        target, source, lds = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        groups = []
        for first in range(0, ROWS, emit.lanes):
            start = emit.at(source, builder.mul(lds, I64(first)))
            groups.append(_transposed(emit, start, lds, rows=min(emit.lanes, ROWS - first)))
        for k, columns in enumerate(zip(*groups, strict=True)):
            for group, column in enumerate(columns):
                emit.store(column, emit.at(target, I64(k * ROWS + group * emit.lanes)))
        return context.get_dummy_value()

    return types.void(target, source, types.int64), generate


@intrinsic
def transpose_panels(typingctx, target, step, source, lds):
    """Transpose lanes × lanes elements of A into lanes / ROWS panels, `step` elements apart (ROWS divides lanes)."""

    def generate(context, builder, signature, arguments):
        target, step, source, lds = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        part = ir.VectorType(emit.element, ROWS).as_pointer()
        for k, column in enumerate(_transposed(emit, source, lds)):
            for panel in range(emit.lanes // ROWS):
                lanes_taken = list(range(panel * ROWS, (panel + 1) * ROWS))
                rows = builder.shuffle_vector(
                    column, column, ir.Constant(ir.VectorType(I32, ROWS), lanes_taken)
                )
                start = emit.at(target, builder.mul(step, I64(panel)))
                place = builder.bitcast(emit.at(start, I64(k * ROWS)), part)
                builder.store(rows, place, align=emit.align)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate
