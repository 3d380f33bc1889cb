"""Runs a plan on the GPU: passes for a loop of the user's own. Training on the same memory is `training`.

The twin of `cpu.engine.engine`. Parameters and gradients are flat device buffers of the type that is computed with; where
the plan stores matrices in bfloat16, its kernels read a bfloat16 copy of the parameters, which the update renews in its own
pass.
"""

import threading

from ...engine import Uncopied
from ...plan import LossCall, Plan, Update
from ..runtime import driver
from ..runtime.arrays import Array
from ..runtime.jit import Launch, run
from .arena import Arena, BoundLaunches
from .program import bind_all
from .training import Training


class Engine(Uncopied):
    """Runs a plan over a network's flat buffers of parameters and gradients, with its own memory for everything else.

    Several threads may call `forward`, one waits for the other; anything else is for one thread at a time.

    `storage` is the type of the plan's matrices: that of the parameters, or "bfloat16".
    """

    def __init__(self, plan: Plan, params: Array, grads: Array, storage: str):
        self.plan = plan
        self.arena = Arena(plan, params, grads, storage)
        self._rows_kept = 0  # of the last forward pass in training
        self._lock = threading.Lock()  # held by a forward pass
        self._bound = BoundLaunches(self.arena)

    def reserve(self, rows: int) -> None:
        """Make room for this many rows."""
        if self.arena.reserve(rows):
            self._rows_kept = 0

    def empty(self, rows: int) -> Array:
        """Room for outputs."""
        return self.arena.params.empty((rows, self.plan.output.columns))

    def forward(self, x: Array, train: bool = False, samples: int = 0) -> Array:
        """The output for x (n, n_in). With `train`, dropout acts and what `backward` needs is kept."""
        with self._lock, self.arena.turn():
            return self._forward(x, train, samples)

    def _forward(self, x: Array, train: bool, samples: int) -> Array:
        arena, rows = self.arena, len(x)
        y = self.empty(rows)
        if rows == 0:
            self._rows_kept = 0
            return y
        self.reserve(rows)
        calls = self.plan.forward if train else self.plan.evaluation
        launches = self._bound.get((rows, train), lambda: bind_all(calls, arena.binding(rows)))
        if train:
            driver.write_word(arena.samples.address, samples, arena.stream)
        before = [*arena.renew_copy(), *arena.carry_in(x, self.plan.input)]
        run([*before, *launches, *arena.carry_out(self.plan.output, y)], arena.stream)
        self._rows_kept = rows if train else 0
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        """dL/dx from dL/dy of the last forward pass in training; the parameters' gradients are written, or added to."""
        arena, plan, rows = self.arena, self.plan, self._rows_kept
        wanted = plan.input_gradient
        dx = None if wanted is None else arena.params.empty((rows, wanted.columns))
        if rows == 0:
            if not accumulate:
                driver.clear(arena.grads.address, arena.grads.nbytes, arena.stream)
            return dx

        def make() -> list[Launch]:
            calls = bind_all(plan.backward, arena.binding(rows))
            return calls + bind_all(plan.gradients, arena.binding(rows, accumulate))

        launches = self._bound.get(("backward", rows, accumulate), make)
        with arena.turn():
            run([*arena.carry_in(dy, plan.output_gradient), *launches], arena.stream)
            if wanted is not None and dx is not None:
                run(arena.carry_out(wanted, dx), arena.stream)
        return dx

    def training(self, loss: LossCall, update: Update, clip_norm: float | None = None) -> Training:
        """Steps of training on this engine's memory."""
        return Training(self, loss, update, clip_norm)
