"""What a network is made of: plain data, checked when it is made, that tells what it takes, gives and computes.

Layers have no parameters and no state; a `Network` draws the parameters, so that one description serves many. What a layer
computes is a few calls of kernels: `lower` writes those of the forward pass and returns the function that writes those of
the backward pass (`plan`).
"""

import abc
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .. import plan as calls
from ..check import choice, number, truth, whole
from ..plan import Buffer, Gradient
from ..ranges import NOT_NEGATIVE, PROBABILITY
from ..scalar.activation import ACTIVATIONS, SAVED
from ..scalar.init import AUTO, INITS

__all__ = ["Activation", "Dropout", "LayerNorm", "Linear", "RMSNorm", "Residual", "Scale"]

if TYPE_CHECKING:
    from .plan import Backward, Flow, Lowering


def _store(layer: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(layer, name, value)


def _eps(op: str, value: object) -> float:
    return number(op, "eps", value, NOT_NEGATIVE)


class Layer(abc.ABC):
    """What the layers have in common. Each is a frozen dataclass of its options."""

    @property
    def takes(self) -> int | None:
        """The columns of x; None where it takes any number."""
        return None

    @property
    def gives(self) -> int | None:
        """The columns of y; None where they are as many as those of x."""
        return None

    @property
    def is_trained(self) -> bool:
        """Whether it has parameters."""
        return False

    @property
    def is_identity(self) -> bool:
        """Whether it does nothing."""
        return False

    @property
    def adds_residual(self) -> bool:
        """Whether it can add the second summand of a residual layer that stands before it."""
        return False

    @abc.abstractmethod
    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """Write the calls of y = f(x + residual) into the plan that is `made`.

        Returns y, and the function that writes the calls of the backward pass. Only layers that say `adds_residual` are
        given one.
        """


class _OfWidth(Layer):
    """A layer with parameters that takes and gives n columns."""

    n: int

    @property
    def takes(self) -> int:
        return self.n

    @property
    def gives(self) -> int:
        return self.n

    @property
    def is_trained(self) -> bool:
        return True


class _Norm(_OfWidth):
    @property
    def adds_residual(self) -> bool:
        return True


@dataclass(frozen=True)
class Linear(Layer):
    """a = act(x @ w + b), with w (n_in, n_out) and b (n_out,).

    Parameters
    ----------
    n_in, n_out : columns of x and of a
    activation : a name that `gd.activation` lists
    bias : whether there is a b; it starts at zero
    init : how w is drawn, a name of `gd.init`. "auto" is the one that suits the activation: he_normal in front of
        those that let about half of their input through, such as relu and gelu, mostly xavier_uniform otherwise

    Raises ValueError (TypeError for what is not a number at all) that names the argument and what was expected.
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
    def takes(self) -> int:
        return self.n_in

    @property
    def gives(self) -> int:
        return self.n_out

    @property
    def is_trained(self) -> bool:
        return True

    @property
    def initializer(self) -> str:
        """The name of the function of `gd.init` that draws w."""
        return ACTIVATIONS[self.activation].init if self.init == AUTO else self.init

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """a = act(x @ w + b); dz = da ⊙ act′, dw = xᵀ @ dz, db = Σ dz, dx = dz @ wᵀ."""
        kind, n_in, n_out = self.activation, self.n_in, self.n_out
        w = made.parameter(f"{name}.w", n_in, n_out, draw=self.initializer, decays=True)
        b = made.parameter(f"{name}.b", n_out) if self.bias else None
        z = made.buffer(f"{name}.z", n_out) if SAVED[kind] == "preactivation" else None
        a = made.buffer(f"{name}.a", n_out)
        made.forward.append(calls.LinearForward(x, w, b, z, a, kind))

        def backward(da: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            dz = made.through(kind, name, da, z or a).buffer
            if b is not None:
                made.gradients.append(calls.BiasGradient(dz, Gradient(b)))
            made.gradients.append(calls.LinearDw(x, dz, Gradient(w)))
            if not wanted:
                return None
            dx = made.buffer(f"{name}.dx", n_in)
            made.backward.append(calls.LinearDx(dz, w, dx, add))
            return made.flow(dx)

        return a, backward


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """y = gamma (x − mean) / √(variance + eps) + beta, by rows of n (Ba et al. 2016, arXiv 1607.06450)."""

    n: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _store(self, n=whole("LayerNorm", "n", self.n, at_least=1), eps=_eps("LayerNorm", self.eps))

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """y = norm(x + residual); dx is the gradient of the sum, which is that of both summands."""
        gamma = made.parameter(f"{name}.gamma", self.n, draw="ones")
        beta = made.parameter(f"{name}.beta", self.n)
        y = made.buffer(f"{name}.out", self.n)
        stats = made.buffer(f"{name}.stats", 2, statistics=True)
        made.forward.append(calls.LayerNormForward(x, residual, gamma, beta, y, stats, self.eps))

        def backward(dy: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            made.gradients.append(
                calls.LayerNormGradients(dy.buffer, x, residual, stats, Gradient(gamma), Gradient(beta))
            )
            if not wanted:
                return None
            dx = made.buffer(f"{name}.dx", self.n)
            made.backward.append(calls.LayerNormDx(dy.buffer, x, residual, gamma, stats, dx))
            return made.plus(name, made.flow(dx), add)

        return y, backward


@dataclass(frozen=True)
class RMSNorm(_Norm):
    """y = gamma x / √(mean(x²) + eps), by rows of n (Zhang, Sennrich 2019, arXiv 1910.07467)."""

    n: int
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _store(self, n=whole("RMSNorm", "n", self.n, at_least=1), eps=_eps("RMSNorm", self.eps))

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """y = norm(x + residual); dx is the gradient of the sum, which is that of both summands."""
        gamma = made.parameter(f"{name}.gamma", self.n, draw="ones")
        y = made.buffer(f"{name}.out", self.n)
        stats = made.buffer(f"{name}.stats", 1, statistics=True)
        made.forward.append(calls.RMSNormForward(x, residual, gamma, y, stats, self.eps))

        def backward(dy: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            made.gradients.append(calls.RMSNormGradients(dy.buffer, x, residual, stats, Gradient(gamma)))
            if not wanted:
                return None
            dx = made.buffer(f"{name}.dx", self.n)
            made.backward.append(calls.RMSNormDx(dy.buffer, x, residual, gamma, stats, dx))
            return made.plus(name, made.flow(dx), add)

        return y, backward


@dataclass(frozen=True)
class Scale(_OfWidth):
    """y = gamma ⊙ x, a factor for each of n columns, which starts at 1."""

    n: int

    def __post_init__(self) -> None:
        _store(self, n=whole("Scale", "n", self.n, at_least=1))

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """y = gamma ⊙ x; dgamma = Σ dy ⊙ x, dx = gamma ⊙ dy."""
        gamma = made.parameter(f"{name}.gamma", self.n, draw="ones")
        y = made.buffer(f"{name}.out", self.n)
        made.forward.append(calls.Scale(x, gamma, y))

        def backward(dy: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            made.gradients.append(calls.ScaleGradient(dy.buffer, x, Gradient(gamma)))
            if not wanted:
                return None
            dx = made.buffer(f"{name}.dx", self.n)
            made.backward.append(calls.Scale(dy.buffer, gamma, dx))
            return made.plus(name, made.flow(dx), add)

        return y, backward


@dataclass(frozen=True)
class Activation(Layer):
    """a = act(x), element by element. Behind a `Linear` without an activation it is fused with that."""

    kind: str

    def __post_init__(self) -> None:
        choice("Activation", "kind", self.kind, SAVED)

    @property
    def is_identity(self) -> bool:
        return self.kind == "identity"

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """a = act(z); dz = da ⊙ act′."""
        a = made.buffer(f"{name}.a", x.columns)
        made.forward.append(calls.ActivationForward(x, a, self.kind))

        def backward(da: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            if not wanted:
                return None
            saved = x if SAVED[self.kind] == "preactivation" else a
            return made.plus(name, made.through(self.kind, name, da, saved), add)

        return a, backward


@dataclass(frozen=True)
class Dropout(Layer):
    """In training x / (1 − p) with probability 1 − p, else 0; otherwise x (Srivastava et al. 2014)."""

    p: float

    def __post_init__(self) -> None:
        _store(self, p=number("Dropout", "p", self.p, PROBABILITY))

    @property
    def is_identity(self) -> bool:
        return self.p == 0.0

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """y = mask ⊙ x / (1 − p); dx = mask ⊙ dy / (1 − p), the same call."""
        seed = made.dropout_seed()
        y = made.buffer(f"{name}.out", x.columns)
        made.forward.append(calls.Dropout(x, y, self.p, seed))

        def backward(dy: "Flow", wanted: bool, add: Buffer | None) -> "Flow | None":
            if not wanted:
                return None
            dx = dy.buffer if dy.free else made.buffer(f"{name}.dx", x.columns)
            made.backward.append(calls.Dropout(dy.buffer, dx, self.p, seed))
            return made.plus(name, made.flow(dx), add)

        return y, backward


@dataclass(frozen=True, init=False, repr=False)
class Residual(Layer):
    """y = x + f(x), where f applies the layers in order; they must give as many columns as they take.

    The gradient has a way past the layers, dx = dy + f′(x) dy, and so does not vanish in a deep network
    (He et al. 2016, arXiv 1512.03385).
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        _store(self, layers=checked("Residual", layers))

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(repr, self.layers))})"

    @property
    def takes(self) -> int | None:
        return next((layer.takes for layer in self.layers if layer.takes is not None), None)

    @property
    def is_trained(self) -> bool:
        return any(layer.is_trained for layer in self.layers)

    def lower(
        self, made: "Lowering", name: str, x: Buffer, residual: Buffer | None = None
    ) -> "tuple[Buffer, Backward]":
        """y = x + f(x); dx = dy + f′(x) dy."""
        y, _, backward = made.residual(self, name, x, sum_wanted=True)
        return y, backward


LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Linear, LayerNorm, RMSNorm, Scale, Activation, Dropout, Residual)
}


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
    return {"layer": type(layer).__name__, **asdict(layer)}  # type: ignore[call-overload]


def from_plain(plain: Mapping[str, Any]) -> Layer:
    """The layer that `to_plain` described. Raises ValueError, TypeError or KeyError for anything else."""
    options = dict(plain)
    kind = options.pop("layer")
    if kind == "Residual":
        return Residual(*(from_plain(inner) for inner in options["layers"]))
    if kind not in LAYERS:
        raise ValueError(f"layer {kind!r} is unknown, expected one of {', '.join(LAYERS)}")
    return LAYERS[kind](**options)
