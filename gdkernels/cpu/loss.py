"""The losses of rows, with their gradients in the same pass.

Every kernel fills ``row_loss`` (float64) with the unscaled loss of each row and, unless it is null, ``grad`` with
scale · d(row loss)/d pred. The loss of the batch is scale · Σ row_loss; ``scale`` points to one float64, so that
a training step can change it without a new record. ``grad`` must not overlap ``pred`` or ``target``.
"""

import math

import numpy as np

from ..scalar import losses
from .norm import part, total
from .runtime import elementary as vmath  # noqa: F401  (vector code for exp and log1p)
from .runtime.jit import device, kernel, native
from .runtime.simd import address_of, noalias, offset, typed, unpack
from .runtime.team import SCRATCH_BYTES, address, float_bits, launch
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

# ---------------------------------------------------------------------------------------------- losses of elements

CHUNK = 2048  # elements whose terms wait in scratch memory until they are added up

_mse, _huber, _binary_cross_entropy = losses.mse, losses.huber, losses.binary_cross_entropy


@native("F*, F*, F*, F*, i8, F")
def mse_elements(pred, target, grad, terms, count, scale):
    """terms = l, grad = scale dl/dpred."""
    noalias()
    for i in range(count):
        terms[i], slope = _mse(pred[i], target[i])
        grad[i] = scale * slope


@native("F*, F*, F*, F*, i8, F, F")
def huber_elements(pred, target, grad, terms, count, scale, delta):
    """terms = l, grad = scale dl/dpred."""
    noalias()
    for i in range(count):
        terms[i], slope = _huber(pred[i], target[i], delta)
        grad[i] = scale * slope


@native("F*, F*, F*, F*, i8, F, F")
def binary_cross_entropy_elements(logits, target, grad, terms, count, scale, pos_weight):
    """terms = l, grad = scale dl/dlogits."""
    noalias()
    for i in range(count):
        terms[i], slope = _binary_cross_entropy(logits[i], target[i], pos_weight)
        grad[i] = scale * slope


@native("F*, f8*, i8, i8", reorder_sums=True)
def add_rows(terms, row_loss, rows, n):
    """row_loss += Σ of the n terms of each row."""
    noalias()
    if n == 1:
        for r in range(rows):
            row_loss[r] += terms[r]
        return
    for r in range(rows):
        row = offset(terms, r * n)
        added = type(row[0])(0)
        for j in range(n):
            added += row[j]
        row_loss[r] += added


@device
def over_rows(elements, options, pred, target, grad, row_loss, start, stop, n, scale, memory):
    """Rows [start, stop) in chunks: several short rows, or a part of a long one."""
    terms = typed(memory, pred)
    unwanted = typed(memory + 8 * CHUNK, pred)
    together = max(1, CHUNK // max(n, 1))
    for first in range(start, stop, together):
        rows = min(together, stop - first)
        losses = offset(row_loss, first)
        for r in range(rows):
            losses[r] = 0.0
        for j in range(0, n, CHUNK):  # one turn unless rows are longer than CHUNK
            width = min(CHUNK, n - j)
            place = first * n + j
            into = unwanted if address_of(grad) == 0 else offset(grad, place)
            elements(
                offset(pred, place), offset(target, place), into, terms, rows * width, scale[0], *options
            )
            add_rows(terms, losses, rows, width)


@kernel
def mse(record, start, stop, worker):
    """Row loss: Σ (pred − target)²."""
    scratch, pred, target, grad, row_loss, n, scale = unpack(record, "i8, F*, F*, F*, f8*, i8, f8*")
    memory = scratch + worker * SCRATCH_BYTES
    over_rows(mse_elements, (), pred, target, grad, row_loss, start, stop, n, scale, memory)


@kernel
def huber(record, start, stop, worker):
    """Row loss: Σ huber(pred − target)."""
    scratch, pred, target, grad, row_loss, n, scale, delta = unpack(
        record, "i8, F*, F*, F*, f8*, i8, f8*, f8"
    )
    memory = scratch + worker * SCRATCH_BYTES
    over_rows(huber_elements, (delta,), pred, target, grad, row_loss, start, stop, n, scale, memory)


@kernel
def binary_cross_entropy(record, start, stop, worker):
    """Row loss: Σ pos_weight t softplus(−z) + (1 − t) softplus(z), z = pred."""
    scratch, pred, target, grad, row_loss, n, scale, pos_weight = unpack(
        record, "i8, F*, F*, F*, f8*, i8, f8*, f8"
    )
    memory = scratch + worker * SCRATCH_BYTES
    over_rows(
        binary_cross_entropy_elements,
        (pos_weight,),
        pred,
        target,
        grad,
        row_loss,
        start,
        stop,
        n,
        scale,
        memory,
    )


# ---------------------------------------------------------------------------------------------- cross-entropy


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


@native("F*, i8")
def clear(row, n):
    """row = 0."""
    for j in range(n):
        row[j] = 0


@kernel
def softmax_cross_entropy_indices(record, start, stop, worker):
    """Row loss: −Σ_c w_c q_c log p_c, q = (1 − ε) onehot(target) + ε / n; 0 where target is ignore_index.

    With a_c = w_c q_c and A = Σ a_c it is A log(total) + Σ a_c (peak − z_c), two sums of no negative terms; the
    gradient is A p_c − a_c. Without smoothing only one a_c differs from 0.
    """
    scratch, pred, target, grad, row_loss, n, scale, smoothing, weight, ignore_index = unpack(
        record, "i8, F*, i8*, F*, f8*, i8, f8*, f8, F*, i8"
    )
    memory = scratch + worker * SCRATCH_BYTES
    peak, factor = typed(memory + PEAK, pred), typed(memory + FACTOR, pred)
    sums, log_sums = typed(memory + TOTAL, pred), typed(memory + LOG_TOTAL, pred)
    picked = typed(memory + PAIR, pred)
    wanted, weighted = address_of(grad) != 0, address_of(weight) != 0
    even = smoothing / n
    mass = 0.0 if smoothing == 0.0 else even * (total(weight, n) if weighted else n)
    block = together(n)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z, dz = offset(pred, first * n), part(grad, first * n)
        block_exponentials(z, dz, memory, rows, n, wanted)
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
            block_product(dz, memory, rows, n)
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
def softmax_cross_entropy_probabilities(record, start, stop, worker):
    """Row loss: −Σ_c w_c q_c log p_c, q = (1 − ε) target + ε / n. As for indices."""
    scratch, pred, target, grad, row_loss, n, scale, smoothing, weight = unpack(
        record, "i8, F*, F*, F*, f8*, i8, f8*, f8, F*"
    )
    memory = scratch + worker * SCRATCH_BYTES
    peak, factor = typed(memory + PEAK, pred), typed(memory + FACTOR, pred)
    sums, log_sums = typed(memory + TOTAL, pred), typed(memory + LOG_TOTAL, pred)
    pair = typed(memory + PAIR, pred)
    wanted = address_of(grad) != 0
    keep, even = 1.0 - smoothing, smoothing / n
    block = together(n)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        z, t, dz = offset(pred, first * n), offset(target, first * n), part(grad, first * n)
        block_exponentials(z, dz, memory, rows, n, wanted)
        logarithms(sums, log_sums)
        for r in range(rows):
            target_sums(offset(z, r * n), offset(t, r * n), weight, n, peak[r], keep, even, pair)
            row_loss[first + r] = float(pair[0]) * log_sums[r] + pair[1]
            factor[r] = scale[0] * pair[0] / sums[r]
        if not wanted:
            continue
        block_product(dz, memory, rows, n)
        for r in range(rows):
            row = offset(dz, r * n)
            take_target_away(row, offset(t, r * n), weight, n, scale[0] * keep, scale[0] * even)


KERNELS = {
    loss.name.rpartition(".")[2]: loss
    for loss in (
        mse,
        huber,
        binary_cross_entropy,
        softmax_cross_entropy_indices,
        softmax_cross_entropy_probabilities,
    )
}

# ---------------------------------------------------------------------------------------------- the ops' way in

UINT64 = np.dtype(np.uint64)
ROW = 2 * CHUNK  # a batch of elements is cut into rows of so many, whatever its shape
# Nanoseconds an element of float32 on one core, about.
ELEMENT_WORK = {mse: 0.2, huber: 0.2, binary_cross_entropy: 1.4}
CLASS_WORK = 1.0


def _at(array) -> int:
    return 0 if array is None else address(array)


def of_elements(loss, pred, target, grad, scale: float, options: tuple = (), one_by_one: bool = False):
    """The unscaled losses (float64) of flat arrays: of every element, or of rows of `ROW`. grad receives the gradient."""
    n = 1 if one_by_one else ROW
    rows, rest = divmod(pred.size, n)
    results = np.empty(1 + rows + (rest > 0))
    results[0] = scale
    place = address(results)
    p, t, g = address(pred), address(target), _at(grad)
    words = (place, *map(float_bits, options))
    work = pred.nbytes / 4 * ELEMENT_WORK[loss]
    launch(loss, pred.dtype, (p, t, g, place + 8, n, *words), rows, work=work)
    if rest:
        skip = rows * n * pred.itemsize
        last = (p + skip, t + skip, g and g + skip, place + 8 * (1 + rows), rest)
        launch(loss, pred.dtype, (*last, *words), 1)
    return results[1:]


def of_rows(logits, target, grad, scale: float, label_smoothing: float, class_weight, ignore_index: int):
    """The unscaled cross-entropies (float64) of rows; target holds int64 labels (batch,) or probabilities."""
    batch, n = logits.shape
    results = np.empty(1 + batch)
    results[0] = scale
    place = address(results)
    operands = (
        address(logits), address(target), _at(grad), place + 8, n, place, float_bits(label_smoothing),
        _at(class_weight),
    )  # fmt: skip
    work = logits.nbytes / 4 * CLASS_WORK
    if target.ndim == 1:
        launch(softmax_cross_entropy_indices, logits.dtype, (*operands, ignore_index), batch, work=work)
    else:
        launch(softmax_cross_entropy_probabilities, logits.dtype, operands, batch, work=work)
    return results[1:]


def elements(name: str, pred, target, grad, reduction: str, options: tuple = ()):
    """The loss of arrays of any one shape: of every element ("none"), their sum or their mean."""
    size = pred.size
    scale = 1.0 / size if reduction == "mean" and size else 1.0
    slope = None if grad is None else grad.reshape(-1)
    one_by_one = reduction == "none"
    terms = of_elements(
        KERNELS[name], pred.reshape(-1), target.reshape(-1), slope, scale, options, one_by_one
    )
    if one_by_one:
        return terms.astype(pred.dtype).reshape(pred.shape)
    total = float(np.add.reduce(terms))
    if reduction == "sum":
        return total
    return total / size if size else math.nan


def _all_in_range(op: str, target, classes: int, ignore_index: int) -> bool:
    """Whether every label is a class; ValueError that names the first row whose label is none and is not ignored."""
    # As unsigned numbers negative labels are the largest: one look at the maximum tells.
    if target.size == 0 or np.maximum.reduce(target.view(UINT64)) < classes:
        return True
    wrong = (target != ignore_index) & ((target < 0) | (target >= classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{op}: target[{row}] is {target[row]}, expected a class in [0, {classes})")
    return False


def rows(
    op: str, logits, target, grad, reduction: str, label_smoothing: float, class_weight, ignore_index: int
):
    """The cross-entropy of each row ("none"), their sum or their mean. ValueError where a label is no class."""
    batch, classes = logits.shape
    count = mass = batch
    if target.ndim == 1:
        counting = target
        if not _all_in_range(op, target, classes, ignore_index) or 0 <= ignore_index < classes:
            counting = target[target != ignore_index]
        count = counting.size
        mass = count if class_weight is None else float(class_weight[counting].sum(dtype=np.float64))
    scale = 1.0
    if reduction == "mean":
        scale = 1.0 / mass if mass else (math.nan if count else 0.0)
    terms = of_rows(logits, target, grad, scale, label_smoothing, class_weight, ignore_index)
    if reduction == "none":
        return terms.astype(logits.dtype)
    total = float(np.add.reduce(terms))
    if reduction == "sum":
        return total
    return total / mass if mass else math.nan
