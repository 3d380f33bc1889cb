"""The doors of the losses of elements: the mean or the sum, and the terms one by one."""

import math
from typing import Any

from ...scalar.loss import ELEMENT_LOSSES, Loss
from ..cost import NS
from ..loss import CHUNK_ELEMENTS, KERNELS, LOOPS, ROW_ELEMENTS
from ..norm_rows import part
from ..runtime.jit import Kernel, inlined, kernel
from ..runtime.layout import Double, Doubles, Floats, Int, OptionalFloats
from ..runtime.scratch import SCRATCH_BYTES
from ..runtime.simd import address_of, float64_at, offset, typed
from . import words as at
from .arguments import Argument, Name, Number, filled, given, result
from .door import Door

MEAN, SUM = 0, 1
REDUCTIONS = Name({"mean": MEAN, "sum": SUM})
NUMBERS = 8  # float64 at the beginning of the further memory: the scale and the options of a loss
MEMORY = 8 * (NUMBERS + 1)


@inlined
def summed(terms, count):
    """Σ terms, in their order."""
    total = 0.0
    for i in range(count):
        total += terms[i]
    return total


@inlined
def _all_rows(rows, pred, target, grad, reduction, option, size, value, scratch):
    """value = the mean or the sum of a loss, cut into the rows that `loss.of_elements` makes."""
    numbers = float64_at(scratch + SCRATCH_BYTES)
    numbers[0] = 1.0 / size if reduction == MEAN and size > 0 else 1.0
    numbers[1] = option
    losses, options = offset(numbers, NUMBERS), offset(numbers, 1)
    whole = size // ROW_ELEMENTS
    first = whole * ROW_ELEMENTS
    rows(pred, target, grad, losses, ROW_ELEMENTS, numbers, options, 0, whole, scratch)
    if first < size:
        rows(
            offset(pred, first), offset(target, first), part(grad, first), offset(losses, whole), size - first, numbers,
            options, 0, 1, scratch,
        )  # fmt: skip
        whole += 1
    added = summed(losses, whole)
    if reduction == MEAN:
        added = added / size if size > 0 else math.nan
    value[0] = added


def _total(name: str) -> Kernel:
    """The kernel of the mean or the sum of a loss."""
    rows: Any = KERNELS[name].source

    def total(
        pred: Floats, target: Floats, grad: OptionalFloats, reduction: Int, option: Double, size: Int, value: Doubles,
        start, stop, scratch,
    ):  # fmt: skip
        _all_rows(rows, pred, target, grad, reduction, option, size, value, scratch)

    total.__name__, total.__doc__ = f"{name}_total", f"value = the mean or the sum of {name}."
    return kernel(total)


def _terms(name: str) -> Kernel:
    """The kernel of the terms of a loss."""
    loop: Any = LOOPS[name]

    def terms(
        pred: Floats, target: Floats, grad: OptionalFloats, option: Double, out: Floats, start, stop, scratch
    ):
        numbers, unwanted = float64_at(scratch), typed(scratch + 8 * NUMBERS, pred)
        numbers[0] = option
        for first in range(start, stop, CHUNK_ELEMENTS):
            into = unwanted if address_of(grad) == 0 else offset(grad, first)
            count = min(CHUNK_ELEMENTS, stop - first)
            loop(offset(pred, first), offset(target, first), into, offset(out, first), count, 1.0, numbers)

    terms.__name__, terms.__doc__ = f"{name}_terms", f"out = {name} of each element of [start, stop)."
    return kernel(terms)


def _arguments(row: Loss, after: dict[str, Argument]) -> tuple[dict[str, Argument], dict[str, str]]:
    """What a loss asks of its arguments, in the order of its operation, and which are the kernel's pred and option."""
    options: dict[str, Argument] = {name: Number(option.range) for name, option in row.options.items()}
    asked: dict[str, Argument] = {row.prediction: given(), "target": given()}
    middle: dict[str, Argument] = {"grad": filled(), **after}
    asked |= options | middle if row.prediction == "pred" else middle | options
    return asked, {"pred": row.prediction} | dict(zip(("option",), options, strict=False))


def _doors(name: str, row: Loss) -> tuple[Door, Door]:
    costs = ((NS.get(name, NS["loss"]), "size"),)
    asked, operands = _arguments(row, {"reduction": REDUCTIONS})
    total = Door(
        name, _total(name), asked, costs=costs, gives=at.LOSS, memory=(MEMORY, 1, "size"), operands=operands
    )
    asked, operands = _arguments(row, {"out": result()})
    return total, Door(f"{name}.terms", _terms(name), asked, total="size", costs=costs, operands=operands)


DOORS = {door.name: door for name, row in ELEMENT_LOSSES.items() for door in _doors(name, row)}
