"""How long something takes, on the GPU and on the wall.

On the GPU: the calls of a block are queued behind work that keeps the GPU busy for a while (the stall), so that the GPU
finds them all there and runs them one behind the other. Between two events then lies the GPU's time, whatever the host needs
for a launch: our own kernels, cuBLAS and PyTorch are treated alike. A block whose first event was reached before its last
call was queued is repeated behind a longer stall.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Block, Left
from ..rounds import Samples, compare

ROUNDS = 25  # at most
BLOCK = 2e-3  # seconds of the GPU in a block
MOST_CALLS = 50  # in a block: the queue must hold them all
SHORT_STALL, LONG_STALL = 1e-3, 30e-3
WARM_UP = 0.3  # seconds until the GPU has its clocks up
WALL_BLOCK = 0.15  # seconds

Call = Callable[[], object]
Units = Callable[[int], object]


class Blind:
    """Takes the place of a `Stopwatch` where times mean nothing: everything is run once."""

    def __init__(self, wait: Call):
        self._wait = wait

    def compare(self, contestants: dict[str, Call], seconds: float) -> dict[str, Samples]:
        for run in contestants.values():
            run()
        self._wait()
        return {}

    def compare_on_the_wall(self, contestants: dict[str, Units], seconds: float) -> dict[str, Samples]:
        for run in contestants.values():
            run(1)
        return {}


class Stopwatch:
    """Times work that is launched on a stream. `busy()` launches there what the stalls consist of, again and again."""

    def __init__(self, stream: int, busy: Call, wait: Call):
        self._wait, self._gpu, self._wall = wait, Events(stream, busy, wait), Wall(wait)

    def compare(self, contestants: dict[str, Call], seconds: float) -> dict[str, Samples]:
        """Seconds of the GPU for one call of each contestant, in rounds that last about so long together."""
        for run in contestants.values():
            run()  # compiles, loads, allocates
        self._wait()
        stalled = {name: Stalled(run, self._gpu.shortest) for name, run in contestants.items()}
        return compare(stalled, ROUNDS, BLOCK, _lasting(seconds), self._gpu)

    def compare_on_the_wall(self, contestants: dict[str, Units], seconds: float) -> dict[str, Samples]:
        """Seconds that pass for one of the `count` units of ``run(count)``, which returns when they are done."""
        for run in contestants.values():
            run(1)
        return compare(contestants, ROUNDS, WALL_BLOCK, _lasting(seconds), self._wall)


def _lasting(seconds: float) -> Left:
    end = time.perf_counter() + seconds
    return lambda: end - time.perf_counter()


# ---------------------------------------------------------------------------------------------- the clocks


@dataclass
class Stalled:
    """A contestant, and behind how many stalls its blocks are queued."""

    run: Call
    stalls: int


class Events:
    """The GPU's clock."""

    most = MOST_CALLS

    def __init__(self, stream: int, busy: Call, wait: Call):
        from gdkernels.cuda.runtime import driver

        self._stream, self._busy = stream, busy
        self._start, self._stop = driver.Event(), driver.Event()
        end = time.perf_counter() + WARM_UP
        while time.perf_counter() < end:
            busy()
            wait()
        self._start.record(stream)
        for _ in range(5):
            busy()
        self._stop.record(stream)
        self._stall = max(self._stop.since(self._start) / 5, 1e-6)
        self.shortest = max(1, round(SHORT_STALL / self._stall))

    def seconds(self, contestant: Stalled, times: int) -> float:
        return self.block(contestant, times).seconds

    def block(self, contestant: Stalled, times: int, left: Left | None = None) -> Block:
        """Dirty where the GPU may have waited for the host, even behind the longest stall."""
        thrown_away = 0
        while True:
            for _ in range(contestant.stalls):
                self._busy()
            contestant.run()  # brings into the caches what the stall has driven out
            self._start.record(self._stream)
            for _ in range(times):
                contestant.run()
            self._stop.record(self._stream)
            late = self._start.is_reached()
            seconds = self._stop.since(self._start)
            if not late or contestant.stalls * self._stall > LONG_STALL:
                return Block(seconds, thrown_away, late)
            contestant.stalls *= 2
            thrown_away += 1


class Wall:
    """The wall's clock, from a GPU that has nothing to do."""

    most = 1 << 20

    def __init__(self, wait: Call):
        self._wait = wait

    def seconds(self, contestant: Units, times: int) -> float:
        self._wait()
        start = time.perf_counter()
        contestant(times)
        return time.perf_counter() - start

    def block(self, contestant: Units, times: int, left: Left) -> Block:
        return Block(self.seconds(contestant, times))
