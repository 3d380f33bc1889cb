"""Every optimizer of the table: the options that tests give it, and its step by the reference."""

import inspect

import reference
from gdkernels.scalar.optim import OPTIMIZERS, RULES

# The defaults, and what is off by default turned on.
ON = {bool: True, float: 0.9}
OPTIONS = {
    name: {option: default or ON[type(default)] for option, (default, _) in RULES[name].options.items()}
    for name in OPTIMIZERS
}


def is_counted(name):
    """Whether a step depends on its number."""
    return "step" in inspect.signature(getattr(reference, f"{name}_step")).parameters


def exact_step(name, p, g, states, lr, count=5, **options):
    """A step by the reference: (p, state...)."""
    counted = (count,) if is_counted(name) else ()
    return getattr(reference, f"{name}_step")(p, g, *states, *counted, lr, **options)
