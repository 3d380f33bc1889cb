"""Runs a plan on the GPU: passes for one's own loop, and whole epochs of training as replayed CUDA graphs.

The twin of `cpu.engine.engine`. Parameters and gradients are flat device buffers of the type that is computed with; where
the plan stores matrices in bfloat16, its kernels read a bfloat16 copy of the parameters, which the update renews in its own
pass.
"""

import math
import threading
from contextlib import contextmanager

import numpy as np

from ...plan import Buffer, LossCall, Plan, Uncopied, Update
from .. import clip, elements, optim
from ..gemm.choice import get_gemm_engine
from ..runtime import driver
from ..runtime.arrays import Array, read
from ..runtime.jit import Launch, run
from ..runtime.memory import ALIGNED, Room, grown, packed
from ..runtime.pointer import BYTES
from . import epoch
from .program import Binder, loss_launches

GRAPHS_KEPT = 16


class Engine(Uncopied):
    """Runs a plan over a network's flat buffers of parameters and gradients, with its own memory for everything else.

    Several threads may call `forward`, one waits for the other; anything else is for one thread at a time.

    `storage` is the type of the plan's matrices: that of the parameters, or "bfloat16".
    """

    def __init__(self, plan: Plan, params: Array, grads: Array, storage: str):
        self.plan, self.params, self.grads, self.storage = plan, params, grads, storage
        self.real = params.dtype.name
        self.dtype = params.dtype
        self._mixed = storage != self.real
        self._bf16_copy = self._bytes(plan.size * BYTES[storage]) if self._mixed else None
        self._samples = self._bytes(8)
        self._small = self._bytes(64)  # scale, value, factor and the flag that stops, 16 bytes apart
        self._room = Room()
        self._temporaries: Array | None = None
        self._call: Array | None = None
        self._sent: tuple[np.ndarray, ...] = ()
        self._results: Array | None = None
        self._loss: LossCall | None = None
        self._update: Update | None = None
        self._rows_kept = 0  # of the last forward pass in training
        self._lock = threading.Lock()  # held by a forward pass
        self._used_on: int | None = None  # the stream of the last turn, whose end `_done` marks
        self._done = driver.Event()
        self._launches: dict[tuple, list[Launch]] = {}
        self._graphs: dict[tuple, driver.Graph | driver.Sequence] = {}
        self._capacity = 0
        self._reserve(1)

    # ------------------------------------------------------------------------------------------ memory

    def _bytes(self, size: int) -> Array:
        return self.params.empty((max(1, -(-size // 8)),), np.dtype(np.float64))

    @property
    def _stream(self) -> int:
        """The current stream of the parameters' library."""
        return self.params.stream

    @contextmanager
    def _turn(self):
        """Use the engine's memory on the current stream, after what used it on another one."""
        stream = self._stream
        if stream != self._used_on:
            self._done.hold(stream)
            self._used_on = stream
        yield
        self._done.record(stream)

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows. What was bound before is forgotten."""
        if rows <= self._capacity:
            return
        places, at = {}, 0
        statistics = _statistics(self.plan)
        for buffer in self.plan.buffers:
            places[buffer.name] = at
            size = BYTES[self.real if buffer.name in statistics else self.storage]
            at += -(-rows * buffer.columns * size // ALIGNED) * ALIGNED
        # All of it is there before anything is changed: where memory is short, the engine stays as it was.
        arena = self._bytes(at)
        target = self._bytes(rows * self.plan.output.columns * 8)  # labels or values
        row_loss = self._bytes(rows * 8)
        self._forget()
        self._arena, self._target, self._row_loss = arena, target, row_loss
        self._places = {name: arena.address + start for name, start in places.items()}
        self._capacity, self._rows_kept = rows, 0
        params = self.params.address if self._bf16_copy is None else self._bf16_copy.address
        self._binder = Binder(
            self.storage,
            self.real,
            self._places,
            params,
            self.grads.address,
            self._samples.address,
            self._room,
        )

    def _forget(self) -> None:
        self._launches, self._graphs = {}, {}

    def _bound(self, key: tuple, make) -> list[Launch]:
        """The launches of a kind, made once; the temporaries of all calls share one piece of memory."""
        key = *key, get_gemm_engine()
        launches = self._launches.get(key)
        if launches is None:
            launches = make()
            if self._temporaries is None or self._room.needed > self._temporaries.nbytes:
                temporaries = self._bytes(self._room.needed)
                self._forget()
                self._temporaries = temporaries
                self._room.base = self._temporaries.address
                launches = make()
            self._launches[key] = launches
        return launches

    def _place(self, buffer: Buffer) -> int:
        return self._places[buffer.name]

    def _renew_copy(self) -> list[Launch]:
        """The bfloat16 copy of the parameters, which their owner may have written to."""
        if self._bf16_copy is None:
            return []
        places = {"x": self.params.address, "out": self._bf16_copy.address}
        return elements.launches(epoch.narrowed, self.storage, self.plan.size, places)

    def _carry_in(self, source: Array, buffer: Buffer) -> list[Launch]:
        places = {"x": source.address, "out": self._place(buffer)}
        return elements.launches(epoch.narrowed, self.storage, source.size, places)

    def _carry_out(self, buffer: Buffer, rows: int) -> Array:
        target = self.params.empty((rows, buffer.columns))
        places = {"x": self._place(buffer), "out": target.address}
        run(elements.launches(epoch.widened, self.storage, target.size, places), self._stream)
        return target

    # ------------------------------------------------------------------------------------------ passes

    def empty(self, rows: int) -> Array:
        """Room for outputs."""
        return self.params.empty((rows, self.plan.output.columns))

    def forward(self, x: Array, train: bool = False, samples: int = 0) -> Array:
        """The output for x (n, n_in). With `train`, dropout acts and what `backward` needs is kept."""
        with self._lock, self._turn():
            return self._forward(x, train, samples)

    def _forward(self, x: Array, train: bool, samples: int) -> Array:
        rows = len(x)
        if rows == 0:
            self._rows_kept = 0
            return self.empty(0)
        self._reserve(rows)
        what = "forward" if train else "evaluation"
        calls = getattr(self.plan, what)
        launches = self._bound((what, rows), lambda: self._binder.launches(calls, rows))
        if train:
            driver.write_word(self._samples.address, samples, self._stream)
        run([*self._renew_copy(), *self._carry_in(x, self.plan.input), *launches], self._stream)
        self._rows_kept = rows if train else 0
        return self._carry_out(self.plan.output, rows)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        """dL/dx from dL/dy of the last forward pass in training; the parameters' gradients are written, or added to."""
        rows, plan = self._rows_kept, self.plan
        if rows == 0:
            if not accumulate:
                driver.clear(self.grads.address, self.grads.nbytes, self._stream)
            return None if plan.input_gradient is None else self.params.empty((0, plan.input.columns))
        launches = self._bound(
            ("backward", rows, accumulate),
            lambda: [
                *self._binder.launches(plan.backward, rows),
                *self._binder.launches(plan.gradients, rows, accumulate),
            ],
        )
        with self._turn():
            run([*self._carry_in(dy, plan.output_gradient), *launches], self._stream)
            return None if plan.input_gradient is None else self._carry_out(plan.input_gradient, rows)

    # ------------------------------------------------------------------------------------------ training

    def prepare(self, loss: LossCall, update: Update, clip_norm: float | None = None) -> None:
        """State what a step of training consists of."""
        self._loss, self._update = loss, update
        self._buffers = [self.params, self.grads, *map(read, update.states)]
        self._clip = min(float(clip_norm or 0.0), float(np.finfo(self.dtype).max))
        self._options = tuple(self._on_device(option) for option in loss.options)
        self._hyper = self._bytes(8 * optim.TABLE * len(update.decay))
        parameters = [(p.offset, math.prod(p.shape)) for p in self.plan.parameters]
        self._parts = {False: self._part([(0, self.plan.size)]), True: self._part(parameters)}
        self._fields = self.params.empty((len(epoch.FIELDS),), np.dtype(np.int64))
        self._forget()

    def _part(self, parts: list[tuple[int, int]]) -> tuple:
        """How the squares of the gradient are added up: stretches of it, their blocks' sums, and where these begin.

        Norms of all parameters need a launch for each; otherwise the flat buffer, whose gaps hold zeros, is one part.
        """
        counts = [clip.squares_count(count) for _, count in parts]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        count = int(first[-1])
        sums = self._bytes(3 * 8 * count)
        return parts, count, sums, self.params.empty(first.shape, first.dtype).fill_from(first)

    def _on_device(self, option):
        """An option of the loss as its kernel takes it: arrays by address."""
        if not isinstance(option, np.ndarray):
            return 0 if option is None else option
        values = option.astype(self.dtype)
        self._kept = self.params.empty(values.shape).fill_from(values)
        return self._kept.address

    def _step_launches(self, rows: int, labels: bool, norms: bool) -> list[Launch]:
        """All kernels of a step for a batch of so many rows."""
        plan, update, call = self.plan, self._update, self._loss
        assert update is not None and call is not None
        real, fields, n = self.real, self._fields.address, plan.output.columns
        scale, value, factor, stop = (self._small.address + 16 * slot for slot in range(4))
        hyper = self._hyper.address
        parts, planes, squares, first = self._parts[norms]
        one, width = (1, 1, 1), optim.TABLE * len(update.decay)
        return [
            epoch.begin.on(
                real, one, fields=fields, samples=self._samples.address, scale=scale, hyper=hyper, width=width
            ),
            *epoch.gather_launches(self.storage, fields, self._place(plan.input), rows, plan.input.columns),
            *epoch.target_launches(real, fields, self._target.address, rows, n, labels),
            *self._binder.launches(plan.forward, rows),
            *loss_launches(
                self.storage, call.kernel, self._options, pred=self._place(plan.output), target=self._target.address,
                grad=self._place(plan.output_gradient), row_loss=self._row_loss.address, rows=rows, n=n, scale=scale,
            ),
            epoch.loss_of_batch.on(
                real, one, row_loss=self._row_loss.address, rows=rows, scale=scale, value=value, stop=stop
            ),
            *self._binder.launches(plan.backward, rows),
            *self._binder.launches(plan.gradients, rows),
            *self._square_launches(parts, planes, squares.address),
            epoch.finish.on(
                real, one, fields=fields, squares=squares.address, planes=planes, first=first.address,
                parameters=len(parts), clip=self._clip, value=value, factor=factor, stop=stop,
            ),
            *self._update_launches(hyper, factor, stop),
        ]  # fmt: skip

    def _square_launches(self, parts, planes: int, sums: int) -> list[Launch]:
        launches = []
        for start, count in parts:
            place = self.grads.address + start * BYTES[self.real]
            launches += clip.squares_launches(self.real, place, count, sums, planes)
            sums += clip.squares_count(count) * BYTES[self.real]
        return launches

    def _update_launches(self, hyper: int, factor: int, stop: int) -> list[Launch]:
        update, size = self._update, BYTES[self.real]
        assert update is not None
        launches = []
        for index, (start, end, _) in enumerate(update.decay):
            p, g, *states = (buffer.address + start * size for buffer in self._buffers)
            table = hyper + index * optim.TABLE * size
            copy = 0 if self._bf16_copy is None else self._bf16_copy.address + start * BYTES[self.storage]
            launches += optim.update_launches(
                self.real, update.name, p=p, g=g, states=states, count=end - start, table=table, scale=factor, stop=stop,
                bf16_copy=copy,
            )  # fmt: skip
        return launches

    def _graph(self, rows: int, labels: bool, norms: bool) -> driver.Graph | driver.Sequence:
        """The captured step for so many rows."""
        key = rows, labels, norms
        kind = *key, get_gemm_engine()
        graph = self._graphs.pop(kind, None)
        if graph is None:
            launches = self._bound(("step", *key), lambda: self._step_launches(*key))
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
        key = 1, False, False
        for one in self._bound(("step", *key), lambda: self._step_launches(*key)):
            one.load()

    def train(self, x: Array, y: Array, order, batch_size, rates, scales, samples, losses, norms=None) -> int:
        """Take one step for each batch of `order`; return how many were done. As `cpu.engine.engine.Engine.train`.

        x (N, n_in) and y ((N, n_out), or int64 labels (N,)) are C-contiguous on the device, the rest is NumPy. The host
        launches graphs and waits once, at the end.
        """
        update = self._update
        assert update is not None
        count = order.size
        batch = min(batch_size, count)
        steps = -(-count // batch)
        last = count - (steps - 1) * batch
        self._reserve(batch)
        labels = y.dtype == np.int64
        kind = labels, norms is not None
        graph, last_graph = self._graph(batch, *kind), self._graph(last, *kind)
        graph = self._graph(batch, *kind)  # binding the last one may have moved the temporaries
        decays = [decay for _, _, decay in update.decay]
        table = optim.table(update.name, update.hyper, decays, update.step, rates)
        with self._turn():
            self._send(x, y, order, batch, samples, scales, table, steps, norms is not None)
            stream = self._stream
            driver.clear(self._small.address, self._small.nbytes, stream)
            run(self._renew_copy(), stream)
            done = 0
            try:
                for _ in range(steps - 1):
                    graph.replay(stream)
                (graph if last == batch else last_graph).replay(stream)
            finally:  # also after Ctrl-C: the steps that were launched will be done
                done = self._receive(steps, losses, norms)
                update.step += done
        return done

    def _send(self, x, y, order, batch, samples, scales, table, steps, norms_wanted) -> None:
        """What a call needs, and where it is. Nobody waits: what is sent stays until the next call."""
        size = BYTES[self.real]
        with np.errstate(over="ignore"):  # infinite is what is too large
            parts = [order.astype(np.int64), scales.astype(self.dtype), table.astype(self.dtype)]
        data, starts = packed(parts)
        self._call = grown(self._call, data.nbytes, self._bytes)
        parameters = len(self.plan.parameters) if norms_wanted else 0
        self._results = grown(self._results, 8 + steps * (1 + parameters) * size, self._bytes)
        base, results = self._call.address, self._results.address
        places = [base + start for start in starts]
        norms = results + 8 + steps * size if norms_wanted else 0
        fields = [0, samples, batch, x.address, y.address, *places, results + 8, norms, results]
        self._sent = data, np.array(fields, np.int64)
        for place, part in zip((base, self._fields.address), self._sent, strict=True):
            driver.send(place, part, self._stream)
        driver.clear(results, 8, self._stream)

    def _receive(self, steps: int, losses, norms) -> int:
        """The results of a call: how many steps were done, their losses and the norms of their gradients."""
        assert self._results is not None
        size = BYTES[self.real]
        parameters = 0 if norms is None else norms.shape[1]
        raw = np.empty(8 + steps * (1 + parameters) * size, np.uint8)
        driver.to_host(raw, self._results.address, self._stream)
        done = int(raw[:8].view(np.int64)[0])
        values = raw[8:].view(self.dtype)
        losses[:done] = values[:done]
        if norms is not None:
            norms[:done] = values[steps:].reshape(steps, parameters)[:done]
        return done

    def step(self, x: Array, y: Array, rate: float, scale: float, samples: int) -> float:
        """One step on the batch (x, y), as `train` does it; the loss, or NaN if it or a gradient is not finite."""
        loss = np.full(1, np.nan)
        rows = len(x)
        self.train(x, y, np.arange(rows), rows, np.full(1, rate), np.full(1, scale), samples, loss)
        return float(loss[0])


def _statistics(plan: Plan) -> set[str]:
    """The buffers that hold statistics of rows, which are kept in the type that is computed with."""
    return {
        call.operands[-3].name
        for call in plan.forward
        if call.kernel in ("layernorm", "rmsnorm") and isinstance(call.operands[-3], Buffer)
    }
