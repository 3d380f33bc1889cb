"""Runs the sections in processes of their own, gathers what they tell, and keeps the time.

Each section gets its share of the time that is left, so that what one does not need goes to those behind it. One that does
not end is killed. One that dies in an item goes on with the next item in a new process.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..process import kill
from ..record import Section
from . import SECTIONS
from .rows import line

GRACE = 10.0  # seconds beyond its time until a section is killed
MOST_PROCESSES = 8  # of a section


class Conductor:
    """Runs sections within so many seconds together; None: as long as it takes.

    `lab` are the options of `lab.Lab` but its seconds; `label` is added to each row; `say` prints; `command` is that of the
    worker.
    """

    def __init__(
        self,
        seconds: float | None,
        lab: dict[str, Any],
        label: dict[str, str],
        say: Callable[[str], None] = print,
        command: tuple[str, ...] = (sys.executable, "-m", "bench.gpu.worker"),
    ):
        self._end = None if seconds is None else time.monotonic() + seconds
        self._lab, self._label, self._say, self._command = lab, label, say, command

    def run(self, names: list[str]) -> Iterator[tuple[str, Section]]:
        """The sections, in this order, each as soon as it is done."""
        for place, name in enumerate(names):
            self._say(f"\n== {name}")
            share = SECTIONS[name] / sum(SECTIONS[other] for other in names[place:])
            seconds = None if self._end is None else share * (self._end - time.monotonic())
            yield name, self._section(name, seconds)

    def _section(self, name: str, seconds: float | None) -> Section:
        section, skip = Section(), 0
        end = None if seconds is None else time.monotonic() + seconds
        for _ in range(MOST_PROCESSES):
            left = None if end is None else end - time.monotonic()
            number = self._process(name, section, skip, left)
            if number is None:
                return section
            skip = number + 1
        self._fail(section, name, f"{MOST_PROCESSES} processes died; the rest was not run")
        return section

    def _process(self, name: str, section: Section, skip: int, left: float | None) -> int | None:
        """Run the items from `skip` on; the number of the item in which the process died, or None if it ended well or
        must not be repeated."""
        lab = {**self._lab, "seconds": 1e9 if left is None else left}
        request = json.dumps({"lab": lab, "skip": skip})
        item, number, told, ended = "start", None, False, False
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                [*self._command, name, request],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
                start_new_session=True,
            ) as process,
        ):  # fmt: skip
            seconds = threading.TIMEOUT_MAX if left is None else max(left, 0.0) + GRACE
            limit = threading.Timer(seconds, kill, [process])
            limit.daemon = True
            limit.start()
            try:
                for text in process.stdout or ():
                    message = json.loads(text)
                    if "item" in message:
                        item, number, told = message["item"], message["number"], False
                    elif "row" in message:
                        section.rows.append(message["row"] | self._label)
                        self._say(line(message["row"]))
                    elif "failed" in message:
                        self._fail(section, item, message["failed"])
                        told = True
                    elif "cut" in message:
                        section.cut += message["cut"]
                        self._say(f"cut, for want of time: {', '.join(message['cut'])}")
                    ended = ended or "end" in message
                status = process.wait()
            finally:
                late = limit.finished.is_set()
                limit.cancel()
                kill(process)
            if ended:
                return None
            if late:
                self._fail(section, item, "it did not end in time and was killed; what follows was not run")
            elif not told:
                errors.seek(0)
                words = errors.read().strip().splitlines() or [""]
                self._fail(section, item, f"the process ended with status {status}: {words[-1]}")
            return None if late else number

    def _fail(self, section: Section, item: str, why: str) -> None:
        section.failed.append((item, why))
        self._say(f"FAILED {item}: {why}")
