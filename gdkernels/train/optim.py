"""The optimizers: their hyper-parameters, checked, with PyTorch's defaults.

The formulas are in `reference/optim.py`, the kernels in `optim.py` of each backend. An optimizer holds no state: a
`Trainer` makes that (`update`). `lr` is the learning rate where the trainer has no schedule. `weight_decay` is
L2, added to the gradient, except in AdamW and Lion, which shrink the parameters directly.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..check import number, truth
from ..nn.place import CPU, Place
from ..plan import Plan, Update
from ..ranges import NOT_NEGATIVE
from ..scalar.optim import PLAIN, RULES, Rule

__all__ = ["SGD", "AMSGrad", "AdaGrad", "Adam", "AdamW", "Lion", "NAdam", "RMSProp"]


class Optimizer:
    """What the optimizers have in common. Each is a frozen dataclass of the hyper-parameters of a rule (`scalar.optim`)."""

    lr: float
    weight_decay: float
    name: ClassVar[str]  # of the rule, whose options are the fields

    @property
    def rule(self) -> Rule:
        return RULES[self.name]

    def __post_init__(self) -> None:
        op = type(self).__name__
        for field in fields(self):  # type: ignore[arg-type]
            name, value = field.name, getattr(self, field.name)
            if isinstance(field.default, bool):
                truth(op, name, value)
            else:
                among = self.rule.options[name].range if name in self.rule.options else NOT_NEGATIVE
                object.__setattr__(self, name, number(op, name, value, among))

    def update(self, plan: Plan, dtype: np.dtype[Any], decay: str, place: Place = CPU) -> Update:
        """The optimizer at work on the parameters of a plan: state of zeros in `place`, no step done.

        `decay` says which parameters decay: "all", or "weights" for the weights alone.
        """
        name = self.kernel
        return Update(
            name=name,
            options=tuple(float(getattr(self, option)) for option in RULES[name].options),
            states=[
                place.zeros(plan.size, dtype, line=24 + 12 * state)
                for state in range(len(RULES[name].states))
            ],
            decay=_segments(plan, self.weight_decay, decay),
        )

    @property
    def kernel(self) -> str:
        """The name of the rule that is carried out."""
        return self.name


def _segments(plan: Plan, weight_decay: float, decay: str) -> list[tuple[int, int, float]]:
    """(start, stop, weight_decay) of stretches of the flat buffer, which they cover."""
    stops = [*(parameter.offset for parameter in plan.parameters[1:]), plan.size]
    segments: list[tuple[int, int, float]] = []
    for parameter, stop in zip(plan.parameters, stops, strict=True):
        own = weight_decay if decay == "all" or parameter.decays else 0.0
        if segments and segments[-1][2] == own:
            segments[-1] = (segments[-1][0], stop, own)
        else:
            segments.append((parameter.offset, stop, own))
    return segments


@dataclass(frozen=True)
class SGD(Optimizer):
    """v ← momentum v + g, p ← p − lr v; with nesterov p ← p − lr (g + momentum v) (Sutskever et al. 2013)."""

    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    name = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("SGD: nesterov is True, expected False because momentum is 0")

    @property
    def kernel(self) -> str:
        return self.name if self.momentum else PLAIN


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v ← alpha v + (1 − alpha) g², p ← p − lr g / (√v + eps) (Tieleman and Hinton 2012, lecture 6.5)."""

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    name = "rmsprop"


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """v ← v + g², p ← p − lr g / (√v + eps) (Duchi et al. 2011)."""

    lr: float = 1e-2
    eps: float = 1e-10
    weight_decay: float = 0.0
    name = "adagrad"


@dataclass(frozen=True)
class Adam(Optimizer):
    """p ← p − lr m̂ / (√v̂ + eps), m and v running means of g and g² (Kingma, Ba 2015, arXiv 1412.6980)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    name = "adam"


@dataclass(frozen=True)
class AdamW(Optimizer):
    """p ← (1 − lr weight_decay) p, then Adam's step (Loshchilov, Hutter 2019, arXiv 1711.05101)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    name = "adamw"


@dataclass(frozen=True)
class AMSGrad(Optimizer):
    """Adam with the largest v so far in place of v (Reddi et al. 2018, arXiv 1904.09237)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    name = "amsgrad"


@dataclass(frozen=True)
class NAdam(Optimizer):
    """Adam with Nesterov's look ahead and a momentum that rises from beta1 / 2 to beta1 (Dozat 2016)."""

    lr: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum_decay: float = 4e-3
    weight_decay: float = 0.0
    name = "nadam"


@dataclass(frozen=True)
class Lion(Optimizer):
    """p ← p − lr (sign(beta1 m + (1 − beta1) g) + weight_decay p), m ← beta2 m + (1 − beta2) g.

    Every element moves by lr, which is hence smaller than Adam's (Chen et al. 2023, arXiv 2302.06675).
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    name = "lion"


BY_NAME: dict[str, Callable[..., Optimizer]] = {kind.name: kind for kind in Optimizer.__subclasses__()}
