"""The command `gdkernels` and what it does with errors.

Exit codes: 0 done, 1 a task that failed, 2 an option that is wrong, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from . import info, train, verify, warmup

# Mistakes in the request or in the world outside; anything else is a mistake of ours and shows its traceback.
EXPECTED = (ValueError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError)

COMMANDS = {
    "train": (train, "train a network on a data set"),
    "info": (info, "show versions, processor, threads and folders"),
    "warmup": (warmup, "compile every kernel into the cache"),
    "verify": (verify, "check every kernel against the reference on this machine"),
}


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy: `gdkernels --help` answers at once."""
    whole = Parser(prog="gdkernels", description="Forward and backward kernels for dense neural networks.")
    whole.add_argument("--version", action="version", version=f"gdkernels {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        one = commands.add_parser(
            name, help=line, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(one)
        one.set_defaults(run=module.run)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without "·" or "²" shows a question mark
    try:
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"gdkernels {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output (such as head) has left. Nothing may be written to it at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        print(f"gdkernels {options.command}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
