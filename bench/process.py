"""Processes of ours, seen from outside: started, asked, timed out, and ended.

They tell what happens in lines of JSON (`worker.telling` is their end). Every answer has a time limit: a contestant that
does not answer is killed, and what it says at the end is `Failed`.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import machine
from .contestants import Missing
from .worker import settle

PATIENCE = 60.0  # seconds for an answer
GRACE = 5.0  # seconds to end after stdin is closed


class Failed(Exception):
    """A process failed, hung or died."""


class Late(Failed):
    """A process did not tell anything in time, and was killed."""


class Process:
    """A command at work on a request, its last argument as JSON, until the end of a ``with``, or `close`."""

    def __init__(self, command: tuple[str, ...], request: Any, environment: Mapping[str, str] = os.environ):
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (until close)
        self._process = subprocess.Popen(
            [*command, json.dumps(request)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
            start_new_session=True, env=environment,
        )  # fmt: skip
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def told(self, patience: float, what: str = "say anything") -> dict[str, Any]:
        """What it tells next, `what` in words. Raises Late, or Failed where it has ended."""
        try:
            message = self._messages.get(timeout=max(0.0, min(patience, threading.TIMEOUT_MAX)))
        except queue.Empty:
            kill(self._process)
            raise Late(f"it did not {what} within {patience:.0f} seconds and was killed") from None
        if message is None:
            raise Failed(self._last_words())
        return message

    def tell(self, order: dict[str, Any]) -> None:
        """A line on its stdin. Raises Failed where it has ended."""
        try:
            assert self._process.stdin is not None
            print(json.dumps(order), file=self._process.stdin, flush=True)
        except (BrokenPipeError, ValueError) as error:
            raise Failed(self._last_words()) from error

    def close(self) -> None:
        """End the process, by force if it does not end by itself."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        kill(self._process)
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        """Put what the process says on the queue; None at its end."""
        for line in self._process.stdout or ():
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def _last_words(self) -> str:
        """Why the process ended."""
        status = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines() or ["it said nothing"]
        return f"the process ended with status {status}: {words[-1]}"


class Contestant(Process):
    """A contestant at work on a job, with this many threads.

    Raises Missing where it cannot take part here, Failed where it does not become ready within `patience` seconds.
    `facts` is what it said when it was ready.
    """

    def __init__(
        self,
        name: str,
        job: dict[str, Any],
        threads: int,
        patience: float = PATIENCE,
        command: tuple[str, ...] = (sys.executable, "-m", "bench.worker"),
    ):
        environment = dict(os.environ)
        settle(environment)
        super().__init__(command, {"contestant": name, "job": job, "threads": threads}, environment)
        try:
            message = self._answer(patience, "become ready")
            if "missing" in message:
                raise Missing(message["missing"])
            self.facts: dict[str, Any] = message["ready"]
        except BaseException:
            self.close()
            raise

    def run(self, times: int, patience: float = PATIENCE) -> float:
        """Seconds that this many units take."""
        self.tell({"times": times})
        return float(self._answer(patience, f"do {times} units")["seconds"])

    def outcome(self, count: int, patience: float = PATIENCE) -> dict[str, NDArray[Any]]:
        """What the contestant computes in this many steps, or calls, from the start."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outcome.npz"
            self.tell({"outcome": count, "path": str(path)})
            self._answer(patience, f"give the outcome of {count}")
            with np.load(path) as arrays:
                return dict(arrays)

    def turn(self, number: int, patience: float = PATIENCE) -> None:
        """Go to another case of the job."""
        self.tell({"turn": number})
        self._answer(patience, f"turn to case {number}")

    def cpu_seconds(self) -> float | None:
        """CPU seconds that its threads have used, None where that cannot be read."""
        return machine.cpu_seconds(self._process.pid)

    def _answer(self, patience: float, what: str) -> dict[str, Any]:
        message = self.told(patience, what)
        if "failed" in message:
            raise Failed(message["failed"])
        return message


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, with all that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
