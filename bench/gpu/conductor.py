"""Runs the sections in processes of their own, gathers what they tell, and keeps the time.

One that does not end is killed. One that dies in an item goes on with the next item in a new process.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..plan import schedule
from ..process import Failed, Late, Process
from ..record import Section
from . import SECTIONS
from .rows import line

GRACE = 10.0  # seconds beyond its time until a section is killed
MOST_PROCESSES = 8  # of a section


class Conductor:
    """Runs sections, all of them within `seconds`.

    `lab` are the options of `lab.Lab` but its seconds; `label` is added to each row; `say` prints; `command` is that of the
    worker.
    """

    def __init__(
        self,
        seconds: float,
        lab: dict[str, Any],
        label: dict[str, str],
        say: Callable[[str], None] = print,
        command: tuple[str, ...] = (sys.executable, "-m", "bench.gpu.worker"),
    ):
        self._end = time.monotonic() + seconds
        self._lab, self._label, self._say, self._command = lab, label, say, command

    def run(self, names: list[str]) -> Iterator[tuple[str, Section]]:
        """The sections, in this order, each as soon as it is done."""
        for name, end in schedule(SECTIONS, names, self._end):
            self._say(f"\n== {name}")
            yield name, self._section(name, end)

    def _section(self, name: str, end: float) -> Section:
        section, skip = Section(), 0
        for _ in range(MOST_PROCESSES):
            number = self._process(name, section, skip, end)
            if number is None:
                return section
            skip = number + 1
        self._say(section.fail(name, f"{MOST_PROCESSES} processes died; the rest was not run"))
        return section

    def _process(self, name: str, section: Section, skip: int, end: float) -> int | None:
        """Run the items from `skip` on; the number of the item in which the process died, or None if it ended well or
        must not be repeated."""
        lab = {**self._lab, "seconds": end - time.monotonic()}
        item, number, told = "start", None, False
        with Process(self._command, {"section": name, "lab": lab, "skip": skip}) as process:
            while True:
                try:
                    message = process.told(end + GRACE - time.monotonic())
                except Late:
                    why = "it did not end in time and was killed; what follows was not run"
                    self._say(section.fail(item, why))
                    return None
                except Failed as error:
                    if not told:
                        self._say(section.fail(item, str(error)))
                    return number
                if "end" in message:
                    return None
                if "item" in message:
                    item, number, told = message["item"], message["number"], False
                elif "row" in message:
                    section.rows.append(message["row"] | self._label)
                    self._say(line(message["row"]))
                elif "failed" in message:
                    self._say(section.fail(item, message["failed"]))
                    told = True
                elif "cut" in message:
                    section.cut += message["cut"]
                    self._say(f"cut, for want of time: {', '.join(message['cut'])}")
