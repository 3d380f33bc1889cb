"""The static gate: what the CUDA kernels need of a GPU, read from their machine code anywhere: ``python -m tools.gate``.

The table has a line for each budget of `gdkernels.cuda.budgets` and storage type, with the largest numbers among its
kernels and the smallest share of the hot loop; ``--all`` gives each kernel a line. Registers and shares are told for each
architecture: ``54/56/56/-``. What exceeds its budget is printed at the end, and then the exit status is 1.
tests/cuda/test_static_gate.py judges by the same rows.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable

from .judgement import Row, jobs, measure, missing

LARGEST = ("spills", "stack", "local", "shared", "doubles", "calls")


def table(rows: list[Row], each: bool) -> str:
    """A line for each budget and storage type, or for each kernel; what differs by architecture is told one by one."""
    from gdkernels.cuda.budgets import ALL

    columns = (
        "kernels", "storage", "n", f"registers {'/'.join(name[3:] for name in ALL)}", "spilled", "stack", "local", "shared",
        "f64", "calls", "loads", "stores", "hot loop, %",
    )  # fmt: skip
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.budget, row.storage)):
        groups.setdefault((row.kernel if each else row.budget, row.storage), []).append(row)
    lines = [columns]
    for (name, storage), group in groups.items():
        by_gpu = [[row for row in group if row.architecture == architecture] for architecture in ALL]
        registers = "/".join(str(max((row.registers for row in same), default="-")) for same in by_gpu)
        shares = "/".join(f"{100 * min(row.share for row in same):.0f}" if same else "-" for same in by_gpu)
        worst = [str(max(getattr(row, field) for row in group)) for field in LARGEST]
        bits = [_bits(row.loads for row in group), _bits(row.stores for row in group)]
        hot = f"{group[0].hot} {shares}" if group[0].hot else ""
        count = str(len({row.kernel for row in group}))
        lines.append((name, storage, count, registers, *worst, *bits, hot))
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(size) for word, size in zip(line, sizes, strict=True)).rstrip() for line in lines
    )


def left_out() -> list[str]:
    """What the budgets do not compile, though it exists: only what differs little from what they do."""
    from gdkernels.cuda.budgets import ALL, AMPERE, BUDGETS

    lines = []
    for budget in BUDGETS:
        could = AMPERE if budget.hot == "HMMA" else ALL
        rest = [*budget.left_out, *(name for name in could if name not in budget.architectures)]
        if rest:
            lines.append(f"{budget.name}: {', '.join(rest)}")
    return lines


def _bits(widths: Iterable[frozenset[int]]) -> str:
    """The sizes of accesses, in bits."""
    return "+".join(str(8 * size) for size in sorted(frozenset().union(*widths), reverse=True))


def main() -> int:
    """The command line; the number of complaints decides the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("-k", metavar="WORD", default="", help="only kernels whose name contains WORD")
    parser.add_argument("--all", action="store_true", help="a line for each kernel")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="that compile (one for each core)"
    )
    options = parser.parse_args()
    if reason := missing():
        print(f"python -m tools.gate: {reason}")
        return 2
    start = time.perf_counter()
    rows = measure(jobs(options.k), options.processes)
    print(table(rows, options.all))
    print("\nNot compiled:", *left_out(), sep="\n  ")
    bad = [
        f"{row.kernel} {row.storage} {row.architecture}: {text}" for row in rows for text in row.complaints
    ]
    seconds = time.perf_counter() - start
    print(
        f"\n{len(rows)} kernels, by storage type and GPU, in {seconds:.0f} s; {len(bad)} over budget",
        *bad,
        sep="\n  ",
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
