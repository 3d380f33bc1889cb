"""Doors: operations as native calls, arguments included, from Python and from compiled functions.

`find` gives the door of an operation; its family's file is imported, and its kernel compiled, when it is first asked for.
"""

import importlib
from typing import Any

_FAMILIES = {
    "activation": ("activation", "activation_backward"),
    "clip": ("clip_by_global_norm", "global_norm"),
    "cross_entropy": ("softmax_cross_entropy",),
    "dropout": ("dropout", "dropout_backward"),
    "linear": ("linear", "linear_backward"),
    "loss": ("binary_cross_entropy", "huber", "log_cosh", "mse"),
    "matmul": ("matmul",),
    "norm": ("layernorm", "layernorm_backward", "rmsnorm", "rmsnorm_backward", "scale", "scale_backward"),
    "optim": (
        "adagrad_step", "adam_step", "adamw_step", "amsgrad_step", "lion_step", "nadam_step", "rmsprop_step", "sgd_step",
    ),
    "softmax": ("log_softmax", "softmax"),
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names}
NAMES = tuple(_FAMILY_OF)


def find(name: str) -> Any:
    """The door of an operation, such as "linear", or of a variant of it, such as "mse.terms"; None where it has none."""
    family = _FAMILY_OF.get(name.partition(".")[0])
    if family is None:
        return None
    return importlib.import_module(f".{family}", __name__).DOORS[name]
