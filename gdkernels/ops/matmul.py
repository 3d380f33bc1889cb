"""The matrix product."""

import numpy as np

from ..check import Array, copied, dimensions, float_dtype, output
from .entrance import everywhere
from .wings import wing

__all__ = ["matmul"]


def strided(value: Array) -> Array:
    """An operand whose strides are whole elements: any view of an aligned array, else a copy."""
    flags = value.flags
    if flags.aligned and (flags.c_contiguous or all(step % value.itemsize == 0 for step in value.strides)):
        return value
    return copied(value)


def operand(op: str, name: str, value: Array, dtype: "np.dtype[np.generic]", first: str) -> Array:
    """A matrix of the dtype that the argument `first` has, as the product reads it (transposed views are not copied)."""
    is_plain = type(value) is np.ndarray and value.dtype is dtype
    if not is_plain and float_dtype(op, name, value, halves=True) != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, expected {dtype} because {first} has {dtype}")
    dimensions(op, name, value, 2)
    return strided(value)


@everywhere
def matmul(
    a: Array,
    b: Array,
    trans_a: bool = False,
    trans_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Matrix product out (+)= op(a) @ op(b), where op(a) is a or, with `trans_a`, its transpose.

    Parameters
    ----------
    a : (m, k) array, or (k, m) with `trans_a`
        float32 or float64, with any strides.
    b : (k, n) array, or (n, k) with `trans_b`
        Same dtype as `a`.
    out : (m, n) array, optional
        Receives the result; must not overlap `a` or `b`.
    accumulate : bool
        Add to `out`, which must then be given.

    Returns
    -------
    (m, n) array
        `out`, or a new array. Where k is 0 the product is 0.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array or the dtypes differ.
    ValueError
        Where shapes do not fit, `out` overlaps an operand, or `accumulate` has no `out`.

    Notes
    -----
    The error of an element is at most k·eps·(|op(a)| @ |op(b)|) [1]_; the order of summation depends on k alone, so
    that the bits are the same for any number of threads.

    .. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.5.
    """
    dtype = float_dtype("matmul", "a", a, halves=True)
    inputs = (a, b)
    a = operand("matmul", "a", a, dtype, "a")
    b = operand("matmul", "b", b, dtype, "a")
    m, k = reversed(a.shape) if trans_a else a.shape
    rows, n = reversed(b.shape) if trans_b else b.shape
    if rows != k:
        raise ValueError(
            f"matmul: b has shape {b.shape}, expected {f'(n, {k})' if trans_b else f'({k}, n)'} because a has shape "
            f"{a.shape}{' and trans_a is set' if trans_a else ''}"
        )
    if accumulate and out is None:
        raise ValueError("matmul: accumulate is set but out is not given, expected an array to add to")
    product = output("matmul", "out", out, a, (m, n), "of the operands", apart_from=inputs)
    if accumulate:
        product.fill()
    wing(a, "matmul").matmul(a.T if trans_a else a, b.T if trans_b else b, product.array, accumulate)
    return product.deliver()
