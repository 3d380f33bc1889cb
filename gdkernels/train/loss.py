"""The losses: their options, and what they ask of targets. The formulas are in `reference/loss.py` and
`reference/cross_entropy.py`, the kernels in the files of these names in each backend.

A loss is a mean: Σ of the terms of all samples / Σ of their weights. In a loss of elements (those of `scalar.loss`)
every sample weighs as many as the network has outputs; in softmax_cross_entropy it weighs 1, or as much as its class,
or nothing where its label is ignored. A batch in which nothing counts has loss 0 and gradient 0.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..check import INT64, Array, labels_in_range, matrix, number, whole
from ..engine import Targets
from ..ops.cross_entropy import softmax_cross_entropy
from ..ops.loss import binary_cross_entropy, huber, log_cosh, mse
from ..plan import CrossEntropy, ElementLoss, LossCall
from ..ranges import NOT_NEGATIVE, UNIT
from ..scalar.loss import ELEMENT_LOSSES

__all__ = ["MSE", "BinaryCrossEntropy", "Huber", "LogCosh", "SoftmaxCrossEntropy"]

Weights = float | NDArray[np.float64]  # of every sample in the mean: one number for all, or one each


class Loss:
    """What the losses have in common. Each is a frozen dataclass of its options.

    `op` is the operation that computes it, which also gives it its name. What stands here is for the losses of elements:
    ranges of options and of targets are those of their row in `scalar.loss`.
    """

    op: ClassVar[Callable[..., Any]]
    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = cls.op.__name__

    def __post_init__(self) -> None:
        for name, option in ELEMENT_LOSSES[self.name].options.items():
            value = number(type(self).__name__, name, getattr(self, name), option.range)
            object.__setattr__(self, name, value)

    def check_outputs(self, n_out: int) -> None:
        """Raise ValueError unless the loss can be that of a network with `n_out` outputs."""

    def counts_alike(self, n_out: int) -> bool:
        """Whether its targets may be labels that all have the weight 1, if they are in range."""
        return False

    def target(self, op: str, y: Array, rows: int, n_out: int, dtype: np.dtype[Any]) -> tuple[Array, Weights]:
        """Targets as the kernel reads them, and the weights of the samples.

        Raises TypeError and ValueError that name what is wrong with y: of an element, its row and value.
        """
        values = _values(op, y, rows, n_out, dtype)
        among = ELEMENT_LOSSES[self.name].targets
        if among is not None and rows and not (values.min() in among and values.max() in among):
            row, column = np.argwhere(~((values >= among.low) & (values <= among.high)))[0]
            raise ValueError(
                f"{op}: y[{row}, {column}] is {values[row, column]}, expected {among.words} for {self.name}"
            )
        return values, float(n_out)

    def call(self, target: Array, n_out: int, dtype: np.dtype[Any]) -> LossCall:
        """The kernel for such targets, with its options."""
        return ElementLoss(self.name, self._options())

    def kinds(self, n_out: int, dtype: np.dtype[Any]) -> list[Targets]:
        """The kinds of targets that there are, for what checks and weighs them in compiled code as `target` does here."""
        call = ElementLoss(self.name, self._options())
        return [Targets(call, False, float(n_out), among=ELEMENT_LOSSES[self.name].targets)]

    def _options(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in ELEMENT_LOSSES[self.name].options)

    def _op_options(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        """What the operation is asked for besides its arrays."""
        return dict(zip(ELEMENT_LOSSES[self.name].options, self._options(), strict=True))

    def value(self, output: Array, target: Array, weights: Weights) -> float:
        """The loss of outputs; NaN where nothing counts. Arguments as `target` gives them."""
        total = len(output) * weights if isinstance(weights, float) else float(weights.sum())
        # Not through the door: it saves a microsecond a call, and whoever trains need not wait until it is compiled.
        op = inspect.unwrap(self.op)
        terms = op(output, target, reduction="sum", **self._op_options(output.dtype))
        return float(terms) / total if total else math.nan

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        """What a person looks at: the name of a measure and its value for outputs of the network."""
        return "r2", r2(output, target)


@dataclass(frozen=True)
class MSE(Loss):
    """(1/n) Σ (y − target)², n = number of elements. Targets: (batch, n_out), or (batch,) for one output."""

    op = staticmethod(mse)


@dataclass(frozen=True)
class Huber(Loss):
    """(1/n) Σ of e²/2 where |e| ≤ delta, else delta (|e| − delta/2), e = y − target (Huber 1964). As `MSE`."""

    delta: float = 1.0
    op = staticmethod(huber)


@dataclass(frozen=True)
class LogCosh(Loss):
    """(1/n) Σ log cosh(y − target) (Saleh, Saleh 2022, arXiv 2208.04564). As `MSE`."""

    op = staticmethod(log_cosh)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """−(1/n) Σ (w t log p + (1 − t) log(1 − p)), p = sigmoid(y), t = target in [0, 1], w = pos_weight.

    Targets have the shape of the outputs; (batch,) will do for one output.
    """

    pos_weight: float = 1.0
    op = staticmethod(binary_cross_entropy)

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        return "accuracy", accuracy(output > 0, target > 0.5)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """−(1/Σ weights) Σ Σ_c w_c q_c log softmax(y)_c, q the smoothed targets: PyTorch's cross_entropy.

    Targets: labels (batch,), int32 or int64 in [0, n_out), or probabilities (batch, n_out).

    Parameters
    ----------
    label_smoothing : ε in [0, 1]: q = (1 − ε) target + ε / n_out
    class_weight : None, or n_out numbers ≥ 0
    ignore_index : samples with this label do not count
    """

    label_smoothing: float = 0.0
    class_weight: Sequence[float] | Array | None = None
    ignore_index: int = -100
    op = staticmethod(softmax_cross_entropy)

    def __post_init__(self) -> None:
        op, weight = "SoftmaxCrossEntropy", self.class_weight
        checked: dict[str, Any] = {
            "label_smoothing": number(op, "label_smoothing", self.label_smoothing, UNIT),
            "ignore_index": whole(op, "ignore_index", self.ignore_index),
        }
        if weight is not None:
            checked["class_weight"] = tuple(
                number(op, f"class_weight[{c}]", w, NOT_NEGATIVE) for c, w in enumerate(weight)
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def check_outputs(self, n_out: int) -> None:
        if n_out < 2:
            raise ValueError(
                "softmax_cross_entropy: the network has 1 output, expected one for each class; "
                "for a yes/no decision in one output use binary_cross_entropy"
            )
        if self.class_weight is not None and len(self.class_weight) != n_out:
            raise ValueError(
                f"softmax_cross_entropy: class_weight has {len(self.class_weight)} numbers, expected {n_out} "
                f"because the network has {n_out} outputs"
            )

    def counts_alike(self, n_out: int) -> bool:
        return self.class_weight is None and not 0 <= self.ignore_index < n_out

    def target(self, op: str, y: Array, rows: int, n_out: int, dtype: np.dtype[Any]) -> tuple[Array, Weights]:
        if not isinstance(y, np.ndarray):
            raise TypeError(f"{op}: y is of type {type(y).__name__}, expected a NumPy array")
        if y.ndim == 2 and y.dtype.kind == "f":
            return _values(op, y, rows, n_out, dtype), 1.0
        if y.dtype != INT64 and y.dtype != np.int32:
            raise TypeError(f"{op}: y has dtype {y.dtype}, expected labels in int32 or int64, or {dtype}")
        if y.shape != (rows,):
            raise ValueError(f"{op}: y has shape {y.shape}, expected ({rows},) because x has {rows} rows")
        if y.dtype != INT64 or not (y.flags.c_contiguous and y.flags.aligned):
            y = np.array(y, INT64, order="C")
        if labels_in_range(op, "y", y, n_out, self.ignore_index) and self.counts_alike(n_out):
            return y, 1.0
        counts = y != self.ignore_index
        if self.class_weight is None:
            return y, counts.astype(np.float64)
        return y, np.where(counts, np.asarray(self.class_weight)[np.where(counts, y, 0)], 0.0)

    def call(self, target: Array, n_out: int, dtype: np.dtype[Any]) -> LossCall:
        smoothing, weight, ignored = self._op_options(dtype).values()
        return CrossEntropy(target.ndim == 1, smoothing, weight, ignored)

    def kinds(self, n_out: int, dtype: np.dtype[Any]) -> list[Targets]:
        options = self._op_options(dtype).values()
        weight = None if self.class_weight is None else np.asarray(self.class_weight, np.float64)
        return [
            Targets(CrossEntropy(True, *options), True, class_weight=weight, ignored=self.ignore_index),
            Targets(CrossEntropy(False, *options), False),
        ]

    def _op_options(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        return {
            "label_smoothing": self.label_smoothing,
            "class_weight": None if self.class_weight is None else np.asarray(self.class_weight, dtype),
            "ignore_index": self.ignore_index,
        }

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        found = classes(output)
        if target.ndim == 2:
            return "accuracy", accuracy(found, classes(target))
        counts = target != self.ignore_index
        return "accuracy", accuracy(found[counts], target[counts])


LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in Loss.__subclasses__()}


# What qualities are called: in records, and where a person reads them.
MEASURES = {"accuracy": "accuracy", "r2": "R²"}


def classes(output: Array) -> NDArray[np.int64]:
    """The class that each row stands for: that of its largest number; of a single number, 1 where it is positive."""
    if output.shape[1] == 1:
        return (output[:, 0] > 0).astype(np.int64)
    return output.argmax(axis=1)


def accuracy(found: Array, wanted: Array) -> float:
    """The part of the decisions that are right; NaN where there are none."""
    return float(np.mean(found == wanted)) if len(found) else math.nan


def r2(output: Array, target: Array) -> float:
    """1 − Σ (target − output)² / Σ (target − mean)² of each column, averaged; NaN where a column does not vary."""
    y = target.astype(np.float64)
    left = np.sum((y - output) ** 2, axis=0)
    total = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
    return float(np.mean(np.where(total > 0, 1.0 - left / np.where(total > 0, total, 1.0), np.nan)))


def _values(op: str, y: Array, rows: int, n_out: int, dtype: np.dtype[Any]) -> Array:
    """Targets (rows, n_out) of the network's dtype; (rows,) is one column."""
    if isinstance(y, np.ndarray) and y.ndim == 1 and n_out == 1:
        y = y[:, None]
    if isinstance(y, np.ndarray) and y.shape != (rows, n_out) and y.dtype == dtype:
        raise ValueError(
            f"{op}: y has shape {y.shape}, expected ({rows}, {n_out}) because x has {rows} rows and the network "
            f"{n_out} output{'s' * (n_out != 1)}"
        )
    return matrix(op, "y", y, dtype, n_out)
