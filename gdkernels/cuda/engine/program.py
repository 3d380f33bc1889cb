"""From a plan to launches: each call becomes kernels with their addresses and sizes."""

from collections.abc import Iterable
from typing import assert_never

from ...plan import (
    ActivationCall,
    AnyCall,
    CrossEntropy,
    Dropout,
    ElementLoss,
    LinearCall,
    LossCall,
    NormCall,
)
from .. import activation, cross_entropy, dropout, linear, loss, norm
from ..binding import Binding
from ..runtime.jit import Launch


def bind(call: AnyCall, at: Binding) -> list[Launch]:
    """The launches of a call."""
    at.room.start()
    if isinstance(call, LinearCall):
        return linear.bind(call, at)
    if isinstance(call, ActivationCall):
        return activation.bind(call, at)
    if isinstance(call, NormCall):
        return norm.bind(call, at)
    if isinstance(call, Dropout):
        return dropout.bind(call, at)
    assert_never(call)


def bind_all(calls: Iterable[AnyCall], at: Binding) -> list[Launch]:
    """The launches of calls, one after the other."""
    return [launch for call in calls for launch in bind(call, at)]


def loss_launches(
    call: LossCall, storage: str, *, pred: int, target: int, grad: int, row_loss: int, rows: int, n: int, scale: int,
    class_weight: int = 0,
) -> list[Launch]:  # fmt: skip
    """The loss of each row, and its gradient times scale[0].

    pred, grad (rows, n); target (rows, n), or (rows,) int64 labels; row_loss (rows,). `class_weight` is the address of what
    the call holds in NumPy.
    """
    given = {"target": target, "grad": grad, "row_loss": row_loss, "rows": rows, "n": n, "scale": scale}
    if isinstance(call, CrossEntropy):
        kernel = cross_entropy.LABELS if call.labels else cross_entropy.PROBABILITIES
        if call.labels:
            given["ignore_index"] = call.ignore_index
        return cross_entropy.launches(
            storage, kernel, logits=pred, factor=1.0, divide=False, label_smoothing=call.label_smoothing,
            class_weight=class_weight, **given,
        )  # fmt: skip
    if isinstance(call, ElementLoss):
        return loss.element_launches(
            call.name, storage, pred=pred, terms=0, factor=1.0, options=call.options, **given
        )
    assert_never(call)
