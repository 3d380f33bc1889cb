"""Optimizer steps over flat arrays, in place.

One pass over memory does the clipping, the decay, the state and the parameter. What is the same for all elements (bias
corrections, 1 − beta) is computed once a step, in float64: the row of numbers that `scalar.optim` gives. Adam is bound by
the root and the division, which leave room for everything else: estimates refined by Newton steps (vrsqrt14ps, vrcp14ps)
were tried in their place and are slower by 5 to 25 % on Zen 4.
"""

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from ..scalar.optim import ROW, ROWS, RULES, Rule, decayed, shrunk
from .cost import work
from .runtime.jit import Kernel, Native, Op, inlined, kernel, native
from .runtime.layout import Doubles, Floats, OptionalFloats
from .runtime.memory import LINE, QUANTUM
from .runtime.simd import noalias, offset, taken
from .runtime.team import run

# What a kernel reads of a step: the row of its rule, and behind it the factor of the gradient, which clipping makes.
SCALE = ROW
READ = ROW + 1
ROW_WORDS = 2 * LINE // 8  # a row lies on cache lines of its own

# What the row of a step is computed from: these, and then the options of the rule.
STEP, LR, DECAY, FIRST = range(4)
SETTINGS = 8  # numbers kept for them


def _numbers(name: str, rule: Rule) -> Native:
    """The row of a step of an optimizer."""
    row, options = inlined(ROWS[name]), taken(len(rule.options))

    def numbers(settings, into):
        given = options(settings, offset(settings, FIRST))
        values = row(settings[STEP], settings[LR], settings[DECAY], given)
        for place in range(ROW):
            into[place] = values[place]

    numbers.__name__ = f"{name}_numbers"
    numbers.__doc__ = f"into = the row of a step of {name}, from its settings."
    return native("f8*, f8*")(numbers)


@inlined
def _coupled(p, g, i, scale, decay):
    """(p, gradient) of element i, with L2 decay."""
    gradient = decayed(g[i], p[i], scale, decay)
    return p[i], gradient


@inlined
def _decoupled(p, g, i, scale, decay):
    """(p, gradient) of element i, with decoupled decay."""
    return shrunk(p[i], decay), scale * g[i]


_row = taken(READ)


def _loop(name: str, rule: Rule) -> Native:
    """A step of an optimizer on some elements; the number of states decides the arrays."""
    update, seen = rule.update, _decoupled if rule.decoupled else _coupled

    def without_state(p, g, count, row):
        noalias()
        given = _row(p, row)
        decay, numbers, scale = given[0], given[1:ROW], given[SCALE]
        for i in range(count):
            here, gradient = seen(p, g, i, scale, decay)
            p[i] = update(here, gradient, numbers)

    def with_one(p, g, a, count, row):
        noalias()
        given = _row(p, row)
        decay, numbers, scale = given[0], given[1:ROW], given[SCALE]
        for i in range(count):
            here, gradient = seen(p, g, i, scale, decay)
            p[i], a[i] = update(here, gradient, a[i], numbers)

    def with_two(p, g, a, b, count, row):
        noalias()
        given = _row(p, row)
        decay, numbers, scale = given[0], given[1:ROW], given[SCALE]
        for i in range(count):
            here, gradient = seen(p, g, i, scale, decay)
            p[i], a[i], b[i] = update(here, gradient, a[i], b[i], numbers)

    def with_three(p, g, a, b, c, count, row):
        noalias()
        given = _row(p, row)
        decay, numbers, scale = given[0], given[1:ROW], given[SCALE]
        for i in range(count):
            here, gradient = seen(p, g, i, scale, decay)
            p[i], a[i], b[i], c[i] = update(here, gradient, a[i], b[i], c[i], numbers)

    states = len(rule.states)
    loop = (without_state, with_one, with_two, with_three)[states]
    loop.__name__, loop.__doc__ = f"{name}_elements", f"A step of {name} by a row of numbers."
    return native(f"F*, F*, {'F*, ' * states}i8, f8*")(loop)


def _kernel(name: str, rule: Rule) -> Kernel:
    """The kernel of an optimizer over its loop; of the states a, b, c those that its rule does not have are null."""
    step: Any = _loop(name, rule)

    def without_state(
        p: Floats, g: Floats, a: OptionalFloats, b: OptionalFloats, c: OptionalFloats, row: Doubles, start, stop
    ):  # fmt: skip
        step(offset(p, start), offset(g, start), stop - start, row)

    def with_one(
        p: Floats, g: Floats, a: Floats, b: OptionalFloats, c: OptionalFloats, row: Doubles, start, stop
    ):  # fmt: skip
        step(offset(p, start), offset(g, start), offset(a, start), stop - start, row)

    def with_two(
        p: Floats, g: Floats, a: Floats, b: Floats, c: OptionalFloats, row: Doubles, start, stop
    ):  # fmt: skip
        step(offset(p, start), offset(g, start), offset(a, start), offset(b, start), stop - start, row)

    def with_three(p: Floats, g: Floats, a: Floats, b: Floats, c: Floats, row: Doubles, start, stop):
        step(
            offset(p, start), offset(g, start), offset(a, start), offset(b, start), offset(c, start), stop - start, row
        )  # fmt: skip

    update = (without_state, with_one, with_two, with_three)[len(rule.states)]
    update.__name__ = f"update_{name}"
    update.__doc__ = f"A step of {name} on elements [start, stop); its states are {rule.states or 'none'}."
    return kernel(update)


NUMBERS_OF = {name: _numbers(name, rule) for name, rule in RULES.items()}
UPDATE = {name: _kernel(name, rule) for name, rule in RULES.items()}

# ---------------------------------------------------------------------------------------------- ops


def step_op(name: str, p, g, states: tuple, row: np.ndarray) -> Op:
    """One step of an optimizer on C-contiguous arrays of the same size, by a row and the factor of the gradient (READ)."""
    a, b, c = (*states, None, None, None)[:3]
    cost = work("update", p)
    return UPDATE[name].op(p.dtype, p.size, quantum=QUANTUM, work=cost, p=p, g=g, a=a, b=b, c=c, row=row)


@lru_cache(maxsize=64)
def row_of_step(name: str, count: float, lr: float, weight_decay: float, options: tuple) -> np.ndarray:
    """The row of a step and its factor 1, by the function that training and doors use: Python's exp may round otherwise."""
    settings, row = np.zeros(SETTINGS), np.ones(READ)
    settings[STEP], settings[LR], settings[DECAY] = count, lr, weight_decay
    settings[FIRST : FIRST + len(options)] = options
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(NUMBERS_OF[name].address())
    call(settings.ctypes.data, row.ctypes.data)
    return row


def step(name: str, p, g, states: tuple, settings: tuple) -> None:
    """One step of an optimizer on C-contiguous arrays of the same size; its settings are (number, rate, decay, options)."""
    run(step_op(name, p, g, states, row_of_step(name, *settings)))
