"""Measure CPU kernels, calls from Python and training steps against the peers and the limits of this machine.

``python -m bench`` ends within half an hour, with --quick within three minutes, says what failed, what was missing and what
was cut, and writes everything to bench/results/cpu-NAME.json. `python -m bench compare OLD.json NEW.json` says what changed
between two runs, `python -m bench plot RESULTS.json` draws them.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import SECTIONS, USUAL, compare, isa, machine, plots, report
from .cases import CASES
from .contestants import LIBRARIES, TRAINING
from .plan import Plan, Say, schedule
from .record import Section, keep, slug
from .worker import VARIABLES, reason

SECONDS, QUICK = 1650.0, 165.0
RESULTS = Path(__file__).resolve().parent / "results"
COMMANDS = {"compare": compare.main, "plot": plots.main}
QUICK_CASES = "ab"


def main(arguments: list[str] | None = None) -> int:
    """The command line. The exit status is 1 where something of ours is wrong, or a section failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    options = parse(arguments)
    isa.choose(options.isa)
    facts = machine.facts()
    for fact, value in facts.items():
        print(f"{fact:12}{value}")
    start = time.monotonic()
    facts |= {"isa": options.isa or "all that the machine has", "vectors": vectors(options, say)}
    which = f"-{options.isa}" if options.isa else ""
    path = options.json or RESULTS / f"cpu-{slug(facts['cpu'])}-{facts['cores']}{which}.json"
    results = {"machine": facts, "options": told(options)}
    found = keep(run(options, say), results, path, lambda: {"seconds": round(time.monotonic() - start)})
    for text in report.tables(results):
        print(text)
    summarise(found)
    print(f"written to {path}")
    draw(results, path)
    return int(
        any((section.failed and not section.rows) or ours_wrong(section) for section in found.values())
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help=f"end within {QUICK / 60:.0f} minutes: much is cut"
    )
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(USUAL), metavar="SECTION",
                        help=f"some of {', '.join(SECTIONS)}; by default all but costs")  # fmt: skip
    parser.add_argument("--case", nargs="+", choices=list(CASES), metavar="CASE",
                        help=f"some of {', '.join(CASES)} (all; with --quick {', '.join(QUICK_CASES)})")  # fmt: skip
    peers = (*LIBRARIES, *(name for name in TRAINING if " " in name and not name.startswith("gdkernels")))
    parser.add_argument("--peers", nargs="*", choices=peers, default=list(LIBRARIES), metavar="PEER",
                        help=f"some of {', '.join(peers)}; none: gdkernels alone")  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=int, metavar="N",
                        help="numbers of threads (one, and as many as there are cores)")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="turns that each contestant takes (7; with --quick 3)")
    parser.add_argument("--block", type=float, help="seconds that a turn lasts (0.3; with --quick 0.15)")
    parser.add_argument("--minutes", type=float, help="time for all sections together")
    parser.add_argument(
        "--isa", choices=sorted(VARIABLES), help="hold every contestant to an instruction set"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="file for the results")
    options = parser.parse_args(arguments)
    cores = machine.cores()
    options.threads = sorted(set(options.threads or (1, cores)))
    if not 1 <= options.threads[0] <= options.threads[-1] <= cores:
        parser.error(f"--threads: expected numbers in [1, {cores}] because this machine has {cores} cores")
    options.case = options.case or list(QUICK_CASES if options.quick else CASES)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.block = options.block or (0.15 if options.quick else 0.3)
    options.seconds = 60 * options.minutes if options.minutes else QUICK if options.quick else SECONDS
    options.sections = [name for name in SECTIONS if name in options.sections]
    return options


def told(options: argparse.Namespace) -> dict[str, Any]:
    """The options, for JSON."""
    return {name: value for name, value in vars(options).items() if name not in ("json", "minutes")}


def vectors(options: argparse.Namespace, say: Say) -> dict[str, str]:
    """Which vectors each library runs, as it says and as its product shows."""
    say("\n== vectors")
    libraries = ["gdkernels", *dict.fromkeys(peer.partition(" ")[0] for peer in options.peers)]
    plan = Plan(options.quick, 0.0, (), (), (1,))
    found = isa.check(plan, libraries)
    for library, words in found.items():
        say(f"{library:12} {words}")
    return found


def run(options: argparse.Namespace, say: Say) -> Iterator[tuple[str, Section]]:
    """The sections in their order, each as soon as it is done."""
    for name, end in schedule(SECTIONS, options.sections, time.monotonic() + options.seconds):
        say(f"\n== {name}")
        plan = Plan(
            options.quick, end, tuple(options.case), tuple(options.peers), tuple(options.threads),
            options.rounds, options.block,
        )  # fmt: skip
        yield name, gather(name, plan, say)


def gather(name: str, plan: Plan, say: Say) -> Section:
    """What one section yields; an error in it is a failure of the section, and the others go on."""
    section = Section()
    try:
        module = importlib.import_module(f"bench.{name}")
        for row in module.rows(plan, say):
            if "failed" in row:
                say(section.fail(row["item"], row["failed"]))
            elif "cut" in row:
                section.cut.append(row["cut"])
                say(f"cut: {row['cut']}")
            else:
                section.rows.append(row)
                say(module.line(row))
    except Exception as error:
        say(section.fail(name, reason(error)))
    return section


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def draw(results: dict[str, Any], path: Path) -> None:
    """The pictures, beside the results."""
    try:
        for picture in plots.write(results, path.with_suffix("")):
            print(f"drawn in {picture}")
    except ModuleNotFoundError as error:
        print(f"not drawn: {error.name} is not installed")


def ours_wrong(section: Section) -> bool:
    """Whether a result of ours is wrong."""
    return any(row["contestant"].startswith("gdkernels") for row in section.wrong)


def summarise(found: dict[str, Section]) -> None:
    """What is wrong, what failed and what was cut, once more at the end."""
    print("\n== summary")
    for name, section in found.items():
        words = [f"{len(section.rows)} rows"]
        words += [f"{len(section.wrong)} wrong"] if section.wrong else []
        words += [f"{len(section.failed)} failed or missing"] if section.failed else []
        words += [f"{len(section.cut)} cut"] if section.cut else []
        print(f"{name:12}{', '.join(words)}")
        for item, why in section.failed:
            print(f"  FAILED {item}: {why}")
        for row in section.beyond:
            print(f"  BEYOND THE LIMIT in every round: {importlib.import_module(f'bench.{name}').line(row)}")


if __name__ == "__main__":
    sys.exit(main())
