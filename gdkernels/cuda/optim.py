"""Optimizer steps over flat arrays, in place.

For each optimizer there is a kernel for four elements a thread, and one for single elements: what is left over by fours, and
what is not aligned (`elements`). What is the same for all elements (bias corrections, 1 − beta) comes from a row of a
table on the device, computed on the host in float64: the launches of a step can be captured in a graph once, and each
replay finds another row there.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ..scalar import optim as optimizers
from . import elements
from .runtime.intrinsics import bfloat16_bits, load4, store4, transposed
from .runtime.jit import Launch, device, kernel, run
from .runtime.pointer import is_null, real
from .runtime.target import cuda
from .runtime.widths import Pair, both_widths

# The numbers of a row; `share` is that of decoupled decay.
NUMBERS = ("rate", "weight_decay", "share", "eps", "keep1", "gain1", "keep2", "gain2")
TABLE = len(NUMBERS)


# ---------------------------------------------------------------------------------------------- steps


@device
def _descend(p, g, a, b, c, rate, eps, means):
    return p - rate * g, a, b, c


@device
def _descend_with_momentum(p, g, velocity, b, c, rate, eps, means):
    momentum, nesterov, _, _ = means
    p, velocity = optimizers.sgd(p, g, velocity, rate, momentum, nesterov != 0)
    return p, velocity, b, c


@device
def _divide_by_size(p, g, v, b, c, rate, eps, means):
    _, _, keep, gain = means
    p, v = optimizers.rmsprop(p, g, v, rate, keep, gain, eps)
    return p, v, b, c


@device
def _adam(p, g, m, v, c, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    p, m, v = optimizers.adam(p, g, m, v, rate, keep1, gain1, keep2, gain2, eps)
    return p, m, v, c


@device
def _amsgrad(p, g, m, v, vmax, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    return optimizers.amsgrad(p, g, m, v, vmax, rate, keep1, gain1, keep2, gain2, eps)


@device
def _lion(p, g, m, b, c, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    p, m = optimizers.lion(p, g, m, rate, keep1, gain1, keep2, gain2)
    return p, m, b, c


def _update(name, element, states) -> Pair:
    """The kernels of an optimizer with so many state arrays, the others of a, b, c being absent."""

    @device
    def moved(p, g, a, b, c, scale, rates, means):
        """(p, state…) of an element; of the two decays, at least one is 0."""
        rate, weight_decay, share, eps = rates
        gradient = optimizers.decayed(g, p, scale, weight_decay)
        return element(optimizers.shrunk(p, share), gradient, a, b, c, rate, eps, means)

    def make(width):
        load, store, size = width.load, width.store, width.size
        move, rounded = width.each(moved, 5), width.each(bfloat16_bits, 1)

        def update(p, g, a, b, c, bf16_copy, table, scale, stop, groups):
            place = cuda.grid(1)
            if place < groups:
                at = size * place
                new_p, gradient = load(p, at), load(g, at)
                new_a = load(a, at) if states > 0 else new_p
                new_b = load(b, at) if states > 1 else new_p
                new_c = load(c, at) if states > 2 else new_p
                rates, means = load4(table, 0), load4(table, 4)
                factor = real(p, 1) if is_null(scale) else scale[0]
                halt = False if is_null(stop) else stop[0] != 0
                moves = move(new_p, gradient, new_a, new_b, new_c, factor, rates, means)
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

    make.__name__ = name
    make.__doc__ = f"A step of {name} by a row of the table, unless stop; bf16_copy becomes p in bfloat16."
    return both_widths("F*, F*, F*, F*, F*, i2*, R*, R*, i4*, i8")(make)


DESCEND = _update("descend", _descend, 0)
_SIZED = _update("divide_by_size", _divide_by_size, 1)
_ADAM = _update("adam", _adam, 2)
UPDATE = {
    "sgd": _update("descend_with_momentum", _descend_with_momentum, 1),
    "rmsprop": _SIZED,
    "adagrad": _SIZED,
    "adam": _ADAM,
    "adamw": _ADAM,
    "amsgrad": _update("amsgrad", _amsgrad, 3),
    "lion": _update("lion", _lion, 1),
}


@kernel("R*, R, R, R, R, R, R, R, R", threads=32)
def write_row(table, rate, weight_decay, share, eps, keep1, gain1, keep2, gain2):
    """A table of one row, from the arguments of the launch."""
    if cuda.threadIdx.x == 0:
        store4(table, 0, (rate, weight_decay, share, eps))
        store4(table, 4, (keep1, gain1, keep2, gain2))


# ---------------------------------------------------------------------------------------------- launches


def row(name: str, specific: Sequence, step: float, lr: float, weight_decay: float) -> tuple:
    """What the kernels need in a step (counted from 1), as `NUMBERS` lists it; `specific` as in `scalar.hyper`."""
    if name == "sgd":
        momentum, nesterov, *_ = specific
        return lr, weight_decay, 0.0, 0.0, momentum, nesterov, 0.0, 0.0
    if name == "rmsprop":
        alpha, eps, *_ = specific
        return lr, weight_decay, 0.0, eps, 0.0, 0.0, alpha, 1.0 - alpha
    if name == "adagrad":
        return lr, weight_decay, 0.0, specific[0], 0.0, 0.0, 1.0, 1.0
    beta1, beta2, eps, *_ = specific
    means = beta1, 1.0 - beta1, beta2, 1.0 - beta2
    if name == "lion":
        return lr, 0.0, lr * weight_decay, 0.0, *means
    rate, eps = optimizers.adam_rates(step, lr, beta1, beta2, eps)
    decays = (0.0, lr * weight_decay) if name == "adamw" else (weight_decay, 0.0)
    return rate, *decays, eps, *means


def table(name: str, hyper: np.ndarray, decays: Sequence, first: int, rates: Iterable) -> np.ndarray:
    """The rows of the steps that follow the first `first` ones, for each segment with a decay of its own.

    Parameters
    ----------
    name, hyper : the optimizer and its `scalar.hyper` vector; lr, weight_decay, scale and step are not taken from there
    decays : the weight decay of each segment
    first : steps done before
    rates : the learning rate of each step

    Returns
    -------
    (steps, segments, TABLE) array
        float64; the kernels read rows of it in the type they compute with.
    """
    specific = hyper[4:].tolist()
    steps = enumerate(map(float, rates), start=first + 1)
    rows = [[row(name, specific, float(step), lr, decay) for decay in decays] for step, lr in steps]
    return np.array(rows, np.float64).reshape(len(rows), len(decays), TABLE)


def update_launches(
    storage: str, name: str, *, p: int, g: int, states: Sequence[int], count: int, table: int, scale: int = 0,
    stop: int = 0, bf16_copy: int = 0,
) -> list[Launch]:  # fmt: skip
    """A step of an optimizer on `count` elements at these addresses, sgd without `states` being that without momentum.

    Parameters
    ----------
    table : of a row, a multiple of 16, in the type that is computed with
    scale : of the factor of the gradient, or 0
    stop : of an int32 that lets nothing be written where it is not 0, or 0
    bf16_copy : of what becomes p in bfloat16, or 0
    """
    kernels = UPDATE[name] if states else DESCEND
    arrays = {"p": p, "g": g, **dict(zip("abc", (*states, 0, 0, 0), strict=False)), "bf16_copy": bf16_copy}
    return elements.launches(kernels, storage, count, arrays, table=table, scale=scale, stop=stop)


# ---------------------------------------------------------------------------------------------- entry points


def step(name: str, arrays: tuple, hyper: np.ndarray) -> None:
    """One step of an optimizer on p, g and its states: C-contiguous arrays of the same size.

    The row of numbers comes as arguments of a launch: a copy to the device would wait, and be none in a graph.
    """
    p, storage = arrays[0], arrays[0].storage
    if name == "sgd" and hyper[4] == 0.0:
        arrays = arrays[:2]  # without momentum there is no velocity
    lr, decay, _, count, *specific = hyper.tolist()
    with np.errstate(over="ignore"):  # infinite is what is too large
        numbers = np.array(row(name, specific, count, lr, decay), p.dtype).tolist()
    place = p.workspace(8 * TABLE)
    p_address, g, *states = (array.address for array in arrays)
    launches = [write_row.on(storage, (1, 1, 1), table=place, **dict(zip(NUMBERS, numbers, strict=True)))]
    launches += update_launches(storage, name, p=p_address, g=g, states=states, count=p.size, table=place)
    run(launches, p.stream)
