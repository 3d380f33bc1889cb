"""Training on the CPU: whole epochs of steps in one native call, by as many workers as pay."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...engine import Outcome, Uncopied
from ...plan import CrossEntropy, ElementLoss, Gradient, LossCall, Update
from .. import clip, cross_entropy, loss, optim
from ..binding import Deal
from ..gemm.tile import ROWS
from ..runtime.dispatch import address
from ..runtime.jit import Op
from ..runtime.machine import MOST_WORKERS
from ..runtime.memory import QUANTUM, aligned_zeros
from ..runtime.team import get_threads, run_job, team
from ..runtime.turns import KINDS, NEXT, RAN, words_of
from .arena import PROGRAMS_KEPT, Programs
from .elastic import Elastic, stretch
from .epoch import SLOTS, set_step, train
from .pace import ASLEEP, Pace, Stretch
from .program import Program, bind

if TYPE_CHECKING:
    from .engine import Engine

# Of a parameter whose gradient is worth keeping in the cache of the worker that computed it.
KEPT_ELEMENTS = 1 << 16
WORTH_A_WORKER = 75_000  # nanoseconds of work that keep a worker busy: a second one takes part from 150 µs on
# Nanoseconds of a step between which it is measured how many workers pay.
SHORTEST_NS, LONGEST_NS = 10_000, 20_000_000
_SET_BY_TRAIN = [
    SLOTS[name]
    for name in (
        "first", "taken", "until", "samples", "seen", "x", "y", "order", "rates", "scales", "losses", "norms", "part",
        "turns",
    )
]  # fmt: skip
_PROGRAMS = [SLOTS["program"], SLOTS["last_program"]]


class _Job(NamedTuple):
    """The record of the job of training, and the programs that it points into."""

    record: np.ndarray
    programs: tuple[Program, Program]


class _Call(NamedTuple):
    """What all steps of a call have in common: how many were done before it, the samples of an epoch, those seen before it,
    the rows of a batch and of an epoch's last one, whether the targets are labels, and the addresses of x, y, order, rates,
    scales, losses and norms."""

    first: int
    samples: int
    seen: int
    batch: int
    last: int
    labels: bool
    places: list[int]


class _Single(NamedTuple):
    """What `step` needs, and what for: this memory, this number of rows, this limit of threads.

    `entry` and `place` are the addresses of the job and its record; `keeps` is what must stay in memory.
    """

    good_for: tuple[int, int, int]
    workers: int
    entry: int
    place: int
    loss: np.ndarray
    keeps: tuple


class Training(Uncopied):
    """Steps of gradient descent on an engine's parameters, for a loss and an optimizer."""

    def __init__(self, engine: "Engine", loss: LossCall, update: Update, clip_norm: float | None):
        self._engine, self._arena, self.plan = engine, engine.arena, engine.plan
        self.dtype = engine.dtype
        self._loss, self._update, self._clip = loss, update, float(clip_norm or 0.0)
        self._scale = np.zeros(1, np.float64)  # factor of the current step's loss
        self._done = np.zeros(2, np.int64)  # steps, and whether the workers parted before all were done
        self._turns = aligned_zeros(words_of(MOST_WORKERS), np.int64)
        options = loss.options if isinstance(loss, ElementLoss) else ()
        self._options = np.array([*options, 0.0])
        blocks = [Deal.of(*parameter.shape).blocks for parameter in self.plan.parameters]
        self._first_blocks = np.cumsum([0, *blocks]).astype(np.int64)
        self._sums = aligned_zeros(int(self._first_blocks[-1]), np.float64)
        segments = len(update.decay)
        self._settings = np.zeros((segments, optim.SETTINGS))
        self._settings[:, optim.FIRST : optim.FIRST + len(update.options)] = update.options
        self._settings[:, optim.DECAY] = [decay for _, _, decay in update.decay]
        self._rows = aligned_zeros(optim.ROW_WORDS * segments, np.float64).reshape(segments, -1)
        self._programs = Programs(self._arena)
        self._paces: dict[tuple[int, int], Pace] = {}  # by number of rows and the limit of threads
        self._ended = 0.0  # when a stretch last ended
        self._jobs: dict[tuple, _Job] = {}
        self._single: _Single | None = None

    def warm_up(self) -> None:
        """Compile, or load, every kernel that a step of training needs."""
        self._program(1, 1)
        train.address(self.dtype)

    # ------------------------------------------------------------------------------------------ programs

    def _program(self, rows: int, workers: int) -> Program:
        """The bound step for this many rows."""
        shared = workers > 1
        return self._programs.get((rows, shared), lambda: self._sections(rows, shared))

    def _sections(self, rows: int, shared: bool) -> Iterable[Iterable[Op]]:
        """The three phases of a step: rows, gradients and their squares, update."""
        plan, at = self.plan, self._arena.binding(rows, shared=shared)
        forward, backward, gradients = (
            [bind(call, at) for call in calls] for calls in (plan.forward, plan.backward, plan.gradients)
        )
        return (
            [*forward, self._loss_op(rows), *backward], [*gradients, *self._square_ops()], self._update_ops()
        )  # fmt: skip

    def _loss_op(self, rows: int) -> Op:
        """The loss of each row, and its gradient."""
        arena, call = self._arena, self._loss
        pred, grad = (arena.view(buffer, rows) for buffer in (self.plan.output, self.plan.output_gradient))
        row_loss, n = arena.row_loss[:rows], pred.shape[1]
        if isinstance(call, CrossEntropy):
            target = arena.target[:rows].view(np.int64)
            if not call.labels:
                target = arena.target.view(self.dtype)[: rows * n].reshape(rows, n)
            op = cross_entropy.row_op(
                pred, target, grad, row_loss, self._scale, call.label_smoothing, call.class_weight, call.ignore_index
            )  # fmt: skip
        else:
            target = arena.target.view(self.dtype)
            op = loss.row_op(call.name, pred, target, grad, row_loss, self._scale, self._options, rows, n)
        return op._replace(quantum=ROWS)

    def _square_ops(self) -> Iterator[Op]:
        """Σ g² over the parts of each gradient that are dealt out together."""
        for index, parameter in enumerate(self.plan.parameters):
            gradient = self._arena.place(Gradient(parameter), 0)
            sums = self._sums[self._first_blocks[index] :]
            yield clip.gradient_squares_op(gradient, Deal.of(*parameter.shape).block, sums)

    def _update_ops(self) -> Iterator[Op]:
        """The optimizer on what is updated together."""
        arena, update = self._arena, self._update
        for start, stop, quantum, segment in self._stretches():
            p, g = arena.params[start:stop], arena.grads[start:stop]
            states = tuple(state[start:stop] for state in update.states)
            yield optim.step_op(update.name, p, g, states, self._rows[segment])._replace(quantum=quantum)

    def _stretches(self) -> Iterator[tuple[int, int, int, int]]:
        """(start, stop, quantum, segment) of what is updated together: large parameters each by itself, dealt out as its
        gradient is, and what lies between them."""
        for segment, (start, stop, _) in enumerate(self._update.decay):
            for parameter in self.plan.parameters:
                size = math.prod(parameter.shape)
                if start <= parameter.offset < stop and size >= KEPT_ELEMENTS:
                    if start < parameter.offset:
                        yield start, parameter.offset, QUANTUM, segment
                    start = parameter.offset + size
                    yield parameter.offset, start, Deal.of(*parameter.shape).block, segment
            if start < stop:
                yield start, stop, QUANTUM, segment

    def _job(self, rows: int, last: int, workers: int, labels: bool) -> _Job:
        """The job for batches of `rows` rows, the last of `last`; `_SET_BY_TRAIN` is yet to be filled in."""
        arena, plan = self._arena, self.plan
        scratches = arena.scratch(workers)
        key = arena.version, rows, last, workers > 1, labels
        job = self._jobs.get(key)
        if job is None:
            if len(self._jobs) >= PROGRAMS_KEPT:
                self._jobs = {}
            program, last_program = self._program(rows, workers), self._program(last, workers)
            packed = train.record(
                self.dtype, team=team().memory, scratches=scratches, batch=rows,
                program=program.table, last_program=last_program.table,
                batch_x=arena.view(plan.input, rows), batch_y=address(arena.target), row_loss=arena.row_loss,
                sums=self._sums, blocks=self._sums.size, first_blocks=self._first_blocks,
                parameters=len(plan.parameters),
                numbers=optim.NUMBERS_OF[self._update.name], settings=self._settings, table=self._rows,
                segments=len(self._rows),
                scale=self._scale, counter=arena.samples, clip=self._clip, done=self._done,
                n_in=plan.input.columns, n_out=plan.output.columns, labels=int(labels),
                first=0, taken=0, until=0, samples=0, seen=0, x=None, y=0, order=None, rates=None, scales=None, losses=None,
                norms=None, part=0, turns=0,
            )  # fmt: skip
            job = self._jobs[key] = _Job(np.frombuffer(packed, np.int64).copy(), (program, last_program))
        return job

    # ------------------------------------------------------------------------------------------ steps

    def train(
        self, x, y, order, batch_size, rates, scales, samples, losses, norms=None, epochs=1
    ) -> int:  # fmt: skip
        """Take one step for each batch of `order`; return how many were done.

        x (N, n_in) and y ((N, n_out), or int64 labels (N,)) are C-contiguous; `order` (int64) names the samples, batch
        after batch, for one or more `epochs` of equal length, the last batch of each of which may be smaller; `rates` and
        `scales` (float64) give each step's learning rate and the factor of its loss; `samples` counts the samples seen
        before (for dropout). `losses` and, if given, `norms` (steps, parameters) are filled. Fewer steps than asked are done
        when the loss or a gradient of the next one is not finite: parameters and optimizer are then as the last good step
        left them.
        """
        count = order.size // epochs
        batch = min(batch_size, count)
        batches = -(-count // batch)
        steps = epochs * batches
        self._engine.reserve(batch)
        first, pace, done = self._update.step, self._pace(batch), 0
        places = [address(values) for values in (x, y, order, rates, scales, losses)]
        places.append(0 if norms is None else address(norms))
        call = _Call(first, count, samples, batch, count - (batches - 1) * batch, y.dtype == np.int64, places)
        while done < steps:
            if pace is None:
                stretch = Stretch(self._engine.workers(batch, True), steps - done)
                taken = self._stretch(call, done, stretch, False)
            else:
                stretch = pace.next(steps - done)
                began, on_core = time.perf_counter(), time.thread_time()
                asleep = stretch.workers > 1 and began - self._ended > ASLEEP
                taken = self._stretch(call, done, stretch, True)
                on_core = 1e-9 * int(self._turns[RAN]) if stretch.turns else time.thread_time() - on_core
                late = taken < stretch.steps and bool(self._done[1])
                if taken == stretch.steps or late:
                    stretch = stretch._replace(steps=taken)
                    self._ended = time.perf_counter()
                    pace.note(stretch, self._ended - began, on_core, late, asleep)
            done += taken
            if taken < stretch.steps:
                break
        return done

    def _pace(self, rows: int) -> Pace | None:
        """What chooses the number of workers for batches of this many rows; None where it is clear without measuring."""
        work, most = self._engine.work(rows, True), get_threads()
        if self._engine.threads is not None or most == 1 or not SHORTEST_NS < work < LONGEST_NS:
            return None
        if (rows, most) not in self._paces:
            several = max(2, min(most, int(work // WORTH_A_WORKER)))
            self._paces[rows, most] = Pace(several, 1e-9 * work)
        return self._paces[rows, most]

    def _stretch(self, call: _Call, start: int, stretch: Stretch, may_part: bool) -> int:
        """The steps of a stretch of a call, from step `start` of the call on; how many were done."""
        workers, stop = stretch.workers, start + stretch.steps
        self._arena.scratch(workers)
        record = self._job(call.batch, call.last, 1 if stretch.turns else workers, call.labels).record
        turns = 0
        if stretch.turns:
            self._turns[:] = 0
            self._turns[NEXT], turns = KINDS * start, address(self._turns)
        record[_SET_BY_TRAIN] = (
            call.first, start, stop, call.samples, call.seen, *call.places, int(may_part), turns
        )  # fmt: skip
        self._done[:] = start, 0
        try:
            run_job(train.address(self.dtype), address(record), workers, stretch.turns)
        finally:  # also where Ctrl-C was noticed after the job
            done = int(self._done[0])
            self._update.step = call.first + done
        return done - start

    def step(self, x, y, rate: float, scale: float, samples: int) -> Outcome:
        """One step on the batch (x, y), as `train` does it, with as little Python as can be.

        Where it was not done, nothing is changed.
        """
        rows, single = x.shape[0], self._single
        if single is None or single.good_for != (self._arena.version, rows, get_threads()):
            single = self._single = self._single_step(rows, y.dtype == np.int64)
        _, workers, entry, place, loss, _ = single
        done = self._update.step
        if not set_step(place, address(x), address(y), done, rate, scale, samples):
            return math.nan, "label"
        run_job(entry, place, workers)
        value = loss.item()
        if value != value:
            return value, "not finite"
        self._update.step = done + 1
        return value, ""

    def _single_step(self, rows: int, labels: bool) -> _Single:
        """What `step` needs for batches of this many rows."""
        self._engine.reserve(rows)
        workers = self._engine.workers(rows, True)
        record, loss, keeps = self._record_of_one(rows, workers, labels)
        good_for = self._arena.version, rows, get_threads()
        return _Single(good_for, workers, train.address(self.dtype), address(record), loss, (record, *keeps))

    def _record_of_one(self, rows: int, workers: int, labels: bool) -> tuple[np.ndarray, np.ndarray, tuple]:
        """The record of the job of one step, where its loss will be, and what it points to."""
        order, rate, loss, scale = np.arange(rows), np.zeros(1), np.zeros(1), np.zeros(1)
        job = self._job(rows, rows, workers, labels)
        record = job.record.copy()
        places = (address(order), address(rate), address(scale), address(loss))
        record[_SET_BY_TRAIN] = (0, 0, 1, rows, 0, 0, 0, *places, 0, 0, 0)
        return record, loss, (order, rate, scale, job.programs)

    def elastic_step(self, most: int, labels: bool) -> tuple[Elastic, np.ndarray, tuple]:
        """A step by one worker on any number of rows up to `most`, for which there is room: its program, the record of its
        job, in which the batch is yet to be filled in, and what it points to."""
        program = stretch(lambda rows: self._sections(rows, False), most)
        record, loss, keeps = self._record_of_one(most, 1, labels)
        record[_PROGRAMS] = address(program.table)
        return program, record, (program, loss, keeps)
