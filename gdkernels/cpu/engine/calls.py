"""What compiled code of a user calls through a view: a pass, a pass and its way back, a step of training; one worker.

Each is a kernel whose record belongs to the view. The caller writes into the record what differs from call to call (where
its arrays are, and how many rows) and calls the kernel by its address, which it reads from the view, too. Neither depends
on what the network looks like, so that what calls them is compiled once, and is good for another process.

Arrays of the caller are addresses with the distances of their rows and columns in bytes. Rows are copied into the arena and
out of it, which needs no contiguous memory, and lets a result be the array of an input.
"""

import math

from ..runtime.jit import inlined, kernel, native
from ..runtime.layout import Double, Doubles, Floats, Int, Ints, OptionalDoubles
from ..runtime.simd import (
    address_of,
    apply,
    float64_at,
    int32_at,
    int64_at,
    invoke,
    offset,
    typed,
)
from .elastic import SECTIONS, resize
from .epoch import SLOTS as TRAIN
from .epoch import run_section

# Words of a view: where its network's lease is (1, or 0 when the parameters have moved), how many columns go in and out, the
# largest batch there is room for and what makes room for a larger one; then the entry of each call and the address of its
# record, 0 where there is none; then of each flat buffer the address, the elements, and what counts the arrays over it.
LEASE, N_IN, N_OUT, MOST, GROW, PREDICT, VJP, STEP_LABELS, STEP_VALUES = 0, 1, 2, 3, 4, 6, 8, 10, 12
FLAT_PARAMS, FLAT_GRADS, WORDS = 14, 17, 20

# How a step went; what is wrong stands behind it in `status`, and a number in `value`.
DONE, NOT_A_CLASS, NOT_A_TARGET, NOT_A_RATE, NOT_FINITE = range(5)
STATUS_WORDS = 3
# Words about the rates that are known: of steps [from, to), and where they are.
RATE_FROM, RATE_TO, RATES = range(3)
RATE_WORDS = 3

_FIRST, _BATCH, _SAMPLES, _X, _Y = (TRAIN[name] for name in ("first", "batch", "samples", "x", "y"))
_RATES, _SCALES, _LOSSES = (TRAIN[name] for name in ("rates", "scales", "losses"))
_SEEN, _FINISHED = TRAIN["seen"], TRAIN["done"]


@native("F*, i8, i8, i8, i8, i8, i8")
def read_rows(target, rows, n, source, row, column, size):
    """target (rows, n) = what lies at `source`, whose rows and columns are so many bytes apart; elements have `size`."""
    for i in range(rows):
        into, from_row = offset(target, i * n), typed(source + i * row, target)
        if column == size:
            for j in range(n):
                into[j] = from_row[j]
        else:
            for j in range(n):
                into[j] = typed(source + i * row + j * column, target)[0]


@native("F*, i8, i8, i8, i8, i8, i8")
def write_rows(source, rows, n, target, row, column, size):
    """The other way: what lies at `target` = source (rows, n)."""
    for i in range(rows):
        from_row, into = offset(source, i * n), typed(target + i * row, source)
        if column == size:
            for j in range(n):
                into[j] = from_row[j]
        else:
            for j in range(n):
                typed(target + i * row + j * column, source)[0] = from_row[j]


@inlined
def section(program, number, team, scratch):
    """Run a section of a program."""
    run_section(int64_at(program[SECTIONS + number]), team, 0, 1, scratch)


@kernel
def predict(
    team: Ints, scratch_at: Int, program: Ints, most: Int, input: Floats, output: Floats, n_in: Int, n_out: Int, size: Int,
    rows: Int, x: Int, x_row: Int, x_column: Int, y: Int, y_row: Int, y_column: Int,
):  # fmt: skip
    """y = the network's output for x, in evaluation, in chunks of `most` rows."""
    for first in range(0, rows, most):
        now = min(most, rows - first)
        resize(program, now)
        read_rows(input, now, n_in, x + first * x_row, x_row, x_column, size)
        section(program, 0, team, scratch_at)
        write_rows(output, now, n_out, y + first * y_row, y_row, y_column, size)


@kernel
def vjp(
    team: Ints, scratch_at: Int, program: Ints, input: Floats, slope: Floats, input_slope: Floats, n_in: Int, n_out: Int,
    size: Int, counter: Ints, seen: Ints, rows: Int, x: Int, x_row: Int, x_column: Int, dy: Int, dy_row: Int,
    dy_column: Int, dx: Int, dx_row: Int, dx_column: Int,
):  # fmt: skip
    """Forward in training, then back from dy: dx, and the gradients of the parameters."""
    resize(program, rows)
    read_rows(input, rows, n_in, x, x_row, x_column, size)
    counter[0] = seen[0]
    section(program, 0, team, scratch_at)
    read_rows(slope, rows, n_out, dy, dy_row, dy_column, size)
    section(program, 1, team, scratch_at)
    write_rows(input_slope, rows, n_in, dx, dx_row, dx_column, size)
    seen[0] += rows


@native("i8*, i8, i8, i8, i8")
def read_labels(target, rows, source, apart, size):
    """target = the labels of `size` bytes that lie so many bytes apart."""
    for i in range(rows):
        place = source + i * apart
        target[i] = int64_at(place)[0] if size == 8 else int32_at(place)[0]


@native("i8*, i8, i8, f8*, i8, i8* -> f8")
def weigh(labels, rows, classes, weights, ignored, status):
    """What the samples of a batch weigh together; in `status` the first label that is no class, unless it is ignored."""
    total = 0.0
    for i in range(rows):
        label = labels[i]
        if label == ignored:
            continue
        if label < 0 or label >= classes:
            status[0], status[1], status[2] = NOT_A_CLASS, i, label
            return total
        total += 1.0 if address_of(weights) == 0 else weights[label]
    return total


@native("F*, i8, i8, f8, f8, i8*, f8*")
def look_at(targets, rows, n, low, high, status, value):
    """In `status` and `value` the first target outside of [low, high]."""
    for i in range(rows * n):
        if not low <= targets[i] <= high:
            status[0], status[1], status[2], value[0] = NOT_A_TARGET, i // n, i % n, targets[i]
            return


@kernel
def step(
    program: Ints, job: Int, training: Ints, batch_x: Floats, batch_y: Int, n_in: Int, n_out: Int, size: Int, labels: Int,
    row_weight: Double, weights: OptionalDoubles, ignored: Int, checked: Int, low: Double, high: Double,
    steps: Ints, seen: Ints, rates: Ints, ask_rates: Int, status: Ints, value: Doubles,
    rows: Int, x: Int, x_row: Int, x_column: Int, y: Int, y_row: Int, y_column: Int, y_size: Int,
):  # fmt: skip
    """One step of training on the batch (x, y), as `train` takes it; `training` is the record of `train`.

    `weights` of classes, `low` and `high` of targets where those are `checked`; `steps` and `seen` are the counts of steps
    and samples. Where no rate is known for this step, the function at `ask_rates` is asked for more.
    """
    if labels != 0:
        if y_row != 8 or y_size != 8:
            read_labels(int64_at(batch_y), rows, y, y_row, y_size)
            y = batch_y
        total = weigh(int64_at(y), rows, n_out, weights, ignored, status)
    else:
        if y_row != n_out * size or y_column != size:
            read_rows(typed(batch_y, batch_x), rows, n_out, y, y_row, y_column, size)
            y = batch_y
        total = rows * row_weight
        if checked != 0:
            look_at(typed(y, batch_x), rows, n_out, low, high, status, value)
    if status[0] != DONE:
        return
    now = steps[0]
    if not rates[RATE_FROM] <= now < rates[RATE_TO]:
        apply(ask_rates)
    rate = math.nan  # which it stays where the answer was interrupted
    if rates[RATE_FROM] <= now < rates[RATE_TO]:
        rate = float64_at(rates[RATES])[now - rates[RATE_FROM]]
    if not 0.0 <= rate < math.inf:
        status[0], status[1], value[0] = NOT_A_RATE, now, rate
        return
    if x_row != n_in * size or x_column != size:
        read_rows(batch_x, rows, n_in, x, x_row, x_column, size)
        training[_X] = address_of(batch_x)
    else:
        training[_X] = x
    resize(program, rows)
    training[_Y], training[_BATCH], training[_SAMPLES], training[_FIRST] = y, rows, rows, now
    float64_at(training[_RATES])[0] = rate
    float64_at(training[_SCALES])[0] = 1.0 / total if total != 0.0 else 0.0
    training[_SEEN] = seen[0]
    finished = int64_at(training[_FINISHED])
    finished[0] = 0
    invoke(job, address_of(training), 0, 1, 0)
    if finished[0] == 0:
        status[0], status[1] = NOT_FINITE, now
        return
    value[0] = float64_at(training[_LOSSES])[0]
    steps[0] = now + 1
    seen[0] += rows
