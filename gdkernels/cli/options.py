"""The options of `gdkernels train`: how each is read and what it may be."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

ACTIVATIONS = (
    "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus",
    "mish",
)  # fmt: skip
NORMS = ("none", "layer", "rms")
INITS = ("auto", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal")
LOSSES = ("auto", "mse", "huber", "binary_cross_entropy", "softmax_cross_entropy")
OPTIMIZERS = ("sgd", "rmsprop", "adagrad", "adam", "adamw", "amsgrad", "lion")
SCHEDULES = (
    "constant", "linear_warmup", "cosine", "warmup_cosine", "warmup_linear", "step_decay", "cosine_restarts"
)  # fmt: skip
WITH_WARMUP = ("linear_warmup", "warmup_cosine", "warmup_linear")

T = TypeVar("T")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Everything that a recipe holds. An option that is not given is None: the recipe decides."""
    model = parser.add_argument_group("network")
    model.add_argument("--layers", type=widths, metavar="N,N,…", help="widths of the hidden layers, or none")
    _choice(model, "--activation", ACTIVATIONS, "activation of the hidden layers")
    _choice(model, "--norm", NORMS, "normalisation before each hidden layer")
    model.add_argument(
        "--residual", action="store_true", default=None, help="add its input to each layer of equal widths"
    )
    model.add_argument(
        "--dropout", type=share, metavar="P", help="probability of dropping a value, from 0 to below 1"
    )
    _choice(
        model, "--init", INITS, "initial weights (auto is He for relu-like activations, otherwise Xavier)"
    )

    how = parser.add_argument_group("training")
    _choice(how, "--loss", LOSSES, "auto is softmax_cross_entropy for classes and mse for numbers; one of")
    _choice(how, "--optimizer", OPTIMIZERS, "with a momentum of 0.9 for sgd; one of")
    how.add_argument("--lr", type=positive, metavar="RATE", help="(peak) learning rate")
    how.add_argument("--weight-decay", type=not_negative, metavar="RATE", help="weight decay")
    _choice(
        how,
        "--schedule",
        SCHEDULES,
        "a tenth after each third for step_decay, four periods for cosine_restarts; one of",
    )
    how.add_argument(
        "--warmup", type=warmup, metavar="N", help="steps (100) or a fraction of all steps (0.1)"
    )
    how.add_argument("--clip", type=positive, metavar="NORM", help="largest global norm of the gradient")
    how.add_argument("--batch", type=batch, metavar="N", help="samples in a step, or full")
    how.add_argument("--epochs", type=count, metavar="N", help="passes over the training part")


def _choice(group: "argparse._ArgumentGroup", flag: str, names: Sequence[str], text: str) -> None:
    group.add_argument(flag, type=one_of(names), metavar="NAME", help=f"{text}: {', '.join(names)}")


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


count = _reader(int, lambda n: n >= 1, "a whole number from 1 on")
seed = _reader(int, lambda n: 0 <= n < 2**63, "a whole number from 0 on")
positive = _reader(float, lambda v: 0 < v < math.inf, "a number above 0")
not_negative = _reader(float, lambda v: 0 <= v < math.inf, "a number from 0 on")
share = _reader(float, lambda p: 0 <= p < 1, "a number from 0 to below 1")


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
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a whole number from 1 on, or full") from None


def warmup(text: str) -> int | float:
    """Steps where it is a whole number, otherwise a fraction of all steps."""
    try:
        value: int | float = float(text) if "." in text else int(text)
    except ValueError:
        value = -1
    if value < 0 or (isinstance(value, float) and value >= 1):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a number of steps (100) or a fraction (0.1)")
    return value
