"""What a network computes: a table of kernel calls over named matrices, forward and backward.

`lower` turns layers into a `Plan`; an engine only walks it. There is no arithmetic here. Every layer lowers itself
(`layers`): it writes its forward calls and returns the function that writes its backward calls, by the chain rule, when the
gradient comes back through the layers in reverse order. Here is the calculus that they share.

The calls and their operands are in `gdkernels.plan`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..plan import (
    ActivationBackward,
    ActivationForward,
    Add,
    AnyCall,
    Buffer,
    Dropout,
    LinearForward,
    Parameter,
    Plan,
    room_of,
)
from .layers import Activation, Layer, Linear, Residual


@dataclass(frozen=True)
class Flow:
    """A gradient on its way back. `free`: nothing else reads its buffer, so it may be overwritten."""

    buffer: Buffer
    free: bool


# Writes the backward calls of a layer, given dL/dy. If `wanted`, returns dL/dx (+ add), otherwise None.
Backward = Callable[[Flow, bool, Buffer | None], Flow | None]


def lower(layers: Sequence[Layer], input_gradient: bool, seed: int = 0) -> Plan:
    """The plan of a network.

    Parameters
    ----------
    layers : as for `Network`
    input_gradient : whether the backward pass goes on to the gradient of the input
    seed : of dropout; every dropout layer gets a stream of its own

    Raises ValueError that names the layer where widths do not agree.
    """
    n_in = width_in(layers)
    n_out = width_out(layers, n_in)
    made = Lowering(seed)
    x = made.buffer("x", n_in)
    y, backward = made.sequence(layers, "", x)
    dy = made.buffer("dy", n_out)
    dx = backward(Flow(dy, False), input_gradient, None)
    return Plan(
        input=x,
        output=y,
        output_gradient=dy,
        input_gradient=dx.buffer if dx else None,
        buffers=made.buffers,
        parameters=made.parameters,
        size=made.size,
        evaluation=_without_dropout(made.forward, y),
        forward=made.forward,
        backward=made.backward,
        # The matrices of the first layers were written last and are still in the cache.
        gradients=made.gradients[::-1],
    )


def width_in(layers: Sequence[Layer]) -> int:
    """The columns of the input: those that the first layer that has a width of its own takes."""
    width = next((layer.takes for layer in layers if layer.takes is not None), None)
    if width is None:
        raise ValueError(
            "Network: no layer determines the number of inputs, expected one with a width, such as Linear, among them"
        )
    return width


def width_out(layers: Sequence[Layer], width: int, path: str = "", giver: str = "the input") -> int:
    """The columns of the output, after checking that every layer takes what the one before it gives."""
    for number, layer in enumerate(layers):
        name = f"layer {path}{number}"
        if isinstance(layer, Residual):
            gives = width_out(layer.layers, width, f"{path}{number}.", giver)
            if gives != width:
                raise ValueError(
                    f"Network: {name} (Residual) takes {width} inputs, its layers give {gives}; "
                    "a sum needs equal widths"
                )
            giver = name
        elif layer.takes not in (None, width):
            raise ValueError(
                f"Network: {name} ({type(layer).__name__}) expects {layer.takes} inputs, {giver} gives {width}"
            )
        if layer.gives is not None:
            width, giver = layer.gives, name
    return width


def _named(layers: Sequence[Layer], path: str) -> list[tuple[str, Layer]]:
    """The layers that do something, with their names.

    An activation behind a linear layer that has none becomes that layer's own: one pass over memory less.
    """
    named: list[tuple[str, Layer]] = []
    for number, layer in enumerate(layers):
        last = named[-1][1] if named else None
        if layer.is_identity:
            continue
        if isinstance(layer, Activation) and isinstance(last, Linear) and last.activation == "identity":
            # Its weights are drawn as its own description says.
            named[-1] = (named[-1][0], replace(last, activation=layer.kind, init=last.initializer))
        else:
            named.append((f"{path}{number}", layer))
    return named


def _without_dropout(forward: list[AnyCall], output: Buffer) -> list[AnyCall]:
    """The forward calls of evaluation: no dropout, and no pre-activations kept for a backward pass."""
    instead: dict[Buffer, Buffer] = {}
    calls: list[AnyCall] = []
    for call in forward:
        moved: dict[str, Any] = {
            name: instead[operand]
            for name, operand in call.operands().items()
            if isinstance(operand, Buffer) and operand in instead
        }
        call = replace(call, **moved)
        if isinstance(call, Dropout):
            instead[call.out] = call.x
            continue
        calls.append(replace(call, z=None) if isinstance(call, LinearForward) else call)
    if output in instead:
        calls.append(ActivationForward(instead[output], output, "identity"))
    return calls


class Lowering:
    """A plan while it grows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.buffers: list[Buffer] = []
        self.parameters: list[Parameter] = []
        self.size = 0
        self.forward: list[AnyCall] = []
        self.backward: list[AnyCall] = []
        self.gradients: list[AnyCall] = []
        self._dropouts = 0

    def buffer(self, name: str, columns: int, statistics: bool = False) -> Buffer:
        """A new matrix of the arena."""
        self.buffers.append(Buffer(name, columns, statistics))
        return self.buffers[-1]

    def parameter(self, name: str, *shape: int, draw: str = "zeros", decays: bool = False) -> Parameter:
        """A new parameter, behind those that there are."""
        self.parameters.append(Parameter(name, self.size, shape, draw, decays))
        self.size += room_of(shape[0] * shape[1] if len(shape) == 2 else shape[0])
        return self.parameters[-1]

    @staticmethod
    def flow(buffer: Buffer) -> Flow:
        """A gradient in a matrix of its own."""
        return Flow(buffer, True)

    def dropout_seed(self) -> int:
        """The key of a dropout layer's own stream; Philox's is 64 bits wide."""
        self._dropouts += 1
        return (self._dropouts - 1) << 32 | self.seed & 0xFFFFFFFF

    def plus(self, name: str, flow: Flow, add: Buffer | None) -> Flow:
        """dx + add: where a value is used twice, the gradients of both ways to the loss add up."""
        if add is None:
            return flow
        out = flow.buffer if flow.free else self.buffer(f"{name}.dsum", add.columns)
        self.backward.append(Add(flow.buffer, add, out))
        return Flow(out, True)

    def through(self, kind: str, name: str, da: Flow, saved: Buffer) -> Flow:
        """dz = da ⊙ act′, in place where da is free."""
        if kind == "identity":
            return da
        dz = da.buffer if da.free else self.buffer(f"{name}.dz", saved.columns)
        self.backward.append(ActivationBackward(da.buffer, saved, dz, kind))
        return Flow(dz, True)

    def sequence(self, layers: Sequence[Layer], path: str, x: Buffer) -> tuple[Buffer, Backward]:
        """y = f_k(… f_1(x)); the gradient passes through the layers in reverse order."""
        named = _named(layers, path)
        trained_below = [any(layer.is_trained for _, layer in named[:i]) for i in range(len(named))]
        steps: list[Backward] = []
        y, residual = x, None
        for i, (name, layer) in enumerate(named):
            if isinstance(layer, Residual):
                fused = i + 1 < len(named) and named[i + 1][1].adds_residual
                y, residual, step = self.residual(layer, name, y, not fused)
            else:
                y, step = layer.lower(self, name, y, residual)
                residual = None
            steps.append(step)

        def backward(dy: Flow, wanted: bool, add: Buffer | None) -> Flow | None:
            flow: Flow | None = dy
            for i in reversed(range(len(steps))):
                if flow is None:
                    return None  # nothing below has parameters
                flow = steps[i](flow, wanted or trained_below[i], add if i == 0 else None)
            if steps or flow is None:
                return flow
            return self.plus(path, flow, add)

        return y, backward

    def residual(
        self, layer: Residual, name: str, x: Buffer, sum_wanted: bool
    ) -> tuple[Buffer, Buffer | None, Backward]:
        """y = x + f(x); dx = dy + f′(x) dy.

        Without `sum_wanted` the sum is left to the norm that follows, and both summands are returned.
        """
        branch, through_branch = self.sequence(layer.layers, f"{name}.", x)
        total = self.buffer(f"{name}.sum", x.columns) if sum_wanted else None
        if total:
            self.forward.append(Add(branch, x, total))

        def backward(dy: Flow, wanted: bool, add: Buffer | None) -> Flow | None:
            dx = through_branch(Flow(dy.buffer, False), wanted, dy.buffer)
            return self.plus(name, dx, add) if dx else None

        return (total, None, backward) if total else (branch, x, backward)
