"""A test for your own compositions of operations: is this gradient the derivative of that value?"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
H = EPS ** (1 / 3)
ROUNDINGS = 64


def gradcheck(f: Callable[..., tuple[Any, Sequence[Any]]], args: Sequence[Any]) -> float:
    """Hold the gradients that a function computes against central finite differences of its value.

    Parameters
    ----------
    f : function
        ``f(*args)`` returns ``(value, grads)``: a scalar, and a sequence with one entry for each argument, dvalue/darg
        in the shape of the argument, or None for one that is not to be checked. It must not change its arguments.
    args : sequence
        The point. Floating-point arrays are given to `f` as float64 copies (gradients must be float64 too); anything
        else (labels, options) is handed on as it is and has the gradient None. Keep off kinks, such as relu at 0.

    Returns
    -------
    float
        The largest |analytic − numeric| / bound, at most 1.

    Raises
    ------
    AssertionError
        Where a gradient is out of its bound: names the argument, its worst element, both values and the bound.
    TypeError, ValueError
        Where `f` does not keep to the contract: wrong number, shape or dtype of gradients, a value that is not a
        finite scalar, a changed argument.

    Notes
    -----
    Every element x takes two evaluations: numeric = (f(x + h) − f(x − h)) / 2h with h = eps^(1/3) max(1, |x|), so
    that f'''h²/6 and the rounding of f over h are both about eps^(2/3) = 4e-11. The bound is 64 eps S / h for the
    rounding, where S = |f| + Σ |x df/dx| is the size of what f adds up, and 1e-6 of the derivative for the
    curvature.

    Examples
    --------
    A dense layer with a squared loss; then a gradient that forgot its factor 2:

    >>> import numpy as np
    >>> from gdkernels.testing import gradcheck
    >>> def squared_error(x, w, y):
    ...     error = x @ w - y
    ...     return 0.5 * np.sum(error**2), (error @ w.T, x.T @ error, None)
    >>> rng = np.random.default_rng(0)
    >>> point = rng.standard_normal((4, 3)), rng.standard_normal((3, 2)), rng.standard_normal((4, 2))
    >>> gradcheck(squared_error, point) <= 1
    True
    >>> gradcheck(lambda x: (np.sum(x**2), [x]), [np.array([1.0, 2.0])])
    Traceback (most recent call last):
    ...
    AssertionError: gradcheck: x has a wrong gradient, worst at x[1]: analytic 2, numeric 4, bound 4.01e-06 (2 of 2)
    """
    point = [_copy(arg) for arg in args]
    names = _names(f, point)
    value, grads = _evaluate(f, point, names)
    if not grads:
        raise ValueError("gradcheck: every gradient is None, expected one to check")
    size = abs(value) + sum(float(np.abs(point[index] * gradient).sum()) for index, gradient in grads.items())
    worst = 0.0
    for index, gradient in grads.items():
        numeric, steps = _differences(f, point, index)
        bound = ROUNDINGS * EPS * size / steps + 1e-6 * np.maximum(np.abs(gradient), np.abs(numeric))
        worst = max(worst, _compare(names[index], gradient, numeric, bound))
    return worst


def _copy(arg: Any) -> Any:
    """An argument of floating-point numbers as a float64 array of its own; anything else as it is."""
    if isinstance(arg, np.ndarray) and np.issubdtype(arg.dtype, np.floating):
        return np.array(arg, dtype=np.float64, order="C")
    return arg


def _is_differentiable(arg: Any) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype == np.float64


def _names(f: Callable[..., Any], point: list[Any]) -> list[str]:
    """What `f` calls its arguments, or args[i] where it does not say."""
    try:
        bound = inspect.signature(f).bind(*point).arguments
    except (TypeError, ValueError):
        bound = {}
    names = [name for name, arg in bound.items() if not isinstance(arg, tuple)]
    if len(names) == len(point):
        return names
    return [f"args[{index}]" for index in range(len(point))]


def _evaluate(
    f: Callable[..., tuple[Any, Sequence[Any]]], point: list[Any], names: list[str]
) -> tuple[float, dict[int, Array]]:
    """The value, and the gradients by the number of their argument, once they are what the contract says."""
    before = [arg.tobytes() if _is_differentiable(arg) else None for arg in point]
    result = f(*point)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(f"gradcheck: f returned {type(result).__name__}, expected (value, grads)")
    value = _scalar(result[0])
    if not isinstance(result[1], tuple | list):
        raise TypeError(
            f"gradcheck: grads is of type {type(result[1]).__name__}, expected a tuple or list of arrays or None"
        )
    if len(result[1]) != len(point):
        raise ValueError(
            f"gradcheck: f returned {len(result[1])} gradients, expected {len(point)}: one for each argument"
        )
    for name, arg, old in zip(names, point, before, strict=True):
        if old is not None and arg.tobytes() != old:
            raise ValueError(f"gradcheck: f changed {name}, expected its arguments unchanged")
    given = enumerate(zip(names, point, result[1], strict=True))
    return value, {
        index: _gradient(name, arg, gradient)
        for index, (name, arg, gradient) in given
        if gradient is not None
    }


def _scalar(value: Any) -> float:
    if np.shape(value) != ():
        raise ValueError(f"gradcheck: value has shape {np.shape(value)}, expected a scalar")
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"gradcheck: value is {number}, expected a finite number")
    return number


def _gradient(name: str, arg: Any, gradient: Any) -> Array:
    """A copy of one gradient (f may use the memory again), of the argument's shape."""
    if not _is_differentiable(arg):
        raise TypeError(f"gradcheck: {name} is not a floating-point array, expected None as its gradient")
    found = np.asarray(gradient)
    if found.dtype != np.float64:
        raise TypeError(f"gradcheck: the gradient of {name} has dtype {found.dtype}, expected float64")
    if found.shape != arg.shape:
        raise ValueError(f"gradcheck: the gradient of {name} has shape {found.shape}, expected {arg.shape}")
    if not np.isfinite(found).all():
        where = _element(name, ~np.isfinite(found))
        raise AssertionError(f"gradcheck: the gradient at {where} is not finite, but the value is")
    return found.copy()


def _differences(f: Callable[..., Any], point: list[Any], index: int) -> tuple[Array, Array]:
    """Central differences of the value in one argument, and the steps that they were taken over."""
    arg = point[index]
    numeric, steps = np.zeros_like(arg), np.zeros_like(arg)
    for place in np.ndindex(arg.shape):
        here = float(arg[place])
        step = H * max(1.0, abs(here))
        above, below = here + step, here - step
        arg[place] = above
        rise = _scalar(f(*point)[0])
        arg[place] = below
        rise -= _scalar(f(*point)[0])
        arg[place] = here
        steps[place] = (above - below) / 2  # the step that was taken, after rounding
        numeric[place] = rise / (above - below)
    return numeric, steps


def _element(name: str, mark: NDArray[Any]) -> str:
    """The element where `mark` is largest, as one would write it."""
    place = np.unravel_index(int(mark.argmax()), mark.shape)
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def _compare(name: str, analytic: Array, numeric: Array, bound: Array) -> float:
    """The largest error in units of the bound, or the complaint about it."""
    error = np.abs(analytic - numeric)
    ratio = np.divide(error, bound, out=np.zeros_like(error), where=error > 0)
    wrong = int((ratio > 1).sum())
    if wrong:
        worst = int(ratio.argmax())
        raise AssertionError(
            f"gradcheck: {name} has a wrong gradient, worst at {_element(name, ratio)}: analytic "
            f"{analytic.flat[worst]:.9g}, numeric {numeric.flat[worst]:.9g}, bound {bound.flat[worst]:.3g} "
            f"({wrong} of {ratio.size})"
        )
    return float(ratio.max(initial=0.0))
