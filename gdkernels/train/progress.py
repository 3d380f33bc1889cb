"""What a training run shows while it runs: a bar on a terminal, plain lines anywhere else.

    shown = progress()
    shown.start(total=20)
    shown.epoch({"train_loss": 0.3, "validation_loss": 0.4, "validation_accuracy": 0.9})
    shown.close()

All of it goes to the standard error stream, so that results alone are on standard output.
"""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from .loss import MEASURES

# A run prints about this many plain lines, however many epochs it has.
MOST_LINES = 20

# The numbers of an epoch's record that are worth a place, and their short names.
SHOWN = {
    "train_loss": "loss",
    "validation_loss": "validation loss",
    **{f"validation_{measure}": label for measure, label in MEASURES.items()},
}


class Progress(Protocol):
    """What `Trainer.fit` calls: `start` once, `epoch` after each epoch, `close` however the run ends."""

    def start(self, total: int) -> None: ...
    def epoch(self, record: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


def progress(shown: bool = True, stream: TextIO | None = None) -> Progress:
    """A bar where `stream` (by default standard error) is a terminal, else lines; silence if not `shown`."""
    stream = sys.stderr if stream is None else stream
    if not shown or stream is None:  # a process can be without standard error
        return Silence()
    return Bar(stream) if stream.isatty() else Lines(stream)


def summary(record: Mapping[str, Any]) -> str:
    """The shown numbers of a record on one line: "loss 0.0314 · accuracy 0.978"."""
    return " · ".join(
        f"{label} {record[key]:.4g}" for key, label in SHOWN.items() if record.get(key) is not None
    )


class Silence:
    """Shows nothing."""

    def start(self, total: int) -> None:
        pass

    def epoch(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """One line for the first, the last and every n-th epoch."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._every = -(-total // MOST_LINES)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._done += 1
        if self._done % self._every == 0 or self._done in (1, self._total):
            width = len(str(self._total))
            print(
                f"epoch {self._done:{width}}/{self._total} · {summary(record)}", file=self._stream, flush=True
            )

    def close(self) -> None:
        pass


class Bar:
    """A tqdm bar with the numbers of the last epoch behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="epoch", file=self._stream, dynamic_ncols=True)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._bar.set_postfix_str(summary(record), refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
