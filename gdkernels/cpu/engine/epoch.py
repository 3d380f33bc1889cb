"""The native side of training: a whole epoch in one call, every worker running the same code.

A step has three phases with a barrier after each. Every worker does the forward pass, the loss and the chain of dz on its
own rows; then the gradients of its own slice of every parameter, and the squares of these; then the update of its own
part of the parameters. No sum is split between workers, so the bits do not depend on their number.

Denormal numbers count as 0 in training. The moments of a weight whose gradient has become 0 (behind a dead unit, or an
input that stays away) shrink from step to step until they are denormal, and then stay so: the update took up to 2.7
times as long.

The code is compiled once. Layer sizes, offsets and the kernels themselves are data: a section of a program is its
number of ops, then (kernel address, record address, total, quantum) for each.
"""

import math

from ..gemm.tile import ROWS
from ..optim import LR, ROW_WORDS, SCALE, SETTINGS, STEP
from ..runtime.dispatch import dispatcher
from ..runtime.emit import prefetch
from ..runtime.jit import kernel, native
from ..runtime.layout import (
    Code,
    Double,
    Doubles,
    Floats,
    Int,
    Ints,
    OptionalDoubles,
    OptionalFloats,
    OptionalInts,
)
from ..runtime.memory import LINE
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import (
    address_of,
    apply,
    atomic_load,
    atomic_store,
    float64_at,
    flush_denormals,
    int64_at,
    invoke,
    nanoseconds,
    noalias,
    offset,
    restore_denormals,
    typed,
)
from ..runtime.team import LATE, share, wait
from ..runtime.turns import KINDS, OVER, await_turn, close_turns, pass_turn

OP = 4  # words of an op
# A worker is kept from its core where the others waited for it for LATE_AT_LEAST nanoseconds, which a hiccup takes, and for
# one of LATE_SHARE that passed.
LATE_AT_LEAST, LATE_SHARE = 6_000_000, 4
AHEAD = 2  # rows that the gathering of a batch asks for in advance


@native("i8*, i8*, i8, i8, i8")
def run_section(section, team_memory, worker, workers, scratch):
    """Walk a section of a program: its number of ops, then the ops. Each worker does its share of each; where the kernel is
    0, all meet. `scratch` is the worker's own working memory."""
    for index in range(section[0]):
        op = offset(section, 1 + index * OP)
        total = op[2]
        if op[0] == 0:
            wait(team_memory, workers)
        elif workers == 1:
            if total > 0:
                invoke(op[0], op[1], 0, total, scratch)
        else:
            start, stop = share(total, op[3], worker, workers), share(total, op[3], worker + 1, workers)
            if start < stop:
                invoke(op[0], op[1], start, stop, scratch)


@kernel
def run_sections(team: Ints, first: Int, second: Int, scratches: Int, worker, workers):
    """The job of a forward or backward pass: up to two sections, with a barrier in between."""
    scratch = scratches + worker * SCRATCH_BYTES
    run_section(int64_at(first), team, worker, workers, scratch)
    if second != 0:
        wait(team, workers)
        run_section(int64_at(second), team, worker, workers, scratch)


@native("F*, F*, i8*, i8, i8")
def gather_rows(target, source, order, rows, n):
    """target[i] = source[order[i]] for rows of n elements."""
    noalias()
    for i in range(rows):
        row = offset(source, order[i] * n)
        into = offset(target, i * n)
        if i + AHEAD < rows:  # the rows may lie anywhere, and no other prefetcher knows where
            coming = offset(source, order[i + AHEAD] * n)
            for j in range(0, n, LINE // 4):
                prefetch(offset(coming, j))
        for j in range(n):
            into[j] = row[j]


@native("i8*, i8*, i8*, i8")
def gather_labels(target, source, order, rows):
    noalias()
    for i in range(rows):
        target[i] = source[order[i]]


@native("f8*, i8 -> f8")
def ordered_sum(values, count):
    """Sum in the order of the array."""
    total = 0.0
    for i in range(count):
        total += values[i]
    return total


@kernel
def train(
    team: Ints,
    scratches: Int,  # working memory of all workers
    first: Int,  # steps done before the call
    taken: Int,  # steps of the call that were done by jobs before this one
    until: Int,  # which step of the call this one ends before
    batch: Int,
    samples: Int,  # of an epoch; the call may have several
    seen: Int,  # samples seen before the call
    program: Ints,  # three sections: rows, gradients and their squares, update
    last_program: Ints,  # the same for the rows of the last batch
    x: OptionalFloats,
    y: Int,  # the address of labels or values
    order: OptionalInts,  # which samples, batch after batch, epoch after epoch
    batch_x: Floats,  # where a batch is gathered
    batch_y: Int,
    row_loss: Doubles,
    rates: OptionalDoubles,
    scales: OptionalDoubles,
    losses: OptionalDoubles,
    norms: OptionalDoubles,  # null: not wanted
    sums: Doubles,  # of squares, one for each block of the gradient
    blocks: Int,
    first_blocks: Ints,  # of each parameter
    parameters: Int,
    numbers: Code,  # computes the row of a step from its settings (`optim`)
    settings: Doubles,  # of each segment of the parameters
    table: Doubles,  # its rows, likewise
    segments: Int,
    scale: Doubles,  # what the loss kernel reads
    counter: Ints,  # what dropout reads: samples seen before the step
    clip: Double,  # largest norm of the gradient, or 0
    done: Ints,  # steps of the call that are done, and whether the workers part because they wait for each other
    part: Int,  # whether they may
    turns: Int,  # where it is written down whose turn it is (`runtime.turns`), or 0 where the workers share every step
    n_in: Int,
    n_out: Int,
    labels: Int,  # whether y holds labels
    worker,
    workers,
):
    """The job of training: each worker takes all steps, meeting the others at the barriers, or they take steps by turns.

    What may be absent from the record, but for `norms`, is set before the job is run.
    """
    scratch = scratches + worker * SCRATCH_BYTES
    mode = flush_denormals()
    began = nanoseconds()
    batches = (samples + batch - 1) // batch  # of an epoch
    step, phase, me, crew = taken, 0, worker, workers
    if turns != 0:
        piece = await_turn(int64_at(turns), worker)
        step, phase, me, crew = piece // KINDS, piece % KINDS, 0, 1
    known, at, rows, code = -1, 0, 0, program
    while step < until:
        if step != known:
            place = step % batches
            known, at = step, step // batches * samples + place * batch
            rows = min(batch, samples - place * batch)
            code = program if rows == batch else last_program
        if phase == 0:
            scale[0] = scales[step]
            counter[0] = seen + at
            # By one worker, while the others gather: lines that all of them wrote would travel between the cores.
            if me == 0:
                for segment in range(segments):
                    own, into = offset(settings, segment * SETTINGS), offset(table, segment * ROW_WORDS)
                    own[STEP], own[LR] = float(first + step + 1), rates[step]
                    apply(numbers, own, into)
                    into[SCALE] = 1.0
            begin, end = share(rows, ROWS, me, crew), share(rows, ROWS, me + 1, crew)
            chosen = offset(order, at + begin)
            gather_rows(offset(batch_x, begin * n_in), x, chosen, end - begin, n_in)
            if labels:
                gather_labels(offset(int64_at(batch_y), begin), int64_at(y), chosen, end - begin)
            else:
                gather_rows(offset(typed(batch_y, x), begin * n_out), typed(y, x), chosen, end - begin, n_out)
            run_section(int64_at(code[0]), team, me, crew, scratch)
            wait(team, crew)
            value = ordered_sum(row_loss, rows) * scales[step]
            if not math.isfinite(value):
                break
        elif phase == 1:
            run_section(int64_at(code[1]), team, me, crew, scratch)
            wait(team, crew)
            squares = ordered_sum(sums, blocks)
            if not math.isfinite(squares):
                break
            if clip > 0.0:
                for segment in range(segments):
                    table[segment * ROW_WORDS + SCALE] = min(1.0, clip / (math.sqrt(squares) + 1e-6))
            if me == 0:
                losses[step] = ordered_sum(row_loss, rows) * scales[step]
                done[0] = step + 1
                if part != 0 and crew > 1:
                    if step == taken:  # for which some had to wake up
                        atomic_store(offset(team, LATE), 0)
                        began = nanoseconds()
                    late = atomic_load(offset(team, LATE)) // (crew - 1)
                    if late > LATE_AT_LEAST and LATE_SHARE * late > nanoseconds() - began:
                        done[1] = 1
                if address_of(norms) != 0:
                    row = offset(norms, step * parameters)
                    for p in range(parameters):
                        row[p] = math.sqrt(
                            ordered_sum(offset(sums, first_blocks[p]), first_blocks[p + 1] - first_blocks[p])
                        )
        else:
            run_section(int64_at(code[2]), team, me, crew, scratch)
            wait(team, crew)
            if done[1] != 0:
                break
        phase += 1
        if phase == KINDS:
            step, phase = step + 1, 0
        if turns != 0 and step < until:
            piece = step * KINDS + phase
            if pass_turn(int64_at(turns), worker, workers, piece):
                piece = await_turn(int64_at(turns), worker)
                step, phase = piece // KINDS, piece % KINDS
    if turns != 0 and step < OVER // KINDS:
        close_turns(int64_at(turns), worker)
    restore_denormals(mode)


SLOTS = {name: slot for slot, name in enumerate(train.words)}
_FIRST, _X, _Y, _RATES, _SCALES = (SLOTS[name] for name in ("first", "x", "y", "rates", "scales"))
_LOSSES, _SEEN, _DONE = (SLOTS[name] for name in ("losses", "seen", "done"))
_N_OUT, _LABELS, _SAMPLES = (SLOTS[name] for name in ("n_out", "labels", "samples"))


@dispatcher("int64(int64, int64, int64, int64, float64, float64, int64)")
def set_step(record, x, y, first, rate, scale, seen):
    """Fill in what differs from one single step to the next; tell whether all labels are in range."""
    fields = int64_at(record)
    if fields[_LABELS] != 0:
        labels = int64_at(y)
        for i in range(fields[_SAMPLES]):
            if labels[i] < 0 or labels[i] >= fields[_N_OUT]:
                return 0
    fields[_X], fields[_Y], fields[_FIRST] = x, y, first
    float64_at(fields[_RATES])[0] = rate
    float64_at(fields[_SCALES])[0] = scale
    float64_at(fields[_LOSSES])[0] = math.nan
    fields[_SEEN] = seen
    int64_at(fields[_DONE])[0] = 0
    return 1
