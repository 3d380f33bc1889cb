"""The optimizers' hyper-parameters as the kernels of both wings take them: a vector of numbers, and its places.

A vector holds 0 lr, 1 weight_decay, 2 scale of the gradient (from clipping), 3 step (from 1), 4… what `SPECIFIC` lists.
"""

import numpy as np

HYPER = 8  # float64 numbers

SPECIFIC = {
    "sgd": ("momentum", "nesterov"),
    "rmsprop": ("alpha", "eps"),
    "adagrad": ("eps",),
    "adam": ("beta1", "beta2", "eps"),
    "adamw": ("beta1", "beta2", "eps"),
    "amsgrad": ("beta1", "beta2", "eps"),
    "lion": ("beta1", "beta2"),
}
# State buffers: sgd velocity (unused, may be null, without momentum); rmsprop, adagrad v; adam(w) m, v; amsgrad m, v,
# vmax; lion m.
STATES = {"sgd": 1, "rmsprop": 1, "adagrad": 1, "adam": 2, "adamw": 2, "amsgrad": 3, "lion": 1}


def hyper(name: str, lr: float, weight_decay: float = 0.0, scale: float = 1.0, step: int = 1, **options):
    """The hyper-parameters of an optimizer: a float64 vector of HYPER numbers."""
    vector = np.zeros(HYPER)
    vector[:4] = lr, weight_decay, scale, step
    for place, option in enumerate(SPECIFIC[name], start=4):
        vector[place] = options.pop(option)
    if options:
        raise TypeError(f"{name}: unknown option {', '.join(options)}, expected {', '.join(SPECIFIC[name])}")
    return vector
