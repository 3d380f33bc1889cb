"""Optimizer steps over flat arrays, in place.

For each optimizer there is a kernel for four elements a thread, and one for single elements: what is left over by fours, and
what is not aligned (`elements`). What is the same for all elements (bias corrections, 1 − beta) is a row of numbers
(`scalar.optim`) on the device, computed on the host in float64: the launches of a step can be captured in a graph once, and
each replay finds another row there.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from ..scalar.optim import NUMBERS, ROW, ROWS, RULES, Rule
from . import elements
from .device.elements import MOVED
from .runtime.intrinsics import bfloat16_bits, load4, store4, transposed
from .runtime.jit import Launch, kernel, run
from .runtime.pointer import is_null, real
from .runtime.target import cuda
from .runtime.widths import Pair, both_widths

# ---------------------------------------------------------------------------------------------- kernels


def _update(name: str, rule: Rule) -> Pair:
    """The kernels of an optimizer; states that it does not have are absent."""
    states, moved = len(rule.states), MOVED[name]

    def make(width):
        load, store, size = width.load, width.store, width.size
        move, rounded = width.each(moved, 5), width.each(bfloat16_bits, 1)

        def update(p, g, a, b, c, bf16_copy, row, scale, stop, groups):
            place = cuda.grid(1)
            if place < groups:
                at = size * place
                new_p, gradient = load(p, at), load(g, at)
                new_a = load(a, at) if states > 0 else new_p
                new_b = load(b, at) if states > 1 else new_p
                new_c = load(c, at) if states > 2 else new_p
                numbers = load4(row, 0) + load4(row, 4)
                factor = real(p, 1) if is_null(scale) else scale[0]
                halt = False if is_null(stop) else stop[0] != 0
                moves = move(new_p, gradient, new_a, new_b, new_c, factor, numbers)
                new_p, new_a, new_b, new_c = transposed(moves)
                if not halt:
                    store(p, at, new_p)
                    if states > 0:
                        store(a, at, new_a)
                    if states > 1:
                        store(b, at, new_b)
                    if states > 2:
                        store(c, at, new_c)
                    if not is_null(bf16_copy):
                        store(bf16_copy, at, rounded(new_p))

        return update

    make.__name__ = f"update_{name}_"
    make.__doc__ = f"A step of {name} by a row of numbers, unless stop; bf16_copy becomes p in bfloat16."
    return both_widths("F*, F*, F*, F*, F*, i2*, R*, R*, i4*, i8")(make)


UPDATE = {name: _update(name, rule) for name, rule in RULES.items()}


PARTS = ("decay", *(f"n{number}" for number in range(NUMBERS)))  # of a row


@kernel("R*, R, R, R, R, R, R, R, R", threads=32)
def write_row(row, decay, n0, n1, n2, n3, n4, n5, n6):
    """A row, from the arguments of the launch."""
    if cuda.threadIdx.x == 0:
        store4(row, 0, (decay, n0, n1, n2))
        store4(row, 4, (n3, n4, n5, n6))


# ---------------------------------------------------------------------------------------------- launches


def table(name: str, options: Sequence, decays: Sequence, first: int, rates: Iterable) -> np.ndarray:
    """The rows of the steps that follow the first `first` ones, for each segment with a decay of its own.

    Parameters
    ----------
    name, options : the optimizer, its options in the order of its rule
    decays : the weight decay of each segment
    first : steps done before
    rates : the learning rate of each step

    Returns
    -------
    (steps, segments, ROW) array
        float64; the kernels read rows of it in the type they compute with.
    """
    row = ROWS[name]
    steps = enumerate(map(float, rates), start=first + 1)
    rows = [[row(float(step), lr, decay, options) for decay in decays] for step, lr in steps]
    return np.array(rows, np.float64).reshape(len(rows), len(decays), ROW)


def update_launches(
    storage: str, name: str, *, p: int, g: int, states: Sequence[int], count: int, row: int, scale: int = 0,
    stop: int = 0, bf16_copy: int = 0,
) -> list[Launch]:  # fmt: skip
    """A step of an optimizer on `count` elements at these addresses.

    Parameters
    ----------
    row : of the numbers of the step, a multiple of 16, in the type that is computed with
    scale : of the factor of the gradient, or 0
    stop : of an int32 that lets nothing be written where it is not 0, or 0
    bf16_copy : of what becomes p in bfloat16, or 0
    """
    arrays = {"p": p, "g": g, **dict(zip("abc", (*states, 0, 0, 0), strict=False)), "bf16_copy": bf16_copy}
    return elements.launches(UPDATE[name], storage, count, arrays, row=row, scale=scale, stop=stop)


# ---------------------------------------------------------------------------------------------- entry points


@lru_cache(maxsize=64)
def _row_of_step(name: str, *settings) -> tuple[float, ...]:
    return ROWS[name](*settings)


def step(name: str, p, g, states: tuple, settings: tuple) -> None:
    """One step of an optimizer on C-contiguous arrays of the same size; its settings are (number, rate, decay, options).

    The row comes as arguments of a launch: a copy to the device would wait, and be none in a graph.
    """
    storage = p.storage
    with np.errstate(over="ignore"):  # infinite is what is too large
        numbers = np.array(_row_of_step(name, *settings), p.dtype).tolist()
    place = p.workspace(8 * ROW)
    launches = [write_row.on(storage, (1, 1, 1), row=place, **dict(zip(PARTS, numbers, strict=True)))]
    launches += update_launches(
        storage,
        name,
        p=p.address,
        g=g.address,
        states=[state.address for state in states],
        count=p.size,
        row=place,
    )
    run(launches, p.stream)
