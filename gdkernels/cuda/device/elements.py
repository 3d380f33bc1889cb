"""The functions of one element, from the tables of `gdkernels.scalar`.

=====================  =======================================================================================
``relu(z)``            each activation of `ACTIVATIONS` by its name: act(z)
``relu_grad(saved)``   act′, a function of what ``gd.saved_for`` names: the output, or the pre-activation
``mse(pred, target)``  each loss of `ELEMENT_LOSSES` by its name: (l, dl/dpred); options such as huber's delta follow
``adam_row(step, …)``  of each optimizer of `RULES`: the decay and the numbers of a step, a tuple of eight
``adam_step(…)``       of each optimizer of `RULES`: an element one step further
=====================  =======================================================================================

What a function gives has the type of what it is given, float32 or float64: a constant is ``float32(0.5)``, not 0.5. All but
the steps of optimizers may be called on the host, too, where they take Python's numbers.
"""

from typing import Any

from ...scalar.activation import ACTIVATIONS
from ...scalar.loss import ELEMENT_LOSSES
from ...scalar.optim import RULES, Rule, decayed, shrunk
from ..runtime.elementary import INLINE
from ..runtime.target import device, overload

# ---------------------------------------------------------------------------------------------- optimizers


@device
def _coupled(p, g, scale, decay):
    """(p, gradient) of an element, with L2 decay."""
    return p, decayed(g, p, scale, decay)


@device
def _decoupled(p, g, scale, decay):
    """(p, gradient) of an element, with decoupled decay."""
    return shrunk(p, decay), scale * g


def _updated(rule: Rule):
    """(p, a, b, c) of an element; of the states a, b, c, those that the rule does not have stay as they are."""
    update = rule.update

    def without_state(p, g, a, b, c, numbers):
        return update(p, g, numbers), a, b, c

    def with_one(p, g, a, b, c, numbers):
        p, a = update(p, g, a, numbers)
        return p, a, b, c

    def with_two(p, g, a, b, c, numbers):
        p, a, b = update(p, g, a, b, numbers)
        return p, a, b, c

    def with_three(p, g, a, b, c, numbers):
        return update(p, g, a, b, c, numbers)

    return device((without_state, with_one, with_two, with_three)[len(rule.states)])


def _moved(rule: Rule):
    """(p, a, b, c) of an element after a step by a row of numbers in the element's type, with a scaled gradient."""
    seen, updated = _decoupled if rule.decoupled else _coupled, _updated(rule)

    @device
    def moved(p, g, a, b, c, scale, row):
        p, gradient = seen(p, g, scale, row[0])
        return updated(p, gradient, a, b, c, row[1:])

    return moved


MOVED = {name: _moved(rule) for name, rule in RULES.items()}


@device
def row_of_type(p, row):
    """The eight numbers of a row, each rounded to the type of p."""
    real = type(p)
    return (
        real(row[0]), real(row[1]), real(row[2]), real(row[3]),
        real(row[4]), real(row[5]), real(row[6]), real(row[7]),
    )  # fmt: skip


def _step(name: str, rule: Rule):
    """``(p, state…) = step(p, g, state…, row)``; p alone where there is no state."""
    moved = MOVED[name]

    def without_state(p, g, row):
        return moved(p, g, p, p, p, type(p)(1), row_of_type(p, row))[0]

    def with_one(p, g, a, row):
        return moved(p, g, a, p, p, type(p)(1), row_of_type(p, row))[:2]

    def with_two(p, g, a, b, row):
        return moved(p, g, a, b, p, type(p)(1), row_of_type(p, row))[:3]

    def with_three(p, g, a, b, c, row):
        return moved(p, g, a, b, c, type(p)(1), row_of_type(p, row))

    step = (without_state, with_one, with_two, with_three)[len(rule.states)]
    states = "".join(f"{state}, " for state in rule.states)
    step.__doc__ = (
        f"({f'p, {states}'[:-2]}) of an element after a step of {name}: ``{name}_step(p, g, {states}row)``."
    )
    step.__name__ = step.__qualname__ = f"{name}_step"
    return device(step)


def _row(name: str, rule: Rule):
    """``row(step, lr, weight_decay, options)`` on the host and on the device."""
    numbers, is_decoupled = rule.numbers, rule.decoupled
    usual, defaults = rule.weight_decay, tuple(float(option.default) for option in rule.options.values())

    def row(step, lr, weight_decay=usual, options=defaults):
        decay = lr * weight_decay if is_decoupled else weight_decay
        return (float(decay),) + numbers(float(step), lr, *options)  # noqa: RUF005, Numba has no (a, *b)

    listed = ", ".join(rule.options) or "none"
    row.__doc__ = f"The numbers of a step of {name}, counted from 1; options are a tuple of floats: {listed}."
    row.__name__ = row.__qualname__ = f"{name}_row"
    overload(row, target="cuda", jit_options=INLINE, strict=False)(lambda *arguments, **named: row)
    return row


# ---------------------------------------------------------------------------------------------- by name

FUNCTIONS: dict[str, Any] = {}
for _kind, _activation in ACTIVATIONS.items():
    FUNCTIONS |= {_kind: _activation.act, f"{_kind}_grad": _activation.slope}
FUNCTIONS |= {name: row.loss for name, row in ELEMENT_LOSSES.items()}
for _name, _rule in RULES.items():
    FUNCTIONS |= {f"{_name}_row": _row(_name, _rule), f"{_name}_step": _step(_name, _rule)}
