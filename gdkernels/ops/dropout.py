"""Dropout whose mask is a function of the seed and of the position of an element."""

from ..check import Array, contiguous, float_dtype, number, output, whole
from ..ranges import PROBABILITY
from .entrance import everywhere
from .wings import wing

__all__ = ["dropout", "dropout_backward"]


def _word(op: str, name: str, value: object) -> int:
    """An integer modulo 2^64, as the kernels hold it: in [−2^63, 2^63)."""
    return (whole(op, name, value) + 2**63) % 2**64 - 2**63


def _masked(op: str, name: str, x: Array, p: float, seed: int, offset: int, out: Array | None) -> Array:
    float_dtype(op, name, x)
    p = number(op, "p", p, PROBABILITY)
    seed, offset = _word(op, "seed", seed), _word(op, "offset", offset)
    inputs = (x,)
    x = contiguous(x)
    y = output(op, "out", out, x, x.shape, f"{name} has shape {x.shape}", in_place=inputs)
    wing(x, "dropout").forward(x, p, seed, offset, y.array)
    return y.deliver()


@everywhere
def dropout(x: Array, p: float, seed: int, offset: int = 0, out: Array | None = None) -> Array:
    """Set elements to zero with probability p and scale the others by 1 / (1 − p), so that the mean stays.

    y = x / (1 − p) with probability 1 − p, else 0 (also for NaN and ∞)

    Element number c = offset + (index in C order) takes word c mod 4 of the Philox4x32-10 block c // 4 under the key
    `seed`, and is kept where word ≥ ⌊p 2³²⌋. No mask is stored: the same (seed, offset) gives the same mask for every
    dtype, layout and number of threads.

    Parameters
    ----------
    x : array
        float32 or float64, of any shape.
    p : float
        In [0, 1]; p = 0 gives x, p = 1 zeros.
    seed : int
        Taken modulo 2^64, as is `offset`.
    offset : int
        How many elements were drawn under this seed before: a training step adds x.size.
    out : array, optional
        Receives the result, of the shape and dtype of x; may be x itself.

    Returns
    -------
    array of the shape of x
        `out`, or a new array.

    Raises
    ------
    TypeError
        Where an argument is neither a NumPy nor a CUDA array, number or integer, or the dtypes differ.
    ValueError
        Where p is not in [0, 1], the shapes differ, or `out` partly overlaps x.

    Notes
    -----
    N. Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 15 (2014). J. Salmon
    et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    return _masked("dropout", "x", x, p, seed, offset, out)


@everywhere
def dropout_backward(dy: Array, p: float, seed: int, offset: int = 0, out: Array | None = None) -> Array:
    """Gradient through `dropout`: dx = dy / (1 − p) where x was kept, else 0.

    y is x times a constant that p, seed and offset determine, hence dx is dy times the same.

    Parameters
    ----------
    dy : array
        dL/dy, float32 or float64, of the shape of x.
    p, seed, offset
        As in the forward pass.
    out : array, optional
        Receives dx, of the shape and dtype of dy; may be dy itself.

    Returns
    -------
    array of the shape of dy
        `out`, or a new array.

    Raises
    ------
    TypeError, ValueError
        As `dropout`.
    """
    return _masked("dropout_backward", "dy", dy, p, seed, offset, out)
