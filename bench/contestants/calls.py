"""What a contestant does with operations: one after the other, each again and again, and whether it is right."""

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from ..operations import OPERATIONS, Arrays, Verdict, worst
from .turns import Turns

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt


@dataclass
class Calls:
    """`call` does the operation once on `inputs`; `wait` returns when all calls are done.

    `results` gives what the last call wrote, under the names that the operation's verdicts know.
    """

    inputs: Arrays
    call: Callable[[], object]
    results: Callable[[], dict[str, Any]]
    wait: Callable[[], object] = lambda: None

    def run(self, times: int) -> None:
        call = self.call
        for _ in repeat(None, times):
            call()
        self.wait()

    def verdict(self, op: str) -> Verdict:
        """The worst error of a call, which has to be the first: steps of an optimizer change their inputs."""
        self.run(1)
        results = {name: np.asarray(array) for name, array in self.results().items()}
        return worst(OPERATIONS[op].verdicts(self.inputs, results))


Maker = Callable[[tuple[int, ...], str, int], Calls]  # of shape, form and threads


class Series(Turns):
    """A contestant's operations, (op, shape, form) each; `outcome` says how right the first call is."""

    def __init__(
        self, makers: dict[str, Maker], items: Sequence[tuple[str, Sequence[int], str]], threads: int
    ):
        super().__init__(lambda item: makers[item[0]](tuple(item[1]), item[2], threads), items)

    def outcome(self, count: int) -> dict[str, Any]:
        """The worst error of the first call, and its bound; `count` is 1."""
        what, error, bound = self._at_work.verdict(self._item[0])
        return {"what": what, "error": error, "bound": bound}


def keep_memory() -> None:
    """Let this process keep what it frees, so that results which a peer allocates come from memory it used before.

    Our results are written into arrays that are there. Without this, a peer would pay for fresh pages in every call with
    large results, which in a training step it would not. glibc only; elsewhere nothing happens.
    """
    if os.name == "posix" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
