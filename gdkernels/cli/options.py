"""The options of `gdkernels train`: how each is read and what it may be.

Names come from the tables that the rest of the package derives from; `--help` reads them without NumPy and Numba.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from ..ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, Range, integers
from ..scalar.activation import ACTIVATIONS
from ..scalar.init import AUTO, INITS
from ..scalar.loss import ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY
from ..scalar.optim import OPTIMIZERS
from ..scalar.schedules import SCHEDULES
from .recipes import MOMENTUM

FOR_CLASSES, FOR_NUMBERS = SOFTMAX_CROSS_ENTROPY, "mse"  # what --loss auto is
LOSSES = (AUTO, *ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY)
WITH_WARMUP = tuple(name for name, schedule in SCHEDULES.items() if "warmup" in schedule.counts)

# What no table holds; a test compares them with the modules that they are meant for.
NORMS = ("none", "layer", "rms")
TASKS = ("classification", "regression")
DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float64")  # that every kernel is compiled for
STORAGES = (*DTYPES, "bfloat16")

T = TypeVar("T")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Everything that a recipe holds. An option that is not given is None: the recipe decides."""
    model = parser.add_argument_group("network")
    model.add_argument("--layers", type=widths, metavar="N,N,…", help="widths of the hidden layers, or none")
    add_choice(model, "--activation", tuple(ACTIVATIONS), "activation of the hidden layers; one of")
    add_choice(model, "--norm", NORMS, "normalisation before each hidden layer; one of")
    model.add_argument(
        "--residual",
        action="store_true",
        default=None,
        help="add the input to the output of each hidden layer that keeps the width",
    )
    model.add_argument(
        "--dropout", type=share, metavar="P", help="probability of dropping a value, in [0, 1)"
    )
    add_choice(model, "--init", INITS, "initial weights; auto chooses what suits the activation; one of")

    how = parser.add_argument_group("training")
    add_choice(
        how, "--loss", LOSSES, f"{AUTO} is {FOR_CLASSES} for classes and {FOR_NUMBERS} for numbers; one of"
    )
    add_choice(how, "--optimizer", OPTIMIZERS, f"sgd has a momentum of {MOMENTUM}; one of")
    how.add_argument("--lr", type=positive, metavar="RATE", help="learning rate, or its peak")
    how.add_argument("--weight-decay", type=not_negative, metavar="RATE", help="weight decay")
    add_choice(
        how,
        "--schedule",
        tuple(SCHEDULES),
        "step_decay falls to a tenth after each third of the steps, cosine_restarts has four periods; one of",
    )
    how.add_argument(
        "--warmup",
        type=warmup,
        metavar="N",
        help=f"a number of steps (100) or a fraction of all steps (0.1), for {', '.join(WITH_WARMUP)}",
    )
    how.add_argument(
        "--clip",
        type=positive,
        metavar="NORM",
        help="largest norm of the whole gradient; a longer one is scaled down",
    )
    how.add_argument("--batch", type=batch, metavar="N", help="samples per step, or full for all of them")
    how.add_argument("--epochs", type=count, metavar="N", help="passes over the training data")


def add_choice(
    group: "argparse._ActionsContainer",
    flag: str,
    names: Sequence[str],
    text: str,
    metavar: str = "NAME",
    **more: Any,
) -> None:
    """An option that takes one of these names, which its help lists behind the text."""
    group.add_argument(flag, type=one_of(names), metavar=metavar, help=f"{text}: {', '.join(names)}", **more)


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A reader that takes these names only."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"is {text!r}, expected one of {', '.join(names)}")
        return text

    return read


def _reader(convert: Callable[[str], T], holds: Callable[[T], bool], expected: str) -> Callable[[str], T]:
    """A reader of numbers that says what it expects."""

    def read(text: str) -> T:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"is {text!r}, expected {expected}")
        return value

    return read


def _number(among: Range) -> Callable[[str], float]:
    return _reader(float, among.__contains__, among.words)


count = _reader(int, lambda n: n >= 1, integers(at_least=1))
seed = _reader(int, lambda n: 0 <= n < 2**63, integers(at_least=0))
positive, not_negative, share = map(_number, (POSITIVE, NOT_NEGATIVE, BELOW_ONE))


def widths(text: str) -> tuple[int, ...]:
    """ "64,32" is two hidden layers, "none" is none."""
    if text == "none":
        return ()
    try:
        return tuple(count(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected widths such as 64,32, or none") from None


def batch(text: str) -> int | Literal["full"]:
    """A number of samples, or all of them."""
    if text == "full":
        return "full"
    try:
        return count(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected {integers(at_least=1)}, or full") from None


def warmup(text: str) -> int | float:
    """Steps where it is a whole number, otherwise a fraction of all steps."""
    try:
        value: int | float = float(text) if "." in text else int(text)
    except ValueError:
        value = -1
    if value < 0 or (isinstance(value, float) and value >= 1):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a number of steps (100) or a fraction (0.1)")
    return value
