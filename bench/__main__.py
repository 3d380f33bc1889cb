"""Steps per second of full training steps against the peers: ``python -m bench [--cases abcde] [--threads 1 2]``.

Each contestant lives in a process of its own and the contestants take turns, block by block, so that a change of the
machine's mood hits all of them; medians and their ratio are reported. A block in which other processes used more than a
tenth of a core is thrown away and counted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from .cases import CASES
from .contestants import CONTESTANTS

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
FOREIGN_SHARE = 0.10  # of a core
RETRIES = 8  # blocks thrown away before a dirty one is taken, and marked


class Contestant:
    """A peer's process, which runs epochs on demand."""

    def __init__(self, name: str, letter: str, threads: int):
        self.name, self.case = name, CASES[letter]
        environment = {
            k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        }
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process lives)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.contestants", name, letter, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment,
        )  # fmt: skip
        words = self.process.stdout.readline().split()
        self.why = "" if words[:1] == ["READY"] else self.last_words()
        self.epochs, self.rates, self.dirty = 1, [], 0

    def last_words(self) -> str:
        """Why the process ended."""
        self.process.wait()
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["it ended without a word"])[-1]

    def run(self) -> float:
        """Seconds of one block."""
        self.process.stdin.write(f"{self.epochs}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def calibrate(self, seconds: float) -> None:
        """Choose the epochs of a block so that it lasts about so long."""
        self.run()
        once = self.run()
        while once < seconds / 4 and self.epochs < 1 << 20:
            self.epochs *= 2
            once = self.run()
        self.epochs = max(1, round(self.epochs * seconds / once))

    def cpu_seconds(self) -> float:
        with open(f"/proc/{self.process.pid}/stat") as file:
            words = file.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def measure(self) -> None:
        """Add a block's steps per second, of a block that other processes left alone if one can be had."""
        for attempt in range(RETRIES + 1):
            busy, own = machine_seconds(), self.cpu_seconds()
            seconds = self.run()
            foreign = (machine_seconds() - busy) - (self.cpu_seconds() - own)
            if foreign <= FOREIGN_SHARE * seconds + 2 / TICKS:
                break
            self.dirty += 1
            if attempt < RETRIES:
                time.sleep(0.1)
        self.rates.append(self.epochs * self.case.batches / seconds)


def machine_seconds() -> float:
    """CPU seconds that all processes together have used."""
    with open("/proc/stat") as file:
        words = [int(word) for word in file.readline().split()[1:]]
    return (sum(words[:3]) + sum(words[5:8])) / TICKS


def compare(letter: str, threads: int, names: list[str], rounds: int, seconds: float) -> None:
    """Print the medians of one case."""
    contestants = []
    for name in names:
        contestant = Contestant(name, letter, threads)
        if contestant.why:
            print(f"{letter} {threads}T {name:16s} skipped: {contestant.why}", flush=True)
        else:
            contestant.calibrate(seconds)
            contestants.append(contestant)
    if not contestants:
        return
    for _ in range(rounds):
        for contestant in contestants:
            contestant.measure()
    ours = statistics.median(contestants[0].rates)
    for contestant in contestants:
        rates = sorted(contestant.rates)
        median = statistics.median(rates)
        print(
            f"{letter} {threads}T {contestant.name:16s} {median:10.1f} steps/s [{rates[0]:.1f} .. {rates[-1]:.1f}]"
            f" {1e6 / median:10.1f} µs/step   {contestants[0].name} is {ours / median:5.2f} ×"
            f"   {contestant.dirty} blocks thrown away",
            flush=True,
        )
        contestant.process.stdin.close()
        contestant.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--cases", default="abcde", help="letters of the cases (abcde)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block")
    parser.add_argument("--peers", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    options = parser.parse_args()
    for letter in options.cases:
        for threads in options.threads:
            compare(letter, threads, options.peers, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
