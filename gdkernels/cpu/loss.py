"""The losses of elements, summed by rows, with their gradients in the same pass.

Every kernel, like those of `cross_entropy`, fills ``row_loss`` (float64) with the unscaled loss of each row and, unless it
is null, ``grad`` with scale · d(row loss)/d pred. The loss of the batch is scale · Σ row_loss; ``scale`` points to one
float64, so that a training step can change it without a new record. ``grad`` must not overlap ``pred`` or ``target``.
"""

import math

import numpy as np

from ..scalar import loss as losses
from .runtime.jit import device, kernel, native
from .runtime.simd import address_of, noalias, offset, typed, unpack
from .runtime.team import SCRATCH_BYTES, address, float_bits, launch

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


KERNELS = {loss.name.rpartition(".")[2]: loss for loss in (mse, huber, binary_cross_entropy)}

# ---------------------------------------------------------------------------------------------- the ops' way in

ROW = 2 * CHUNK  # a batch of elements is cut into rows of so many, whatever its shape
# Nanoseconds an element of float32 on one core, about.
ELEMENT_WORK = {mse: 0.2, huber: 0.2, binary_cross_entropy: 1.4}


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
