"""A contestant's process, seen from outside: started, asked, timed out, and ended.

Every answer has a time limit. A contestant that does not answer is killed, and what it says at the end is `Failed`.
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
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import machine
from .contestants import Missing
from .worker import OVERRIDES

PATIENCE = 60.0  # seconds for an answer
GRACE = 5.0  # seconds to end after stdin is closed


class Failed(Exception):
    """A contestant failed, hung or died."""


class Contestant:
    """A contestant at work on a job, with so many threads.

    Raises Missing where it cannot take part here, Failed where it does not become ready within `patience` seconds.
    `facts` is what it said when it was ready. Use it in a ``with``.
    """

    def __init__(
        self,
        name: str,
        job: dict[str, Any],
        threads: int,
        patience: float = PATIENCE,
        command: tuple[str, ...] = (sys.executable, "-m", "bench.worker"),
    ):
        self.name = name
        request = json.dumps({"contestant": name, "job": job, "threads": threads})
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (until close)
        self._process = subprocess.Popen(
            [*command, request],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
            start_new_session=True, env={k: v for k, v in os.environ.items() if k not in OVERRIDES},
        )  # fmt: skip
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            message = self._answer(patience, "become ready")
            if "missing" in message:
                raise Missing(message["missing"])
            self.facts: dict[str, Any] = message["ready"]
        except BaseException:
            self.close()
            raise

    def run(self, times: int, patience: float = PATIENCE) -> float:
        """Seconds that so many units take."""
        return float(self._ask({"times": times}, patience, f"do {times} units")["seconds"])

    def outcome(self, count: int, patience: float = PATIENCE) -> dict[str, NDArray[Any]]:
        """What the contestant computes in so many steps, or calls, from the start."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outcome.npz"
            self._ask({"outcome": count, "path": str(path)}, patience, f"give the outcome of {count}")
            with np.load(path) as arrays:
                return dict(arrays)

    def turn(self, number: int, patience: float = PATIENCE) -> None:
        """Go to another case of the job."""
        self._ask({"turn": number}, patience, f"turn to case {number}")

    def cpu_seconds(self) -> float | None:
        """CPU seconds that its threads have used, None where that cannot be read."""
        return machine.cpu_seconds(self._process.pid)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ small things

    def _read(self) -> None:
        """Put what the process says on the queue; None at its end."""
        for line in self._process.stdout or ():
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _ask(self, order: dict[str, Any], patience: float, what: str) -> dict[str, Any]:
        try:
            assert self._process.stdin is not None
            print(json.dumps(order), file=self._process.stdin, flush=True)
        except (BrokenPipeError, ValueError) as error:
            raise Failed(self._last_words()) from error
        return self._answer(patience, what)

    def _answer(self, patience: float, what: str) -> dict[str, Any]:
        try:
            message = self._answers.get(timeout=patience)
        except queue.Empty:
            kill(self._process)
            raise Failed(f"it did not {what} within {patience:.0f} seconds and was killed") from None
        if message is None:
            raise Failed(self._last_words())
        if "failed" in message:
            raise Failed(message["failed"])
        return message

    def _last_words(self) -> str:
        """Why the process ended."""
        status = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines() or ["it said nothing"]
        return f"the process ended with status {status}: {words[-1]}"


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, with all that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
