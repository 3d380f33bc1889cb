"""Runs a plan on the CPU: passes for one's own loop, and whole epochs of training in one native call."""

import math
import threading
import time

import numpy as np

from ...plan import Buffer, Gradient, LossCall, Plan, Uncopied, Update
from ...scalar.hyper import HYPER
from .. import clip, cross_entropy, loss, optim
from ..gemm.tile import ROWS
from ..runtime.memory import PAGE, aligned_zeros, next_page
from ..runtime.team import SCRATCH_BYTES, address, get_threads, invoke_alone, team
from .epoch import FIELDS, run_sections, set_step, train
from .pace import Pace
from .program import Binder, Deal, Op, Program, lay_out

LOSSES = {**loss.KERNELS, **cross_entropy.KERNELS}
PROGRAMS_KEPT = 32  # one for each kind of pass and number of rows
UPDATE_QUANTUM = 64  # elements of a parameter that one thread updates at least
# Elements of a parameter whose gradient is worth keeping in the cache of the worker that computed it.
OWN = 1 << 16
_SET_BY_TRAIN = [
    list(FIELDS).index(name)
    for name in ("first", "steps", "samples", "x", "y", "order", "rates", "scales", "losses", "norms")
]
WORTH_A_WORKER = 75_000  # nanoseconds of work that keep a worker busy: a second one takes part from 150 µs on
SHORT, LONG = 10_000, 20_000_000  # nanoseconds of a step between which it is measured how many workers pay


class Engine(Uncopied):
    """Runs a plan over a network's flat buffers of parameters and gradients, with its own memory for everything else.

    `threads` is the number of workers; None takes as many as the work of a step keeps busy, up to `get_threads()`.
    Several threads may call `forward`, one waits for the other; anything else is for one thread at a time.
    """

    def __init__(self, plan: Plan, params: np.ndarray, grads: np.ndarray, threads: int | None = None):
        self.plan, self.params, self.grads, self.threads = plan, params, grads, threads
        self.dtype = params.dtype
        self._zeros = aligned_zeros(512, self.dtype)
        self._counter = np.zeros(1, np.int64)  # samples seen before the current step
        self._scale = np.zeros(1, np.float64)  # factor of the current step's loss
        self._scratch = np.empty(0, np.uint8)
        self._loss: LossCall | None = None
        self._update: Update | None = None
        self._rows_kept = 0  # of the last forward pass in training
        self._lock = threading.Lock()  # held by a forward pass
        first_blocks = np.cumsum([0] + [Deal.of(*p.shape).blocks for p in plan.parameters])
        self._first_blocks = first_blocks.astype(np.int64)
        self._sums = aligned_zeros(int(first_blocks[-1]), np.float64)
        weights = sum(math.prod(p.shape) for p in plan.parameters if len(p.shape) == 2)
        self._row_work = 0.06 * weights + 2.0 * sum(b.columns for b in plan.buffers)  # ns of a row, roughly
        # By kind of pass, number of rows, and whether several workers share it.
        self._programs: dict[tuple, Program] = {}
        self._records: dict[tuple, np.ndarray] = {}  # of the job of training, by number of rows
        self._paces: dict[tuple[int, int], Pace] = {}  # by number of rows and the limit of threads
        self._single: tuple | None = None  # what `step` needs
        self._capacity = 0
        self._reserve(1)

    # ------------------------------------------------------------------------------------------ memory

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows. What was bound before is forgotten."""
        if rows <= self._capacity:
            return
        line = 64 // self.dtype.itemsize
        places, at = {}, 0
        for buffer in self.plan.buffers:
            places[buffer.name] = at
            at += -(-rows * buffer.columns // line) * line
        self._arena = aligned_zeros(at, self.dtype)
        self._starts = places
        base = address(self._arena)
        self._places = {name: base + start * self.dtype.itemsize for name, start in places.items()}
        self._target = aligned_zeros(rows * self.plan.output.columns, np.float64)  # holds labels or values
        self._row_loss = aligned_zeros(rows, np.float64)
        self._capacity, self._rows_kept = rows, 0
        self._forget_programs()
        self._binder = Binder(
            self.dtype, self._places, address(self.params), address(self.grads), self.plan.size,
            address(self._zeros), address(self._counter),
        )  # fmt: skip

    def _view(self, buffer: Buffer, rows: int) -> np.ndarray:
        start = self._starts[buffer.name]
        return self._arena[start : start + rows * buffer.columns].reshape(rows, buffer.columns)

    def _work(self, rows: int, training: bool) -> float:
        """Nanoseconds that one worker takes for a step or a forward pass, roughly."""
        return rows * self._row_work + self.plan.size if training else rows * self._row_work / 3

    def _workers(self, rows: int, training: bool) -> int:
        """As many workers as asked for, or as many as the work keeps busy."""
        if self.threads is not None:
            return self.threads
        return max(1, min(get_threads(), int(self._work(rows, training) // WORTH_A_WORKER)))

    def _pace(self, rows: int) -> Pace | None:
        """What chooses the number of workers for batches of so many rows; None where it is clear without measuring."""
        work, most = self._work(rows, True), get_threads()
        if self.threads is not None or most == 1 or not SHORT < work < LONG:
            return None
        if (rows, most) not in self._paces:
            several = max(2, min(most, int(work // WORTH_A_WORKER)))
            self._paces[rows, most] = Pace(several, 1e-9 * work)
        return self._paces[rows, most]

    # ------------------------------------------------------------------------------------------ programs

    def _program(self, what: str, rows: int, workers: int, accumulate: bool = False) -> Program:
        """The bound program of "evaluation", "forward", "backward" or "train" for so many rows."""
        if self._scratch.size < workers * SCRATCH_BYTES:
            self._scratch = np.empty(workers * SCRATCH_BYTES + PAGE, np.uint8)
            self._forget_programs()
        key = (what, rows, accumulate, workers > 1)
        program = self._programs.pop(key, None)
        if program is None:
            if len(self._programs) >= PROGRAMS_KEPT:  # drop the one that was not used for longest
                del self._programs[next(iter(self._programs))]
                self._records, self._single = {}, None
            scratch = next_page(address(self._scratch))
            program = lay_out(self._sections(what, rows, accumulate, workers > 1), scratch, self.dtype)
        self._programs[key] = program
        return program

    def _forget_programs(self) -> None:
        self._programs, self._records, self._single = {}, {}, None

    def _sections(self, what: str, rows: int, accumulate: bool, shared: bool):
        plan, ops = self.plan, self._binder.ops
        if what == "backward":
            return [
                ops(plan.backward, rows, shared=shared), ops(plan.gradients, rows, accumulate, shared)
            ]  # fmt: skip
        if what == "train":
            forward, backward = (ops(calls, rows, shared=shared) for calls in (plan.forward, plan.backward))
            gradients = ops(plan.gradients, rows, shared=shared)
            return [
                [*forward, self._loss_op(rows), *backward], [*gradients, *self._square_ops()], self._update_ops()
            ]  # fmt: skip
        return [ops(getattr(plan, what), rows, shared=shared)]

    def _loss_op(self, rows: int):
        assert self._loss is not None
        plan, word = self.plan, self._binder.word
        operands = (
            word(plan.output), address(self._target), word(plan.output_gradient), address(self._row_loss),
            plan.output.columns, address(self._scale), *map(word, self._loss.options),
        )  # fmt: skip
        return Op(LOSSES[self._loss.kernel], operands, rows, ROWS)

    def _square_ops(self):
        for index, parameter in enumerate(self.plan.parameters):
            deal = Deal.of(*parameter.shape)
            sums = address(self._sums) + 8 * int(self._first_blocks[index])
            operands = (self._binder.word(Gradient(parameter)), math.prod(parameter.shape), deal.block, sums)
            yield Op(clip.gradient_squares, operands, deal.blocks, 1)

    def _update_ops(self):
        update, itemsize = self._update, self.dtype.itemsize
        assert update is not None
        buffers = [address(buffer) for buffer in (self.params, self.grads, *update.states)]
        for start, stop, quantum, segment in self._stretches():
            places = [place + start * itemsize for place in buffers] + [0] * (5 - len(buffers))
            hyper = address(self._hypers) + segment * 8 * HYPER
            yield Op(optim.UPDATE[update.name], (*places, hyper), stop - start, quantum)

    def _stretches(self):
        """(start, stop, quantum, segment) of what is updated together: large parameters each by itself, dealt out as its
        gradient is, and what lies between them."""
        assert self._update is not None
        for segment, (start, stop, _) in enumerate(self._update.decay):
            for parameter in self.plan.parameters:
                size = math.prod(parameter.shape)
                if start <= parameter.offset < stop and size >= OWN:
                    if start < parameter.offset:
                        yield start, parameter.offset, UPDATE_QUANTUM, segment
                    start = parameter.offset + size
                    yield parameter.offset, start, Deal.of(*parameter.shape).block, segment
            if start < stop:
                yield start, stop, UPDATE_QUANTUM, segment

    def _do(self, job, record: np.ndarray, workers: int) -> None:
        """Run a job on so many workers."""
        entry = job.address(self.dtype)
        if workers == 1:
            invoke_alone(entry, address(record), 0, 1)
        else:
            self._run_job(entry, address(record), workers)

    @staticmethod
    def _run_job(entry: int, record: int, workers: int) -> None:
        crew = team()
        with crew.lock:
            crew.run(entry, record, workers)

    def _run(self, program: Program, workers: int) -> None:
        first, second = int(program.table[0]), int(program.table[1])
        self._do(run_sections, np.array([0, team().address, first, second], np.int64), workers)

    # ------------------------------------------------------------------------------------------ passes

    def empty(self, rows: int) -> np.ndarray:
        """Room for outputs."""
        return np.empty((rows, self.plan.output.columns), self.dtype)

    def forward(self, x: np.ndarray, train: bool = False, samples: int = 0) -> np.ndarray:
        """The output for x (n, n_in). With `train`, dropout acts and what `backward` needs is kept."""
        rows = x.shape[0]
        with self._lock:
            self._reserve(rows)
            workers = self._workers(rows, False)
            program = self._program("forward" if train else "evaluation", rows, workers)
            self._view(self.plan.input, rows)[...] = x
            self._counter[0] = samples
            self._run(program, workers)
            self._rows_kept = rows if train else 0
            return self._view(self.plan.output, rows).copy()

    def backward(self, dy: np.ndarray, accumulate: bool = False) -> np.ndarray | None:
        """dL/dx from dL/dy of the last forward pass in training; the parameters' gradients are written, or added to."""
        rows = self._rows_kept
        workers = self._workers(rows, True)
        program = self._program("backward", rows, workers, accumulate)
        self._view(self.plan.output_gradient, rows)[...] = dy
        self._run(program, workers)
        dx = self.plan.input_gradient
        return None if dx is None else self._view(dx, rows).copy()

    def prepare(self, loss: LossCall, update: Update, clip_norm: float | None = None) -> None:
        """State what a step of training consists of."""
        self._loss, self._update = loss, update
        self._hypers = aligned_zeros(HYPER * len(update.decay), np.float64)
        for index, (_, _, decay) in enumerate(update.decay):
            hyper = self._hypers[HYPER * index : HYPER * (index + 1)]
            hyper[:] = update.hyper
            hyper[1] = decay
        self._clip = float(clip_norm or 0.0)
        self._done = np.zeros(1, np.int64)
        self._forget_programs()

    def warm_up(self) -> None:
        """Compile, or load, every kernel that a step of training needs."""
        self._program("train", 1, 1)
        train.address(self.dtype)

    def _record(self, rows: int, last: int, workers: int, indices: bool) -> np.ndarray:
        """The record of the job of training for batches of so many rows; `_SET_BY_TRAIN` is still to be filled in."""
        program = self._program("train", rows, workers)
        last_program = program if last == rows else self._program("train", last, workers)
        key = (rows, last, indices, workers > 1)
        record = self._records.get(key)
        if record is None:
            plan, update = self.plan, self._update
            assert update is not None
            fields = dict.fromkeys(FIELDS, 0) | {
                "team": team().address, "batch": rows, "program": program.table, "last_program": last_program.table,
                "batch_x": self._places[plan.input.name], "batch_y": self._target, "row_loss": self._row_loss,
                "sums": self._sums, "blocks": self._sums.size, "first_blocks": self._first_blocks,
                "parameters": len(plan.parameters), "hypers": self._hypers, "segments": len(update.decay),
                "scale": self._scale, "counter": self._counter, "clip": self._clip, "done": self._done,
                "n_in": plan.input.columns, "n_out": plan.output.columns, "indices": indices,
            }  # fmt: skip
            record = np.array([self._binder.word(value) for value in fields.values()], np.int64)
            self._records[key] = record
        return record

    def train(self, x, y, order, batch_size, rates, scales, samples, losses, norms=None) -> int:
        """Take one step for each batch of `order`; return how many were done.

        x (N, n_in) and y ((N, n_out), or int64 labels (N,)) are C-contiguous; `order` (int64) names the samples, batch
        after batch, the last of which may be smaller; `rates` and `scales` (float64) give each step's learning rate and
        the factor of its loss; `samples` counts the samples seen before (for dropout). `losses` and, if given, `norms`
        (steps, parameters) are filled. Fewer steps than asked are done when the loss or a gradient of the next one is
        not finite: parameters and optimizer are then as the last good step left them.
        """
        count = order.size
        batch = min(batch_size, count)
        steps = -(-count // batch)
        self._reserve(batch)
        pace, done = self._pace(batch), 0
        while done < steps:
            workers, stretch = (
                (self._workers(batch, True), steps) if pace is None else pace.next(steps - done)
            )
            chosen = slice(done, done + stretch)
            began = time.perf_counter()
            taken = self._stretch(
                x, y, order[done * batch : (done + stretch) * batch], batch, rates[chosen], scales[chosen],
                samples + done * batch, losses[chosen], None if norms is None else norms[chosen], workers,
            )  # fmt: skip
            done += taken
            if taken < stretch:
                break
            if pace is not None:
                pace.note(stretch, time.perf_counter() - began)
        return done

    def _stretch(self, x, y, order, batch, rates, scales, samples, losses, norms, workers) -> int:
        """What `train` does, with so many workers."""
        update, count = self._update, order.size
        assert update is not None
        steps = -(-count // batch)
        record = self._record(batch, count - (steps - 1) * batch, workers, y.dtype == np.int64)
        record[_SET_BY_TRAIN] = (
            update.step, steps, count, address(x), address(y), address(order), address(rates), address(scales),
            address(losses), 0 if norms is None else address(norms),
        )  # fmt: skip
        self._counter[0] = samples
        self._done[0] = 0
        self._do(train, record, workers)
        done = int(self._done[0])
        update.step += done
        return done

    def step(self, x, y, rate: float, scale: float, samples: int) -> float | None:
        """One step on the batch (x, y), as `train` does it, with as little Python as can be; returns the loss.

        None: a label is out of range. NaN: the loss or a gradient is not finite. Nothing is changed in either case.
        """
        rows = x.shape[0]
        if self._single is None or self._single[0] != (rows, get_threads()):
            self._single = self._single_step(rows, y.dtype == np.int64)
        _, workers, entry, place, memory = self._single
        update = self._update
        assert update is not None
        if not set_step(place, address(x), address(y), update.step, rate, scale, samples):
            return None
        if workers == 1:
            invoke_alone(entry, place, 0, 1)
        else:
            self._run_job(entry, place, workers)
        loss = memory[1].item()
        if loss == loss:
            update.step += 1
        return loss

    def _single_step(self, rows: int, indices: bool) -> tuple:
        """What `step` needs for batches of so many rows: what it is good for (rows, and the limit of threads), workers,
        job, record, and what must stay in memory."""
        self._reserve(rows)
        workers = self._workers(rows, True)
        order, rate, loss, scale = np.arange(rows), np.zeros(1), np.zeros(1), np.zeros(1)
        record = self._record(rows, rows, workers, indices).copy()
        places = (address(order), address(rate), address(scale), address(loss))
        record[_SET_BY_TRAIN] = (0, 1, rows, 0, 0, *places, 0)
        good_for = rows, get_threads()
        return (
            good_for,
            workers,
            train.address(self.dtype),
            address(record),
            (record, loss, order, rate, scale),
        )
