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

from ...scalar.hyper import HYPER
from ..gemm.tile import ROWS
from ..runtime.emit import prefetch
from ..runtime.jit import kernel, native
from ..runtime.memory import LINE
from ..runtime.simd import (
    float64_at,
    flush_denormals,
    int64_at,
    invoke,
    noalias,
    offset,
    restore_denormals,
    typed,
    unpack,
)
from ..runtime.team import dispatcher, share, wait

OP = 4  # words of an op
AHEAD = 2  # rows that the gathering of a batch asks for in advance


@native("i8*, i8*, i8, i8")
def run_section(section, team_memory, worker, workers):
    """Walk a section of a program: its number of ops, then the ops. Each worker does its share of each; where the kernel is
    0, all meet."""
    for index in range(section[0]):
        op = offset(section, 1 + index * OP)
        total = op[2]
        if op[0] == 0:
            wait(team_memory, workers)
        elif workers == 1:
            if total > 0:
                invoke(op[0], op[1], 0, total, 0)
        else:
            start, stop = share(total, op[3], worker, workers), share(total, op[3], worker + 1, workers)
            if start < stop:
                invoke(op[0], op[1], start, stop, worker)


@kernel
def run_sections(record, start, stop, worker):
    """The job of a forward or backward pass: up to two sections, with a barrier in between."""
    scratch, team_memory, first, second = unpack(record, "i8, i8*, i8, i8")
    run_section(int64_at(first), team_memory, start, stop)
    if second != 0:
        wait(team_memory, stop)
        run_section(int64_at(second), team_memory, start, stop)


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


# The fields of the record of `train`, and their types.
FIELDS = {
    "scratch": "i8",
    "team": "i8*",
    "first": "i8",  # steps done before
    "steps": "i8",
    "batch": "i8",
    "samples": "i8",  # of all steps
    "program": "i8*",  # three sections: rows, gradients and their squares, update
    "last_program": "i8*",  # the same for the rows of the last batch
    "x": "F*",
    "y": "i8",
    "order": "i8*",  # which samples, batch after batch
    "batch_x": "F*",  # where a batch is gathered
    "batch_y": "i8",
    "row_loss": "f8*",
    "rates": "f8*",
    "scales": "f8*",
    "losses": "f8*",
    "norms": "i8",  # 0: not wanted
    "sums": "f8*",  # of squares, one for each block of the gradient
    "blocks": "i8",
    "first_blocks": "i8*",  # of each parameter
    "parameters": "i8",
    "hypers": "f8*",  # one vector for each segment of the parameters
    "segments": "i8",
    "scale": "f8*",  # what the loss kernel reads
    "counter": "i8*",  # what dropout reads: samples seen before the step
    "clip": "f8",  # largest norm of the gradient, or 0
    "done": "i8*",
    "n_in": "i8",
    "n_out": "i8",
    "indices": "i8",  # whether y holds labels
}
_LAYOUT = ",".join(FIELDS.values())
_SLOTS = {name: slot for slot, name in enumerate(FIELDS)}
_FIRST, _X, _Y, _RATES, _SCALES, _LOSSES = (
    _SLOTS[n] for n in ("first", "x", "y", "rates", "scales", "losses")
)
_COUNTER, _DONE, _N_OUT, _INDICES, _SAMPLES = (
    _SLOTS[n] for n in ("counter", "done", "n_out", "indices", "samples")
)


@kernel
def train(record, start, stop, worker):
    """The job of training: worker `start` of `stop` takes all steps, meeting the others at the barriers."""
    (
        scratch, team_memory, first, steps, batch, samples, program, last_program, x, y, order, batch_x, batch_y, row_loss,
        rates, scales, losses, norms, sums, blocks, first_blocks, parameters, hypers, segments, scale, counter, clip, done,
        n_in, n_out, indices,
    ) = unpack(record, _LAYOUT)  # fmt: skip
    mode = flush_denormals()
    seen = counter[0]
    for step in range(steps):
        rows = min(batch, samples - step * batch)
        code = program if rows == batch else last_program
        scale[0] = scales[step]
        counter[0] = seen + step * batch
        begin, end = share(rows, ROWS, start, stop), share(rows, ROWS, start + 1, stop)
        chosen = offset(order, step * batch + begin)
        gather_rows(offset(batch_x, begin * n_in), x, chosen, end - begin, n_in)
        if indices:
            gather_labels(offset(int64_at(batch_y), begin), int64_at(y), chosen, end - begin)
        else:
            gather_rows(offset(typed(batch_y, x), begin * n_out), typed(y, x), chosen, end - begin, n_out)
        run_section(int64_at(code[0]), team_memory, start, stop)
        wait(team_memory, stop)
        value = ordered_sum(row_loss, rows) * scales[step]
        if not math.isfinite(value):
            break
        run_section(int64_at(code[1]), team_memory, start, stop)
        wait(team_memory, stop)
        squares = ordered_sum(sums, blocks)
        if not math.isfinite(squares):
            break
        factor = 1.0
        if clip > 0.0:
            factor = min(1.0, clip / (math.sqrt(squares) + 1e-6))
        for segment in range(segments):
            hyper = offset(hypers, segment * HYPER)
            hyper[0] = rates[step]
            hyper[2] = factor
            hyper[3] = float(first + step + 1)
        if start == 0:
            losses[step] = value
            done[0] = step + 1
            if norms != 0:
                row = offset(float64_at(norms), step * parameters)
                for p in range(parameters):
                    row[p] = math.sqrt(
                        ordered_sum(offset(sums, first_blocks[p]), first_blocks[p + 1] - first_blocks[p])
                    )
        run_section(int64_at(code[2]), team_memory, start, stop)
        wait(team_memory, stop)
    restore_denormals(mode)


@dispatcher("int64(int64, int64, int64, int64, float64, float64, int64)")
def set_step(record, x, y, first, rate, scale, seen):
    """Fill in what differs from one single step to the next; tell whether all labels are in range."""
    fields = int64_at(record)
    if fields[_INDICES] != 0:
        labels = int64_at(y)
        for i in range(fields[_SAMPLES]):
            if labels[i] < 0 or labels[i] >= fields[_N_OUT]:
                return 0
    fields[_X], fields[_Y], fields[_FIRST] = x, y, first
    float64_at(fields[_RATES])[0] = rate
    float64_at(fields[_SCALES])[0] = scale
    float64_at(fields[_LOSSES])[0] = math.nan
    int64_at(fields[_COUNTER])[0] = seen
    int64_at(fields[_DONE])[0] = 0
    return 1
