"""From a plan to a program: each call becomes an op, a kernel's address and a record of addresses and sizes."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...plan import Buffer, Call, Gradient, Parameter
from .. import activation, dropout, linear, matmul, norm
from ..gemm.product import THIN
from ..gemm.tile import ROWS
from ..runtime.jit import Native
from ..runtime.team import address, float_bits
from .epoch import OP

RECORD = 24  # words kept for the record of an op
SECTIONS = 3  # of the longest program: training's
COLUMNS = 128  # columns of a parameter's gradient that stay together: a multiple of a cache line
TOGETHER = 512  # elements of a small matrix that stay together
WIDE = 64  # columns of a large product that stay together: some panels of every vector width
LARGE = 8 << 20  # bytes of a weight from which its products are dealt out by columns
CLAIMED = 8 << 20  # bytes of all parameters up to which they stay in caches between two steps


class Op(NamedTuple):
    """A kernel, its operands after the scratch, and its range, which is dealt out in multiples of `quantum`.

    `apart`: other workers write what it reads, or read what it writes, so that all meet before and after it.
    """

    kernel: Native
    operands: tuple
    total: int
    quantum: int
    apart: bool = False


@dataclass(frozen=True)
class Deal:
    """How a parameter is dealt out: `items` (rows of a matrix, elements of a vector) of `width` elements each, of which
    `together` stay with one worker. Its gradient, the squares of that and its update are dealt out alike, so that the
    worker that has computed a part of the gradient reads it from its own cache.
    """

    items: int
    together: int
    width: int

    @classmethod
    def of(cls, *shape: int) -> "Deal":
        if len(shape) == 2:
            return cls(shape[0], ROWS * max(1, TOGETHER // (ROWS * shape[1])), shape[1])
        return cls(shape[0], COLUMNS, 1)

    @property
    def blocks(self) -> int:
        """Parts that are not divided any further."""
        return -(-self.items // self.together)

    @property
    def block(self) -> int:
        """Elements of such a part."""
        return self.together * self.width


@dataclass
class Program:
    """Sections of ops in memory: `table` holds their addresses, in the order in which they were added."""

    table: np.ndarray
    memory: list[np.ndarray] = field(default_factory=list)


class Binder:
    """Turns calls into ops, for one set of buffers.

    `places` maps the names of buffers to addresses, `params` and `grads` are the addresses of the flat buffers of `size`
    elements, `zeros` that of a row of zeros and `counter` that of the number of samples seen.
    """

    def __init__(
        self, dtype, places: dict[str, int], params: int, grads: int, size: int, zeros: int, counter: int
    ):
        self.dtype, self.places, self.params, self.grads = dtype, places, params, grads
        self.zeros, self.counter = zeros, counter
        self.also = 0  # how far behind a gradient lies the parameter that is claimed with it
        if size * dtype.itemsize <= CLAIMED:
            self.also = (params - grads) // dtype.itemsize

    def word(self, operand) -> int:
        """An operand of a call as the word that a record holds."""
        if operand is None:
            return 0
        if isinstance(operand, Buffer):
            return self.places[operand.name]
        if isinstance(operand, Parameter):
            return self.params + operand.offset * self.dtype.itemsize
        if isinstance(operand, Gradient):
            return self.grads + operand.parameter.offset * self.dtype.itemsize
        if isinstance(operand, np.ndarray):
            return address(operand)
        if isinstance(operand, float):
            return float_bits(operand)
        return int(operand)

    def ops(self, calls: list[Call], rows: int, accumulate: bool = False, shared: bool = False):
        """The ops of calls. `shared`: several workers will share them.

        Then a worker that computes the gradient of a parameter also becomes the owner of the parameter's cache lines, which
        the others have read and it will update next.
        """
        self.shared = shared
        for call in calls:
            yield Op(*getattr(self, f"_{call.kernel}")(rows, accumulate, *call.operands))

    def _by_columns(self, k: int, n: int) -> bool:
        """Whether a product with a matrix (k, n) is dealt out by columns: the matrix is so large that it takes longer to
        bring it in than to multiply it with a part of the rows. A narrow rest would be added up in another order."""
        return (
            self.shared
            and k * n * self.dtype.itemsize >= LARGE
            and n >= 16 * WIDE
            and not 0 < n % WIDE <= THIN
        )

    def _product_start(self, matrix, columns: int):
        """What a product begins with: a matrix to add to, or zero."""
        return (self.zeros, 0, 0) if matrix is None else (self.word(matrix), columns, 1)

    def _linear(self, rows, _, x, w, b, z, a, kind, n_in, n_out):
        word = self.word
        init = (word(b), 1) if b is not None else (self.zeros, 0)
        act = 0 if kind == "identity" else activation.FORWARD[kind].address(self.dtype.name)
        before = word(a if z is None else z)
        operands = (word(x), n_in, 1, word(w), n_out, 1, *init, before, act, word(a), n_in, n_out)
        if self._by_columns(n_in, n_out):
            return linear.forward_columns, (*operands, rows), n_out, WIDE, True
        return linear.forward, operands, rows, ROWS

    def _linear_dx(self, rows, _, dz, w, dx, add, n_in, n_out):
        word, start = self.word, self._product_start(add, n_in)
        operands = (n_in, n_out, word(dz), n_out, 1, word(w), 1, n_out, *start, word(dx), n_in, 0)
        if self._by_columns(n_out, n_in):
            return matmul.product_columns, (*operands, rows), n_in, WIDE, True
        return matmul.product, operands, rows, ROWS

    def _linear_dw(self, rows, accumulate, x, dz, dw, n_in, n_out):
        word, start = self.word, self._product_start(dw if accumulate else None, n_out)
        also = self.also if self.shared else 0
        operands = (n_out, rows, word(x), 1, n_in, word(dz), n_out, 1, *start, word(dw), n_out, also)
        return matmul.product, operands, n_in, Deal.of(n_in, n_out).together

    def _bias_gradient(self, rows, accumulate, dz, db, n):
        return activation.column_sums, (self.word(dz), self.word(db), rows, n, int(accumulate)), n, COLUMNS

    def _activation(self, rows, _, z, a, kind, n):
        code = activation.FORWARD[kind].address(self.dtype.name)
        return activation.forward_rows, (code, self.word(z), self.word(a), n), rows, ROWS

    def _activation_backward(self, rows, _, da, saved, dz, kind, n):
        code = activation.BACKWARD[kind].address(self.dtype.name)
        operands = (code, self.word(da), self.word(saved), self.word(dz), n)
        return activation.backward_rows, operands, rows, ROWS

    def _dropout(self, rows, _, x, out, n, p, seed):
        operands = (self.word(x), self.word(out), n, float_bits(p), seed, self.counter, 0)
        return dropout.rows, operands, rows, ROWS

    def _add(self, rows, _, *operands):
        return norm.add_rows, tuple(map(self.word, operands)), rows, ROWS

    def _layernorm(self, rows, _, *operands):
        return norm.layernorm_rows, tuple(map(self.word, operands)), rows, ROWS

    def _layernorm_dx(self, rows, _, *operands):
        return norm.layernorm_dx_rows, tuple(map(self.word, operands)), rows, ROWS

    def _rmsnorm(self, rows, _, *operands):
        return norm.rmsnorm_rows, tuple(map(self.word, operands)), rows, ROWS

    def _rmsnorm_dx(self, rows, _, *operands):
        return norm.rmsnorm_dx_rows, tuple(map(self.word, operands)), rows, ROWS

    def _layernorm_gradients(self, rows, accumulate, *operands):
        *pointers, n = operands
        return norm.layernorm_gradients, (*map(self.word, pointers), rows, n, int(accumulate)), n, COLUMNS

    def _rmsnorm_gradients(self, rows, accumulate, *operands):
        *pointers, n = operands
        return norm.rmsnorm_gradients, (*map(self.word, pointers), rows, n, int(accumulate)), n, COLUMNS


def lay_out(sections, scratch: int, dtype) -> Program:
    """Put sections of ops into memory."""
    program = Program(np.zeros(max(SECTIONS, len(sections)), np.int64))
    for place, ops in enumerate(sections):
        ops = list(_with_meetings(ops))
        records = np.zeros((max(1, len(ops)), RECORD), np.int64)
        section = np.zeros(1 + OP * len(ops), np.int64)
        section[0] = len(ops)
        for index, op in enumerate(ops):
            if op is None:
                continue
            records[index, 0] = scratch
            records[index, 1 : 1 + len(op.operands)] = op.operands
            record = address(records) + index * records.strides[0]
            words = (op.kernel.address(dtype.name), record, op.total, op.quantum)
            section[1 + OP * index : 1 + OP * (index + 1)] = words
        program.memory += [records, section]
        program.table[place] = address(section)
    return program


def _with_meetings(ops):
    """The ops, with None wherever all workers have to meet."""
    met = False
    for op in ops:
        if op.apart and not met:
            yield None
        yield op
        met = op.apart
        if met:
            yield None
