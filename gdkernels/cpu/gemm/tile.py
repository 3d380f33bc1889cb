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
from ..runtime.simd import I32, I64

VECTORS = 2  # vectors of B side by side
ROWS = 8 if VECTOR_REGISTERS == 32 else 6  # 16 or 12 accumulators
HALF = ROWS // 2
DOT_ROWS = 4 if VECTOR_REGISTERS == 32 else 2
DOT_COLUMNS = 4


def make_tile(rows: int, vectors: int, masked: bool = False, guarded: bool = False, asking: bool = False):
    """C = init + A @ B for one block of `rows` × `vectors` vectors.

    A tile is called as ``tile(k, a, rsa, csa, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count)``: A has
    row and column strides, B, init and C have unit column stride. The last vector has `tail` live lanes if `masked`; if
    `guarded`, only `live` rows (at least 1) are read and written. If `asking`, the second-level cache is asked, spread
    over the time of the tile, for what will be needed next: 2·lanes elements from ``soon + p step`` on, 0 ≤ p < count.
    """

    @intrinsic
    def tile(typingctx, k, a, rsa, csa, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count):
        def generate(context, builder, signature, arguments):
            k, a, rsa, csa, b, ldb, init, ldi, c, ldc, tail, live, soon, step, count = arguments
            emit = Emitter(context, builder, signature.args[1].dtype)
            mask = emit.mask(tail) if masked else None
            live = live if guarded else None
            masks = [None] * (vectors - 1) + [mask]
            columns = [I64(vector * emit.lanes) for vector in range(vectors)]
            index = [emit.row(row, live) for row in range(rows)]
            a_rows = [builder.mul(rsa, row) for row in index]
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
                    emit.load(emit.at(b_k, column), m) for column, m in zip(columns, masks, strict=True)
                ]
                results = []
                for row in range(rows):
                    a_value = emit.broadcast(emit.at(a_k, a_rows[row]))
                    for vector in range(vectors):
                        results.append(
                            emit.multiply_add(a_value, b_vectors[vector], sums[row * vectors + vector])
                        )
                return results

            def one_line(places, sums):
                a_k, b_k, soon_p = places
                emit.prefetch(soon_p, False, 2)
                # Three lines where the first begins within one.
                for column in (emit.lanes, 2 * emit.lanes - 1):
                    emit.prefetch(emit.at(soon_p, I64(column)), False, 2)
                return emit.repeat(part, [a_k, b_k], [csa, ldb], sums, one_k)

            if asking:
                part = builder.sdiv(k, count)
                done = builder.mul(part, count)
                steps = [builder.mul(csa, part), builder.mul(ldb, part), step]
                sums = emit.repeat(count, [a, b, soon], steps, sums, one_line)
                a, b, k = (
                    emit.at(a, builder.mul(csa, done)),
                    emit.at(b, builder.mul(ldb, done)),
                    builder.sub(k, done),
                )
            sums = emit.repeat(k, [a, b], [csa, ldb], sums, one_k)

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
        return types.void(i8, a, i8, i8, b, i8, init, i8, c, i8, i8, i8, soon, i8, i8), generate

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
            for row in range(rows):
                with emit.when_live(row, live):
                    for column in range(columns):
                        with emit.when_live(column, width):
                            place = builder.add(builder.mul(ldi, I64(row)), builder.mul(csi, I64(column)))
                            start = builder.load(emit.at(init, place))
                            value = builder.fadd(start, emit.total(sums[row * columns + column]))
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


def _transposed(emit, source, lds, mask=None):
    """The columns of a block of lanes × lanes elements, by log2(lanes) rounds of exchanges."""
    builder, size = emit.builder, emit.lanes
    rows = [emit.load(emit.at(source, builder.mul(lds, I64(row))), mask) for row in range(size)]
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
def transpose_square(typingctx, target, ldt, source, lds):
    """target[j, i] = source[i, j] for a block of lanes × lanes elements."""

    def generate(context, builder, signature, arguments):
        target, ldt, source, lds = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        for row, column in enumerate(_transposed(emit, source, lds)):
            emit.store(column, emit.at(target, builder.mul(ldt, I64(row))))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


@intrinsic
def transpose_strip(typingctx, target, ldt, source, lds, live):
    """target[j, i] = source[i, j] for lanes rows of fewer than lanes elements, `live` of them."""

    def generate(context, builder, signature, arguments):
        target, ldt, source, lds, live = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        for row, column in enumerate(_transposed(emit, source, lds, emit.mask(live))[:-1]):
            with emit.when_live(row, live):
                emit.store(column, emit.at(target, builder.mul(ldt, I64(row))))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


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
