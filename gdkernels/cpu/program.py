"""From a plan to a program: each call becomes an op, a kernel's address and a record of addresses and sizes."""

import math
from dataclasses import dataclass, field

import numpy as np

from ..plan import Buffer, Call, Gradient, Parameter
from . import activation, dropout, gemm, linear, norm
from .epoch import OP
from .team import address, float_bits

RECORD = 24  # words kept for the record of an op
COLUMNS = 16  # columns of a parameter's gradient that stay together: a cache line of float32


@dataclass
class Program:
    """Sections of ops in memory: `table` holds their addresses, in the order in which they were added."""

    table: np.ndarray
    memory: list[np.ndarray] = field(default_factory=list)


class Binder:
    """Turns calls into ops, for one set of buffers.

    `places` maps the names of buffers to addresses, `params` and `grads` are the addresses of the flat buffers, `zeros`
    that of a row of zeros and `counter` that of the number of samples seen.
    """

    def __init__(self, dtype, places: dict[str, int], params: int, grads: int, zeros: int, counter: int):
        self.dtype, self.places, self.params, self.grads = dtype, places, params, grads
        self.zeros, self.counter = zeros, counter

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

    def ops(self, calls: list[Call], rows: int, accumulate: bool = False):
        """The ops of calls: (kernel, operands after the scratch, total, quantum)."""
        for call in calls:
            yield getattr(self, f"_{call.kernel}")(rows, accumulate, *call.operands)

    def _product_start(self, matrix, columns: int):
        """What a product begins with: a matrix to add to, or zero."""
        return (self.zeros, 0, 0) if matrix is None else (self.word(matrix), columns, 1)

    def _linear(self, rows, _, x, w, b, z, a, kind, n_in, n_out):
        word = self.word
        init = (word(b), 1) if b is not None else (self.zeros, 0)
        act = 0 if kind == "identity" else activation.FORWARD[kind].address(self.dtype.name)
        before = word(a if z is None else z)
        operands = (word(x), n_in, 1, word(w), n_out, 1, *init, before, act, word(a), n_in, n_out)
        return linear.forward, operands, rows, gemm.ROWS

    def _linear_dx(self, rows, _, dz, w, dx, add, n_in, n_out):
        word, start = self.word, self._product_start(add, n_in)
        operands = (n_in, n_out, word(dz), n_out, 1, word(w), 1, n_out, *start, word(dx), n_in)
        return gemm.product, operands, rows, gemm.ROWS

    def _linear_dw(self, rows, accumulate, x, dz, dw, n_in, n_out):
        word, start = self.word, self._product_start(dw if accumulate else None, n_out)
        operands = (n_out, rows, word(x), 1, n_in, word(dz), n_out, 1, *start, word(dw), n_out)
        return gemm.product, operands, n_in, gemm.ROWS

    def _bias_gradient(self, rows, accumulate, dz, db, n):
        return activation.column_sums, (self.word(dz), self.word(db), rows, n, int(accumulate)), n, COLUMNS

    def _activation(self, rows, _, z, a, kind, n):
        code = activation.FORWARD[kind].address(self.dtype.name)
        return activation.forward_rows, (code, self.word(z), self.word(a), n), rows, gemm.ROWS

    def _activation_backward(self, rows, _, da, saved, dz, kind, n):
        code = activation.BACKWARD[kind].address(self.dtype.name)
        operands = (code, self.word(da), self.word(saved), self.word(dz), n)
        return activation.backward_rows, operands, rows, gemm.ROWS

    def _dropout(self, rows, _, x, out, n, p, seed):
        operands = (self.word(x), self.word(out), n, float_bits(p), seed, self.counter, 0)
        return dropout.rows, operands, rows, gemm.ROWS

    def _add(self, rows, _, *operands):
        return norm.add_rows, tuple(map(self.word, operands)), rows, gemm.ROWS

    def _layernorm(self, rows, _, *operands):
        return norm.layernorm_rows, tuple(map(self.word, operands)), rows, gemm.ROWS

    def _layernorm_dx(self, rows, _, *operands):
        return norm.layernorm_dx_rows, tuple(map(self.word, operands)), rows, gemm.ROWS

    def _rmsnorm(self, rows, _, *operands):
        return norm.rmsnorm_rows, tuple(map(self.word, operands)), rows, gemm.ROWS

    def _rmsnorm_dx(self, rows, _, *operands):
        return norm.rmsnorm_dx_rows, tuple(map(self.word, operands)), rows, gemm.ROWS

    def _layernorm_gradients(self, rows, accumulate, *operands):
        *pointers, n = operands
        return norm.layernorm_gradients, (*map(self.word, pointers), rows, n, int(accumulate)), n, COLUMNS

    def _rmsnorm_gradients(self, rows, accumulate, *operands):
        *pointers, n = operands
        return norm.rmsnorm_gradients, (*map(self.word, pointers), rows, n, int(accumulate)), n, COLUMNS


def lay_out(sections, scratch: int, dtype) -> Program:
    """Put sections of ops into memory."""
    program = Program(np.zeros(max(4, len(sections)), np.int64))
    for place, ops in enumerate(sections):
        ops = list(ops)
        records = np.zeros((max(1, len(ops)), RECORD), np.int64)
        section = np.zeros(1 + OP * len(ops), np.int64)
        section[0] = len(ops)
        for index, (kernel, operands, total, quantum) in enumerate(ops):
            records[index, 0] = scratch
            records[index, 1 : 1 + len(operands)] = operands
            record = address(records) + index * records.strides[0]
            section[1 + OP * index : 1 + OP * (index + 1)] = (
                kernel.address(dtype.name),
                record,
                total,
                quantum,
            )
        program.memory += [records, section]
        program.table[place] = address(section)
    return program


def blocks_of(shape: tuple[int, ...], block: int) -> int:
    """How many blocks of `block` elements an array of this shape is cut into."""
    return -(-math.prod(shape) // block)
