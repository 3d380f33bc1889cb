"""The memory of an engine: the matrices of a plan for a number of rows, and what a pass or a step needs besides."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from ...plan import Buffer, Gradient, Operand, Parameter, Plan
from ..binding import Binding
from ..runtime.compilers import compile_all
from ..runtime.dispatch import address
from ..runtime.jit import Op, noted
from ..runtime.memory import LINE, PAGE, aligned_zeros, next_page
from ..runtime.scratch import SCRATCH_BYTES
from .epoch import run_sections, train
from .program import SECTIONS, Program, lay_out

PROGRAMS_KEPT = 32  # one for each kind of pass and number of rows
CLAIMED_BYTES = 8 << 20  # of all parameters, up to which they stay in caches between two steps


class Arena:
    """A network's flat buffers of parameters and gradients, and memory for everything else.

    Attributes
    ----------
    version : grows whenever memory moves; what was bound before is worthless then, and what was told an address
    samples : one int64, the samples seen before the current step
    target : room for the labels or values of a batch
    row_loss : of a batch
    """

    def __init__(self, plan: Plan, params: np.ndarray, grads: np.ndarray):
        self.plan, self.params, self.grads, self.dtype = plan, params, grads, params.dtype
        self.samples = np.zeros(1, np.int64)
        self.version = 0
        self._scratch = np.empty(0, np.uint8)
        self._rows = 0
        self.reserve(1)

    def reserve(self, rows: int) -> bool:
        """Make room for this many rows; tell whether memory moved, and with it the matrices of the last pass were lost."""
        if rows <= self._rows:
            return False
        line = LINE // self.dtype.itemsize
        starts, at = {}, 0
        for buffer in self.plan.buffers:
            starts[buffer.name] = at
            at += -(-rows * buffer.columns // line) * line
        memory = aligned_zeros(at, self.dtype)
        target = aligned_zeros(rows * self.plan.output.columns, np.float64)
        row_loss = aligned_zeros(rows, np.float64)
        # All at once: where there is no memory, everything stays as it was.
        self._starts, self._memory, self._rows = starts, memory, rows
        self.target, self.row_loss = target, row_loss
        self.version += 1
        return True

    def scratch(self, workers: int) -> int:
        """The address of working memory for this many workers."""
        if self._scratch.size < workers * SCRATCH_BYTES:
            self._scratch = np.empty(workers * SCRATCH_BYTES + PAGE, np.uint8)
            self.version += 1
        return next_page(address(self._scratch))

    def view(self, buffer: Buffer, rows: int) -> np.ndarray:
        """The matrix of a buffer."""
        start = self._starts[buffer.name]
        return self._memory[start : start + rows * buffer.columns].reshape(rows, buffer.columns)

    def place(self, operand: Operand, rows: int) -> np.ndarray | None:
        """The array of an operand of a call."""
        match operand:
            case Buffer():
                return self.view(operand, rows)
            case Parameter():
                return _of(self.params, operand)
            case Gradient():
                return _of(self.grads, operand.parameter)
            case None:
                return None

    def binding(self, rows: int, accumulate: bool = False, shared: bool = False) -> Binding:
        """What calls are bound to. `shared`: several workers will share the ops.

        Then a worker that computes the gradient of a parameter also becomes the owner of the parameter's cache lines, which
        the others have read and it will update next.
        """
        behind = 0
        if shared and self.plan.size * self.dtype.itemsize <= CLAIMED_BYTES:
            behind = (address(self.params) - address(self.grads)) // self.dtype.itemsize
        return Binding(self.place, self.samples, rows, accumulate, shared, behind)


def _of(flat: np.ndarray, parameter: Parameter) -> np.ndarray:
    """The view of a parameter in a flat buffer."""
    start = parameter.offset
    return flat[start : start + math.prod(parameter.shape)].reshape(parameter.shape)


class Programs:
    """Bound programs by what they are about; those that were not used for longest are dropped, all when memory moves."""

    def __init__(self, arena: Arena):
        self._arena, self._version = arena, arena.version
        self._programs: dict[tuple, Program] = {}
        self._compiled = False

    def get(self, key: tuple, ops: Callable[[], Iterable[Iterable[Op]]]) -> Program:
        """The program of a key, laid out from `ops` where it is not known."""
        if self._version != self._arena.version:
            self._programs, self._version = {}, self._arena.version
        program = self._programs.pop(key, None)
        if program is None:
            if len(self._programs) >= PROGRAMS_KEPT:
                del self._programs[next(iter(self._programs))]
            if not self._compiled:
                self._compile(ops)
            program = lay_out(ops())
        self._programs[key] = program
        return program

    def _compile(self, ops: Callable[[], Iterable[Iterable[Op]]]) -> None:
        """Compile, by several processes, what the first program needs; others of the same plan need little besides."""
        sections, asked = noted(lambda: [list(section) for section in ops()])
        asked += [(op.kernel, op.dtype) for section in sections for op in section]
        job = train if len(sections) == SECTIONS else run_sections
        compile_all([*asked, (job, self._arena.params.dtype)])
        self._compiled = True
