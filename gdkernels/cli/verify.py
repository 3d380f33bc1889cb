"""Check every CPU kernel against the NumPy reference and finite differences, on this machine."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`gdkernels verify` has no options."""


def run(options: argparse.Namespace) -> int:
    raise NotImplementedError
