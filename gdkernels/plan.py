"""The vocabulary of plans: a network as an engine sees it, a table of kernel calls over named matrices.

`nn.plan` lowers layers to a `Plan`; the engines of both wings walk it.

The calls and their operands (matrices are row-major, samples are rows; | None: operands that may be absent):

    linear (x, w, b | None, z | None, a, kind, n_in, n_out)         a = act(z), z = x @ w + b
    activation (z, a, kind, n)                                      a = act(z)
    activation_backward (da, saved, dz, kind, n)                    dz = da ⊙ act′
    linear_dx (dz, w, dx, add | None, n_in, n_out)                  dx = dz @ wᵀ (+ add)
    layernorm (x, residual | None, gamma, beta, out, stats, n, eps) of x (+ residual); stats has 2 columns
    layernorm_dx (dy, x, residual | None, gamma, stats, dx, n)
    rmsnorm (x, residual | None, gamma, out, stats, n, eps)         of x (+ residual); stats has 1 column
    rmsnorm_dx (dy, x, residual | None, gamma, stats, dx, n)
    dropout (x, out, n, p, seed)                                    also on the way back: the same mask
    add (a, b, out, n)                                              out = a + b

and for the parameters, sums over all samples:

    linear_dw (x, dz, dw, n_in, n_out)                              dw = xᵀ @ dz
    bias_gradient (dz, db, n)                                       db = Σ dz
    layernorm_gradients (dy, x, residual | None, stats, dgamma, dbeta, n)
    rmsnorm_gradients (dy, x, residual | None, stats, dgamma, n)

dz may be da itself, and `out` of add and dropout one of the inputs; other results have matrices of their own.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Buffer:
    """A matrix (batch, columns) in the engine's arena."""

    name: str
    columns: int


@dataclass(frozen=True)
class Parameter:
    """A view of the flat parameter buffer; `offset` counts elements."""

    name: str
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Gradient:
    """The same place in the flat gradient buffer."""

    parameter: Parameter


Operand = Buffer | Parameter | Gradient | int | float | str | None


@dataclass(frozen=True)
class Call:
    """One kernel on its operands."""

    kernel: str
    operands: tuple[Operand, ...]


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
    evaluation: list[Call]  # forward, without dropout
    forward: list[Call]  # forward of training
    backward: list[Call]  # from output_gradient to the gradient of every matrix that `gradients` reads
    gradients: list[Call]  # of the parameters


@dataclass
class LossCall:
    """A loss kernel (a name that both wings know) and the options that it takes after the scale."""

    kernel: str
    options: tuple[Any, ...] = ()


@dataclass
class Update:
    """An optimizer at work: its name, hyper-parameters (`scalar.hyper`), state buffers and the number of steps done.

    `decay` lists (start, stop, weight_decay): segments of the flat parameter buffer, in elements.
    """

    name: str
    hyper: NDArray[Any]
    states: list[Any]
    step: int
    decay: list[tuple[int, int, float]]


class Uncopied:
    """An engine, in either wing: what it holds are addresses, which mean nothing in a copy or another process."""

    def __getstate__(self) -> None:
        raise TypeError(
            "Engine: holds addresses of memory and cannot be copied or pickled, nor can a Trainer with it; copy or "
            "save the network, and make a new Trainer"
        )
