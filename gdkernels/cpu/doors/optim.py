"""The doors of the optimizer steps: the numbers of a step and the update in one native call."""

from typing import Any

from ...ranges import NOT_NEGATIVE
from ...scalar.optim import PLAIN, RULES, Rule
from ..cost import NS
from ..optim import DECAY, FIRST, LR, NUMBERS_OF, SCALE, SETTINGS, STEP, UPDATE
from ..runtime.jit import Kernel, kernel
from ..runtime.layout import Double, Floats, Int, Ints, OptionalFloats
from ..runtime.simd import address_of, float64_at, offset
from . import words as at
from .arguments import Argument, Number, Truth, Whole, changed, given
from .door import Door

NO_VELOCITY = 2 * at.FAULTS + at.MISSING
OPTIONS = ("first", "second", "third", "fourth")
COUNTS_STEPS = ("adam", "adamw", "amsgrad", "nadam")  # whose numbers change from step to step


def _kernel(name: str, rule: Rule) -> Kernel:
    """A step of an optimizer on all elements: its states are a, b, c, its options the first to the fourth."""
    numbers: Any = NUMBERS_OF[name]
    update: Any = UPDATE[name].source

    def step_call(
        p: Floats, g: Floats, a: OptionalFloats, b: OptionalFloats, c: OptionalFloats, step: Int, lr: Double,
        first: Double, second: Double, third: Double, fourth: Double, weight_decay: Double, size: Int,
        start, stop, scratch,
    ):  # fmt: skip
        settings = float64_at(scratch)
        row = offset(settings, SETTINGS)
        settings[STEP], settings[LR], settings[DECAY] = step, lr, weight_decay
        settings[FIRST], settings[FIRST + 1] = first, second
        settings[FIRST + 2], settings[FIRST + 3] = third, fourth
        numbers(settings, row)
        row[SCALE] = 1.0
        update(p, g, a, b, c, row, 0, size)

    step_call.__name__, step_call.__doc__ = f"{name}_call", f"A step of {name}."
    return kernel(step_call)


plain_numbers: Any = NUMBERS_OF[PLAIN]
sgd_numbers: Any = NUMBERS_OF["sgd"]
plain_update, sgd_update = UPDATE[PLAIN].source, UPDATE["sgd"].source


@kernel
def sgd_call(
    p: Floats, g: Floats, velocity: OptionalFloats, lr: Double, momentum: Double, nesterov: Int, weight_decay: Double,
    size: Int, fault: Ints, start, stop, scratch,
):  # fmt: skip
    """A step of sgd; without momentum it has no state."""
    if momentum != 0.0 and address_of(velocity) == 0:
        fault[0] = NO_VELOCITY
        return
    settings = float64_at(scratch)
    row = offset(settings, SETTINGS)
    settings[STEP], settings[LR], settings[DECAY] = 1.0, lr, weight_decay
    settings[FIRST], settings[FIRST + 1] = momentum, nesterov
    if momentum == 0.0:
        plain_numbers(settings, row)
        row[SCALE] = 1.0
        plain_update(p, g, velocity, velocity, velocity, row, 0, size)
    else:
        sgd_numbers(settings, row)
        row[SCALE] = 1.0
        sgd_update(p, g, velocity, velocity, velocity, row, 0, size)


def _door(name: str, rule: Rule) -> Door:
    """The door of ``<name>_step``."""
    asked: dict[str, Argument] = {"p": changed(), "g": given()}
    asked |= {state: changed() for state in rule.states}
    if name in COUNTS_STEPS:
        asked["step"] = Whole(1)
    asked["lr"] = Number(NOT_NEGATIVE)
    asked |= {option: Number(row.range) for option, row in rule.options.items()}
    asked["weight_decay"] = Number(NOT_NEGATIVE)
    run, operands = None, {}
    if name == "sgd":
        run = sgd_call
        asked["velocity"], asked["nesterov"] = changed(optional=True), Truth()
    else:
        run = _kernel(name, rule)
        operands = dict(zip("abc", rule.states, strict=False)) | dict(
            zip(OPTIONS, rule.options, strict=False)
        )
    return Door(
        f"{name}_step", run, asked, costs=((NS["update"], "size"),), gives=at.NOTHING, operands=operands
    )


DOORS = {door.name: door for name, rule in RULES.items() if name != PLAIN for door in (_door(name, rule),)}
