"""Verify and measure the CUDA backend on this machine: ``python -m bench.gpu``.

Says what machine it is, runs `gdkernels verify` for the GPU, measures copies and cuBLAS, holds every kernel against them and
against PyTorch where it is installed, our matrix products against cuBLAS, and trains cases a to e. It ends within eight
minutes, or as soon as ``--seconds`` says, tells what failed and what was cut, and writes everything to
bench/results/gpu-NAME.json. Under tools/ptxemu/run it checks the same path with tiny shapes, and reports no times.
"""

import argparse
import math
import sys
import time
from pathlib import Path

from gdkernels import cuda

from ..record import Section, keep, slug
from . import SECTIONS, USUAL, machine
from .conductor import Conductor

SECONDS, QUICK = 460.0, 120.0
RESULTS = Path(__file__).resolve().parent.parent / "results"
NO_TIMES = "emulated: no times"


def main() -> int:
    """The command line. The exit status is 1 where there is no GPU, or something is wrong or failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"limit of time ({SECONDS:.0f}); what is left is cut"
    )
    parser.add_argument(
        "--quick", dest="seconds", action="store_const", const=QUICK, help=f"as --seconds {QUICK:.0f}"
    )
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(USUAL), metavar="SECTION",
                        help=f"some of {', '.join(SECTIONS)}; by default all but tilings")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for the results")
    options = parser.parse_args()
    name = cuda.describe()
    if not cuda.is_available():
        reason = name.rstrip(".")
        print(f"python -m bench.gpu needs a GPU; {reason}. Without one: tools/ptxemu/run python -m bench.gpu")
        return 1
    facts = machine.facts(name)
    for fact, value in facts.items():
        print(f"{fact:12}{value}")
    emulated = machine.is_emulated(name)
    if emulated:
        print(NO_TIMES)
    chosen = [section for section in SECTIONS if section in options.sections]
    conductor = Conductor(
        math.inf if emulated else options.seconds,
        {"tiny": emulated, "timed": not emulated, "torch": not emulated},
        {"device": name, "versions": facts["versions"]},
        lambda text: print(text, flush=True),
    )
    path = options.json or (None if emulated else RESULTS / f"gpu-{slug(name.partition(',')[0])}.json")
    if emulated:
        facts["times"] = NO_TIMES
    start = time.monotonic()

    def afterwards() -> dict[str, str]:
        seconds = f"{time.monotonic() - start:.0f} of {options.seconds:.0f}"
        return {} if emulated else {"nvidia-smi afterwards": machine.nvidia_smi(), "seconds": seconds}

    sections = keep(conductor.run(chosen), {"machine": facts}, path, afterwards)
    summarise(sections)
    if path is not None:
        print(f"written to {path}")
    return int(any(found.wrong or found.failed for found in sections.values()))


def summarise(sections: dict[str, Section]) -> None:
    """What is wrong, what failed and what was cut, once more at the end."""
    print("\n== summary")
    for name, found in sections.items():
        checks = sum("ok" in row for row in found.rows)
        measured = sum("rates" in row for row in found.rows)
        words = [f"{checks - len(found.wrong)} of {checks} checks hold", f"{measured} measurements"]
        words += [f"{len(found.failed)} failed"] if found.failed else []
        words += [f"{len(found.cut)} cut"] if found.cut else []
        print(f"{name:14}{', '.join(words)}")
        for row in found.wrong:
            print(
                f"  WRONG {row['what']} {row['storage']} {row['shape']} {row.get('worst case', '')}".rstrip()
            )
        for item, why in found.failed:
            print(f"  FAILED {item}: {why}")


if __name__ == "__main__":
    sys.exit(main())
