"""The losses of elements, summed by rows, with their gradients in the same pass.

Every kernel, like those of `cross_entropy`, fills ``row_loss`` (float64) with the unscaled loss of each row and, unless it
is null, ``grad`` with scale · d(row loss)/d pred. The loss of the batch is scale · Σ row_loss; ``scale`` points to one
float64, so that a training step can change it without a new record. ``grad`` must not overlap ``pred`` or ``target``.
"""

import math
from typing import Any

import numpy as np

from ..scalar.loss import ELEMENT_LOSSES
from .cost import NS
from .runtime.jit import Kernel, Native, Op, kernel, native
from .runtime.layout import Doubles, Floats, Int, OptionalDoubles, OptionalFloats
from .runtime.simd import address_of, noalias, offset, taken, typed
from .runtime.team import run

CHUNK_ELEMENTS = 2048  # whose terms wait in scratch memory until they are added up


@native("F*, f8*, i8, i8", reorder_sums=True)
def add_terms(terms, row_loss, rows, n):
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


def _loop(name: str, loss, options: int) -> Native:
    """The loop of a loss of elements with this many options."""
    given = taken(options)

    def elements(pred, target, grad, terms, count, scale, options):
        noalias()
        numbers = given(pred, options)
        for i in range(count):
            terms[i], slope = loss(pred[i], target[i], *numbers)
            grad[i] = scale * slope

    elements.__name__ = f"{name}_elements"
    elements.__doc__ = f"terms = {name}, grad = scale times its slope."
    return native("F*, F*, F*, F*, i8, F, f8*")(elements)


def _kernel(name: str, of_elements: Any) -> Kernel:
    """The kernel of a loss of elements over its loop."""

    def rows(
        pred: Floats, target: Floats, grad: OptionalFloats, row_loss: Doubles, n: Int, scale: Doubles,
        options: OptionalDoubles, start, stop, scratch,
    ):  # fmt: skip
        terms = typed(scratch, pred)
        unwanted = typed(scratch + 8 * CHUNK_ELEMENTS, pred)
        together = max(1, CHUNK_ELEMENTS // max(n, 1))
        for first in range(start, stop, together):  # several short rows, or a part of a long one
            rows = min(together, stop - first)
            losses = offset(row_loss, first)
            for r in range(rows):
                losses[r] = 0.0
            for j in range(0, n, CHUNK_ELEMENTS):  # one turn unless rows are longer
                width = min(CHUNK_ELEMENTS, n - j)
                place = first * n + j
                into = unwanted if address_of(grad) == 0 else offset(grad, place)
                of_elements(
                    offset(pred, place), offset(target, place), into, terms, rows * width, scale[0], options
                )
                add_terms(terms, losses, rows, width)

    rows.__name__, rows.__doc__ = name, f"Row loss: Σ {name} of rows [start, stop)."
    return kernel(rows)


LOOPS = {name: _loop(name, row.loss, len(row.options)) for name, row in ELEMENT_LOSSES.items()}
KERNELS = {name: _kernel(name, loop) for name, loop in LOOPS.items()}

# ---------------------------------------------------------------------------------------------- ops

ROW_ELEMENTS = 2 * CHUNK_ELEMENTS  # of the rows that arrays are cut into, whatever their shape


def row_op(name: str, pred, target, grad, row_loss, scale, options, rows: int, n: int) -> Op:
    """row_loss = the unscaled losses of `rows` rows of n, grad (if it is given) = scale[0] times the gradient.

    `options` is a float64 array of what the loss is asked for besides, or None where that is nothing.
    """
    return KERNELS[name].op(
        pred.dtype, rows, work=NS.get(name, NS["loss"]) * rows * n * pred.itemsize / 4,
        pred=pred, target=target, grad=grad, row_loss=row_loss, n=n, scale=scale, options=options,
    )  # fmt: skip


def of_elements(name: str, pred, target, grad, scale: float, options: tuple = (), one_by_one: bool = False):
    """The unscaled losses (float64) of C-contiguous arrays of one shape: of every element, or of rows of `ROW_ELEMENTS`.

    grad, if given, receives the gradient.
    """
    n = 1 if one_by_one else ROW_ELEMENTS
    rows, rest = divmod(pred.size, n)
    first = 1 + len(options)
    memory = np.empty(first + rows + (rest > 0))
    memory[:first] = scale, *options
    losses, given = memory[first:], memory[1:] if options else None
    if rows:
        run(row_op(name, pred, target, grad, losses, memory, given, rows, n))
    if rest:
        if rows:
            pred, target, grad = (_behind(array, rows * n) for array in (pred, target, grad))
        run(row_op(name, pred, target, grad, losses[rows:], memory, given, 1, rest))
    return losses


def _behind(array, count: int):
    """The elements behind the first `count`; None of None."""
    return None if array is None else array.reshape(-1)[count:]


def elements(name: str, pred, target, grad, reduction: str, options: tuple = ()):
    """The loss of arrays of any one shape: of every element ("none"), their sum or their mean."""
    size = pred.size
    scale = 1.0 / size if reduction == "mean" and size else 1.0
    one_by_one = reduction == "none"
    terms = of_elements(name, pred, target, grad, scale, options, one_by_one)
    if one_by_one:
        return terms.astype(pred.dtype).reshape(pred.shape)
    total = summed(terms)
    if reduction == "sum":
        return total
    return total / size if size else math.nan


def summed(terms) -> float:
    """Σ of float64 terms in their order, as doors add them up; 0.0 of none."""
    return float(np.add.accumulate(terms)[-1]) if terms.size else 0.0
