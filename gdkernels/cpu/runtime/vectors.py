"""Whole vectors for the row kernels: what LLVM does not find in a scalar loop, and the loop that it does, `clear`.

A block of short rows is turned, so that the rows stand side by side in a vector; the maximum of a row ignores NaN.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import Emitter
from .jit import native
from .simd import I32, I64

CHAINS = 4  # sums of a row that run side by side, because an addition takes as many cycles


def _turned(emit, rows):
    """The columns of `lanes` rows: log2(lanes) rounds, each of which interleaves the first half with the second."""
    lanes = emit.lanes
    low = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
    high = [lane + lanes // 2 for lane in low]
    masks = [ir.Constant(ir.VectorType(I32, lanes), mask) for mask in (low, high)]
    width = lanes
    while width > 1:
        halves = zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True)
        rows = [
            emit.builder.shuffle_vector(left, right, mask) for left, right in list(halves) for mask in masks
        ]
        width //= 2
    return rows


def _larger(emit, left, right):
    """The larger of each two lanes; `right` where `left` is NaN."""
    return emit.builder.select(emit.builder.fcmp_ordered(">", left, right), left, right)


def _filled(emit, value):
    return ir.Constant(emit.vector, [ir.Constant(emit.element, value)] * emit.lanes)


@intrinsic
def columns_of_rows(typingctx, source, n, rows, columns, target, peak):
    """target[c, r] = source[r, c] for `lanes` lanes r and c, and peak[r] = max(peak[r], source[r, :]).

    Rows of `source` are n apart, of `target` `lanes`. Where there are less `rows` (at least 1), the last is repeated;
    columns beyond the `columns` there are hold −∞.
    """

    def generate(context, builder, signature, arguments):
        source, n, rows, columns, target, peak = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        mask, least = emit.mask(columns), _filled(emit, float("-inf"))
        lines = []
        for row in range(emit.lanes):
            start = emit.at(source, builder.mul(n, emit.row(row, rows)))
            lines.append(builder.select(mask, emit.load(start, mask), least))
        turned = _turned(emit, lines)
        for column, vector in enumerate(turned):
            emit.store(vector, emit.at(target, I64(column * emit.lanes)))
        while len(turned) > 1:
            turned = [_larger(emit, a, b) for a, b in zip(turned[::2], turned[1::2], strict=True)]
        emit.store(_larger(emit, turned[0], emit.load(peak)), peak)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(source, i8, i8, i8, source, source), generate


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


@intrinsic
def rows_of_columns(typingctx, source, factor, target, n, rows, columns):
    """target[r, c] = source[c, r] factor[r] for `rows` rows and `columns` columns, at most `lanes` of each.

    Rows of `source` are `lanes` apart, of `target` n.
    """

    def generate(context, builder, signature, arguments):
        source, factor, target, n, rows, columns = arguments
        emit = Emitter(context, builder, signature.args[0].dtype)
        mask, factors = emit.mask(columns), emit.load(factor)
        lines = [
            builder.fmul(emit.load(emit.at(source, I64(column * emit.lanes))), factors)
            for column in range(emit.lanes)
        ]
        for row, vector in enumerate(_turned(emit, lines)):
            with emit.when_live(row, rows):
                emit.store(vector, emit.at(target, builder.mul(n, I64(row))), mask)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(source, source, source, i8, i8, i8), generate


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
