"""How long something takes, on the GPU and on the wall; contestants take turns.

On the GPU: the calls of a block are queued behind work that keeps the GPU busy for a while (the stall), so that the GPU
finds them all there and runs them one behind the other. Between two events then lies the GPU's time, whatever the host needs
for a launch: our own kernels, cuBLAS and PyTorch are treated alike. A block whose first event was reached before its last
call was queued is repeated behind a longer stall.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 2e-3  # seconds of the GPU in a block
MOST_CALLS = 50  # in a block: the queue must hold them all
SHORT_STALL, LONG_STALL = 1e-3, 30e-3
WARM_UP = 0.3  # seconds until the GPU has its clocks up
ROUNDS = 3, 25
WALL_BLOCK = 0.15  # seconds


@dataclass(frozen=True)
class Samples:
    """Seconds of one call in each round; `late` says in how many of them the GPU had to wait for the host."""

    seconds: tuple[float, ...]
    late: int = 0


@dataclass
class _Turn:
    """A contestant of `Clock.compare`: how often it is called in a block, and behind how many stalls."""

    run: Callable[[], object]
    calls: int = 1
    stalls: int = 1


class Blind:
    """Takes the place of a `Clock` where times mean nothing: everything is run once."""

    def __init__(self, wait: Callable[[], None]):
        self._wait = wait

    def compare(self, contestants: dict[str, Callable[[], object]], seconds: float) -> dict[str, Samples]:
        for run in contestants.values():
            run()
        self._wait()
        return {}

    def compare_on_the_wall(
        self, contestants: dict[str, Callable[[int], object]], seconds: float
    ) -> dict[str, Samples]:
        for run in contestants.values():
            run(1)
        return {}


class Clock:
    """Times work that is launched on a stream. `busy()` launches there what the stalls consist of, again and again."""

    def __init__(self, stream: int, busy: Callable[[], object], wait: Callable[[], None]):
        from gdkernels.cuda.runtime import driver

        self._stream, self._busy, self._wait = stream, busy, wait
        self._start, self._stop = driver.Event(), driver.Event()
        end = time.perf_counter() + WARM_UP
        while time.perf_counter() < end:
            self._busy()
            self._wait()
        self._start.record(stream)
        for _ in range(5):
            self._busy()
        self._stop.record(stream)
        self._stall = max(self._stop.since(self._start) / 5, 1e-6)

    # ------------------------------------------------------------------------------------------ the GPU's time

    def compare(self, contestants: dict[str, Callable[[], object]], seconds: float) -> dict[str, Samples]:
        """Seconds of the GPU for one call of each contestant, in rounds that last about so long together."""
        turns = {name: self._turn(run) for name, run in contestants.items()}
        start = time.perf_counter()
        blocks = {name: [self._block(turn)] for name, turn in turns.items()}
        rounds = _rounds(seconds, time.perf_counter() - start)
        for _ in range(rounds - 1):
            for name, turn in turns.items():
                blocks[name].append(self._block(turn))
        return {
            name: Samples(tuple(each for each, _ in found), sum(late for _, late in found))
            for name, found in blocks.items()
        }

    def _turn(self, run: Callable[[], object]) -> _Turn:
        """Warm up, and choose the length of a block."""
        turn = _Turn(run, stalls=max(1, round(SHORT_STALL / self._stall)))
        run()  # compiles, loads, allocates
        self._wait()
        once, _ = self._block(turn)
        turn.calls = max(1, min(MOST_CALLS, round(BLOCK / max(once, 1e-9))))
        return turn

    def _block(self, turn: _Turn) -> tuple[float, bool]:
        """(seconds of one call, whether the GPU may have waited for the host)."""
        while True:
            for _ in range(turn.stalls):
                self._busy()
            turn.run()  # brings into the caches what the stall has driven out
            self._start.record(self._stream)
            for _ in range(turn.calls):
                turn.run()
            self._stop.record(self._stream)
            late = self._start.is_reached()
            seconds = self._stop.since(self._start) / turn.calls
            if not late or turn.stalls * self._stall > LONG_STALL:
                return seconds, late
            turn.stalls *= 2

    # ------------------------------------------------------------------------------------------ time on the wall

    def compare_on_the_wall(
        self, contestants: dict[str, Callable[[int], object]], seconds: float
    ) -> dict[str, Samples]:
        """Seconds that pass for one of the `count` units of ``run(count)``, which returns when they are done."""
        counts = {name: self._count(run) for name, run in contestants.items()}
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(_rounds(seconds, WALL_BLOCK * len(contestants))):
            for name, run in contestants.items():
                times[name].append(self._once(run, counts[name]) / counts[name])
        return {name: Samples(tuple(each)) for name, each in times.items()}

    def _once(self, run: Callable[[int], object], count: int) -> float:
        self._wait()
        start = time.perf_counter()
        run(count)
        return time.perf_counter() - start

    def _count(self, run: Callable[[int], object]) -> int:
        """Units that last about as long as a block should."""
        self._once(run, 1)
        count, seconds = 1, self._once(run, 1)
        while seconds < WALL_BLOCK / 4 and count < 1 << 20:
            count *= 2
            seconds = self._once(run, count)
        return max(1, round(count * WALL_BLOCK / seconds))


def _rounds(seconds: float, one: float) -> int:
    fewest, most = ROUNDS
    return max(fewest, min(most, int(seconds / max(one, 1e-9))))
