"""The memory of an engine on the device: the matrices of a plan for a number of rows, temporaries, copies of parameters."""

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np

from ...plan import Buffer, Gradient, Operand, Parameter, Plan
from .. import elements
from ..binding import Binding
from ..gemm.choice import get_gemm_engine
from ..runtime import driver
from ..runtime.arrays import Array
from ..runtime.jit import Launch
from ..runtime.memory import ALIGNED, Room
from ..runtime.pointer import BYTES
from . import epoch


class Arena:
    """A network's flat buffers of parameters and gradients, and memory for everything else.

    `storage` is the type of the plan's matrices: that of the parameters (`real`), or "bfloat16".

    Attributes
    ----------
    version : grows whenever memory moves; what was bound before is worthless then
    samples : one int64, the samples seen before the current step
    target, row_loss : room for the labels or values of a batch, and for the losses of its rows
    bf16_copy : of the parameters, which the kernels of a plan in bfloat16 read
    """

    def __init__(self, plan: Plan, params: Array, grads: Array, storage: str):
        self.plan, self.params, self.grads, self.storage = plan, params, grads, storage
        self.dtype, self.real = params.dtype, params.dtype.name
        mixed = storage != self.real
        self.bf16_copy = self.bytes(plan.size * BYTES[storage]) if mixed else None
        self.samples = self.bytes(8)
        self.version = 0
        self._room = Room()
        self._temporaries: Array | None = None
        self._used_on: int | None = None  # the stream of the last turn, whose end `_done` marks
        self._done = driver.Event()
        self._rows = 0
        self.reserve(1)

    def bytes(self, size: int) -> Array:
        """New memory of `size` bytes."""
        return self.params.empty((max(1, -(-size // 8)),), np.dtype(np.float64))

    @property
    def stream(self) -> int:
        """The current stream of the parameters' library."""
        return self.params.stream

    @contextmanager
    def turn(self):
        """Use this memory on the current stream, after what used it on another one."""
        stream = self.stream
        if stream != self._used_on:
            self._done.hold(stream)
            self._used_on = stream
        yield
        self._done.record(stream)

    def reserve(self, rows: int) -> bool:
        """Make room for this many rows; tell whether memory moved, and with it the matrices of the last pass were lost."""
        if rows <= self._rows:
            return False
        places, at = {}, 0
        for buffer in self.plan.buffers:
            places[buffer.name] = at
            size = BYTES[self.real if buffer.statistics else self.storage]
            at += -(-rows * buffer.columns * size // ALIGNED) * ALIGNED
        # All of it is there before anything is changed: where memory is short, the engine stays as it was.
        memory = self.bytes(at)
        target = self.bytes(rows * self.plan.output.columns * 8)
        row_loss = self.bytes(rows * 8)
        self._memory, self.target, self.row_loss = memory, target, row_loss
        self._places = {name: memory.address + start for name, start in places.items()}
        self._rows = rows
        self.version += 1
        return True

    def place(self, operand: Operand) -> int:
        """The address of an operand of a call."""
        match operand:
            case Buffer():
                return self._places[operand.name]
            case Parameter():
                params = self.params if self.bf16_copy is None else self.bf16_copy
                return params.address + operand.offset * BYTES[self.storage]
            case Gradient():
                return self.grads.address + operand.parameter.offset * BYTES[self.real]
            case None:
                return 0

    def binding(self, rows: int, accumulate: bool = False) -> Binding:
        """What calls are bound to."""
        return Binding(
            self.place, self.storage, self.real, self.samples.address, self._room, rows, accumulate
        )

    def with_temporaries(self, make: Callable[[], list[Launch]]) -> list[Launch]:
        """What `make` gives, with temporaries for all its calls: they share one piece of memory, which may have to grow."""
        launches = make()
        if self._temporaries is None or self._room.needed > self._temporaries.nbytes:
            self._temporaries = self.bytes(self._room.needed)
            self._room.base = self._temporaries.address
            self.version += 1
            launches = make()
        return launches

    # ------------------------------------------------------------------------------------------ changes of precision

    def renew_copy(self) -> list[Launch]:
        """The bfloat16 copy of the parameters, which their owner may have written to."""
        if self.bf16_copy is None:
            return []
        places = {"x": self.params.address, "out": self.bf16_copy.address}
        return elements.launches(epoch.narrowed, self.storage, self.plan.size, places)

    def carry_in(self, source: Array, buffer: Buffer) -> list[Launch]:
        """A matrix of the user's into the arena."""
        places = {"x": source.address, "out": self.place(buffer)}
        return elements.launches(epoch.narrowed, self.storage, source.size, places)

    def carry_out(self, buffer: Buffer, target: Array) -> list[Launch]:
        """A matrix of the arena into an array of the user's."""
        places = {"x": self.place(buffer), "out": target.address}
        return elements.launches(epoch.widened, self.storage, target.size, places)


class BoundLaunches:
    """Launches by what they are about, made once; all are dropped when memory moves or another engine multiplies."""

    def __init__(self, arena: Arena):
        self._arena, self._version = arena, arena.version
        self._launches: dict[tuple, list[Launch]] = {}

    def get(self, key: tuple, make: Callable[[], list[Launch]]) -> list[Launch]:
        """The launches of a key, from `make` where they are not known."""
        key = *key, get_gemm_engine()
        if self._version != self._arena.version:
            self._launches, self._version = {}, self._arena.version
        launches = self._launches.get(key)
        if launches is None:
            launches = self._arena.with_temporaries(make)
            if self._version != self._arena.version:
                self._launches, self._version = {}, self._arena.version
            self._launches[key] = launches
        return launches
