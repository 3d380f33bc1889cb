"""Training on the GPU: a step is captured once as a CUDA graph and replayed for each batch; the host waits once a call."""

import math
from typing import TYPE_CHECKING

import numpy as np

from ...engine import Outcome, Uncopied
from ...plan import CrossEntropy, LossCall, Update
from ...scalar.optim import ROW
from .. import clip, optim
from ..gemm.choice import get_gemm_engine
from ..runtime import driver
from ..runtime.arrays import Array, read
from ..runtime.jit import Launch, run
from ..runtime.memory import grown, packed
from ..runtime.pointer import BYTES
from . import epoch
from .arena import BoundLaunches
from .program import bind_all, loss_launches

if TYPE_CHECKING:
    from .engine import Engine

GRAPHS_KEPT = 16


class Training(Uncopied):
    """Steps of gradient descent on an engine's parameters, for a loss and an optimizer."""

    def __init__(self, engine: "Engine", loss: LossCall, update: Update, clip_norm: float | None):
        self._engine, self._arena, self.plan = engine, engine.arena, engine.plan
        arena = self._arena
        self.dtype = arena.dtype
        self._loss, self._update = loss, update
        self._buffers = [arena.params, arena.grads, *map(read, update.states)]
        self._clip = min(float(clip_norm or 0.0), float(np.finfo(self.dtype).max))
        self._class_weight = self._on_device(loss.class_weight if isinstance(loss, CrossEntropy) else None)
        self._small = arena.bytes(64)  # scale, value, factor and the flag that stops, 16 bytes apart
        self._rows = arena.bytes(8 * ROW * len(update.decay))
        parameters = [(p.offset, math.prod(p.shape)) for p in self.plan.parameters]
        self._parts = {False: self._part([(0, self.plan.size)]), True: self._part(parameters)}
        self._fields = arena.params.empty((len(epoch.FIELDS),), np.dtype(np.int64))
        self._call: Array | None = None
        self._sent: tuple[np.ndarray, ...] = ()
        self._results: Array | None = None
        self._bound = BoundLaunches(arena)
        self._graphs: dict[tuple, driver.Graph | driver.Sequence] = {}
        self._graphs_of = arena.version

    def _part(self, parts: list[tuple[int, int]]) -> tuple:
        """How the squares of the gradient are added up: stretches of it, their blocks' sums, and where these begin.

        Norms of all parameters need a launch for each; otherwise the flat buffer, whose gaps hold zeros, is one part.
        """
        counts = [clip.squares_count(count) for _, count in parts]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        count = int(first[-1])
        sums = self._arena.bytes(3 * 8 * count)
        return parts, count, sums, self._arena.params.empty(first.shape, first.dtype).fill_from(first)

    def _on_device(self, values: np.ndarray | None) -> Array | None:
        """A copy of an option of the loss."""
        if values is None:
            return None
        values = values.astype(self.dtype)
        return self._arena.params.empty(values.shape).fill_from(values)

    # ------------------------------------------------------------------------------------------ a step

    def _step_launches(self, rows: int, labels: bool, norms: bool) -> list[Launch]:
        """All kernels of a step for a batch of this many rows."""
        plan, arena, at = self.plan, self._arena, self._arena.binding(rows)
        real, fields, n = arena.real, self._fields.address, plan.output.columns
        scale, value, factor, stop = (self._small.address + 16 * slot for slot in range(4))
        rows_at = self._rows.address
        parts, planes, squares, first = self._parts[norms]
        one, width = (1, 1, 1), ROW * len(self._update.decay)
        weight = 0 if self._class_weight is None else self._class_weight.address
        return [
            epoch.begin.on(
                real, one, fields=fields, samples=arena.samples.address, scale=scale, row=rows_at, width=width
            ),
            *epoch.gather_launches(arena.storage, fields, at(plan.input), rows, plan.input.columns),
            *epoch.target_launches(real, fields, arena.target.address, rows, n, labels),
            *bind_all(plan.forward, at),
            *loss_launches(
                self._loss, arena.storage, pred=at(plan.output), target=arena.target.address,
                grad=at(plan.output_gradient), row_loss=arena.row_loss.address, rows=rows, n=n, scale=scale,
                class_weight=weight,
            ),
            epoch.loss_of_batch.on(
                real, one, row_loss=arena.row_loss.address, rows=rows, scale=scale, value=value, stop=stop
            ),
            *bind_all(plan.backward, at),
            *bind_all(plan.gradients, at),
            *self._square_launches(parts, planes, squares.address),
            epoch.finish.on(
                real, one, fields=fields, squares=squares.address, planes=planes, first=first.address,
                parameters=len(parts), clip=self._clip, value=value, factor=factor, stop=stop,
            ),
            *self._update_launches(rows_at, factor, stop),
        ]  # fmt: skip

    def _square_launches(self, parts, planes: int, sums: int) -> list[Launch]:
        launches = []
        for start, count in parts:
            place = self._arena.grads.address + start * BYTES[self._arena.real]
            launches += clip.squares_launches(self._arena.real, place, count, sums, planes)
            sums += clip.squares_count(count) * BYTES[self._arena.real]
        return launches

    def _update_launches(self, rows_at: int, factor: int, stop: int) -> list[Launch]:
        arena, update, size = self._arena, self._update, BYTES[self._arena.real]
        launches, copy = [], arena.bf16_copy
        for index, (start, end, _) in enumerate(update.decay):
            p, g, *states = (buffer.address + start * size for buffer in self._buffers)
            row = rows_at + index * ROW * size
            launches += optim.update_launches(
                arena.real, update.name, p=p, g=g, states=states, count=end - start, row=row, scale=factor, stop=stop,
                bf16_copy=0 if copy is None else copy.address + start * BYTES[arena.storage],
            )  # fmt: skip
        return launches

    def _launches(self, rows: int, labels: bool, norms: bool) -> list[Launch]:
        """The bound step for this many rows."""
        key = rows, labels, norms
        return self._bound.get(key, lambda: self._step_launches(*key))

    def _graph(self, rows: int, labels: bool, norms: bool) -> driver.Graph | driver.Sequence:
        """The captured step for this many rows."""
        launches = self._launches(rows, labels, norms)
        if self._graphs_of != self._arena.version:
            self._graphs, self._graphs_of = {}, self._arena.version
        kind = rows, labels, norms, get_gemm_engine()
        graph = self._graphs.pop(kind, None)
        if graph is None:
            if all(one.capturable for one in launches):
                for one in launches:
                    one.load()  # what a capture must not do: compile, and allocate
                stream = driver.Stream()
                graph = driver.Graph(stream.handle, lambda: run(launches, stream.handle))
            else:
                graph = driver.Sequence(launches)
            if len(self._graphs) >= GRAPHS_KEPT:
                del self._graphs[next(iter(self._graphs))]
        self._graphs[kind] = graph
        return graph

    def warm_up(self) -> None:
        """Compile, or load, every kernel that a step of training needs."""
        for one in self._launches(1, isinstance(self._loss, CrossEntropy) and self._loss.labels, False):
            one.load()

    # ------------------------------------------------------------------------------------------ steps

    def train(
        self, x: Array, y: Array, order, batch_size, rates, scales, samples, losses, norms=None, epochs=1
    ) -> int:  # fmt: skip
        """Take one step for each batch of `order`; return how many were done. As `cpu.engine.training.Training.train`.

        x (N, n_in) and y ((N, n_out), or int64 labels (N,)) are C-contiguous on the device, the rest is NumPy. The host
        launches graphs and waits once, at the end.
        """
        arena, update = self._arena, self._update
        count = order.size // epochs
        if epochs > 1:
            return self._train_epochs(x, y, order, batch_size, rates, scales, samples, losses, norms, epochs)
        batch = min(batch_size, count)
        steps = -(-count // batch)
        last = count - (steps - 1) * batch
        self._engine.reserve(batch)
        labels = y.dtype == np.int64
        kind = labels, norms is not None
        graph, last_graph = self._graph(batch, *kind), self._graph(last, *kind)
        graph = self._graph(batch, *kind)  # binding the last one may have moved the temporaries
        decays = [decay for _, _, decay in update.decay]
        table = optim.table(update.name, update.options, decays, update.step, rates)
        with arena.turn():
            self._send(x, y, order, batch, samples, scales, table, steps, norms is not None)
            stream = arena.stream
            driver.clear(self._small.address, self._small.nbytes, stream)
            run(arena.renew_copy(), stream)
            done = 0
            try:
                for _ in range(steps - 1):
                    graph.replay(stream)
                (graph if last == batch else last_graph).replay(stream)
            finally:  # also after Ctrl-C: the steps that were launched will be done
                done = self._receive(steps, losses, norms)
                update.step += done
        return done

    def _train_epochs(
        self, x: Array, y: Array, order, batch_size, rates, scales, samples, losses, norms, epochs
    ) -> int:  # fmt: skip
        """What `train` does, epoch by epoch."""
        count, batches, done = order.size // epochs, len(rates) // epochs, 0
        for number in range(epochs):
            now, seen = slice(number * batches, (number + 1) * batches), number * count
            taken = self.train(
                x, y, order[seen : seen + count], batch_size, rates[now], scales[now], samples + seen, losses[now],
                None if norms is None else norms[now],
            )  # fmt: skip
            done += taken
            if taken < batches:
                break
        return done

    def _send(self, x, y, order, batch, samples, scales, table, steps, norms_wanted) -> None:
        """What a call needs, and where it is. Nobody waits: what is sent stays until the next call."""
        size = BYTES[self._arena.real]
        with np.errstate(over="ignore"):  # infinite is what is too large
            parts = [order.astype(np.int64), scales.astype(self.dtype), table.astype(self.dtype)]
        data, starts = packed(parts)
        self._call = grown(self._call, data.nbytes, self._arena.bytes)
        parameters = len(self.plan.parameters) if norms_wanted else 0
        self._results = grown(self._results, 8 + steps * (1 + parameters) * size, self._arena.bytes)
        base, results = self._call.address, self._results.address
        places = [base + start for start in starts]
        norms = results + 8 + steps * size if norms_wanted else 0
        fields = [0, samples, batch, x.address, y.address, *places, results + 8, norms, results]
        self._sent = data, np.array(fields, np.int64)
        for place, part in zip((base, self._fields.address), self._sent, strict=True):
            driver.send(place, part, self._arena.stream)
        driver.clear(results, 8, self._arena.stream)

    def _receive(self, steps: int, losses, norms) -> int:
        """The results of a call: how many steps were done, their losses and the norms of their gradients."""
        assert self._results is not None
        size = BYTES[self._arena.real]
        parameters = 0 if norms is None else norms.shape[1]
        raw = np.empty(8 + steps * (1 + parameters) * size, np.uint8)
        driver.to_host(raw, self._results.address, self._arena.stream)
        done = int(raw[:8].view(np.int64)[0])
        values = raw[8:].view(self.dtype)
        losses[:done] = values[:done]
        if norms is not None:
            norms[:done] = values[steps:].reshape(steps, parameters)[:done]
        return done

    def step(self, x: Array, y: Array, rate: float, scale: float, samples: int) -> Outcome:
        """One step on the batch (x, y), as `train` does it."""
        loss = np.full(1, np.nan)
        rows = len(x)
        self.train(x, y, np.arange(rows), rows, np.full(1, rate), np.full(1, scale), samples, loss)
        value = float(loss[0])
        return value, "" if value == value else "not finite"
