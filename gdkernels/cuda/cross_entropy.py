"""Softmax cross-entropy of rows with its gradient, for labels and for probabilities; checks and weights of labels.

    loss = −Σ_c w_c q_c log p_c,  p = softmax(z),  q = keep y + even,  keep = 1 − ε,  even = ε / n

y is 1 at the label and 0 elsewhere, or the target's probabilities. With a_c = w_c q_c and A = Σ a_c the loss is
A log(total) + Σ a_c (peak − z_c), two sums of no negative terms (peak and total as in `softmax`), and its gradient
A p_c − a_c.

Each row has a team of threads (`rows`). The kernels that end in 4 load four elements at a time and keep the row in
registers: logits are read once, the gradient is written once, 8 n bytes a row in float32. Those that end in 1 read it twice:
first for peak, total (online) and A, then for the loss and the gradient. Probabilities and class weights are read twice by
both, the second time from the caches.

A row whose label is to be ignored has loss 0 and gradient 0, whatever stands there. A label that is not a class gives NaN,
and is never an index.
"""

import math

import numpy as np

from ..scalar.elementary import exp, log
from .rows import (
    BLOCK_SHIFT,
    HELD,
    HELD_COLUMNS,
    SUMMED,
    THREADS,
    WARPS,
    can_hold,
    fours,
    member,
    part,
    sum_launches,
    team_max,
    team_sum,
    teams,
)
from .runtime import driver
from .runtime.arrays import address_of
from .runtime.intrinsics import is_wide, load4, smaller, store4, warp_reduction
from .runtime.jit import Launch, device, kernel, run
from .runtime.pointer import BYTES, COMPUTED, is_null, offset, real, registers, shared
from .runtime.storages import NETWORKS, REALS, SINGLES
from .runtime.target import cuda
from .softmax import further, scaled

NOBODY = -1  # the label to ignore where there are no labels


@device
def scale_of(scale, factor, divide):
    """factor · scale[0], or factor / scale[0] where that is to divide (NaN if it is 0); an absent scale is 1."""
    if is_null(scale):
        return factor
    if divide == 0:
        return factor * scale[0]
    return factor / scale[0] if scale[0] != real(scale, 0) else real(scale, math.nan)


@device
def weight_of(weight, column):
    """The weight of a class: 1 where there are none."""
    return real(weight, 1) if is_null(weight) else weight[column]


@device
def weights4(weight, column):
    """The weights of four classes."""
    one = real(weight, 1)
    return (one, one, one, one) if is_null(weight) else load4(weight, column)


# ---------------------------------------------------------------------------------------------- what differs by target


@device
def the_label(target, row, rows):
    return target[row] if row < rows else 0


@device
def share_by_label(target, at, column, label, keep, even):
    """q of a class."""
    return keep + even if column == label else even


@device
def shares4_by_label(target, at, column, label, keep, even):
    return (
        keep + even if column == label else even,
        keep + even if column + 1 == label else even,
        keep + even if column + 2 == label else even,
        keep + even if column + 3 == label else even,
    )


@device
def distance_by_label(q, a, gap):
    """a gap; nothing for a class without a share, even if its logit is −∞."""
    return a * gap if q != type(q)(0) else type(q)(0)


@device
def no_label(target, row, rows):
    return 0


@device
def share_by_probability(target, at, column, label, keep, even):
    return keep * target[at + column] + even


@device
def shares4_by_probability(target, at, column, label, keep, even):
    t0, t1, t2, t3 = load4(target, at + column)
    return keep * t0 + even, keep * t1 + even, keep * t2 + even, keep * t3 + even


@device
def distance_by_probability(q, a, gap):
    return a * gap


# ---------------------------------------------------------------------------------------------- kernels


def _kernels(name: str, words: str, label_of, share, shares4, distance):
    """The two kernels for a kind of target."""

    def four(
        logits, target, weight, grad, row_loss, rows, n, scale, factor, divide, keep, even, ignore_index, shift
    ):  # fmt: skip
        row, lane = member(shift)
        mine, step = fours(rows, n, row, lane, shift)
        start, column = row * n, 4 * lane
        logits, grad = offset(logits, start + column), part(grad, start + column)
        memory, low, zero = shared(weight, WARPS), real(weight, -math.inf), real(weight, 0)
        z = registers(weight, HELD_COLUMNS)
        for c in range(HELD):
            store4(z, 4 * c, load4(logits, c * step) if c < mine else (low, low, low, low))
        peak = low
        for k in range(HELD_COLUMNS):
            peak = z[k] if z[k] > peak else peak  # a NaN need not count: its exponential does
        peak = team_max(peak, shift, memory)
        label = label_of(target, row, rows)
        total, mass, gap = zero, zero, zero
        for c in range(HELD):
            if c < mine:
                z0, z1, z2, z3 = load4(z, 4 * c)
                w0, w1, w2, w3 = weights4(weight, column + c * step)
                q0, q1, q2, q3 = shares4(target, start, column + c * step, label, keep, even)
                a0, a1, a2, a3 = w0 * q0, w1 * q1, w2 * q2, w3 * q3
                mass += (a0 + a1) + (a2 + a3)
                gap += distance(q0, a0, peak - z0) + distance(q1, a1, peak - z1)
                gap += distance(q2, a2, peak - z2) + distance(q3, a3, peak - z3)
                e0, e1, e2, e3 = exp(z0 - peak), exp(z1 - peak), exp(z2 - peak), exp(z3 - peak)
                total += (e0 + e1) + (e2 + e3)
                store4(z, 4 * c, (e0, e1, e2, e3))
        total = team_sum(total, shift, memory)
        mass, gap = team_sum(mass, shift, memory), team_sum(gap, shift, memory)
        ignored = label == ignore_index
        if label < 0 or label >= n:
            mass = real(weight, math.nan)
        if lane == 0 and row < rows:
            row_loss[row] = zero if ignored else mass * log(total) + gap
        if not is_null(grad):
            by = scale_of(scale, factor, divide)
            along = by * mass / total
            for c in range(HELD):
                if c < mine:
                    w0, w1, w2, w3 = weights4(weight, column + c * step)
                    q0, q1, q2, q3 = shares4(target, start, column + c * step, label, keep, even)
                    e0, e1, e2, e3 = load4(z, 4 * c)
                    g0, g1 = e0 * along - by * (w0 * q0), e1 * along - by * (w1 * q1)
                    g2, g3 = e2 * along - by * (w2 * q2), e3 * along - by * (w3 * q3)
                    store4(grad, c * step, (zero, zero, zero, zero) if ignored else (g0, g1, g2, g3))

    def one(
        logits, target, weight, grad, row_loss, rows, n, scale, factor, divide, keep, even, ignore_index, shift
    ):  # fmt: skip
        row, lane = member(shift)
        length, start = n if row < rows else 0, row * n
        logits, grad = offset(logits, start), part(grad, start)
        memory, zero = shared(weight, WARPS), real(weight, 0)
        label = label_of(target, row, rows)
        peak, total, mass, gap = real(weight, -math.inf), zero, zero, zero
        column = lane
        while column < length:
            peak, total = further(peak, total, logits[column])
            mass += weight_of(weight, column) * share(target, start, column, label, keep, even)
            column += 1 << shift
        common = team_max(peak, shift, memory)
        total = team_sum(scaled(total, peak, common), shift, memory)
        mass = team_sum(mass, shift, memory)
        ignored = label == ignore_index
        if label < 0 or label >= n:
            mass = real(weight, math.nan)
        by = scale_of(scale, factor, divide)
        along = by * mass / total
        column = lane
        while column < length:
            z = logits[column]
            q = share(target, start, column, label, keep, even)
            a = weight_of(weight, column) * q
            gap += distance(q, a, common - z)
            if not is_null(grad):
                grad[column] = zero if ignored else exp(z - common) * along - by * a
            column += 1 << shift
        gap = team_sum(gap, shift, memory)
        if lane == 0 and row < rows:
            row_loss[row] = zero if ignored else mass * log(total) + gap

    made = []
    for body, width, variants in ((four, 4, SINGLES), (one, 1, NETWORKS)):
        body.__name__ = f"{name}{width}"
        body.__doc__ = f"row_loss of {name} and, unless it is absent, grad = factor · scale · its slope."
        signature = f"F*, {words}, R*, F*, R*, i8, i8, R*, R, i4, R, R, i8, i4"
        made.append(kernel(signature, threads=THREADS, blocks=2, variants=variants)(body))
    return made


LABELS, PROBABILITIES = "softmax_cross_entropy_indices", "softmax_cross_entropy_probabilities"
KERNELS = {
    LABELS: _kernels("labels", "i8*", the_label, share_by_label, shares4_by_label, distance_by_label),
    PROBABILITIES: _kernels(
        "probabilities", "R*", no_label, share_by_probability, shares4_by_probability, distance_by_probability
    ),
}


@kernel("i8*, R*, R*, i8, i8, i8", threads=THREADS, variants=REALS)
def weigh(target, weight, partial, count, classes, ignore_index):
    """partial[block] = what the labels that count weigh, of `SUMMED` rows."""
    last = min(count, (cuda.blockIdx.x + 1) * SUMMED)
    index = cuda.blockIdx.x * SUMMED + cuda.threadIdx.x
    total = real(weight, 0)
    while index < last:
        label = target[index]
        if label != ignore_index and label >= 0 and label < classes:
            total += weight_of(weight, label)
        index += THREADS
    total = team_sum(total, BLOCK_SHIFT, shared(weight, WARPS))
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = total


_earliest = warp_reduction(smaller)


@kernel("i8*, i8*, i8, i8, i8", variants=("int64",))
def find_wrong(target, found, count, classes, ignore_index):
    """found[warp] = the first of its rows whose label is not a class and is not to be ignored, or `count`."""
    thread = cuda.grid(1)
    first = count
    row = thread
    while row < count and first == count:
        label = target[row]
        if label != ignore_index and (label < 0 or label >= classes):
            first = row
        row += cuda.gridsize(1)
    first = _earliest(first, 5)
    if cuda.threadIdx.x & 31 == 0:
        found[thread >> 5] = first


# ---------------------------------------------------------------------------------------------- launches


def launches(
    storage: str, kernel: str, *, logits: int, target: int, grad: int, row_loss: int, rows: int, n: int,
    scale: int, factor: float, divide: bool, label_smoothing: float, class_weight: int, ignore_index: int = NOBODY,
) -> list[Launch]:  # fmt: skip
    """The cross-entropy of each row, and its gradient times `scale_of` (scale, factor, divide)."""
    computed = str(COMPUTED[storage])
    held = can_hold(storage, n, logits, grad) and is_wide(computed, class_weight)
    if kernel == PROBABILITIES:
        held = held and is_wide(computed, target)
    chosen = KERNELS[kernel][0 if held else 1]
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    return [
        chosen.on(
            storage, grid, logits=logits, target=target, weight=class_weight, grad=grad, row_loss=row_loss, rows=rows,
            n=n, scale=scale, factor=factor, divide=divide, keep=1.0 - label_smoothing, even=label_smoothing / n,
            ignore_index=ignore_index, shift=shift,
        )
    ]  # fmt: skip


def mass_launches(
    room, computed: str, *, target: int, weight: int, rows: int, classes: int, ignore_index: int, mass: int
) -> list[Launch]:
    """mass[0] = Σ of the weights of the labels that count; of their number, without weights."""
    blocks = -(-rows // SUMMED)
    partial = room(blocks * BYTES[computed])
    of_blocks = weigh.on(
        computed, (blocks, 1, 1), target=target, weight=weight, partial=partial, count=rows, classes=classes,
        ignore_index=ignore_index,
    )  # fmt: skip
    return [of_blocks, *sum_launches(room, computed, partial, mass, blocks)]


MOST_BLOCKS = 64  # that look for wrong labels: what they find is little to copy


def check_labels(op: str, target, classes: int, ignore_index: int) -> None:
    """ValueError that names the first row whose label is not a class, unless it is ignored.

    The host waits for the answer; while the stream is being captured nobody can, and wrong labels give NaN.
    """
    count = target.size
    if count == 0 or driver.is_capturing(target.stream):
        return
    blocks = min(MOST_BLOCKS, find_wrong.grid(count)[0])
    first = np.empty(blocks * (find_wrong.threads // 32), np.int64)
    found = target.workspace(first.nbytes)
    search = find_wrong.on(
        "int64", (blocks, 1, 1), target=target.address, found=found, count=count, classes=classes,
        ignore_index=ignore_index,
    )  # fmt: skip
    search.run(target.stream)
    driver.to_host(first, found, target.stream)
    row = int(first.min())
    if row < count:
        label = np.empty(1, np.int64)
        driver.to_host(label, target.address + 8 * row, target.stream)
        raise ValueError(f"{op}: target[{row}] is {label[0]}, expected a class in [0, {classes})")


# ---------------------------------------------------------------------------------------------- entry points


def rows(
    op: str, logits, target, grad, reduction: str, label_smoothing: float, class_weight, ignore_index: int
):
    """The cross-entropy of each row ("none"), their sum or their mean. ValueError where a label is not a class.

    The mean divides by what the labels that count weigh, which is added up on the device.
    """
    storage, (batch, n), alone = logits.storage, logits.shape, reduction == "none"
    mean, by_label = reduction == "mean", target.ndim == 1
    if by_label:
        check_labels(op, target, n, ignore_index)
    result = logits.empty((batch,) if alone else ())
    row_loss = result.address if alone else logits.workspace(batch * BYTES[storage])
    made, mass, factor, weight = [], 0, 1.0, address_of(class_weight)
    if mean and by_label:
        mass = logits.workspace(BYTES[storage])
        made += mass_launches(
            logits.workspace, storage, target=target.address, weight=weight, rows=batch, classes=n,
            ignore_index=ignore_index, mass=mass,
        )  # fmt: skip
    elif mean and batch:
        factor = 1.0 / batch
    made += launches(
        storage, LABELS if by_label else PROBABILITIES, logits=logits.address, target=target.address,
        grad=address_of(grad), row_loss=row_loss, rows=batch, n=n, scale=mass, factor=factor, divide=mass != 0,
        label_smoothing=label_smoothing, class_weight=weight, ignore_index=ignore_index if by_label else NOBODY,
    )  # fmt: skip
    if not alone:
        divisor = float(batch) if mean else 1.0
        made += sum_launches(logits.workspace, storage, row_loss, result.address, batch, divisor, mass)
    run(made, logits.stream)
    return result
