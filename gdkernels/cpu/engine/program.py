"""From a plan to a program: each call becomes an op, and the ops of a section lie in memory one after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np

from ...plan import ActivationCall, AnyCall, Dropout, LinearCall, NormCall
from .. import activation, dropout, linear, norm
from ..binding import Binding
from ..runtime.dispatch import address
from ..runtime.jit import Op
from .epoch import OP

SECTIONS = 3  # of the longest program: training's


def bind(call: AnyCall, at: Binding) -> Op:
    """The op of a call."""
    if isinstance(call, LinearCall):
        return linear.bind(call, at)
    if isinstance(call, ActivationCall):
        return activation.bind(call, at)
    if isinstance(call, NormCall):
        return norm.bind(call, at)
    if isinstance(call, Dropout):
        return dropout.bind(call, at)
    assert_never(call)


@dataclass
class Program:
    """Sections of ops in memory: `table` holds their addresses, in the order in which they were added.

    `keeps` is what the table points to, the ops' own arrays among it.
    """

    table: np.ndarray
    keeps: list = field(default_factory=list)


def lay_out(sections: Iterable[Iterable[Op]]) -> Program:
    """Put sections of ops into memory."""
    met = [list(_with_meetings(ops)) for ops in sections]
    program = Program(np.zeros(max(SECTIONS, len(met)), np.int64))
    for place, ops in enumerate(met):
        section = np.zeros(1 + OP * len(ops), np.int64)
        section[0] = len(ops)
        for index, op in enumerate(ops):
            if op is None:
                continue
            record = np.frombuffer(op.record, np.int64)
            words = op.kernel.address(op.dtype), address(record), op.total, op.quantum
            section[1 + OP * index : 1 + OP * (index + 1)] = words
            program.keeps += record, op.keeps
        program.keeps.append(section)
        program.table[place] = address(section)
    return program


def _with_meetings(ops: Iterable[Op]) -> Iterator[Op | None]:
    """The ops, with None wherever all workers have to meet."""
    met = False
    for op in ops:
        if op.apart and not met:
            yield None
        yield op
        met = op.apart
        if met:
            yield None
