"""What a network computes: a table of kernel calls over named matrices, forward and backward.

`lower` turns layers into a `Plan`; an engine only walks it. There is no arithmetic here. Every layer
stands in one function: it writes its forward calls and returns the function that writes its backward calls,
by the chain rule, when the gradient comes back through the layers in reverse order.

The calls and their operands stand in `gdkernels.plan`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..plan import Buffer, Call, Gradient, Operand, Parameter, Plan
from ..scalar.activation import SAVED
from .layers import Activation, Dropout, Layer, LayerNorm, Linear, Residual, RMSNorm

ALIGNMENT = 16  # elements; in float32 a cache line and the widest vector


@dataclass(frozen=True)
class _Flow:
    """A gradient on its way back. `free`: nothing else reads its buffer, so it may be overwritten."""

    buffer: Buffer
    free: bool


# Writes the backward calls of a layer, given dL/dy. If `wanted`, returns dL/dx (+ add), otherwise None.
_Backward = Callable[[_Flow, bool, Buffer | None], _Flow | None]


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
    made = _Lowering(seed)
    x = made.buffer("x", n_in)
    y, backward = made.sequence(layers, "", x)
    dy = made.buffer("dy", n_out)
    dx = backward(_Flow(dy, False), input_gradient, None)
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
    width = _first_width(layers)
    if width is None:
        raise ValueError(
            "Network: no layer tells the number of inputs, expected a Linear or a norm among them"
        )
    return width


def _first_width(layers: Sequence[Layer]) -> int | None:
    for layer in layers:
        match layer:
            case Linear():
                return layer.n_in
            case LayerNorm() | RMSNorm():
                return layer.n
            case Residual():
                width = _first_width(layer.layers)
                if width is not None:
                    return width
    return None


def width_out(layers: Sequence[Layer], width: int, path: str = "", giver: str = "the input") -> int:
    """The columns of the output, after checking that every layer takes what the one before it gives."""
    for number, layer in enumerate(layers):
        name = f"layer {path}{number}"
        takes = gives = width
        match layer:
            case Linear():
                takes, gives = layer.n_in, layer.n_out
            case LayerNorm() | RMSNorm():
                takes = gives = layer.n
            case Residual():
                gives = width_out(layer.layers, width, f"{path}{number}.", giver)
                if gives != width:
                    raise ValueError(
                        f"Network: {name} (Residual) takes {width} inputs, its layers give {gives}; "
                        "a sum needs equal widths"
                    )
        if takes != width:
            raise ValueError(
                f"Network: {name} ({type(layer).__name__}) expects {takes} inputs, {giver} gives {width}"
            )
        if not isinstance(layer, Activation | Dropout):
            width, giver = gives, name
    return width


def _named(layers: Sequence[Layer], path: str) -> list[tuple[str, Layer]]:
    """The layers that do something, with their names.

    An activation behind a linear layer that has none becomes that layer's own: one pass over memory less.
    """
    named: list[tuple[str, Layer]] = []
    for number, layer in enumerate(layers):
        last = named[-1][1] if named else None
        match layer:
            case Activation(kind="identity") | Dropout(p=0.0):
                continue
            case Activation() if isinstance(last, Linear) and last.activation == "identity":
                named[-1] = (named[-1][0], replace(last, activation=layer.kind))
            case _:
                named.append((f"{path}{number}", layer))
    return named


def _has_parameters(layer: Layer) -> bool:
    if isinstance(layer, Residual):
        return any(map(_has_parameters, layer.layers))
    return not isinstance(layer, Activation | Dropout)


def _without_dropout(forward: list[Call], output: Buffer) -> list[Call]:
    """The forward calls of evaluation: no dropout, and no pre-activations kept for a backward pass."""
    instead: dict[Operand, Buffer] = {}
    calls = []
    for call in forward:
        operands = tuple(instead.get(operand, operand) for operand in call.operands)
        if call.kernel == "dropout":
            x, out = operands[:2]
            assert isinstance(x, Buffer)
            instead[out] = x
            continue
        if call.kernel == "linear":
            operands = (*operands[:3], None, *operands[4:])
        calls.append(Call(call.kernel, operands))
    if output in instead:
        calls.append(Call("activation", (instead[output], output, "identity", output.columns)))
    return calls


class _Lowering:
    """A plan while it grows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.buffers: list[Buffer] = []
        self.parameters: list[Parameter] = []
        self.size = 0
        self.forward: list[Call] = []
        self.backward: list[Call] = []
        self.gradients: list[Call] = []
        self._dropouts = 0

    def buffer(self, name: str, columns: int) -> Buffer:
        self.buffers.append(Buffer(name, columns))
        return self.buffers[-1]

    def parameter(self, name: str, *shape: int) -> Parameter:
        self.parameters.append(Parameter(name, self.size, shape))
        count = shape[0] * shape[1] if len(shape) == 2 else shape[0]
        self.size += (count + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        return self.parameters[-1]

    def plus(self, name: str, flow: _Flow, add: Buffer | None) -> _Flow:
        """dx + add: where a value is used twice, the gradients of both ways to the loss add up."""
        if add is None:
            return flow
        out = flow.buffer if flow.free else self.buffer(f"{name}.dsum", add.columns)
        self.backward.append(Call("add", (flow.buffer, add, out, add.columns)))
        return _Flow(out, True)

    def sequence(self, layers: Sequence[Layer], path: str, x: Buffer) -> tuple[Buffer, _Backward]:
        """y = f_k(… f_1(x)); the gradient passes through the layers in reverse order."""
        named = _named(layers, path)
        trained_below = [any(_has_parameters(layer) for _, layer in named[:i]) for i in range(len(named))]
        steps: list[_Backward] = []
        y, residual = x, None
        for i, (name, layer) in enumerate(named):
            match layer:
                case Linear():
                    y, step = self.linear(layer, name, y)
                case LayerNorm() | RMSNorm():
                    y, step = self.norm(layer, name, y, residual)
                    residual = None
                case Activation():
                    y, step = self.activation(layer, name, y)
                case Dropout():
                    y, step = self.dropout(layer, name, y)
                case Residual():
                    norm_follows = i + 1 < len(named) and isinstance(named[i + 1][1], LayerNorm | RMSNorm)
                    y, residual, step = self.residual(layer, name, y, not norm_follows)
            steps.append(step)

        def backward(dy: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            flow: _Flow | None = dy
            for i in reversed(range(len(steps))):
                if flow is None:
                    return None  # nothing below has parameters
                flow = steps[i](flow, wanted or trained_below[i], add if i == 0 else None)
            if steps or flow is None:
                return flow
            return self.plus(path, flow, add)

        return y, backward

    def linear(self, layer: Linear, name: str, x: Buffer) -> tuple[Buffer, _Backward]:
        """a = act(x @ w + b); dz = da ⊙ act′, dw = xᵀ @ dz, db = Σ dz, dx = dz @ wᵀ."""
        kind, n_in, n_out = layer.activation, layer.n_in, layer.n_out
        w = self.parameter(f"{name}.w", n_in, n_out)
        b = self.parameter(f"{name}.b", n_out) if layer.bias else None
        z = self.buffer(f"{name}.z", n_out) if SAVED[kind] == "preactivation" else None
        a = self.buffer(f"{name}.a", n_out)
        self.forward.append(Call("linear", (x, w, b, z, a, kind, n_in, n_out)))

        def backward(da: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            dz = self.through(kind, name, da, z or a).buffer
            if b is not None:
                self.gradients.append(Call("bias_gradient", (dz, Gradient(b), n_out)))
            self.gradients.append(Call("linear_dw", (x, dz, Gradient(w), n_in, n_out)))
            if not wanted:
                return None
            dx = self.buffer(f"{name}.dx", n_in)
            self.backward.append(Call("linear_dx", (dz, w, dx, add, n_in, n_out)))
            return _Flow(dx, True)

        return a, backward

    def through(self, kind: str, name: str, da: _Flow, saved: Buffer) -> _Flow:
        """dz = da ⊙ act′, in place where da is free."""
        if kind == "identity":
            return da
        n = saved.columns
        dz = da.buffer if da.free else self.buffer(f"{name}.dz", n)
        self.backward.append(Call("activation_backward", (da.buffer, saved, dz, kind, n)))
        return _Flow(dz, True)

    def activation(self, layer: Activation, name: str, z: Buffer) -> tuple[Buffer, _Backward]:
        """a = act(z); dz = da ⊙ act′."""
        a = self.buffer(f"{name}.a", z.columns)
        self.forward.append(Call("activation", (z, a, layer.kind, z.columns)))

        def backward(da: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            if not wanted:
                return None
            saved = z if SAVED[layer.kind] == "preactivation" else a
            return self.plus(name, self.through(layer.kind, name, da, saved), add)

        return a, backward

    def dropout(self, layer: Dropout, name: str, x: Buffer) -> tuple[Buffer, _Backward]:
        """y = mask ⊙ x / (1 − p); dx = mask ⊙ dy / (1 − p), the same call."""
        n, p = x.columns, layer.p
        seed = self._dropouts << 32 | self.seed & 0xFFFFFFFF  # the key of Philox is 64 bits wide
        self._dropouts += 1
        y = self.buffer(f"{name}.out", n)
        self.forward.append(Call("dropout", (x, y, n, p, seed)))

        def backward(dy: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            if not wanted:
                return None
            dx = dy.buffer if dy.free else self.buffer(f"{name}.dx", n)
            self.backward.append(Call("dropout", (dy.buffer, dx, n, p, seed)))
            return self.plus(name, _Flow(dx, True), add)

        return y, backward

    def norm(
        self, layer: LayerNorm | RMSNorm, name: str, x: Buffer, residual: Buffer | None
    ) -> tuple[Buffer, _Backward]:
        """y = norm(x + residual); dx is the gradient of the sum, which is that of both summands."""
        n = layer.n
        centred = isinstance(layer, LayerNorm)
        kernel = "layernorm" if centred else "rmsnorm"
        gamma = self.parameter(f"{name}.gamma", n)
        scales = (gamma, self.parameter(f"{name}.beta", n)) if centred else (gamma,)
        y = self.buffer(f"{name}.out", n)
        stats = self.buffer(f"{name}.stats", 2 if centred else 1)
        self.forward.append(Call(kernel, (x, residual, *scales, y, stats, n, layer.eps)))

        def backward(dy: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            of_scales = tuple(Gradient(scale) for scale in scales)
            self.gradients.append(Call(f"{kernel}_gradients", (dy.buffer, x, residual, stats, *of_scales, n)))
            if not wanted:
                return None
            dx = self.buffer(f"{name}.dx", n)
            self.backward.append(Call(f"{kernel}_dx", (dy.buffer, x, residual, gamma, stats, dx, n)))
            return self.plus(name, _Flow(dx, True), add)

        return y, backward

    def residual(
        self, layer: Residual, name: str, x: Buffer, sum_wanted: bool
    ) -> tuple[Buffer, Buffer | None, _Backward]:
        """y = x + f(x); dx = dy + f′(x) dy.

        Without `sum_wanted` the sum is left to the norm that follows, and both summands are returned.
        """
        branch, through_branch = self.sequence(layer.layers, f"{name}.", x)
        total = self.buffer(f"{name}.sum", x.columns) if sum_wanted else None
        if total:
            self.forward.append(Call("add", (branch, x, total, x.columns)))

        def backward(dy: _Flow, wanted: bool, add: Buffer | None) -> _Flow | None:
            dx = through_branch(_Flow(dy.buffer, False), wanted, dy.buffer)
            return self.plus(name, dx, add) if dx else None

        return (total, None, backward) if total else (branch, x, backward)
