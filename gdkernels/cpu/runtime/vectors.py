"""Whole vectors for the row kernels: what LLVM does not find in a scalar loop, and the loop that it does, `clear`.

A block of short rows is turned, so that the rows stand side by side in a vector; the maximum of a row ignores NaN.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import PART_BITS, Emitter
from .jit import native
from .simd import I32, I64

CHAINS = 4  # sums of a row that run side by side, because an addition takes as many cycles


def _turned(emit, rows):
    """Columns of rows: as many rows as 128 bits have lanes, log2 of that rounds, each of which interleaves the first half
    with the second. The 128-bit parts of a vector are turned each by itself, in one instruction for a vector."""
    side, lanes = len(rows), emit.lanes
    low = [part + lane // 2 + lane % 2 * lanes for part in range(0, lanes, side) for lane in range(side)]
    high = [lane + side // 2 for lane in low]
    masks = [ir.Constant(ir.VectorType(I32, lanes), mask) for mask in (low, high)]
    width = side
    while width > 1:
        halves = zip(rows[: side // 2], rows[side // 2 :], strict=True)
        rows = [
            emit.builder.shuffle_vector(left, right, mask) for left, right in list(halves) for mask in masks
        ]
        width //= 2
    return rows


def _joined(emit, parts):
    """The vector of these parts of 128 bits."""
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        parts = [
            emit.builder.shuffle_vector(low, high, order)
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _part(emit, vector, number):
    """The part of 128 bits of a vector with this number."""
    side = PART_BITS // emit.bits
    order = list(range(number * side, number * side + side))
    return emit.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, side), order))


def _larger(emit, left, right):
    """The larger of each two lanes; `right` where `left` is NaN."""
    return emit.builder.select(emit.builder.fcmp_ordered(">", left, right), left, right)


def _filled(emit, value):
    return ir.Constant(emit.vector, [ir.Constant(emit.element, value)] * emit.lanes)


def _columns(emit, source, n, rows, live, target, peak):
    """Some columns of `lanes` rows, as many as 128 bits have: write them to `target`, and give the larger of `peak` and
    them. Only `live` of them are there, or all where it is None.

    Elements beyond a row's end are those of the next row, and do not count; what lies beyond the last row is not read.
    """
    builder, part = emit.builder, emit.part
    side = part.lanes
    lines = []
    for row in range(side):
        parts = []
        for number in range(row, emit.lanes, side):
            place = emit.at(source, builder.mul(n, emit.row(number, rows)))
            beyond = live is not None and (rows is not None or number == emit.lanes - 1)
            parts.append(part.load(place, part.mask(live) if beyond else None))
        lines.append(_joined(emit, parts))
    least = _filled(emit, float("-inf"))
    for column, vector in enumerate(_turned(emit, lines)):
        emit.store(vector, emit.at(target, I64(column * emit.lanes)))
        if live is not None:
            there = builder.icmp_signed("<", I64(column), live)
            vector = builder.select(there, vector, least)
        peak = _larger(emit, vector, peak)
    return peak


def _turn_in(emit, source, n, rows, target, peak):
    """`columns_of_rows`, of `lanes` rows where `rows` is None."""
    builder, side = emit.builder, emit.part.lanes
    whole, rest = builder.sdiv(n, I64(side)), builder.srem(n, I64(side))

    def several(places, peaks):
        return [_columns(emit, places[0], n, rows, None, places[1], peaks[0])]

    least = _filled(emit, float("-inf"))
    (largest,) = emit.repeat(whole, [source, target], [I64(side), I64(side * emit.lanes)], [least], several)
    emit.store(largest, peak)
    with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
        done = builder.sub(n, rest)
        from_here, to_here = emit.at(source, done), emit.at(target, builder.mul(done, I64(emit.lanes)))
        emit.store(_columns(emit, from_here, n, rows, rest, to_here, largest), peak)


@intrinsic
def columns_of_rows(typingctx, source, n, rows, target, peak):
    """target[c, r] = source[r, c] for `lanes` lanes r and the n columns c, and peak[r] = max source[r, :].

    Rows of `source` are n apart, of `target` `lanes`. Where there are less `rows` (at least 1), the last is repeated. Of
    `target` as many columns are written as whole parts of 128 bits have.
    """

    def generate(context, builder, signature, arguments):
        source, n, rows, target, peak = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        with builder.if_else(_plain(emit, n, rows)) as (all_there, some_there):
            with all_there:
                _turn_in(emit, source, n, None, target, peak)
            with some_there:
                _turn_in(emit, source, n, rows, target, peak)
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, source, source), generate


def _plain(emit, n, rows):
    """Are there `lanes` rows, of which each has room for what is written beyond the end of the one before it?"""
    builder = emit.builder
    full = builder.icmp_signed(">=", rows, I64(emit.lanes))
    return builder.and_(full, builder.icmp_signed(">=", n, I64(emit.part.lanes // 2)))


@intrinsic
def subtract_peaks(typingctx, source, columns, peak):
    """source[c, r] −= peak[r] for `columns` columns c and `lanes` lanes r."""

    def generate(context, builder, signature, arguments):
        source, columns, peak = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        peaks = emit.load(peak)

        def one(places, _):
            emit.store(builder.fsub(emit.load(places[0]), peaks), places[0])
            return []

        emit.repeat(columns, [source], [I64(emit.lanes)], [], one)
        return context.get_dummy_value()

    return types.void(source, types.int64, source), generate


@intrinsic
def add_columns(typingctx, source, columns, total):
    """total[r] = Σ source[c, r] for `columns` columns c, one after the other, and `lanes` lanes r."""

    def generate(context, builder, signature, arguments):
        source, columns, total = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)

        def one(places, sums):
            return [builder.fadd(sums[0], emit.load(places[0]))]

        emit.store(emit.repeat(columns, [source], [I64(emit.lanes)], [emit.zero], one)[0], total)
        return context.get_dummy_value()

    return types.void(source, types.int64, source), generate


def _rows(emit, source, factors, target, n, rows, live):
    """Write some columns of `lanes` rows, as many as 128 bits have, or `live` of them: what lies beyond is written, too, but
    behind the last row."""
    builder, part = emit.builder, emit.part
    side = part.lanes
    columns = [
        builder.fmul(emit.load(emit.at(source, I64(column * emit.lanes))), factors) for column in range(side)
    ]
    turned = _turned(emit, columns)
    for row in range(emit.lanes):
        piece = _part(emit, turned[row % side], row // side)
        place = emit.at(target, builder.mul(n, I64(row)))
        beyond = live is not None and (rows is not None or row == emit.lanes - 1)
        if rows is None:
            part.store(piece, place, part.mask(live) if beyond else None)
            continue
        with emit.when_live(row, rows):
            part.store(piece, place, part.mask(live) if beyond else None)


def _turn_out(emit, source, factors, target, n, rows):
    """`rows_of_columns`, of `lanes` rows where `rows` is None. The rest of the rows goes first: what is written beyond a
    row's end is the next one's beginning."""
    builder, side = emit.builder, emit.part.lanes
    whole, rest = builder.sdiv(n, I64(side)), builder.srem(n, I64(side))
    with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
        done = builder.sub(n, rest)
        from_here, to_here = emit.at(source, builder.mul(done, I64(emit.lanes))), emit.at(target, done)
        _rows(emit, from_here, factors, to_here, n, rows, rest)

    def several(places, _):
        _rows(emit, places[0], factors, places[1], n, rows, None)
        return []

    emit.repeat(whole, [source, target], [I64(side * emit.lanes), I64(side)], [], several)


@intrinsic
def rows_of_columns(typingctx, source, factor, target, n, rows):
    """target[r, c] = source[c, r] factor[r] for `rows` rows (at most `lanes`) and n columns.

    Rows of `source` are `lanes` apart, of `target` n. Of `source` as many columns are read as whole parts of 128 bits have.
    """

    def generate(context, builder, signature, arguments):
        source, factor, target, n, rows = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        factors = emit.load(factor)
        with builder.if_else(_plain(emit, n, rows)) as (all_there, some_there):
            with all_there:
                _turn_out(emit, source, factors, target, n, None)
            with some_there:
                _turn_out(emit, source, factors, target, n, rows)
        return context.get_dummy_value()

    return types.void(source, source, source, types.int64, types.int64), generate


def _over_row(emit, row, n, neutral, term, join):
    """The terms of a row's vectors, joined: in CHAINS chains, then pairwise, then the lanes; `n` may be anything.

    Lanes beyond the end hold `neutral`. The order depends on n alone.
    """
    builder, lanes, step = emit.builder, I64(emit.lanes), I64(CHAINS * emit.lanes)
    whole = builder.sdiv(n, step)

    def several(places, values):
        return [
            join(term(emit.load(emit.at(places[0], I64(chain * emit.lanes)))), value)
            for chain, value in enumerate(values)
        ]

    values = emit.repeat(whole, [row], [step], [neutral] * CHAINS, several)
    start = emit.at(row, builder.mul(whole, step))
    rest = builder.srem(n, step)
    vectors = builder.sdiv(rest, lanes)
    first = emit.repeat(
        vectors, [start], [lanes], values[:1], lambda places, v: [join(term(emit.load(places[0])), v[0])]
    )
    values = first + values[1:]
    mask = emit.mask(builder.srem(rest, lanes))
    last = term(emit.load(emit.at(start, builder.mul(vectors, lanes)), mask))
    values[1] = join(builder.select(mask, last, neutral), values[1])
    while len(values) > 1:
        values = [join(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    (value,), width = values, emit.lanes
    while width > 1:
        width //= 2
        swap = [lane ^ width for lane in range(emit.lanes)]
        other = builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, emit.lanes), swap))
        value = join(value, other)
    return builder.extract_element(value, I32(0))


@intrinsic
def peak_of_row(typingctx, row, n):
    """max row[:n] of what is no NaN; −∞ if there is nothing else."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)
        least = _filled(emit, float("-inf"))
        return _over_row(emit, *arguments, least, lambda v: v, lambda a, b: _larger(emit, a, b))

    return row.dtype(row, types.int64), generate


@intrinsic
def sum_of_row(typingctx, row, n):
    """Σ row[:n]."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)
        return _over_row(emit, *arguments, emit.zero, lambda v: v, builder.fadd)

    return row.dtype(row, types.int64), generate


@intrinsic
def squares_of_row(typingctx, row, n, mean):
    """Σ (row[:n] − mean)²."""

    def generate(context, builder, signature, arguments):
        row, n, mean = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        means = emit.spread(mean, emit.element)

        def square(vector):
            distance = builder.fsub(vector, means)
            return builder.fmul(distance, distance)

        return _over_row(emit, row, n, emit.zero, square, builder.fadd)

    return row.dtype(row, types.int64, row.dtype), generate


@intrinsic
def normalised_row(typingctx, x, gamma, beta, out, n, mean, rstd):
    """out = (x − mean) rstd gamma + beta, for `n` elements; `beta` is a pointer, or None where there is none."""
    shifted = not isinstance(beta, types.NoneType)

    def generate(context, builder, signature, arguments):
        x, gamma, beta, out, n, mean, rstd = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        means, rstds = (emit.spread(value, emit.element) for value in (mean, rstd))
        pointers = [x, gamma, out] + ([beta] if shifted else [])

        def write(places, mask):
            x, gamma, out = places[:3]
            y = builder.fmul(builder.fsub(emit.load(x, mask), means), rstds)
            gain = emit.load(gamma, mask)
            y = emit.multiply_add(y, gain, emit.load(places[3], mask)) if shifted else builder.fmul(y, gain)
            emit.store(y, out, mask)

        lanes = I64(emit.lanes)
        whole = builder.udiv(n, lanes)

        def one(places, _):
            write(places, None)
            return []

        emit.repeat(whole, pointers, [lanes] * len(pointers), [], one)
        done = builder.mul(whole, lanes)
        rest = builder.sub(n, done)
        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            write([emit.at(pointer, done) for pointer in pointers], emit.mask(rest))
        return context.get_dummy_value()

    return types.void(x, x, beta, x, types.int64, x.dtype, x.dtype), generate


def _add_down(emit, source, total, rows, stride, vectors, mask=None):
    """total += Σ source[r], r < rows, one after the other, for some vectors of columns that stay in registers."""
    columns = [I64(vector * emit.lanes) for vector in range(vectors)]
    sums = [emit.load(emit.at(total, column), mask) for column in columns]

    def one(places, sums):
        lines = [emit.load(emit.at(places[0], column), mask) for column in columns]
        return [emit.builder.fadd(value, line) for value, line in zip(sums, lines, strict=True)]

    for value, column in zip(emit.repeat(rows, [source], [stride], sums, one), columns, strict=True):
        emit.store(value, emit.at(total, column), mask)


@intrinsic
def add_chains(typingctx, source, total, rows, stride):
    """total[c] += Σ_r source[r, c] for CHAINS vectors of columns; rows are `stride` apart."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)
        _add_down(emit, *arguments, CHAINS)
        return context.get_dummy_value()

    return types.void(source, source, types.int64, types.int64), generate


@intrinsic
def add_some(typingctx, source, total, rows, stride, live):
    """The same for `live` columns, no more than a vector has lanes."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)
        _add_down(emit, *arguments[:4], 1, emit.mask(arguments[4]))
        return context.get_dummy_value()

    return types.void(source, source, types.int64, types.int64, types.int64), generate


SQUARES = 8  # sums that run side by side where squares are added: two products a cycle, each ready after four


@intrinsic
def square_vectors(typingctx, source, count):
    """Σ source², in float64, over `count` times `SQUARES` vectors of float64; LLVM would take half vectors for float32."""

    def generate(context, builder, signature, arguments):
        source, count = arguments
        emit, element = Emitter(context, builder, types.float64), signature.args[0].dtype
        narrow = ir.VectorType(context.get_value_type(element), emit.lanes)

        def squares(places, sums):
            added = []
            for chain, total in enumerate(sums):
                place = builder.bitcast(emit.at(places[0], I64(chain * emit.lanes)), narrow.as_pointer())
                vector = builder.load(place, align=element.bitwidth // 8)
                if element != types.float64:
                    vector = builder.fpext(vector, emit.vector)
                added.append(emit.multiply_add(vector, vector, total))
            return added

        step = I64(SQUARES * emit.lanes)
        sums = emit.repeat(count, [source], [step], [emit.zero] * SQUARES, squares)
        while len(sums) > 1:
            sums = [builder.fadd(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return emit.total(sums[0])

    return types.float64(source, types.int64), generate


@native("F*, i8")
def clear(values, count):
    """values = 0."""
    for j in range(count):
        values[j] = 0
