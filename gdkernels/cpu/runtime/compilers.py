"""Several processes that compile at once, because Numba and LLVM let one thread of a process do so at a time.

Whoever knows which native functions will be asked for says so (`compile_all`) before it asks. What is not in the cache is
then compiled by this process and by others that it starts, each of which takes the longest function that is left. They
leave object files in the cache and nothing else; whatever one of them fails at is compiled here, where an error shows.

Such a process runs `serve` and imports nothing of the user's program. It compiles what it reads the names of, until there
is no more to read: so it ends when this process does, however that ends.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from numba.core.compiler_lock import global_compiler_lock

from ... import cache as disk
from .dispatch import is_only_compiling, only_compiles
from .jit import Native, known
from .machine import cpu_count

VARIABLE = "GDKERNELS_COMPILERS"
FIRST_COMPILERS = 3  # that a first step of training is worth
MOST_COMPILERS = 8  # at first: each takes 200 MB while it lives
WORTH_A_COMPILER = 6000  # bytes of Python's code: two seconds, of which a process needs one to begin
IDLE = 3.0  # seconds without work after which a process is let go
PATIENCE = 60.0  # seconds without an answer after which nothing is expected of the processes any more
DONE = b"done\n"

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {__name__} import serve; serve()"
)  # fmt: skip


class Job(NamedTuple):
    """A native function that is to be compiled for an element type.

    `callees` are the symbols of those that it calls and that are not in the cache either; `size` is how many bytes of Python's
    code it consists of, which tells how long it takes.
    """

    native: Native
    variant: str
    callees: frozenset[str]
    size: int

    @property
    def symbol(self) -> str:
        return self.native.symbol(self.variant)


def compilers_at_first() -> int:
    """How many processes compile, this one included: GDKERNELS_COMPILERS or, where that is not set, one a core."""
    given = os.environ.get(VARIABLE)
    if not given:
        return min(cpu_count(), MOST_COMPILERS)
    if not (given.isdecimal() and int(given) >= 1):
        raise ValueError(f"{VARIABLE} is {given!r}, expected an integer ≥ 1")
    return int(given)


def missing(asked: Iterable[tuple[Native, Any]]) -> dict[str, Job]:
    """What must be compiled for these, by symbol: they and all that they call, callees first."""
    jobs: dict[str, Job] = {}
    seen: dict[str, bool] = {}  # whether it is missing

    def visit(native: Native, variant: str) -> bool:
        symbol = native.symbol(variant)
        if symbol not in seen:
            seen[symbol] = False
            names = [
                callee.symbol(callee.variant(variant))
                for callee in native.callees()
                if visit(callee, callee.variant(variant))
            ]
            if not native.is_ready(variant):
                seen[symbol] = True
                jobs[symbol] = Job(native, variant, frozenset(names), native.size())
        return seen[symbol]

    for native, dtype in asked:
        visit(native, native.variant(dtype))
    return jobs


def compile_all(
    asked: Iterable[tuple[Native, Any]],
    compilers: int | None = None,
    told: Callable[[Job, Exception | None], None] | None = None,
) -> None:
    """Compile native functions, and all that they call, by several processes where that is worth their start.

    Parameters
    ----------
    asked : pairs of a function and an element type
    compilers : how many processes, this one included; None for `compilers_at_first`
    told : is called with each that is ready, or with what was wrong with it; None: an error of any ends it here, by raising
        it where that is compiled
    """
    count = compilers_at_first() if compilers is None else compilers
    if count == 1 and told is None:
        return
    with global_compiler_lock:
        jobs = missing(asked)
        worth = sum(job.size for job in jobs.values()) // WORTH_A_COMPILER
        if told is not None or (worth and count > 1):
            _crew.run(jobs, min(count - 1, worth), told)


def call() -> None:
    """Start the processes that a first step of training is worth, since it takes them a second until they can begin."""
    _crew.hire(min(compilers_at_first() - 1, FIRST_COMPILERS))


class Crew:
    """The processes that compile for this one, and what is left to be done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}
        self._away: dict[str, Job] = {}  # at another process
        self._refused: set[str] = set()  # at which another process has failed
        self._ready: list[Job] = []  # done by another process, and not told of
        self._processes: list[subprocess.Popen[bytes]] = []

    # ------------------------------------------------------------------------------------------ this process

    def run(
        self, jobs: dict[str, Job], others: int, told: Callable[[Job, Exception | None], None] | None
    ) -> None:
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
                    job.native.address(job.variant)
                except Exception as error:
                    if told is None:
                        raise
                    wrong = error
                if told is not None:
                    told(job, wrong)
        except BaseException:  # also Ctrl-C
            self.dismiss()
            raise

    def _next(self, told: Callable[[Job, Exception | None], None] | None) -> Job | None:
        """The longest of those whose callees are ready, as soon as there is one; None when everything is done."""
        while True:
            with self._changed:
                ready, self._ready = self._ready, []
                left = self._waiting.keys() | self._away.keys()
                able = [job for job in self._waiting.values() if not job.callees & left]
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
        if is_only_compiling() or not _is_python(sys.executable):
            return
        environment = os.environ | {"GDKERNELS_CACHE_DIR": str(disk.folder())}
        while len(self._processes) < others:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    bufsize=0,
                )
                with self._changed:
                    self._processes.append(process)
                threading.Thread(target=self._lead, args=(process,), name="gdkernels-compiler", daemon=True).start()
            except (OSError, RuntimeError):  # no memory, no such program, no more processes or threads
                return

    def _lead(self, process: "subprocess.Popen[bytes]") -> None:
        """Give one process work while there is any, in a thread of its own."""
        while (job := self._take(process)) is not None:
            answer = b""
            with suppress(OSError, ValueError):  # it is gone
                process.stdin.write(f"{job.native.function.__module__} {job.native.name} {job.variant}\n".encode())  # type: ignore[union-attr]
                answer = process.stdout.readline()  # type: ignore[union-attr]
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

    def forget(self) -> None:
        """Begin anew in a forked child: the processes are not its own, and must not wait for it to end."""
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                os.close(pipe.fileno())  # type: ignore[union-attr]
            process.returncode = 0  # it is not waited for
        self.__init__()  # type: ignore[misc]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close the pipes of a process, which ends it, and wait until it is gone."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            pipe.close()  # type: ignore[union-attr]
    process.wait()


def _is_python(program: str | None) -> bool:
    """Whether a program is an interpreter, and not one that has an interpreter in it."""
    return bool(program) and Path(str(program)).name.startswith("python") and not hasattr(sys, "frozen")


_crew = Crew()
atexit.register(_crew.dismiss)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.forget)


def serve() -> None:
    """Compile what is asked for on the standard input, a line each: its module, its name and its variant."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has started this one
    only_compiles()
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # what anybody prints
        for line in sys.stdin:
            module, name, variant = line.split()
            try:
                importlib.import_module(module)
                known(name).compile(variant)
            except Exception:  # whatever it is, it shows where this is compiled next
                answers.write(b"failed\n")
            else:
                answers.write(DONE)
