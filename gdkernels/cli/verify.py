"""Check every kernel against the NumPy reference and finite differences, on this machine: CPU, and GPU if there is one.

One row for each operation, element type and device: the worst of its cases, in units of rounding errors, and the bound that
theory gives for it. The exit code is 1 if any row fails.
"""

import argparse
import importlib
import importlib.util
import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .options import DTYPES

if TYPE_CHECKING:
    from .checks import Case


@dataclass(frozen=True)
class Row:
    """A line of the table: the case that comes closest to its bound, or exceeds it furthest."""

    op: str
    dtype: str
    device: str
    against: str
    cases: int
    worst: float
    bound: float
    case: str

    @property
    def passed(self) -> bool:
        return self.worst <= self.bound and self.cases > 0

    def __str__(self) -> str:
        verdict = "ok" if self.passed else f"FAILS at {self.case}"
        return (
            f"{self.op:23} {self.dtype:8} {self.device:6} {self.against:12} {self.cases:5} {self.worst:10.3g} "
            f"{self.bound:8.3g}  {verdict}"
        )


HEADER = f"{'operation':23} {'dtype':8} {'device':6} {'against':12} {'cases':>5} {'worst':>10} {'bound':>8}  verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`gdkernels verify` has no options."""


def run(options: argparse.Namespace) -> int:
    """Print the table as it grows, then how many rows failed."""
    start = time.perf_counter()
    print(HEADER)
    failed = total = 0
    for row in rows(find_reference()):
        print(row, flush=True)
        total += 1
        failed += not row.passed
    seconds = time.perf_counter() - start
    print(f"{total - failed} of {total} rows hold, {failed} fail ({seconds:.0f} s)")
    return 1 if failed else 0


def find_reference() -> Any:
    """The NumPy reference: part of an installed package, and beside the package in a checkout."""
    installed = importlib.util.find_spec("gdkernels.reference") is not None
    return importlib.import_module("gdkernels.reference" if installed else "reference")


def rows(reference: Any) -> Iterator[Row]:
    """All rows of the table."""
    import gdkernels

    devices = ("cpu", "cuda") if gdkernels.cuda.is_available() else ("cpu",)
    for device in devices:
        for _, row in table(reference, device):
            yield row()


def table(reference: Any, device: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The rows of a device, by name, yet to be computed: first those against the reference, then the differences."""
    import gdkernels

    from .checks import Checks
    from .differences import Differences
    from .on_device import OnDevice

    ops: Any = gdkernels if device == "cpu" else OnDevice()
    for dtype in DTYPES:
        yield from _rows(Checks(reference, dtype, ops), dtype, device, "reference")
    yield from _rows(Differences(reference, ops), "float64", device, "differences")


def _rows(checks: Any, dtype: str, device: str, against: str) -> Iterator[tuple[str, Callable[[], Row]]]:
    """A row for each check."""
    for name, cases in checks_of(checks):
        yield f"{name} {dtype}", partial(summarise, name, dtype, device, against, cases)


def checks_of(checks: Any) -> Iterator[tuple[str, "Iterator[Case]"]]:
    """Names and cases, in the order in which the checks are written: of a method, or of one `for_each` name."""
    for name, check in vars(type(checks)).items():
        for one in getattr(check, "names", ()):
            yield one, check(checks, one)
        if inspect.isgeneratorfunction(check) and list(inspect.signature(check).parameters) == ["self"]:
            yield name, check(checks)


def summarise(op: str, dtype: str, device: str, against: str, cases: Iterable["Case"]) -> Row:
    """The row of an operation: its worst case stands for all."""
    from .checks import ratio

    done: list[Case] = []
    try:
        done.extend(cases)
    except Exception as error:  # an op that raises here fails its row; the others are still to be checked
        return Row(
            op, dtype, device, against, len(done), float("inf"), 0.0, f"{type(error).__name__}: {error}"
        )
    if not done:
        return Row(op, dtype, device, against, 0, 0.0, 0.0, "no case at all")
    worst = max(done, key=ratio)
    return Row(op, dtype, device, against, len(done), worst.error, worst.bound, worst.name)
