"""Steps inside a function that the user compiles with ``@njit``: a simulation that trains its network as it goes.

Ours twice: written in array operations on tuples of parameters, and by a view of a trainer. Beside them stand the engine's
own epoch, in which a step is what it costs us at least, and the peers as they are called from Python. The first case is a
policy of four inputs and two outputs that learns from one sample at a time; a and d are those of `cases`.
"""

from collections.abc import Iterator

from . import contestants, rounds
from .cases import CASES, Case
from .cast import Cast
from .plan import Plan, Say, cut
from .record import Row
from .training import judge, line, table

__all__ = ["line", "rows"]

SIMULATION = "4-64-64-2, 1"
INSIDE = {
    SIMULATION: Case((4, 64, 64, 2), 1, "tanh", "mse", 256),
    "a": CASES["a"],
    "d": CASES["d"],
}


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each case and contestant, with one thread: compiled functions have no more."""
    missing: set[str] = set()
    listed = [name for name in contestants.NJIT if plan.wants(name)]
    for letter, case in INSIDE.items():
        if plan.clock() >= plan.end:
            yield cut(f"njit {letter}")
            continue
        with Cast(plan, 1, missing) as cast:
            judged = judge(cast, f"njit {letter}", case, listed, "njit")
            yield from cast.failures()
            samples = rounds.compare(cast.at_work, plan.rounds, plan.block, plan.left)
            yield from table(letter, case, 1, cast.at_work, judged, samples)
