"""The initialisers of weights: which distribution, and which variance for a matrix (fan_in, fan_out). Why: `nn.init`."""

from collections.abc import Callable
from typing import NamedTuple


def xavier(fan_in: int, fan_out: int) -> float:
    """2 / (fan_in + fan_out)."""
    return 2.0 / (fan_in + fan_out)


def he(fan_in: int, fan_out: int) -> float:
    """2 / fan_in."""
    return 2.0 / fan_in


class Initializer(NamedTuple):
    """distribution : "uniform" or "normal", of mean 0; variance : function of (fan_in, fan_out)"""

    distribution: str
    variance: Callable[[int, int], float]


INITIALIZERS = {
    "xavier_uniform": Initializer("uniform", xavier),
    "xavier_normal": Initializer("normal", xavier),
    "he_uniform": Initializer("uniform", he),
    "he_normal": Initializer("normal", he),
}

AUTO = "auto"  # which one depends on the activation behind the weights (`scalar.activation`)
INITS = (AUTO, *INITIALIZERS)  # what a layer can be asked for
