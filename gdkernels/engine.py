"""What both engines promise to the network and the trainer above them: passes for a loop of the user's own, and training."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .plan import LossCall, Plan, Update
from .ranges import Range

Numbers = NDArray[np.float64]


# How a single step went: its loss, and "" where it was done; else NaN, and why nothing was changed: "label" where one is out
# of range, which may be one to be ignored, or "not finite" where the loss or a gradient is not.
Outcome = tuple[float, str]


class Training(Protocol):
    """Steps of gradient descent on the parameters of an engine."""

    def warm_up(self) -> None: ...
    def train(
        self, x: Any, y: Any, order: NDArray[np.int64], batch_size: int, rates: Numbers, scales: Numbers, samples: int,
        losses: Numbers, norms: Numbers | None = None, epochs: int = 1,
    ) -> int: ...  # fmt: skip
    def step(self, x: Any, y: Any, rate: float, scale: float, samples: int) -> Outcome: ...


class Engine(Protocol):
    """A plan over a network's flat buffers of parameters and gradients; see `cpu.engine.engine.Engine`."""

    plan: Plan

    def empty(self, rows: int) -> Any: ...
    def forward(self, x: Any, train: bool = False, samples: int = 0) -> Any: ...
    def backward(self, dy: Any, accumulate: bool = False) -> Any: ...
    def training(self, loss: LossCall, update: Update, clip_norm: float | None = None) -> Training: ...


class Shared(NamedTuple):
    """What a view in compiled code has in common with its network, on the CPU.

    params, flat_grads : the flat buffers
    grads : the gradients by the names of their parameters
    seen : one int64, the samples seen in training
    lease : one int64, 1 while the parameters are where they are, then 0
    """

    params: NDArray[Any]
    flat_grads: NDArray[Any]
    grads: Mapping[str, NDArray[Any]]
    seen: NDArray[np.int64]
    lease: NDArray[np.int64]


class Targets(NamedTuple):
    """What a loss reads of one kind of targets, labels or values.

    row_weight : of a row of values in the mean
    class_weight : of labels, where they do not all weigh the same
    ignored : the label of samples that do not count
    among : the range of the values, or None for any
    """

    call: LossCall
    labels: bool
    row_weight: float = 1.0
    class_weight: NDArray[np.float64] | None = None
    ignored: int = -1
    among: Range | None = None


class Uncopied:
    """An engine, or training on it: what it holds are addresses, which mean nothing in a copy or another process."""

    def __getstate__(self) -> None:
        raise TypeError(
            "Engine: it holds addresses of memory and cannot be copied or pickled, nor can a Trainer that uses it; copy "
            "or save the network, and make a new Trainer"
        )
