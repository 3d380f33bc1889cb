"""Optimizer steps: p, and what an optimizer remembers, are changed in place in one fused pass. They return nothing.

The arrays of a call have one shape and dtype (float32 or float64), any layout, and no memory in common. States start
at zero. L2 decay adds weight_decay · p to the gradient; decoupled decay (AdamW, Lion) multiplies p by
1 − lr · weight_decay. Nothing is written unless every argument is right.

Instead of one array of each kind a call takes lists of them, such as all parameters of a network: every one takes the
same step, in one call.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from ..check import Array, apart, array, contiguous, float_dtype, listed, number, whole, writable
from ..ranges import NOT_NEGATIVE
from ..scalar.optim import PLAIN, RULES
from .entrance import everywhere
from .wings import wing

__all__ = [
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "amsgrad_step",
    "lion_step",
    "nadam_step",
    "rmsprop_step",
    "sgd_step",
]

Arrays = Array | Sequence[Array]
_OPTIONS = {
    name: (tuple(rule.options), [option.range for option in rule.options.values()])
    for name, rule in RULES.items()
}


@everywhere
def sgd_step(
    p: Arrays,
    g: Arrays,
    velocity: Arrays | None,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Gradient descent: v = momentum v + g; p −= lr v, or with Nesterov p −= lr (g + momentum v). Changes p, velocity.

    Parameters
    ----------
    p : array
    g : array
        dL/dp.
    velocity : array or None
        None where momentum is 0; it is not used then.
    lr, momentum, weight_decay : float
        Not negative. The decay is L2.
    nesterov : bool
        Look one step of momentum ahead [1]_.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array (or number) or the dtypes differ.
    ValueError
        Where shapes differ, arrays overlap, one to be written is read-only, a number is out of its range, or velocity
        is missing.

    Notes
    -----
    .. [1] I. Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """
    op = "sgd_step"
    settings = _settings(op, "sgd", 1, lr, weight_decay, momentum, float(bool(nesterov)))
    if velocity is None and momentum != 0:
        raise ValueError(f"{op}: velocity is None, expected an array because momentum is {momentum}")
    states = {} if velocity is None else {"velocity": velocity}
    if momentum != 0:
        _step(op, "sgd", p, g, states, settings)
    else:
        _step(op, PLAIN, p, g, states, (*settings[:3], ()))


@everywhere
def rmsprop_step(
    p: Arrays,
    g: Arrays,
    v: Arrays,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """RMSprop: v = alpha v + (1 − alpha) g²; p −= lr g / (√v + eps). Changes p, v.

    Parameters
    ----------
    p, g, v : arrays
        Parameter, dL/dp, running mean of its square.
    lr, eps, weight_decay : float
        Not negative. The decay is L2.
    alpha : float
        In [0, 1).

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`.

    Notes
    -----
    T. Tieleman and G. Hinton, Neural networks for machine learning, lecture 6.5, 2012.
    """
    settings = _settings("rmsprop_step", "rmsprop", 1, lr, weight_decay, alpha, eps)
    _step("rmsprop_step", "rmsprop", p, g, {"v": v}, settings)


@everywhere
def adagrad_step(
    p: Arrays, g: Arrays, v: Arrays, lr: float, eps: float = 1e-10, weight_decay: float = 0.0
) -> None:
    """Adagrad: v += g²; p −= lr g / (√v + eps). Changes p, v.

    Parameters
    ----------
    p, g, v : arrays
        Parameter, dL/dp, sum of its squares.
    lr, eps, weight_decay : float
        Not negative. The decay is L2.

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`.

    Notes
    -----
    J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods, JMLR 12, 2011.
    """
    settings = _settings("adagrad_step", "adagrad", 1, lr, weight_decay, eps)
    _step("adagrad_step", "adagrad", p, g, {"v": v}, settings)


@everywhere
def adam_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """Adam: p −= lr m̂ / (√v̂ + eps), from running means of g and g². Changes p, m, v.

    m = beta1 m + (1 − beta1) g,  m̂ = m / (1 − beta1^step);  v = beta2 v + (1 − beta2) g²,  v̂ = v / (1 − beta2^step).

    Parameters
    ----------
    p, g, m, v : arrays
        Parameter, dL/dp, running means of it and of its square.
    step : int
        Counts from 1.
    lr, eps, weight_decay : float
        Not negative. The decay is L2: it goes through m and v. `adamw_step` has the decoupled one.
    beta1, beta2 : float
        In [0, 1).

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array (or number) or the dtypes differ.
    ValueError
        Where shapes differ, arrays overlap, one to be written is read-only, or a number is out of its range.

    Notes
    -----
    A step is within a few roundings of the formula in the arrays' dtype; 1 − beta^step is computed in float64.
    D. P. Kingma and J. Ba, Adam, ICLR 2015, arXiv 1412.6980.
    """
    settings = _settings("adam_step", "adam", step, lr, weight_decay, beta1, beta2, eps)
    _step("adam_step", "adam", p, g, {"m": m, "v": v}, settings)


@everywhere
def adamw_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """AdamW: p shrinks to (1 − lr weight_decay) p, then takes Adam's step. Changes p, m, v.

    Parameters and errors are those of `adam_step`; the decay is decoupled.

    Notes
    -----
    I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019, arXiv 1711.05101.
    """
    settings = _settings("adamw_step", "adamw", step, lr, weight_decay, beta1, beta2, eps)
    _step("adamw_step", "adamw", p, g, {"m": m, "v": v}, settings)


@everywhere
def amsgrad_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    vmax: Arrays,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """AMSGrad: Adam with vmax = max(vmax, v) in place of v. Changes p, m, v, vmax.

    Parameters and errors are those of `adam_step`; `vmax` is the largest v so far, its bias taken out as that of v.

    Notes
    -----
    S. Reddi, S. Kale and S. Kumar, On the convergence of Adam and beyond, ICLR 2018, arXiv 1904.09237; PyTorch's form.
    """
    settings = _settings("amsgrad_step", "amsgrad", step, lr, weight_decay, beta1, beta2, eps)
    _step("amsgrad_step", "amsgrad", p, g, {"m": m, "v": v, "vmax": vmax}, settings)


@everywhere
def nadam_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    weight_decay: float = 0.0,
) -> None:
    """NAdam: Adam with Nesterov's look ahead, and a momentum that rises. Changes p, m, v.

    mu_t = beta1 (1 − 0.96^(t momentum_decay) / 2) is the momentum of step t. With m and v̂ as in `adam_step`
    p −= lr m̄ / (√v̂ + eps),  m̄ = (1 − mu_t) g / (1 − mu_1 … mu_t) + mu_t+1 m / (1 − mu_1 … mu_t+1).

    Parameters and errors are those of `adam_step`.

    Parameters
    ----------
    momentum_decay : float
        Not negative. How fast the momentum rises from beta1 / 2 to beta1: half of the way in 17 / momentum_decay steps.

    Notes
    -----
    T. Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016; PyTorch's form.
    """
    settings = _settings("nadam_step", "nadam", step, lr, weight_decay, beta1, beta2, eps, momentum_decay)
    _step("nadam_step", "nadam", p, g, {"m": m, "v": v}, settings)


@everywhere
def lion_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
) -> None:
    """Lion: p −= lr (sign(beta1 m + (1 − beta1) g) + weight_decay p); m = beta2 m + (1 − beta2) g. Changes p, m.

    Parameters
    ----------
    p, g, m : arrays
        Parameter, dL/dp, running mean of it.
    lr, weight_decay : float
        Not negative. The decay is decoupled.
    beta1, beta2 : float
        In [0, 1).

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`.

    Notes
    -----
    The sign of 0 is 0. X. Chen et al., Symbolic discovery of optimization algorithms, 2023, arXiv 2302.06675.
    """
    settings = _settings("lion_step", "lion", 1, lr, weight_decay, beta1, beta2)
    _step("lion_step", "lion", p, g, {"m": m}, settings)


def _settings(
    op: str, name: str, step: int, lr: float, weight_decay: float, *options: float
) -> tuple[Any, ...]:
    """A step of an optimizer, checked: its number, rate and decay, and its options in their order in `scalar.optim`."""
    count = whole(op, "step", step, at_least=1)
    rate = number(op, "lr", lr, NOT_NEGATIVE)
    names, ranges = _OPTIONS[name]
    given = tuple(map(number, repeat(op), names, options, ranges))
    return float(count), rate, number(op, "weight_decay", weight_decay, NOT_NEGATIVE), given


def _step(
    op: str, name: str, p: Arrays, g: Arrays, states: Mapping[str, Arrays], settings: tuple[Any, ...]
) -> None:
    """Check the arrays and run the kernel on those of its rule; arrays that are not contiguous go through a copy."""
    if isinstance(p, list | tuple):
        lists = [p, *(listed(op, key, one, "p", len(p)) for key, one in {"g": g, **states}.items())]
        calls = [*zip(*lists, strict=True)]
        marks = [f"[{index}]" for index in range(len(calls))]
    else:
        calls, marks = [(p, g, *states.values())], [""]
    ready, names = [], []
    for arrays, mark in zip(calls, marks, strict=True):
        ready.append(_checked(op, arrays, [*states], mark))
        names += [f"{key}{mark}" for key in ("p", "g", *states)]
    gradients = range(1, len(names), 2 + len(states))
    apart(op, names, [one for arrays in calls for one in arrays], gradients)
    used = [2 + place for place, key in enumerate(states) if key in RULES[name].states]
    for arrays, gradient in zip(calls, ready, strict=True):
        given = [arrays[0], *(arrays[place] for place in used)]
        flat = [*map(contiguous, given)]
        wing(arrays[0], "optim").step(name, flat[0], gradient, tuple(flat[1:]), settings)
        for one, copy in zip(given, flat, strict=True):
            if one is not copy:
                one[...] = copy


def _checked(op: str, arrays: Sequence[Array], states: list[str], mark: str) -> Array:
    """The gradient as the kernel reads it, when all arrays of one parameter are as they should be."""
    p, g, *kept = arrays
    dtype, shape = float_dtype(op, f"p{mark}", p), p.shape
    writable(op, f"p{mark}", p, dtype, shape)
    gradient = array(op, f"g{mark}", g, dtype, shape, f"p{mark} has it")
    for key, state in zip(states, kept, strict=True):
        writable(op, f"{key}{mark}", state, dtype, shape, f"p{mark} has it")
    return gradient
