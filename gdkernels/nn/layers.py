"""What a network is made of: plain data, checked when it is made. What a layer computes stands in `plan`.

Layers have no parameters and no state; a `Network` draws the parameters, so that one description serves many.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..check import choice, number, truth, whole
from ..ranges import NOT_NEGATIVE, PROBABILITY
from ..scalar.activation import ACTIVATIONS, SAVED
from ..scalar.init import AUTO, INITS

__all__ = ["Activation", "Dropout", "LayerNorm", "Linear", "RMSNorm", "Residual"]


def _store(layer: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(layer, name, value)


def _eps(op: str, value: object) -> float:
    return number(op, "eps", value, NOT_NEGATIVE)


@dataclass(frozen=True)
class Linear:
    """a = act(x @ w + b), with w (n_in, n_out) and b (n_out,).

    Parameters
    ----------
    n_in, n_out : columns of x and of a
    activation : a name that `gd.activation` lists
    bias : whether there is a b; it starts at zero
    init : how w is drawn, a name of `gd.init`. "auto" is xavier_uniform in front of identity, sigmoid and tanh, and
        he_normal in front of those that let about half of their input through, such as relu and gelu

    Raises ValueError (TypeError for what is no number at all) that names the argument and what was expected.
    """

    n_in: int
    n_out: int
    activation: str = "identity"
    bias: bool = True
    init: str = "auto"

    def __post_init__(self) -> None:
        _store(self, n_in=whole("Linear", "n_in", self.n_in, at_least=1))
        _store(self, n_out=whole("Linear", "n_out", self.n_out, at_least=1))
        choice("Linear", "activation", self.activation, SAVED)
        choice("Linear", "init", self.init, INITS)
        truth("Linear", "bias", self.bias)

    @property
    def initializer(self) -> str:
        """The name of the function of `gd.init` that draws w."""
        return ACTIVATIONS[self.activation].init if self.init == AUTO else self.init


@dataclass(frozen=True)
class LayerNorm:
    """y = gamma (x − mean) / √(variance + eps) + beta, by rows of n (Ba et al. 2016, arXiv 1607.06450)."""

    n: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _store(self, n=whole("LayerNorm", "n", self.n, at_least=1), eps=_eps("LayerNorm", self.eps))


@dataclass(frozen=True)
class RMSNorm:
    """y = gamma x / √(mean(x²) + eps), by rows of n (Zhang, Sennrich 2019, arXiv 1910.07467)."""

    n: int
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _store(self, n=whole("RMSNorm", "n", self.n, at_least=1), eps=_eps("RMSNorm", self.eps))


@dataclass(frozen=True)
class Activation:
    """a = act(x), element by element. Behind a `Linear` without an activation it is fused with that."""

    kind: str

    def __post_init__(self) -> None:
        choice("Activation", "kind", self.kind, SAVED)


@dataclass(frozen=True)
class Dropout:
    """In training x / (1 − p) with probability 1 − p, else 0; otherwise x (Srivastava et al. 2014)."""

    p: float

    def __post_init__(self) -> None:
        _store(self, p=number("Dropout", "p", self.p, PROBABILITY))


@dataclass(frozen=True, init=False, repr=False)
class Residual:
    """y = x + f(x), where f applies the layers in order; they must give as many columns as they take.

    The gradient has a way past the layers, dx = dy + f′(x) dy, and so does not vanish in a deep network
    (He et al. 2016, arXiv 1512.03385).
    """

    layers: "tuple[Layer, ...]"

    def __init__(self, *layers: "Layer") -> None:
        _store(self, layers=checked("Residual", layers))

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(repr, self.layers))})"


Layer = Linear | LayerNorm | RMSNorm | Activation | Dropout | Residual
LAYERS = {kind.__name__: kind for kind in (Linear, LayerNorm, RMSNorm, Activation, Dropout, Residual)}


def checked(owner: str, layers: object) -> tuple[Layer, ...]:
    """The layers as a tuple; there must be one at least, and nothing but layers."""
    if isinstance(layers, Layer) or not hasattr(layers, "__iter__"):
        raise TypeError(f"{owner}: layers is {layers!r}, expected a sequence of layers")
    found = tuple(layers)
    if not found:
        raise ValueError(f"{owner}: layers is empty, expected at least one layer")
    for place, layer in enumerate(found):
        if not isinstance(layer, Layer):
            raise TypeError(f"{owner}: layer {place} is {layer!r}, expected one of {', '.join(LAYERS)}")
    return found


def to_plain(layer: Layer) -> dict[str, Any]:
    """A layer as JSON can hold it."""
    if isinstance(layer, Residual):
        return {"layer": "Residual", "layers": [to_plain(inner) for inner in layer.layers]}
    return {"layer": type(layer).__name__, **asdict(layer)}


def from_plain(plain: Mapping[str, Any]) -> Layer:
    """The layer that `to_plain` described. Raises ValueError, TypeError or KeyError for anything else."""
    options = dict(plain)
    kind = options.pop("layer")
    if kind == "Residual":
        return Residual(*(from_plain(inner) for inner in options["layers"]))
    if kind not in LAYERS:
        raise ValueError(f"layer {kind!r} is unknown, expected one of {', '.join(LAYERS)}")
    return LAYERS[kind](**options)
