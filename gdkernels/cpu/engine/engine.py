"""Runs a plan on the CPU: passes for a loop of the user's own. Training on the same memory is `training`."""

import math
import threading
from collections.abc import Iterable

import numpy as np

from ...engine import Uncopied
from ...plan import AnyCall, LossCall, Plan, Update
from ..cost import NS
from ..runtime.dispatch import address
from ..runtime.jit import Op
from ..runtime.team import get_threads, run_job, team
from .arena import Arena, Programs
from .epoch import run_sections
from .program import bind
from .training import WORTH_A_WORKER, Training


class Engine(Uncopied):
    """Runs a plan over a network's flat buffers of parameters and gradients, with its own memory for everything else.

    `threads` is the number of workers; None takes as many as the work of a step keeps busy, up to `get_threads()`.
    Several threads may call `forward`, one waits for the other; anything else is for one thread at a time.
    """

    def __init__(self, plan: Plan, params: np.ndarray, grads: np.ndarray, threads: int | None = None):
        self.plan, self.threads, self.dtype = plan, threads, params.dtype
        self.arena = Arena(plan, params, grads)
        self._rows_kept = 0  # of the last forward pass in training
        self._lock = threading.Lock()  # held by a forward pass
        weights = sum(math.prod(p.shape) for p in plan.parameters if len(p.shape) == 2)
        columns = sum(buffer.columns for buffer in plan.buffers)
        self._row_work = NS["step, weight"] * weights + NS["step, column"] * columns
        self._programs = Programs(self.arena)

    def work(self, rows: int, training: bool) -> float:
        """Nanoseconds that one worker takes for a step or a forward pass, roughly."""
        if training:
            return rows * self._row_work + self.plan.size * NS["step, parameter"]
        return rows * self._row_work / 3

    def workers(self, rows: int, training: bool) -> int:
        """As many workers as asked for, or as many as the work keeps busy."""
        if self.threads is not None:
            return self.threads
        return max(1, min(get_threads(), int(self.work(rows, training) // WORTH_A_WORKER)))

    def reserve(self, rows: int) -> None:
        """Make room for this many rows."""
        if self.arena.reserve(rows):
            self._rows_kept = 0

    # ------------------------------------------------------------------------------------------ passes

    def empty(self, rows: int) -> np.ndarray:
        """Room for outputs."""
        return np.empty((rows, self.plan.output.columns), self.dtype)

    def forward(self, x: np.ndarray, train: bool = False, samples: int = 0) -> np.ndarray:
        """The output for x (n, n_in). With `train`, dropout acts and what `backward` needs is kept."""
        rows = x.shape[0]
        with self._lock:
            self.reserve(rows)
            self.arena.view(self.plan.input, rows)[...] = x
            self.arena.samples[0] = samples
            self._pass(rows, False, (self.plan.forward if train else self.plan.evaluation,))
            self._rows_kept = rows if train else 0
            return self.arena.view(self.plan.output, rows).copy()

    def backward(self, dy: np.ndarray, accumulate: bool = False) -> np.ndarray | None:
        """dL/dx from dL/dy of the last forward pass in training; the parameters' gradients are written, or added to."""
        rows = self._rows_kept
        self.arena.view(self.plan.output_gradient, rows)[...] = dy
        self._pass(rows, True, (self.plan.backward, self.plan.gradients), accumulate)
        dx = self.plan.input_gradient
        return None if dx is None else self.arena.view(dx, rows).copy()

    def _pass(
        self, rows: int, training: bool, sections: tuple[list[AnyCall], ...], accumulate: bool = False
    ) -> None:
        """Run one or two sections of calls for this many rows."""
        workers = self.workers(rows, training)

        def ops() -> Iterable[Iterable[Op]]:
            at = self.arena.binding(rows, accumulate, workers > 1)
            return [[bind(call, at) for call in calls] for calls in sections]

        scratches = self.arena.scratch(workers)
        program = self._programs.get((*map(id, sections), rows, accumulate, workers > 1), ops)
        first, second = program.table[:2].tolist()
        record = run_sections.record(
            self.dtype, team=team().memory, first=first, second=second, scratches=scratches
        )
        run_job(run_sections.address(self.dtype), address(np.frombuffer(record, np.int64)), workers)

    # ------------------------------------------------------------------------------------------ training

    def training(self, loss: LossCall, update: Update, clip_norm: float | None = None) -> Training:
        """Steps of training on this engine's memory."""
        return Training(self, loss, update, clip_norm)
