"""The vocabulary of plans: a network as an engine sees it, a table of kernel calls over named matrices.

`nn.plan` lowers layers to a `Plan`; the engines of both wings walk it. Matrices are row-major, samples are rows. Each class
of calls says what it computes and names its operands; one that may be absent is None. dz may be da itself, and `out` of
`Add` and `Dropout` one of the inputs; other results have matrices of their own. Sizes are those of the operands.

Calls come in families: each has a file of its name in both wings, where a call becomes what is run (`bind`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 16  # elements; in float32 a cache line and the widest vector


def room_of(count: int) -> int:
    """The elements that a parameter of `count` elements takes up in the flat buffer: each begins at a multiple of 16."""
    return (count + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@dataclass(frozen=True)
class Buffer:
    """A matrix (batch, columns) in the engine's arena. `statistics`: of rows, in the type that is computed with."""

    name: str
    columns: int
    statistics: bool = False


@dataclass(frozen=True)
class Parameter:
    """A view of the flat parameter buffer.

    offset : in elements
    draw : how it begins: "zeros", "ones" or the name of a function of `gd.init`
    decays : whether it is a weight, which a trainer with decay="weights" lets decay alone
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    draw: str = "zeros"
    decays: bool = False


@dataclass(frozen=True)
class Gradient:
    """The same place in the flat gradient buffer."""

    parameter: Parameter


Operand = Buffer | Parameter | Gradient | None


@dataclass(frozen=True)
class Call:
    """A kernel on its operands, one of the classes below."""

    def operands(self) -> dict[str, Any]:
        """All fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def placed(self, place: Callable[[Any], Any]) -> dict[str, Any]:
        """All fields by name: what `place` gives for operands, present or absent, and options as they are."""
        return {
            name: place(value) if isinstance(value, Buffer | Parameter | Gradient | None) else value
            for name, value in self.operands().items()
        }


# ---------------------------------------------------------------------------------------------- the dense layer


@dataclass(frozen=True)
class LinearForward(Call):
    """a = act(z), z = x @ w + b. Without `z` the pre-activation is not kept."""

    x: Buffer
    w: Parameter
    b: Parameter | None
    z: Buffer | None
    a: Buffer
    kind: str


@dataclass(frozen=True)
class LinearDx(Call):
    """dx = dz @ wᵀ (+ add)."""

    dz: Buffer
    w: Parameter
    dx: Buffer
    add: Buffer | None


@dataclass(frozen=True)
class LinearDw(Call):
    """dw = xᵀ @ dz, summed over all samples."""

    x: Buffer
    dz: Buffer
    dw: Gradient


@dataclass(frozen=True)
class BiasGradient(Call):
    """db = Σ dz over all samples."""

    dz: Buffer
    db: Gradient


# ---------------------------------------------------------------------------------------------- element by element


@dataclass(frozen=True)
class ActivationForward(Call):
    """a = act(z)."""

    z: Buffer
    a: Buffer
    kind: str


@dataclass(frozen=True)
class ActivationBackward(Call):
    """dz = da ⊙ act′, from what `saved` holds: the output or the pre-activation."""

    da: Buffer
    saved: Buffer
    dz: Buffer
    kind: str


@dataclass(frozen=True)
class Dropout(Call):
    """out = mask ⊙ x / (1 − p), also on the way back: the same mask, which is a function of seed and samples seen."""

    x: Buffer
    out: Buffer
    p: float
    seed: int


# ---------------------------------------------------------------------------------------------- norms of rows


@dataclass(frozen=True)
class LayerNormForward(Call):
    """out = gamma (s − mean) rstd + beta with s = x (+ residual); stats = (mean, rstd)."""

    x: Buffer
    residual: Buffer | None
    gamma: Parameter
    beta: Parameter
    out: Buffer
    stats: Buffer
    eps: float


@dataclass(frozen=True)
class LayerNormDx(Call):
    """dx, the gradient of s."""

    dy: Buffer
    x: Buffer
    residual: Buffer | None
    gamma: Parameter
    stats: Buffer
    dx: Buffer


@dataclass(frozen=True)
class LayerNormGradients(Call):
    """dgamma and dbeta, summed over all samples."""

    dy: Buffer
    x: Buffer
    residual: Buffer | None
    stats: Buffer
    dgamma: Gradient
    dbeta: Gradient


@dataclass(frozen=True)
class RMSNormForward(Call):
    """out = gamma s rstd with s = x (+ residual); stats = rstd."""

    x: Buffer
    residual: Buffer | None
    gamma: Parameter
    out: Buffer
    stats: Buffer
    eps: float


@dataclass(frozen=True)
class RMSNormDx(Call):
    """dx, the gradient of s."""

    dy: Buffer
    x: Buffer
    residual: Buffer | None
    gamma: Parameter
    stats: Buffer
    dx: Buffer


@dataclass(frozen=True)
class RMSNormGradients(Call):
    """dgamma, summed over all samples."""

    dy: Buffer
    x: Buffer
    residual: Buffer | None
    stats: Buffer
    dgamma: Gradient


@dataclass(frozen=True)
class Scale(Call):
    """out = gamma ⊙ x, by columns; also on the way back, where x is the gradient."""

    x: Buffer
    gamma: Parameter
    out: Buffer


@dataclass(frozen=True)
class ScaleGradient(Call):
    """dgamma = Σ dy ⊙ x, summed over all samples."""

    dy: Buffer
    x: Buffer
    dgamma: Gradient


@dataclass(frozen=True)
class Add(Call):
    """out = a + b."""

    a: Buffer
    b: Buffer
    out: Buffer


# The families, for an exhaustive match in the file of their name.
LinearCall = LinearForward | LinearDx | LinearDw
ActivationCall = ActivationForward | ActivationBackward | BiasGradient
NormCall = (
    LayerNormForward | LayerNormDx | LayerNormGradients | RMSNormForward | RMSNormDx | RMSNormGradients
    | Scale | ScaleGradient | Add
)  # fmt: skip
AnyCall = LinearCall | ActivationCall | Dropout | NormCall


@dataclass
class Plan:
    """A network as an engine sees it."""

    input: Buffer
    output: Buffer
    output_gradient: Buffer
    input_gradient: Buffer | None
    buffers: list[Buffer]
    parameters: list[Parameter]
    size: int  # of the flat buffers, in elements
    evaluation: list[AnyCall]  # forward, without dropout
    forward: list[AnyCall]  # forward of training
    backward: list[AnyCall]  # from output_gradient to the gradient of every matrix that `gradients` reads
    gradients: list[AnyCall]  # of the parameters


# ---------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class ElementLoss:
    """A loss of elements, by its name in `scalar.loss`, with its options in their order there."""

    name: str
    options: tuple[float, ...] = ()


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of rows, for `labels` (batch,) or for probabilities (batch, classes)."""

    labels: bool
    label_smoothing: float = 0.0
    class_weight: NDArray[Any] | None = None
    ignore_index: int = -100


LossCall = ElementLoss | CrossEntropy


@dataclass
class Update:
    """An optimizer at work: its rule, the rule's options in their order (`scalar.optim`), state buffers, steps done.

    `decay` lists (start, stop, weight_decay): segments of the flat parameter buffer, in elements. `counter` holds the number
    of steps, one int64 in memory, where native code that takes steps counts them.
    """

    name: str
    options: tuple[float, ...]
    states: list[Any]
    decay: list[tuple[int, int, float]]
    counter: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def step(self) -> int:
        """Steps done."""
        return self.counter.item()

    @step.setter
    def step(self, done: int) -> None:
        self.counter[0] = done
