"""From a plan to launches: each call becomes kernels with their addresses and sizes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...plan import (
    ActivationCall,
    AnyCall,
    Buffer,
    CrossEntropy,
    Dropout,
    ElementLoss,
    Gradient,
    LinearCall,
    LossCall,
    NormCall,
    Operand,
    Parameter,
)
from .. import activation, cross_entropy, dropout, linear, loss, norm
from ..runtime.jit import Launch


@dataclass(frozen=True)
class Binding:
    """What calls are bound to, for a number of rows.

    Attributes
    ----------
    place : the address of an operand; 0 where it is absent
    storage, real : the types of the matrices and of what is computed with
    samples : the address of an int64, the number of samples seen before the step
    room : gives temporaries, which last for one call
    rows : of the batch
    accumulate : whether the gradients of parameters are added to what is there
    """

    place: Callable[[Operand], int]
    storage: str
    real: str
    samples: int
    room: Any
    rows: int
    accumulate: bool = False

    def __call__(self, operand: Operand) -> int:
        return self.place(operand)

    def operands(self, call: AnyCall) -> dict[str, Any]:
        """What a call is about, by name: addresses and options."""
        kinds = Buffer | Parameter | Gradient | None
        named = call.operands().items()
        return {name: self(value) if isinstance(value, kinds) else value for name, value in named}


def bind(call: AnyCall, at: Binding) -> list[Launch]:
    """The launches of a call."""
    at.room.start()
    if isinstance(call, LinearCall):
        return linear.bind(call, at)
    if isinstance(call, ActivationCall):
        return activation.bind(call, at)
    if isinstance(call, NormCall):
        return norm.bind(call, at)
    assert isinstance(call, Dropout)
    return dropout.bind(call, at)


def bind_all(calls: Iterable[AnyCall], at: Binding) -> list[Launch]:
    """The launches of calls, one after the other."""
    return [launch for call in calls for launch in bind(call, at)]


def loss_launches(
    call: LossCall, storage: str, pred: int, target: int, grad: int, row_loss: int, rows: int, n: int, scale: int,
    class_weight: int = 0,
) -> list[Launch]:  # fmt: skip
    """The loss of each row, and its gradient times scale[0].

    pred, grad (rows, n); target (rows, n), or (rows,) int64 labels; row_loss (rows,). `class_weight` is the address of what
    the call holds in NumPy.
    """
    if isinstance(call, CrossEntropy):
        options = (call.label_smoothing, class_weight, *((call.ignore_index,) if call.labels else ()))
        kernel = cross_entropy.LABELS if call.labels else cross_entropy.PROBABILITIES
        return cross_entropy.launches(
            storage, kernel, pred, target, grad, row_loss, rows, n, scale, 1.0, False, *options
        )
    assert isinstance(call, ElementLoss)
    return loss.element_launches(
        call.name, storage, pred, target, grad, row_loss, 0, rows, n, scale, 1.0, call.options
    )
