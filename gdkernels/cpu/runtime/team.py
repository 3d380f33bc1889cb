"""Persistent threads that run one kernel together.

Worker 0 is the calling thread; the others are Python threads that live in native code, without the interpreter lock.
A job is a kernel of a worker and their number, ``entry(record, worker, workers, 0)``. Workers find it by watching a counter,
first spinning, then giving way to other processes, and after some milliseconds they sleep until they are woken. Inside a job
they meet at `wait`, a barrier that spins a bounded time and then gives way, so that a busy machine slows it down but never
stops it.
"""

import ctypes
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import llvmlite.binding as llvm
import numpy as np

from .dispatch import address, dispatcher
from .jit import Op, inlined, kernel, native
from .layout import Int
from .machine import HAS_CLOCK, MOST_WORKERS, threads_at_first
from .memory import PAGE, aligned_zeros, next_page
from .scratch import SCRATCH_BYTES, own_scratch
from .simd import (
    address_of_bytes,
    atomic_add,
    atomic_load,
    atomic_store,
    give_way,
    int64_at,
    invoke,
    nanoseconds,
    offset,
    relax,
)

__all__ = ["get_threads", "set_threads"]

_libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.windll.kernel32
_yield = _libc.sched_yield if os.name == "posix" else _libc.SwitchToThread
llvm.add_symbol("gdkernels.yield", ctypes.cast(_yield, ctypes.c_void_p).value)
if HAS_CLOCK:
    llvm.add_symbol("gdkernels.clock", ctypes.cast(_libc.clock_gettime, ctypes.c_void_p).value)
    llvm.add_symbol("gdkernels.nap", ctypes.cast(_libc.usleep, ctypes.c_void_p).value)
_core = getattr(_libc, "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None  # Linux

# The team's memory, in int64 words; whatever several threads write has a cache line (8 words) of its own. JOB is
# (number of the job) · 2^COUNT_BITS + (workers that take part): one word, so that a worker never joins a job by the
# count of the next one.
ARRIVED, GENERATION, JOB, DONE, ENTRY, RECORD = 0, 8, 16, 24, 32, 33
LATE = 40  # nanoseconds of this job that workers have waited at barriers after they had begun to give way
PARKED = 48  # one line a worker
COUNT_BITS = 9

SPIN = 4000  # turns of a spin loop before giving way: about 50 microseconds
LINGER = 12000  # turns after which an idle worker goes to sleep: some milliseconds when the machine is free,
LINGER_TIME = 3_000_000  # or nanoseconds: giving way to others on a busy machine takes milliseconds a turn

WORTH_SHARING = 50_000  # nanoseconds of one core below which a second thread costs more than it brings


@inlined
def share(total, quantum, worker, workers):
    """Where the part of `worker` begins when `total` items are dealt out in multiples of `quantum`."""
    units = (total + quantum - 1) // quantum
    return min(total, units * worker // workers * quantum)


@native("i8*, i8")
def wait(team, workers):
    """The barrier: return when all workers have called it."""
    if workers == 1:
        return
    generation = atomic_load(offset(team, GENERATION))
    if atomic_add(offset(team, ARRIVED), 1) == workers - 1:
        atomic_store(offset(team, ARRIVED), 0)
        atomic_store(offset(team, GENERATION), generation + 1)
        return
    turns, began = 0, 0
    while atomic_load(offset(team, GENERATION)) == generation:
        relax()
        turns += 1
        if turns == SPIN:
            began = nanoseconds()
        elif turns > SPIN:
            give_way()
    if turns > SPIN:
        atomic_add(offset(team, LATE), nanoseconds() - began)


@native("i8*, i8, i8 -> i8")
def serve(team, worker, last):
    """Do the jobs posted after `last` (a value of JOB); return the last one when there is none for some time."""
    turns, began = 0, 0
    while turns < LINGER:
        job = atomic_load(offset(team, JOB))
        if job == last:
            relax()
            turns += 1
            if turns == SPIN:
                began = nanoseconds()
            elif turns > SPIN:
                give_way()
                if nanoseconds() - began > LINGER_TIME:
                    return last
            continue
        last = job
        turns = 0
        workers = job & ((1 << COUNT_BITS) - 1)
        if worker < workers:
            invoke(team[ENTRY], team[RECORD], worker, workers, 0)
            atomic_add(offset(team, DONE), 1)
    return last


@native("i8*, i8, i8, i8")
def post(team, entry, record, workers):
    """Tell the workers what to do."""
    team[ENTRY] = entry
    team[RECORD] = record
    atomic_store(offset(team, DONE), 0)
    atomic_store(offset(team, LATE), 0)
    number = atomic_load(offset(team, JOB)) >> COUNT_BITS
    atomic_store(offset(team, JOB), ((number + 1) << COUNT_BITS) + workers)


@native("i8*, i8")
def join(team, workers):
    """Do worker 0's part of the posted job and wait for the others."""
    invoke(team[ENTRY], team[RECORD], 0, workers, 0)
    turns = 0
    while atomic_load(offset(team, DONE)) != workers - 1:
        relax()
        turns += 1
        if turns > SPIN:
            give_way()


@kernel
def do_part(entry: Int, record: Int, total: Int, quantum: Int, scratches: Int, worker, workers):
    """The job of one shared op: each worker does its part of the op's range, with working memory of its own."""
    first, last = share(total, quantum, worker, workers), share(total, quantum, worker + 1, workers)
    if first < last:
        invoke(entry, record, first, last, scratches + worker * SCRATCH_BYTES)


for _native in (wait, serve, post, join, do_part, own_scratch):
    _native.address()  # compiled code below finds them by symbol


@dispatcher()
def _run_alone(entry, record, total):
    """Call a kernel on a record, in this thread; whether there was working memory for it."""
    scratch = own_scratch(SCRATCH_BYTES)
    if scratch == 0:
        return False
    invoke(entry, address_of_bytes(record), 0, total, scratch)
    return True


@dispatcher()
def invoke_alone(entry, record, start, stop):
    """Call a job on the record at an address, in this thread."""
    invoke(entry, record, start, stop, 0)


@dispatcher("int64(int64, int64, int64)")
def _serve(team, worker, last):
    return serve(int64_at(team), worker, last)


@dispatcher("int64(int64, int64, int64, int64)")
def _post(team, entry, record, workers):
    """Post a job; tell whether a worker that should take part is asleep."""
    post(int64_at(team), entry, record, workers)
    asleep = 0
    for worker in range(1, workers):
        asleep += atomic_load(offset(int64_at(team), PARKED + 8 * worker))
    return asleep


@dispatcher("void(int64, int64)")
def _join(team, workers):
    join(int64_at(team), workers)


@dispatcher("int64(int64, int64, int64, int64)")
def _park(team, worker, last, parked):
    """Set a worker's asleep flag; tell whether no job was posted since."""
    atomic_store(offset(int64_at(team), PARKED + 8 * worker), parked)
    return 1 if atomic_load(offset(int64_at(team), JOB)) == last else 0


def _keep_away(caller: int, worker: int) -> None:
    """Move this thread to a core of its own; afterwards the system may move it wherever this process may run.

    A thread starts, and wakes, on the core of the one that wakes it. Both then spin there by turns, and it can take long
    until the system moves one of them.
    """
    if caller < 0:
        return
    allowed = os.sched_getaffinity(0)
    others = sorted(allowed - {caller})
    if others:
        os.sched_setaffinity(0, {others[(worker - 1) % len(others)]})
        os.sched_setaffinity(0, allowed)


class Team:
    """The workers of this process. Workers are started when they are first needed."""

    def __init__(self):
        self.lock = threading.Lock()  # held by the thread whose job is being done
        self.caller = -1  # the core on which that thread ran when a worker had to be started or woken
        self.memory = aligned_zeros(PARKED + 8 * MOST_WORKERS, np.int64)
        self.address = address(self.memory)
        self._wake = [None]
        self._threads = [None]
        self._placing = threading.Lock()  # held while workers are moved
        self._apart = False  # whether they are kept apart
        self._scratch = np.empty(0, np.uint8)

    def forget_workers(self) -> None:
        """Begin anew in a forked child, which has no threads but its own. Engines hold the address of the memory."""
        self.lock = threading.Lock()
        self.memory[:] = 0
        self._wake = [None]
        self._threads = [None]
        self._placing, self._apart = threading.Lock(), False

    def scratch(self, workers: int) -> int:
        """Working memory for this many workers, SCRATCH_BYTES each. To be called with the lock held."""
        if self._scratch.size < workers * SCRATCH_BYTES:
            self._scratch = np.empty(workers * SCRATCH_BYTES + PAGE, np.uint8)
        return next_page(address(self._scratch))

    def run(self, entry: int, record: int, workers: int) -> None:
        """Run the job ``entry(record, worker, workers, worker)`` on every worker. To be called with the lock held."""
        self._start(workers)
        asleep = 1
        try:
            asleep = _post(self.address, entry, record, workers)
        finally:  # the others have begun: a Ctrl-C that is noticed now must wait until the job is done
            self._finish(workers, asleep)

    def _finish(self, workers: int, asleep: int) -> None:
        """Wake those who sleep, if there are any, and do what is left of the posted job."""
        if asleep:
            self.caller = _core() if _core else -1
            for worker in range(1, workers):
                if self.memory[PARKED + 8 * worker]:
                    self._wake[worker].release()
        _join(self.address, workers)

    @contextmanager
    def apart(self, workers: int) -> Iterator[None]:
        """While it lasts, no worker runs on the core where the caller is now. To be called with the lock held.

        Of two that sleep by turns the system thinks that there is room for both on one core.
        """
        self._start(workers)
        allowed = os.sched_getaffinity(0) if _core else set()
        others = sorted(allowed - {_core()}) if _core else []
        moved = []
        try:
            if others:
                with self._placing:
                    self._apart = True
                    for worker in range(1, workers):
                        place = self._threads[worker].native_id
                        moved.append((place, os.sched_getaffinity(place)))
                        os.sched_setaffinity(place, {others[(worker - 1) % len(others)]})
            yield
        finally:
            with self._placing:
                self._apart = False
                for place, before in moved:
                    os.sched_setaffinity(place, before)

    def _start(self, workers: int) -> None:
        """Start those of the workers that have not been started yet."""
        while len(self._wake) < workers:
            worker, last, wake = len(self._wake), int(self.memory[JOB]), threading.Semaphore(0)
            self.caller = _core() if _core else -1
            thread = threading.Thread(
                target=self._live, args=(worker, last, wake), name=f"gdkernels-{worker}", daemon=True
            )
            self._wake.append(wake)
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads
                self._wake.pop()
                self._threads.pop()
                raise

    def _place(self, worker: int) -> None:
        """Move the thread of a worker away from its caller, unless `apart` has done so."""
        with self._placing:
            if not self._apart:
                _keep_away(self.caller, worker)

    def _live(self, worker: int, last: int, wake: threading.Semaphore) -> None:
        self._place(worker)
        while True:
            last = _serve(self.address, worker, last)
            if _park(self.address, worker, last, 1):
                wake.acquire()
                self._place(worker)
            _park(self.address, worker, last, 0)


_team = Team()
_threads = threads_at_first()
MOST_WORK = np.empty(1)  # nanoseconds of an operation that is not shared


def team() -> Team:
    return _team


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_team.forget_workers)


def get_threads() -> int:
    """The largest number of threads that an operation or a training step may use."""
    return _threads


def set_threads(count: int) -> None:
    """Set the largest number of threads that an operation or a training step may use.

    At first it is GDKERNELS_NUM_THREADS or, where that is not set, the number of cores.
    """
    global _threads
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"set_threads: count is {count!r}, expected an integer in [1, {MOST_WORKERS}]")
    _threads = count
    MOST_WORK[0] = WORTH_SHARING if count > 1 else math.inf


set_threads(_threads)


def run(op: Op) -> None:
    """Run a kernel over the range of an op, on several workers when it pays."""
    kernel, dtype, record, total, quantum, work, _, _ = op
    entry = kernel.addresses.get(dtype) or kernel.address(dtype)
    if work > WORTH_SHARING and _threads > 1 and total > quantum and _team.lock.acquire(blocking=False):
        team = _team
        try:
            workers = min(_threads, int(work // (WORTH_SHARING // 2)))
            operands = np.frombuffer(record, np.int64)
            job = do_part.record(
                dtype,
                entry=entry,
                record=address(operands),
                total=total,
                quantum=quantum,
                scratches=team.scratch(workers),
            )
            team.run(do_part.address(), address(np.frombuffer(job, np.int64)), workers)
            return
        finally:
            team.lock.release()
    if total > 0 and not _run_alone(entry, record, total):
        raise MemoryError("gdkernels: no working memory for this thread")


def run_job(entry: int, record: int, workers: int, apart: bool = False) -> None:
    """Run the job at an address, on the record at another, with this many workers, `apart` if they work by turns."""
    if workers == 1:
        invoke_alone(entry, record, 0, 1)
        return
    with _team.lock, _team.apart(workers) if apart else nullcontext():
        _team.run(entry, record, workers)


def run_all(ops) -> None:
    """Run one op after the other."""
    for op in ops:
        run(op)
