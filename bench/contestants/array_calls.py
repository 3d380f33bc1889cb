"""What a contestant does with array operations: its users' calls, held against what is right, and repeated by Python.

A library's file has a `Writer` for each operation and makes `CALLS` of them by `writers`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from timeit import Timer
from typing import Any

import numpy as np

from gdkernels.cpu.runtime.memory import aligned_zeros

from ..array_operations import ARRAY_OPERATIONS, GIVEN, IN_PLACE, Values
from ..operations import Verdict, line_up, worst
from .calls import Calls, Maker

Call = Callable[[], Any]
# Of the operation's inputs, and of the arrays for its results, all by name: how the results are allocated, and how they are
# written into the arrays. One alone: how they are written over inputs; or how they are returned, where that is all there is.
Writer = Callable[..., tuple[Call, Call] | Call]

NOTHING = "nothing"  # the loop, and a function that does nothing: what all calls take besides
TRIAL = 1e-3  # seconds


class ArrayCalls(Calls):
    """An array operation in a Python loop, as somebody who uses the library writes it."""

    def __init__(
        self, op: str, shape: tuple[int, ...], form: str, write: Writer, convert: Callable[[np.ndarray], Any]
    ):
        operation = ARRAY_OPERATIONS[op]
        inputs = operation.inputs(shape)
        self._rights = operation.right(inputs)
        arrays = [right for right in self._rights if right.exact.ndim]
        own = {
            name: converted(values, convert, number) for number, (name, values) in enumerate(inputs.items())
        }
        memory = {} if form == IN_PLACE else {
            right.name: convert(aligned_zeros(right.exact.size, np.float32, 12 * number).reshape(right.exact.shape))
            for number, right in enumerate(arrays, len(own))
        }  # fmt: skip
        written = write(**own, **memory)
        call = written[form == GIVEN] if isinstance(written, tuple) else written
        self._written: Values = {}
        if form == IN_PLACE:
            self._written = {right.name: own[right.name] for right in arrays}
        elif form == GIVEN and isinstance(written, tuple):
            self._written = memory
        self._returned = [right.name for right in self._rights if right.name not in self._written]
        super().__init__(inputs, call, lambda: self._written)

    def verdict(self, op: str) -> Verdict:
        returned = self.call()
        values = returned if isinstance(returned, tuple) else (returned,)
        results = self._written | dict(zip(self._returned, values, strict=False))
        return worst(ARRAY_OPERATIONS[op].judge(self.inputs, self._rights, results))


def converted(values: Any, convert: Callable[[np.ndarray], Any], number: int) -> Any:
    """A copy of an array, or of a list of them, as the arrays of a library."""
    if isinstance(values, list):
        return [converted(one, convert, number + 8 * place) for place, one in enumerate(values)]
    return convert(line_up(values, number))


def writers(
    written: Mapping[str, Writer], convert: Callable[[np.ndarray], Any], prepare: Callable[[int], object]
) -> dict[str, Maker]:
    """Makers of these operations; `prepare` sets the number of threads."""

    def make(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
        prepare(threads)
        return ArrayCalls(op, shape, form, written[op], convert)

    return {op: partial(make, op) for op in written} | {NOTHING: nothing}


def nothing(shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """The loop around a function that does nothing."""
    return Calls({}, lambda: None, dict)


def fastest(*ways: Call) -> Call:
    """The quickest of several ways to write the same, which somebody who cares would have found."""
    seconds = []
    for way in ways:
        once = min(Timer(way).repeat(2, 1))  # the first of them loads and allocates
        seconds.append(min(Timer(way).repeat(5, times := max(1, int(TRIAL / once)))) / times)
    return ways[int(np.argmin(seconds))]
