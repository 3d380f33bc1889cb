"""The losses: their options, and what they ask of targets. The formulas stand in `reference/loss.py`, the kernels
in `cpu/loss.py`.

A loss is a mean: Σ of the terms of all samples / Σ of their weights. In a loss of elements (mse, huber,
binary_cross_entropy) every sample weighs as many as the network has outputs; in softmax_cross_entropy it weighs 1,
or as much as its class, or nothing where its label is ignored. A batch in which nothing counts has loss 0 and
gradient 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..check import Array, matrix, number
from ..plan import LossCall
from ..ranges import NOT_NEGATIVE, POSITIVE, UNIT

Weights = float | NDArray[np.float64]  # of every sample in the mean: one number for all, or one each

INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


class Loss:
    """What the losses have in common. Each is a frozen dataclass of its options."""

    name = ""

    def check_outputs(self, n_out: int) -> None:
        """Raise ValueError unless the loss can be that of a network with so many outputs."""

    def target(self, op: str, y: Array, rows: int, n_out: int, dtype: np.dtype[Any]) -> tuple[Array, Weights]:
        """Targets as the kernel reads them, and the weights of the samples.

        Raises TypeError and ValueError that name what is wrong with y: of an element, its row and value.
        """
        return _values(op, y, rows, n_out, dtype), float(n_out)

    def call(self, target: Array, n_out: int, dtype: np.dtype[Any]) -> LossCall:
        """The kernel for such targets, with its options."""
        return LossCall(self.name, self._options())

    def _options(self) -> tuple[float, ...]:
        return ()

    def value(self, output: Array, target: Array, weights: Weights) -> float:
        """The loss of outputs; NaN where nothing counts. Arguments as `target` gives them."""
        from ..cpu import loss as kernels

        terms = kernels.of_elements(kernels.KERNELS[self.name], output, target, None, 1.0, self._options())
        return float(terms.sum()) / output.size

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        """What a person looks at: the name of a measure and its value for outputs of the network."""
        return "r2", r2(output, target)


@dataclass(frozen=True)
class MSE(Loss):
    """(1/n) Σ (y − target)², n = number of elements. Targets: (batch, n_out), or (batch,) for one output."""

    name = "mse"


@dataclass(frozen=True)
class Huber(Loss):
    """(1/n) Σ of e²/2 where |e| ≤ delta, else delta (|e| − delta/2), e = y − target (Huber 1964). As `MSE`."""

    delta: float = 1.0
    name = "huber"

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", _positive("Huber", "delta", self.delta))

    def _options(self) -> tuple[float, ...]:
        return (self.delta,)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """−(1/n) Σ (w t log p + (1 − t) log(1 − p)), p = sigmoid(y), t = target in [0, 1], w = pos_weight.

    Targets have the shape of the outputs; (batch,) will do for one output.
    """

    pos_weight: float = 1.0
    name = "binary_cross_entropy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pos_weight", _positive("BinaryCrossEntropy", "pos_weight", self.pos_weight))

    def _options(self) -> tuple[float, ...]:
        return (self.pos_weight,)

    def target(self, op: str, y: Array, rows: int, n_out: int, dtype: np.dtype[Any]) -> tuple[Array, Weights]:
        values = _values(op, y, rows, n_out, dtype)
        if rows and not (values.min() >= 0.0 and values.max() <= 1.0):
            row, column = np.argwhere(~((values >= 0.0) & (values <= 1.0)))[0]
            raise ValueError(
                f"{op}: y[{row}, {column}] is {values[row, column]}, expected a number in [0, 1] "
                "for binary_cross_entropy"
            )
        return values, float(n_out)

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        return "accuracy", float(np.mean((output > 0) == (target > 0.5)))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """−(1/Σ weights) Σ Σ_c w_c q_c log softmax(y)_c, q the smoothed targets: PyTorch's cross_entropy.

    Targets: labels (batch,), int32 or int64 in [0, n_out), or probabilities (batch, n_out).

    Parameters
    ----------
    label_smoothing : ε in [0, 1]: q = (1 − ε) target + ε / n_out
    class_weight : None, or n_out numbers from 0 on
    ignore_index : samples with this label do not count
    """

    label_smoothing: float = 0.0
    class_weight: Sequence[float] | Array | None = None
    ignore_index: int = -100
    name = "softmax_cross_entropy"

    def __post_init__(self) -> None:
        op, smoothing = "SoftmaxCrossEntropy", self.label_smoothing
        smoothing = number(op, "label_smoothing", smoothing, UNIT)
        object.__setattr__(self, "label_smoothing", smoothing)
        if isinstance(self.ignore_index, bool) or not isinstance(self.ignore_index, int | np.integer):
            raise TypeError(f"{op}: ignore_index is {self.ignore_index!r}, expected an integer")
        object.__setattr__(self, "ignore_index", int(self.ignore_index))
        if self.class_weight is not None:
            weights = tuple(
                number(op, f"class_weight[{c}]", w, NOT_NEGATIVE) for c, w in enumerate(self.class_weight)
            )
            object.__setattr__(self, "class_weight", weights)

    def check_outputs(self, n_out: int) -> None:
        if n_out < 2:
            raise ValueError(
                "softmax_cross_entropy: the network has 1 output, expected one for each class; "
                "for yes or no in one output there is binary_cross_entropy"
            )
        if self.class_weight is not None and len(self.class_weight) != n_out:
            raise ValueError(
                f"softmax_cross_entropy: class_weight has {len(self.class_weight)} numbers, expected {n_out} "
                f"because the network has {n_out} outputs"
            )

    def counts_alike(self, n_out: int) -> bool:
        """Whether all labels in range have the same weight, 1."""
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
        # As unsigned numbers negative labels are the largest: one look at the maximum tells that all are in range.
        if rows == 0 or np.maximum.reduce(y.view(UINT64)) < n_out:
            if self.counts_alike(n_out):
                return y, 1.0
            counts = y != self.ignore_index
        else:
            counts = y != self.ignore_index
            wrong = counts & ((y < 0) | (y >= n_out))
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(f"{op}: y[{row}] is {y[row]}, expected a label in [0, {n_out})")
        if self.class_weight is None:
            return y, counts.astype(np.float64)
        return y, np.where(counts, np.asarray(self.class_weight)[np.where(counts, y, 0)], 0.0)

    def call(self, target: Array, n_out: int, dtype: np.dtype[Any]) -> LossCall:
        weight = None if self.class_weight is None else np.asarray(self.class_weight, dtype)
        if target.ndim == 1:
            return LossCall(f"{self.name}_indices", (self.label_smoothing, weight, self.ignore_index))
        return LossCall(f"{self.name}_probabilities", (self.label_smoothing, weight))

    def value(self, output: Array, target: Array, weights: Weights) -> float:
        from ..cpu import cross_entropy as kernels

        weight = None if self.class_weight is None else np.asarray(self.class_weight, output.dtype)
        terms = kernels.of_rows(output, target, None, 1.0, self.label_smoothing, weight, self.ignore_index)
        total = len(output) * weights if isinstance(weights, float) else float(weights.sum())
        return float(terms.sum()) / total if total else math.nan

    def quality(self, output: Array, target: Array) -> tuple[str, float]:
        found = output.argmax(axis=1)
        if target.ndim == 2:
            return "accuracy", float(np.mean(found == target.argmax(axis=1)))
        counts = target != self.ignore_index
        return "accuracy", float(np.mean(found[counts] == target[counts])) if counts.any() else math.nan


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (MSE, Huber, BinaryCrossEntropy, SoftmaxCrossEntropy)
}


def r2(output: Array, target: Array) -> float:
    """1 − Σ (target − output)² / Σ (target − mean)² of each column, averaged; NaN where a column does not vary."""
    y = target.astype(np.float64)
    left = np.sum((y - output) ** 2, axis=0)
    total = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
    return float(np.mean(np.where(total > 0, 1.0 - left / np.where(total > 0, total, 1.0), np.nan)))


def _positive(op: str, name: str, value: object) -> float:
    return number(op, name, value, POSITIVE)


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
