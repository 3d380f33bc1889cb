"""What `gdkernels verify` holds against finite differences: every gradient, and that of whole networks, in float64.

`gd.testing.gradcheck` tells the largest error in units of its own bound, so that every bound here is 1.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gdkernels as gd
from gdkernels.ops.norm import __all__ as NORMS
from gdkernels.scalar.loss import ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY
from gdkernels.testing import gradcheck

from .checks import Case, as_tuple, for_each

Array = NDArray[np.float64]

BATCH, N_IN, N_OUT = 3, 7, 5


class Differences:
    """Each method is a row of the table and gives its cases; an op is made a scalar by a sum with fixed weights dy."""

    def __init__(self, reference: Any, ops: Any = gd) -> None:
        self.gd = ops  # the package, or what computes elsewhere
        self.ref = reference
        self.rng = np.random.default_rng(1)

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)

    def case(self, name: str, f: Callable[..., Any], *point: Any) -> Case:
        """The error of f's gradients; infinite, and named, where they are out of their bound."""
        try:
            return Case(name, gradcheck(f, point), 1.0)
        except AssertionError as error:
            return Case(f"{name}: {error}", np.inf, 1.0)

    def activation_backward(self) -> Iterator[Case]:
        """Through every activation; a normal draw keeps off the kinks at 0."""
        dy = self.normal(BATCH, N_OUT)
        for kind in self.ref.KINDS:

            def through(z: Array, kind: str = kind) -> Any:
                a = self.gd.activation(z, kind)
                saved = a if self.gd.saved_for(kind) == "output" else z
                return np.sum(dy * a), [self.gd.activation_backward(dy, saved, kind)]

            yield self.case(kind, through, self.normal(BATCH, N_OUT))

    def linear_backward(self) -> Iterator[Case]:
        """To x, w and b."""
        da = self.normal(BATCH, N_OUT)
        for kind in self.ref.KINDS:

            def through(x: Array, w: Array, b: Array, kind: str = kind) -> Any:
                z = np.empty((BATCH, N_OUT))
                a = self.gd.linear(x, w, b, kind, z=z)
                saved = a if self.gd.saved_for(kind) == "output" else z
                return np.sum(da * a), self.gd.linear_backward(da, x, w, saved, kind)

            yield self.case(
                kind, through, self.normal(BATCH, N_IN), self.normal(N_IN, N_OUT), self.normal(N_OUT)
            )

    @for_each(name for name in NORMS if name.endswith("_backward"))
    def norm_backward(self, name: str) -> Iterator[Case]:
        """To x, gamma and beta, alone and with a residual, which has the gradient of x."""
        forward, backward = getattr(self.gd, name.removesuffix("_backward")), getattr(self.gd, name)
        exact = getattr(self.ref, name.removesuffix("_backward"))
        takes = inspect.signature(exact).parameters
        scales = [self.normal(N_IN) for scale in ("gamma", "beta") if scale in takes]
        dy, x, residual = (self.normal(BATCH, N_IN) for _ in range(3))
        _, *kept = as_tuple(exact(x, *scales))
        stats = {"stats": np.empty(kept[0].shape)} if kept else {}

        def alone(x: Array, gamma: Array, *beta: Array) -> Any:
            y = forward(x, gamma, *beta, **stats)
            return np.sum(dy * y), backward(dy, x, gamma, **stats)

        def summed(x: Array, residual: Array, gamma: Array, *beta: Array) -> Any:
            y = forward(x, gamma, *beta, residual=residual, **stats)
            dx, *others = backward(dy, x, gamma, residual=residual, **stats)
            return np.sum(dy * y), [dx, dx, *others]

        yield self.case("alone", alone, x, *scales)
        if "residual" in takes:
            yield self.case("with residual", summed, x, residual, *scales)

    def losses(self) -> Iterator[Case]:
        """The gradient that each loss gives with its value."""
        target = self.normal(BATCH, N_OUT)
        labels = self.rng.integers(0, N_OUT, BATCH)
        soft = np.abs(target) / np.abs(target).sum(axis=1, keepdims=True)
        weight = np.abs(self.normal(N_OUT)) + 0.5
        chances = 1 / (1 + np.exp(-target))
        every = {"label_smoothing": 0.1, "class_weight": weight}
        given: list[tuple[str, Any, dict[str, Any]]] = [
            (SOFTMAX_CROSS_ENTROPY, labels, every),
            (SOFTMAX_CROSS_ENTROPY, soft, every),
        ]
        for name, row in ELEMENT_LOSSES.items():
            options = {option: 0.7 * default for option, (default, _) in row.options.items()}
            given.append((name, target if row.targets is None else chances, options))
        for name, wanted, options in given:
            for reduction in ("mean", "sum"):

                def through(pred: Array, name: str = name, wanted: Any = wanted, **given: Any) -> Any:
                    grad = np.empty_like(pred)
                    value = getattr(self.gd, name)(pred, wanted, grad=grad, **given)
                    return value, [grad]

                asked = {**options, "reduction": reduction}
                yield self.case(
                    f"{name} {reduction}",
                    lambda pred, f=through, asked=asked: f(pred, **asked),
                    self.normal(BATCH, N_OUT),
                )

    def networks(self) -> Iterator[Case]:
        """The engine's backward pass through every layer, to the input and to every parameter."""
        for norm in (None, "layer", "rms"):
            for kind in self.ref.KINDS:
                net = self.gd.mlp(
                    [N_IN, 6, 6, N_OUT], activation=kind, norm=norm, residual=True, seed=3, dtype="float64"
                )
                yield self.case(
                    f"{kind}, norm {norm}", self.through(net), self.normal(BATCH, N_IN), *net.params.values()
                )

    def through(self, net: Any) -> Callable[..., Any]:
        """A network as a function of its input and its parameters."""
        dy = self.normal(BATCH, N_OUT)

        def f(x: Array, *params: Array) -> Any:
            for mine, given in zip(net.params.values(), params, strict=True):
                mine[...] = given
            y = net.forward(x, train=True)
            dx = net.backward(dy)
            return np.sum(dy * y), [dx, *net.grads.values()]

        return f
