"""Views: a network, and its training, as compiled code of a user sees them.

A view has an engine of its own over the network's parameters, so that it disturbs neither a forward pass that waits for its
way back nor another view. What compiled code reads are its words (`calls`); what these lead to lives as long as the view.
"""

import contextlib
import ctypes
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numba.core.runtime import _nrt_python
from numba.core.runtime.nrt import MemInfo
from numpy.typing import NDArray

from ...engine import Shared, Targets
from ...plan import AnyCall, Plan, Update
from ..runtime.dispatch import address
from ..runtime.jit import Kernel, Op
from ..runtime.layout import FLOATS
from ..runtime.team import team
from .arena import Arena
from .calls import (
    FLAT_GRADS,
    FLAT_PARAMS,
    GROW,
    LEASE,
    MOST,
    N_IN,
    N_OUT,
    PREDICT,
    RATE_TO,
    RATE_WORDS,
    STATUS_WORDS,
    STEP_LABELS,
    STEP_VALUES,
    VJP,
    WORDS,
    predict,
    step,
    vjp,
)
from .elastic import LEAST, Elastic, stretch
from .engine import Engine
from .epoch import train
from .program import bind
from .typing import NetworkViewType, TrainerViewType

# Of the matrices of a chunk of `predict`, and of the largest batch that there is room for at first: they stay in the cache.
# At least so many rows: products pack weights for them. Measured on an Intel Xeon with AVX-512, one thread: 4-64-64-2 takes
# 0.63 of the time for chunks of 2^18 instead of 2^21 elements, 784-1024-1024-10 takes 0.6 for 192 rows instead of 64.
CHUNK_ELEMENTS = 1 << 18
CHUNK_ROWS = 192
FIRST_AHEAD, MOST_AHEAD = 16, 4096  # steps whose rates a schedule is asked for at once


def room(plan: Plan) -> int:
    """Rows that a view begins with."""
    return max(LEAST, CHUNK_ROWS, CHUNK_ELEMENTS // sum(buffer.columns for buffer in plan.buffers))


class View:
    """What views have in common: words for compiled code, and memory that lives as long as they do.

    Attributes
    ----------
    grads : the gradients that a view writes, by the names of the parameters
    """

    def __init__(self, arena: Arena, shared: Shared):
        self._arena, self._plan, self._shared, self.grads = arena, arena.plan, shared, shared.grads
        self._records: dict[int, tuple[NDArray[np.int64], Any]] = {}
        self._words = np.zeros(WORDS, np.int64)
        self._grow = _callback(self, "_try_to_grow", ctypes.c_int64)
        self._words[[LEASE, N_IN, N_OUT]] = (
            address(shared.lease),
            self._plan.input.columns,
            self._plan.output.columns,
        )
        self._words[GROW] = _entry(self._grow)
        self._most_predicted = room(self._plan)
        self._grow_to(self._most_predicted)
        self._place = address(self._words)

    @property
    def address(self) -> int:
        """Of the words, which is what compiled code gets."""
        return self._place

    def _try_to_grow(self, rows: int) -> None:
        """Make room for this many rows, for compiled code, which looks by itself whether there is."""
        with contextlib.suppress(MemoryError):
            self._grow_to(rows)

    def _grow_to(self, rows: int) -> None:
        """Make room for this many rows, and then some, for the next time."""
        most = max(rows, self._most_predicted, int(self._words[MOST]) * 3 // 2)
        self._words[MOST] = 0  # what is interrupted now is done again before the next call
        self._arena.reserve(most)
        self._bind(most)
        self._words[MOST] = most

    def _bind(self, most: int) -> None:
        """Write the records of the calls."""
        raise NotImplementedError

    def _set(self, slot: int, call: Kernel, keeps: Any, **operands: Any) -> None:
        """Write the record of a call, where it was before."""
        packed = np.frombuffer(call.record(self._arena.dtype, **operands), np.int64)
        record, _ = self._records.setdefault(slot, (packed.copy(), None))
        record[...] = packed
        self._records[slot] = record, keeps
        self._words[slot : slot + 2] = call.address(self._arena.dtype), address(record)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{type(self).__name__}: it holds addresses of memory and cannot be copied or pickled; copy or save the "
            "network, and make a new view"
        )


def _callback(view: View, method: str, *kinds: Any) -> Any:
    """A method of a view as a C function, which takes the interpreter lock. It does not hold the view, which holds it."""
    held = weakref.ref(view)

    def call(*arguments: int) -> None:
        getattr(held(), method)(*arguments)

    return ctypes.CFUNCTYPE(None, *kinds)(call)


def _entry(callback: Any) -> int:
    """The address of a C function."""
    place: int = ctypes.cast(callback, ctypes.c_void_p).value or 0
    return place


class NetworkView(View):
    """A network in compiled code: ``view.predict(x, out=None)`` and ``view.vjp(x, dy, dx=None)``; see `Network.jitted`.

    Attributes
    ----------
    flat_params, flat_grads : all parameters, and the gradients that `vjp` writes, as arrays in one dimension, which may have
        gaps of zeros; also in compiled code
    """

    def __init__(self, plan: Plan, shared: Shared):
        self.flat_params, self.flat_grads = shared.params, shared.flat_grads
        self._numba_type_ = NetworkViewType(FLOATS[shared.params.dtype.name])
        super().__init__(Arena(plan, shared.params, shared.flat_grads), shared)
        self._held = [
            self._lend(slot, flat)
            for slot, flat in ((FLAT_PARAMS, self.flat_params), (FLAT_GRADS, self.flat_grads))
        ]

    def _lend(self, slot: int, flat: NDArray[Any]) -> Any:
        """Let compiled code make arrays of a buffer; what counts them holds the buffer."""
        place = address(flat)
        held = _nrt_python.meminfo_new(place, flat)
        self._words[slot : slot + 3] = place, flat.size, held
        return MemInfo(held)

    def _bind(self, most: int) -> None:
        arena, plan = self._arena, self._plan

        def bound(*sections: list[AnyCall]) -> Elastic:
            def ops(rows: int) -> Iterable[Iterable[Op]]:
                at = arena.binding(rows)
                return [[bind(call, at) for call in calls] for calls in sections]

            return stretch(ops, most)

        evaluation, there_and_back = (
            bound(plan.evaluation),
            bound(plan.forward, [*plan.backward, *plan.gradients]),
        )
        of_both = {
            "team": team().memory, "scratch_at": arena.scratch(1), "n_in": plan.input.columns,
            "n_out": plan.output.columns, "size": arena.dtype.itemsize, "input": arena.view(plan.input, most),
            "rows": 0, "x": 0, "x_row": 0, "x_column": 0,
        }  # fmt: skip
        self._set(
            PREDICT, predict, evaluation, **of_both, program=evaluation.words, most=self._most_predicted,
            output=arena.view(plan.output, most), y=0, y_row=0, y_column=0,
        )  # fmt: skip
        assert plan.input_gradient is not None  # a network's own plan has it
        self._set(
            VJP, vjp, there_and_back, **of_both, program=there_and_back.words,
            slope=arena.view(plan.output_gradient, most), input_slope=arena.view(plan.input_gradient, most),
            counter=arena.samples, seen=self._shared.seen, dy=0, dy_row=0, dy_column=0, dx=0, dx_row=0, dx_column=0,
        )  # fmt: skip


class TrainerView(View):
    """Training in compiled code: ``view.step(x, y)`` gives the loss; see `Trainer.jitted`."""

    def __init__(
        self, plan: Plan, shared: Shared, targets: Sequence[Targets], update: Update, clip_norm: float | None,
        rates: Callable[[int], NDArray[np.float64]], watched: Callable[[], object],
    ):  # fmt: skip
        engine = Engine(plan, shared.params, shared.flat_grads, threads=1)
        self._kinds = [(kind, engine.training(kind.call, update, clip_norm)) for kind in targets]
        self._steps = update.counter
        self._rates_of, self._watched, self._watched_last = rates, watched, watched()
        self._rates, self._ahead = np.zeros(RATE_WORDS, np.int64), FIRST_AHEAD
        self._ask = _callback(self, "_ask_rates")
        self._status, self._value = np.zeros(STATUS_WORDS, np.int64), np.zeros(1)
        self._numba_type_ = TrainerViewType(FLOATS[engine.dtype.name])
        super().__init__(engine.arena, shared)

    @property
    def address(self) -> int:
        """Of the words. Asked for when the view gets into compiled code: another rate or schedule is heeded from then on."""
        if (now := self._watched()) != self._watched_last:
            self._watched_last = now
            self._rates[RATE_TO] = 0
        return self._place

    def _ask_rates(self) -> None:
        """Find out the rates of the next steps, of more of them each time."""
        first = self._steps.item()
        try:
            known = self._rates_of(self._ahead)
        except Exception:  # a schedule that knows no more steps
            known = self._next_rate()
        self._ahead = min(2 * self._ahead, MOST_AHEAD)
        self._known = known
        self._rates[:] = first, first + len(known), address(known)

    def _next_rate(self) -> NDArray[np.float64]:
        """The rate of the next step alone; NaN, which no step is taken with, where the schedule raises an exception."""
        try:
            return self._rates_of(1)
        except Exception:
            return np.full(1, np.nan)

    def _bind(self, most: int) -> None:
        for targets, training in self._kinds:
            program, record, keeps = training.elastic_step(most, targets.labels)
            plan, arena, among = self._plan, self._arena, targets.among
            self._set(
                STEP_LABELS if targets.labels else STEP_VALUES, step, (record, keeps),
                program=program.words, job=train.address(arena.dtype), training=record,
                batch_x=arena.view(plan.input, most), batch_y=address(arena.target), n_in=plan.input.columns,
                n_out=plan.output.columns, size=arena.dtype.itemsize, labels=int(targets.labels),
                row_weight=targets.row_weight, weights=targets.class_weight, ignored=targets.ignored,
                checked=int(among is not None), low=-math.inf if among is None else among.low,
                high=math.inf if among is None else among.high, steps=self._steps, seen=self._shared.seen,
                rates=self._rates, ask_rates=_entry(self._ask), status=self._status, value=self._value,
                rows=0, x=0, x_row=0, x_column=0, y=0, y_row=0, y_column=0, y_size=0,
            )  # fmt: skip
