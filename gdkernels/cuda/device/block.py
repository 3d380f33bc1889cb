"""A multi-layer perceptron in one block: a tile of rows in shared memory, whose columns are features.

A thread multiplies four rows by a few outputs, or sums over the rows of a few weights: it reads four rows of a column at a
time (16 bytes), and neighbouring threads read neighbouring groups, or columns that lie in different banks (`pitch_of`). Rows
that only fill up a group of four are zero in every column, so that sums over rows need no end. Work is dealt out by number,
so that any number of threads does it; each sum has one thread and one order, so that bits do not depend on it.

Threads wait for each other where one reads what another has written: once before and after each layer going forward, once
before and after the phases of each layer going backward. Gradients of the parameters and of the layer's input are one phase,
for both only read dL/dz.
"""

from typing import Any

from ...scalar.activation import ACTIVATIONS
from ...scalar.optim import RULES
from ..runtime.intrinsics import divided, load4, repeat, store4, times, transposed
from ..runtime.pointer import pointer, real, registers
from ..runtime.target import cuda, device
from ..runtime.widths import FOUR
from .elements import MOVED, row_of_type
from .layout import Layer, columns_of, layers_of, pitch_of
from .reductions import thread_count, thread_number, turns

# By outputs, or weights, of a layer: how many of them a thread has at a time. Many have fewer loads for each product, few
# leave work for every thread.
OUTPUTS = ((64, 4), (24, 2), (1, 1))
WEIGHTS = ((4096, 4), (1024, 2), (1, 1))

pitch_in_kernel = device(pitch_of)


def _at_a_time(count: int, table: tuple[tuple[int, int], ...]) -> int:
    return next(width for least, width in table if count >= least)


@device
def _zero(i, sums):
    sums[i] = real(sums, 0)


@device
def _fill_up(i, tile, at, count):
    """Zeros, at most `count` of them."""
    if i < count:
        tile[at + i] = real(tile, 0)


@device
def _kept(group, row, rows):
    """A group of four rows, of which those from `rows` on are zero."""
    zero = type(group[0])(0)
    return (
        group[0],
        group[1] if row + 1 < rows else zero,
        group[2] if row + 2 < rows else zero,
        group[3] if row + 3 < rows else zero,
    )


@device
def _group(j, sums):
    """The sums of four rows."""
    return sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]


@device
def _add(j, w, group, sums):
    """The sums of four rows, each with a product more."""
    sums[4 * j] += w * group[0]
    sums[4 * j + 1] += w * group[1]
    sums[4 * j + 2] += w * group[2]
    sums[4 * j + 3] += w * group[3]


# ---------------------------------------------------------------------------------------------- forward


def _forward(layer: Layer, kind: str, source: int, target: int, kept: int) -> Any:
    """The columns from `target` on become act(b + w · those from `source` on); from `kept` on, the pre-activations."""
    n_in, n_out, at_w, at_b, is_last = layer
    act, _, saved, _ = ACTIVATIONS["identity" if is_last else kind]
    keeps_z = saved == "preactivation"
    width = _at_a_time(n_out, OUTPUTS)
    numbers, groups, is_wide = 4 * width, -(-n_out // width), width == 4 and n_out % 4 == 0
    acts = FOUR.each(device(act), 1)

    @device
    def begin(j, p, first, sums):
        bias = p[at_b + min(first + j, n_out - 1)]
        sums[4 * j] = bias
        sums[4 * j + 1] = bias
        sums[4 * j + 2] = bias
        sums[4 * j + 3] = bias

    @device
    def one(j, p, at, first, group, sums):
        _add(j, p[at + min(first + j, n_out - 1)], group, sums)

    @device
    def add_each(p, at, first, group, sums):
        repeat(one, width, (p, at, first, group, sums))

    @device
    def add_four(p, at, first, group, sums):
        w0, w1, w2, w3 = load4(p, at + first)
        _add(0, w0, group, sums)
        _add(1, w1, group, sums)
        _add(2, w2, group, sums)
        _add(3, w3, group, sums)

    add = add_four if is_wide else add_each

    @device
    def end(j, tile, pitch, first, row, rows, sums):
        if first + j < n_out:
            z = _group(j, sums)
            if keeps_z:
                store4(tile, pitch * (kept + first + j) + row, _kept(z, row, rows))
            store4(tile, pitch * (target + first + j) + row, _kept(acts(z), row, rows))

    @device
    def forward(p, tile, rows, pitch):
        quads, item = (rows + 3) >> 2, thread_number()
        left = turns(quads * groups)
        while left > 0:
            number, quad = divided(item, quads)
            first, row = width * number, 4 * quad
            sums = registers(p, numbers)
            repeat(begin, width, (p, first, sums))
            weight, place, last = at_w, pitch * source + row, at_w + n_in * n_out
            while weight < last:
                add(p, weight, first, load4(tile, place), sums)
                weight, place = weight + n_out, place + pitch
            repeat(end, width, (tile, pitch, first, row, rows, sums))
            item, left = item + thread_count(), left - 1

    return forward


# ---------------------------------------------------------------------------------------------- backward


def _input_gradient(layer: Layer, kind: str, dz: int, output: int, target: int) -> Any:
    """The columns from `target` on become act′ · (w · those from `dz` on), where act gave those from `output` on."""
    n_in, n_out, at_w, _, _ = layer
    _, slope, saved, _ = ACTIVATIONS[kind]
    read = target if saved == "preactivation" else output
    width = _at_a_time(n_in, OUTPUTS)
    numbers, groups, is_wide = 4 * width, -(-n_in // width), n_out % 4 == 0
    slopes, multiplied = FOUR.each(device(slope), 1), FOUR.each(times, 2)

    @device
    def one(j, p, at, first, group, sums):
        _add(j, p[at + n_out * min(first + j, n_in - 1)], group, sums)

    @device
    def four(j, p, at, first, groups, sums):
        w0, w1, w2, w3 = load4(p, at + n_out * min(first + j, n_in - 1))
        _add(j, w0, groups[0], sums)
        _add(j, w1, groups[1], sums)
        _add(j, w2, groups[2], sums)
        _add(j, w3, groups[3], sums)

    @device
    def each_column(p, tile, at, pitch, first, sums):
        weight = at_w
        while weight < at_w + n_out:
            repeat(one, width, (p, weight, first, load4(tile, at), sums))
            weight, at = weight + 1, at + pitch

    @device
    def four_columns(p, tile, at, pitch, first, sums):
        weight = at_w
        while weight < at_w + n_out:
            columns = (
                load4(tile, at), load4(tile, at + pitch), load4(tile, at + 2 * pitch), load4(tile, at + 3 * pitch),
            )  # fmt: skip
            repeat(four, width, (p, weight, first, columns, sums))
            weight, at = weight + 4, at + 4 * pitch

    add_columns = four_columns if is_wide else each_column

    @device
    def end(j, tile, pitch, first, row, rows, sums):
        if first + j < n_in:
            known = slopes(load4(tile, pitch * (read + first + j) + row))
            gradient = multiplied(_group(j, sums), known)
            store4(tile, pitch * (target + first + j) + row, _kept(gradient, row, rows))

    @device
    def input_gradient(p, tile, rows, pitch):
        quads, item = (rows + 3) >> 2, thread_number()
        left = turns(quads * groups)
        while left > 0:
            number, quad = divided(item, quads)
            first, row = width * number, 4 * quad
            sums = registers(p, numbers)
            repeat(_zero, numbers, (sums,))
            add_columns(p, tile, pitch * dz + row, pitch, first, sums)
            repeat(end, width, (tile, pitch, first, row, rows, sums))
            item, left = item + thread_count(), left - 1

    return input_gradient


def _gradients(layer: Layer, source: int, dz: int) -> Any:
    """dw += Σ over rows of columns from `source` on times those from `dz` on, db += Σ of the latter."""
    n_in, n_out, at_w, at_b, _ = layer
    width = _at_a_time(n_in * n_out, WEIGHTS)
    numbers, down, across = width * width, -(-n_in // width), -(-n_out // width)

    @device
    def one(number, tile, at, k, j, sums):
        a, b = number // width, number % width
        inputs = load4(tile, at[0] + at[2] * min(k + down * a, n_in - 1))
        outputs = load4(tile, at[1] + at[2] * min(j + across * b, n_out - 1))
        sums[number] += inputs[0] * outputs[0]
        sums[number] += inputs[1] * outputs[1]
        sums[number] += inputs[2] * outputs[2]
        sums[number] += inputs[3] * outputs[3]

    @device
    def end(number, g, k, j, sums):
        row, column = k + down * (number // width), j + across * (number % width)
        if row < n_in and column < n_out:
            g[at_w + n_out * row + column] += sums[number]

    @device
    def gradients(g, tile, rows, pitch):
        item, threads = thread_number(), thread_count()
        left = turns(down * across)
        while left > 0:
            k, first = divided(item, across)
            sums = registers(g, numbers)
            repeat(_zero, numbers, (sums,))
            row = 0
            while row < rows:
                at = pitch * source + row, pitch * dz + row, pitch
                repeat(one, numbers, (tile, at, k, first, sums))
                row += 4
            repeat(end, numbers, (g, k, first, sums))
            item, left = item + threads, left - 1
        j = thread_number()
        left = turns(n_out)
        while left > 0:
            total = real(g, 0)
            row = 0
            while row < rows:
                group = load4(tile, pitch * (dz + j) + row)
                total += (group[0] + group[1]) + (group[2] + group[3])
                row += 4
            g[at_b + j] += total
            j, left = j + threads, left - 1

    return gradients


# ---------------------------------------------------------------------------------------------- all layers


def _in_turn(phases: list[Any]) -> Any:
    """Functions of the same arguments one after the other, with all threads waiting before each and after the last."""
    if not phases:

        @device
        def wait(*arguments):
            cuda.syncthreads()

        return wait
    first, rest = phases[0], _in_turn(phases[1:])

    @device
    def in_turn(*arguments):
        cuda.syncthreads()
        first(*arguments)
        rest(*arguments)

    return in_turn


def _both(first: Any, second: Any) -> Any:
    """A phase of the backward pass: gradients of a layer's parameters, and of its input."""

    @device
    def both(p, g, tile, rows, pitch):
        first(g, tile, rows, pitch)
        second(p, tile, rows, pitch)

    return both


def _update(size: int, name: str) -> Any:
    """``block_update(params, grads, states, row)``."""
    states, moved = len(RULES[name].states), FOUR.each(MOVED[name], 5)

    @device
    def block_update(params, grads, states_of, row):
        p, g = pointer(params), pointer(grads)
        one = real(p, 1)
        numbers = row_of_type(one, row)
        i = 4 * thread_number()
        left = turns(size // 4)
        while left > 0:
            old = load4(p, i)
            a = load4(pointer(states_of[0]), i) if states > 0 else old
            b = load4(pointer(states_of[1]), i) if states > 1 else old
            c = load4(pointer(states_of[2]), i) if states > 2 else old
            new, a, b, c = transposed(moved(old, load4(g, i), a, b, c, one, numbers))
            store4(p, i, new)
            if states > 0:
                store4(pointer(states_of[0]), i, a)
            if states > 1:
                store4(pointer(states_of[1]), i, b)
            if states > 2:
                store4(pointer(states_of[2]), i, c)
            zero = real(p, 0)
            store4(g, i, (zero, zero, zero, zero))
            i, left = i + 4 * thread_count(), left - 1

    return block_update


def functions_of(sizes: tuple[int, ...], kind: str, optimizer: str) -> dict[str, Any]:
    """The functions of a block by their names; `mlp.Mlp` describes them."""
    layers, size = layers_of(sizes)
    columns = columns_of(sizes)
    outputs, at_y, n_in = columns.outputs, columns.outputs[-1], sizes[0]
    slopes = (*columns.slopes, at_y)  # dL/dz of the last layer is dL/dy
    forward = [
        _forward(layer, kind, outputs[number], outputs[number + 1], slopes[number])
        for number, layer in enumerate(layers)
    ]
    backward = []
    for number, layer in reversed([*enumerate(layers)]):
        to_parameters = _gradients(layer, outputs[number], slopes[number])
        to_input = (
            _input_gradient(layer, kind, slopes[number], outputs[number], slopes[number - 1])
            if number
            else _nothing
        )
        backward.append(_both(to_parameters, to_input))
    all_forward, all_backward = _in_turn(forward), _in_turn(backward)
    to_x = _input_gradient(layers[0], "identity", slopes[0], outputs[0], outputs[0])

    @device
    def block_x(row, column, rows):
        return pitch_in_kernel(rows) * column + row

    @device
    def block_y(row, column, rows):
        return pitch_in_kernel(rows) * (at_y + column) + row

    @device
    def block_forward(params, tile, rows):
        pitch, filled = pitch_in_kernel(rows), (rows + 3) & ~3
        t = pointer(tile)
        column = thread_number()
        left = turns(n_in)
        while left > 0:
            repeat(_fill_up, 3, (t, pitch * column + rows, filled - rows))
            column, left = column + thread_count(), left - 1
        all_forward(pointer(params), t, rows, pitch)

    @device
    def block_backward(params, grads, tile, rows):
        all_backward(pointer(params), pointer(grads), pointer(tile), rows, pitch_in_kernel(rows))

    @device
    def block_input_gradient(params, tile, rows):
        to_x(pointer(params), pointer(tile), rows, pitch_in_kernel(rows))
        cuda.syncthreads()

    return {
        "block_x": block_x,
        "block_y": block_y,
        "block_forward": block_forward,
        "block_backward": block_backward,
        "block_input_gradient": block_input_gradient,
        "block_update": _update(size, optimizer),
    }


@device
def _nothing(p, tile, rows, pitch):
    """The first layer's input has no gradient."""
