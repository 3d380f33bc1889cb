"""Processes that compile for this one, because Numba and LLVM let one thread of a process do so at a time.

What there is to be done are jobs. This process and the others each take the longest job that is left; the others leave
object files in the cache and nothing else, and whatever one of them fails at is done here, where an error shows.

Such a process runs `compilers` and imports nothing of the user's program. It compiles what it reads the names of,
until there is no more to read: so it ends when this process does, however that ends.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ... import cache as disk
from .machine import count_asked_for, cpu_count

FIRST_COMPILERS = 3  # that a first step of training is worth
MOST_COMPILERS = 8  # at first: each takes 200 MB while it lives
IDLE = 3.0  # seconds without work after which a process is let go
PATIENCE = 60.0  # seconds without an answer after which nothing is expected of the processes any more
DONE = b"done\n"

PROGRAM = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"runpy.run_module('{__package__}.compilers', run_name='__main__')"
)

Told = Callable[["Job", Exception | None], None]


class Job(NamedTuple):
    """A function that is to be compiled.

    Attributes
    ----------
    symbol : its name
    request : what another process is told: where it stands, and for which element type
    below : the symbols of what it calls, by however many calls, that is not in the cache either: this process, which runs
        what it compiles, needs that first
    size : tells how long it takes, to be compared with others'
    compile : does it here
    """

    symbol: str
    request: str
    below: frozenset[str]
    size: int
    compile: Callable[[], Any]


def compilers_at_first() -> int:
    """How many processes compile, this one included: GDKERNELS_COMPILERS or, where that is not set, one a core."""
    return count_asked_for("GDKERNELS_COMPILERS", min(cpu_count(), MOST_COMPILERS))


class Crew:
    """The processes that compile for this one, and what is left to be done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}
        self._away: dict[str, Job] = {}  # at another process
        self._refused: set[str] = set()  # at which another process has failed
        self._ready: list[Job] = []  # done by another process, and not told of
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_closed = False  # to other processes

    # ------------------------------------------------------------------------------------------ this process

    def run(self, jobs: dict[str, Job], others: int, told: Told | None) -> None:
        """Do all jobs, with up to so many other processes. To be called with the compiler's lock held."""
        with self._changed:
            self._waiting, self._refused = dict(jobs), set()
            self._changed.notify_all()
        self.hire(others)
        try:
            while True:
                job = self._next(told)
                if job is None:
                    break
                wrong = None
                try:
                    job.compile()
                except Exception as error:
                    if told is None:
                        raise
                    wrong = error
                if told is not None:
                    told(job, wrong)
        except BaseException:  # also Ctrl-C
            self.dismiss()
            raise

    def _next(self, told: Told | None) -> Job | None:
        """The longest of those that stand on nothing that is left, as soon as there is one; None when everything is done."""
        while True:
            with self._changed:
                ready, self._ready = self._ready, []
                left = self._waiting.keys() | self._away.keys()
                able = [job for job in self._waiting.values() if not job.below & left]
                if able:
                    job = max(able, key=lambda one: one.size)
                    del self._waiting[job.symbol]
                elif not ready and left and not self._changed.wait(PATIENCE):
                    self._let_go()
            for done in ready:
                if told is not None:
                    told(done, None)
            if able:
                return job
            if not left:
                return None

    # ------------------------------------------------------------------------------------------ the others

    def hire(self, others: int) -> None:
        """Start processes until there are so many; where it cannot be done, there are fewer."""
        if self._is_closed or not _is_python(sys.executable):
            return
        environment = os.environ | {"GDKERNELS_CACHE_DIR": str(disk.folder())}
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        while len(self._processes) < others:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, paths],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    bufsize=0,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
                )
                with self._changed:
                    self._processes.append(process)
                threading.Thread(
                    target=self._lead, args=(process,), name="gdkernels-compiler", daemon=True
                ).start()
            except (OSError, RuntimeError):  # no memory, no such program, no more processes or threads
                return

    def _lead(self, process: "subprocess.Popen[bytes]") -> None:
        """Give one process work while there is any, in a thread of its own."""
        requests, answers = _pipes(process)
        while (job := self._take(process)) is not None:
            answer = b""
            with suppress(OSError, ValueError):  # it is gone
                requests.write(f"{job.request}\n".encode())
                answer = answers.readline()
            with self._changed:
                if self._away.pop(job.symbol, None) is not None:
                    if answer == DONE:
                        self._ready.append(job)
                    else:
                        self._refused.add(job.symbol)
                        self._waiting[job.symbol] = job
                self._changed.notify_all()
            if not answer:
                break
        with self._changed:
            if process in self._processes:
                self._processes.remove(process)
        _end(process)

    def _take(self, process: "subprocess.Popen[bytes]") -> Job | None:
        """The longest job that is left, as soon as there is one; None after some time, or when the process was dismissed."""
        with self._changed:
            while process in self._processes:
                able = [job for job in self._waiting.values() if job.symbol not in self._refused]
                if able:
                    job = max(able, key=lambda one: one.size)
                    self._away[job.symbol] = self._waiting.pop(job.symbol)
                    return job
                if not self._changed.wait(IDLE):
                    break
            return None

    def _let_go(self) -> None:
        """Expect nothing more of the processes: what they were at is done here."""
        self._waiting |= self._away
        self._refused |= self._away.keys()
        self._away = {}
        processes, self._processes = self._processes, []
        for process in processes:
            process.kill()
        self._changed.notify_all()

    def dismiss(self) -> None:
        """End the processes, and forget what was to be done."""
        with self._changed:
            processes = list(self._processes)
            self._let_go()
            self._waiting, self._ready = {}, []
        for process in processes:
            _end(process)
            for part in disk.folder().glob(f"*.{process.pid}.part"):
                part.unlink(missing_ok=True)

    def close(self) -> None:
        """Start no processes any more."""
        self._is_closed = True

    def forget(self) -> None:
        """Begin anew in a forked child: the processes are not its own, and must not wait for it to end."""
        for process in self._processes:
            for pipe in _pipes(process):
                pipe.close()
            process.returncode = 0  # it is not waited for
        self.__init__()  # type: ignore[misc]


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    """Where its requests go, and where its answers come from."""
    return cast("tuple[IO[bytes], IO[bytes]]", (process.stdin, process.stdout))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close the pipes of a process, which ends it, and wait until it is gone."""
    for pipe in _pipes(process):
        with suppress(OSError):
            pipe.close()
    process.wait()


def _is_python(program: str | None) -> bool:
    """Whether a program is an interpreter, and not one that has an interpreter in it."""
    return bool(program) and Path(str(program)).name.startswith("python") and not hasattr(sys, "frozen")


crew = Crew()
atexit.register(crew.dismiss)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=crew.forget)


def call_others() -> None:
    """Start the processes that a first step of training is worth, since it takes them a second until they can begin."""
    crew.hire(min(compilers_at_first() - 1, FIRST_COMPILERS))
