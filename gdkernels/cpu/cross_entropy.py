"""Softmax cross-entropy of rows with its gradient in the same pass, for labels and for probabilities.

What the kernels fill is told in `loss`; peak, total and exponentials of rows are those of `softmax`.
"""

import math

import numpy as np

from ..check import INT64, labels_in_range
from .cost import work
from .loss import summed
from .norm_rows import part, total
from .runtime.jit import Op, kernel, native
from .runtime.layout import Double, Doubles, Floats, Int, Ints, OptionalFloats
from .runtime.simd import address_of, noalias, offset, typed
from .runtime.team import run
from .runtime.vectors import clear
from .softmax import (
    FACTOR,
    LOG_TOTAL,
    PAIR,
    PEAK,
    TOTAL,
    block_exponentials,
    block_product,
    logarithms,
    together,
)


@native("F*, F*, i8, F -> F", reorder_sums=True)
def distance(z, weight, n, peak):
    """Σ_c w_c (peak − z_c); all weights are 1 where `weight` is null."""
    added = type(peak)(0)
    weighted = address_of(weight) != 0
    for c in range(n):
        gap = peak - z[c]
        added += weight[c] * gap if weighted else gap
    return added


@native("F*, F*, i8, F")
def take_away(grad, weight, n, amount):
    """grad_c −= amount w_c."""
    noalias()
    weighted = address_of(weight) != 0
    for c in range(n):
        grad[c] -= amount * weight[c] if weighted else amount


@native("F*, F*, F*, i8, F, F, F, F*", reorder_sums=True)
def target_sums(z, target, weight, n, peak, keep, even, sums):
    """With a_c = w_c (keep target_c + even): sums = Σ a_c and Σ a_c (peak − z_c)."""
    noalias()
    mass, gap = type(peak)(0), type(peak)(0)
    weighted = address_of(weight) != 0
    for c in range(n):
        a = keep * target[c] + even
        a = weight[c] * a if weighted else a
        mass += a
        gap += a * (peak - z[c])
    sums[0] = mass
    sums[1] = gap


@native("F*, F*, F*, i8, F, F")
def take_target_away(grad, target, weight, n, keep, even):
    """grad_c −= w_c (keep target_c + even)."""
    noalias()
    weighted = address_of(weight) != 0
    for c in range(n):
        a = keep * target[c] + even
        grad[c] -= weight[c] * a if weighted else a


@native("f8*, F*, F*, F*, F*, i8, f8, f8, f8")
def row_losses(losses, picked, log_sums, sums, factor, rows, keep, mass, scale):
    """losses = a (log(total) + losses) + mass log(total) with a = keep picked; factor = scale (a + mass) / total."""
    noalias()
    for r in range(rows):
        a = keep * picked[r]
        losses[r] = a * (log_sums[r] + losses[r]) + mass * log_sums[r]
        factor[r] = scale * (a + mass) / sums[r]


@kernel
def softmax_cross_entropy_indices(
    pred: Floats,
    target: Ints,
    grad: OptionalFloats,
    row_loss: Doubles,
    n: Int,
    scale: Doubles,
    smoothing: Double,
    weight: OptionalFloats,
    ignore_index: Int,
    start,
    stop,
    scratch,
):
    """Row loss: −Σ_c w_c q_c log p_c, q = (1 − ε) onehot(target) + ε / n; 0 where target is ignore_index.

    With a_c = w_c q_c and A = Σ a_c it is A log(total) + Σ a_c (peak − z_c), two sums of no negative terms; the
    gradient is A p_c − a_c. Without smoothing only one a_c differs from 0.
    """
    peak, factor = typed(scratch + PEAK, pred), typed(scratch + FACTOR, pred)
    sums, log_sums = typed(scratch + TOTAL, pred), typed(scratch + LOG_TOTAL, pred)
    picked = typed(scratch + PAIR, pred)
    wanted, weighted = address_of(grad) != 0, address_of(weight) != 0
    even = smoothing / n
    mass = 0.0 if smoothing == 0.0 else even * (total(weight, n) if weighted else n)
    block = together(n)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z, dz = offset(pred, first * n), part(grad, first * n)
        block_exponentials(z, dz, scratch, rows, n, wanted)
        logarithms(sums, log_sums)
        labels, losses = offset(target, first), offset(row_loss, first)
        ignored = 0
        for r in range(rows):
            label = labels[r]
            if label == ignore_index:
                ignored += 1
                label = 0
            losses[r] = peak[r] - z[r * n + label]
            picked[r] = weight[label] if weighted else 1.0
        row_losses(losses, picked, log_sums, sums, factor, rows, 1.0 - smoothing, mass, scale[0])
        if smoothing != 0.0:
            for r in range(rows):
                losses[r] += even * distance(offset(z, r * n), weight, n, peak[r])
        if wanted:
            block_product(dz, scratch, rows, n)
            for r in range(rows):
                row = offset(dz, r * n)
                if smoothing != 0.0:
                    take_away(row, weight, n, scale[0] * even)
                label = labels[r]
                if label != ignore_index:
                    row[label] -= scale[0] * (1.0 - smoothing) * picked[r]
        if ignored > 0:
            for r in range(rows):
                if labels[r] == ignore_index:
                    losses[r] = 0.0
                    if wanted:
                        clear(offset(dz, r * n), n)  # what the softmax of a NaN times 0 is not


@kernel
def softmax_cross_entropy_probabilities(
    pred: Floats,
    target: Floats,
    grad: OptionalFloats,
    row_loss: Doubles,
    n: Int,
    scale: Doubles,
    smoothing: Double,
    weight: OptionalFloats,
    start,
    stop,
    scratch,
):
    """Row loss: −Σ_c w_c q_c log p_c, q = (1 − ε) target + ε / n. As for indices."""
    peak, factor = typed(scratch + PEAK, pred), typed(scratch + FACTOR, pred)
    sums, log_sums = typed(scratch + TOTAL, pred), typed(scratch + LOG_TOTAL, pred)
    pair = typed(scratch + PAIR, pred)
    wanted = address_of(grad) != 0
    keep, even = 1.0 - smoothing, smoothing / n
    block = together(n)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z, t, dz = offset(pred, first * n), offset(target, first * n), part(grad, first * n)
        block_exponentials(z, dz, scratch, rows, n, wanted)
        logarithms(sums, log_sums)
        for r in range(rows):
            target_sums(offset(z, r * n), offset(t, r * n), weight, n, peak[r], keep, even, pair)
            row_loss[first + r] = float(pair[0]) * log_sums[r] + pair[1]
            factor[r] = scale[0] * pair[0] / sums[r]
        if not wanted:
            continue
        block_product(dz, scratch, rows, n)
        for r in range(rows):
            row = offset(dz, r * n)
            take_target_away(row, offset(t, r * n), weight, n, scale[0] * keep, scale[0] * even)


# ---------------------------------------------------------------------------------------------- ops


def row_op(
    logits, target, grad, row_loss, scale, label_smoothing: float, class_weight, ignore_index: int
) -> Op:
    """row_loss = the unscaled cross-entropies of rows, grad = scale[0] times their gradient.

    target holds int64 labels (batch,), or the probabilities of the classes; grad and class_weight may be None.
    """
    batch, n = logits.shape
    cost = work("cross-entropy", logits)
    if target.dtype == INT64:
        return softmax_cross_entropy_indices.op(
            logits.dtype, batch, work=cost,
            pred=logits, target=target, grad=grad, row_loss=row_loss, n=n, scale=scale, smoothing=label_smoothing,
            weight=class_weight, ignore_index=ignore_index,
        )  # fmt: skip
    return softmax_cross_entropy_probabilities.op(
        logits.dtype, batch, work=cost,
        pred=logits, target=target, grad=grad, row_loss=row_loss, n=n, scale=scale, smoothing=label_smoothing,
        weight=class_weight,
    )  # fmt: skip


def of_rows(logits, target, grad, scale: float, label_smoothing: float, class_weight, ignore_index: int):
    """The unscaled cross-entropies (float64) of rows; see `row_op`."""
    results = np.empty(1 + len(logits))
    results[0] = scale
    run(row_op(logits, target, grad, results[1:], results, label_smoothing, class_weight, ignore_index))
    return results[1:]


def rows(
    op: str, logits, target, grad, reduction: str, label_smoothing: float, class_weight, ignore_index: int
):
    """The cross-entropy of each row ("none"), their sum or their mean. ValueError where a label is not a class."""
    batch, classes = logits.shape
    count = mass = batch
    if target.ndim == 1:
        counting = target
        plain = labels_in_range(op, "target", target, classes, ignore_index)
        if not plain or 0 <= ignore_index < classes:
            counting = target[target != ignore_index]
        count = counting.size
        mass = count if class_weight is None else summed(class_weight[counting].astype(np.float64))
    scale = 1.0
    if reduction == "mean":
        scale = 1.0 / mass if mass else (math.nan if count else 0.0)
    terms = of_rows(logits, target, grad, scale, label_smoothing, class_weight, ignore_index)
    if reduction == "none":
        return terms.astype(logits.dtype)
    total = summed(terms)
    if reduction == "sum":
        return total
    return total / mass if mass else math.nan
