"""A program for any number of rows: what depends on them in its ops is put in place before it is run.

An op knows the number of rows by its total, and by an operand where it sums over them. Both are a + b · rows, as nothing
else of a plan's ops depends on the rows while one worker runs them and the arena stays where it is. So a program is bound
for one row and for two, and where the two differ is written down as a change (place, a, b); bound for the most rows it must
be what the changes say. Native code then takes any batch that it meets, without Python and without a table of programs.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ..runtime.dispatch import address
from ..runtime.jit import Op, native
from ..runtime.simd import int64_at, offset
from .epoch import OP

LEAST = 3  # rows that an arena must have room for, so that it can be found out what depends on them
# Words of a program: the number of rows it is for, its changes and how many, the addresses of its sections. Behind them
# stand the sections, each its number of ops and the ops, and the ops' records.
ROWS, CHANGES, COUNT, SECTIONS, HEAD = 0, 1, 2, 3, 8
CHANGE = 3  # words of a change


class Elastic(NamedTuple):
    """The words of a program, and what they point to."""

    words: np.ndarray
    keeps: tuple

    @property
    def table(self) -> np.ndarray:
        """The addresses of its sections."""
        return self.words[SECTIONS:HEAD]


@native("i8*, i8")
def resize(program, rows):
    """Let a program act on this many rows."""
    if program[ROWS] == rows:
        return
    change = int64_at(program[CHANGES])
    for _ in range(program[COUNT]):
        program[change[0]] = change[1] + rows * change[2]
        change = offset(change, CHANGE)
    program[ROWS] = rows


def stretch(sections: Callable[[int], Iterable[Iterable[Op]]], most: int) -> Elastic:
    """The program of the sections that are given for a number of rows, where the arena has room for `most`."""
    bound = {rows: [list(ops) for ops in sections(rows)] for rows in (1, 2, most)}
    size = sum(1 + OP * len(ops) + sum(len(op.record) for op in ops) // 8 for ops in bound[1])
    words = np.zeros(HEAD + size, np.int64)
    images = {rows: _image(ops, address(words), len(words)) for rows, ops in bound.items()}
    slope = images[2] - images[1]
    if not np.array_equal(images[most], images[1] + (most - 1) * slope):
        raise RuntimeError("stretch: an op depends on the number of rows in another way than a + b · rows")
    places = np.flatnonzero(slope)
    changes = np.stack([places, (images[1] - slope)[places], slope[places]], axis=1)
    words[...] = images[1]
    words[[ROWS, CHANGES, COUNT]] = 1, address(changes), len(changes)
    return Elastic(words, (changes, bound))


def _image(sections: list[list[Op]], start: int, size: int) -> np.ndarray:
    """The words of a program at address `start`."""
    words = np.zeros(size, np.int64)
    at = HEAD
    for number, ops in enumerate(sections):
        words[SECTIONS + number] = start + 8 * at
        words[at] = len(ops)
        op_at, at = at + 1, at + 1 + OP * len(ops)
        for op in ops:
            record = np.frombuffer(op.record, np.int64)
            words[op_at : op_at + OP] = op.kernel.address(op.dtype), start + 8 * at, op.total, op.quantum
            words[at : at + len(record)] = record
            op_at, at = op_at + OP, at + len(record)
    return words
