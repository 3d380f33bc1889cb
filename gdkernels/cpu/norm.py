"""Layer normalisation and RMS normalisation of rows, forward and backward, optionally of a sum x + residual; scales.

    layer norm   h = (x − mean) rstd    y = gamma h + beta    dx = rstd (g − mean(g) − h mean(g h)),  g = gamma dy
    RMS norm     h = x rstd             y = gamma h           dx = rstd (g − h mean(g h))
    scale                               y = gamma x           dx = g

The kernels stand in `norm_rows` and `norm_gradients`; here are the ops, and sums and scales of arrays. The derivation is
in the reference. A null pointer (0) stands for a residual that is not there.
"""

from typing import assert_never

import numpy as np

from ..plan import (
    Add,
    LayerNormDx,
    LayerNormForward,
    LayerNormGradients,
    NormCall,
    RMSNormDx,
    RMSNormForward,
    RMSNormGradients,
    Scale,
    ScaleGradient,
)
from .binding import Binding
from .cost import rows_of_block, work
from .norm_gradients import backward_blocks, layernorm_gradients, rmsnorm_gradients, sum_blocks
from .norm_rows import add, layernorm_dx_rows, layernorm_rows, rmsnorm_dx_rows, rmsnorm_rows
from .runtime.jit import Op, kernel, native
from .runtime.layout import Floats, Int
from .runtime.memory import COLUMN_QUANTUM, QUANTUM
from .runtime.simd import noalias, offset
from .runtime.team import WORTH_SHARING, run, run_all
from .runtime.vectors import clear

# ---------------------------------------------------------------------------------------------- sums and scales


@kernel
def add_elements(a: Floats, b: Floats, out: Floats, start, stop):
    """Elements [start, stop) of out = a + b."""
    add(offset(a, start), offset(b, start), offset(out, start), stop - start)


@native("F*, F*, F*, i8")
def multiply(a, b, out, n):
    """out = a ⊙ b."""
    noalias()
    for j in range(n):
        out[j] = a[j] * b[j]


@native("F*, F*, F*, i8")
def add_product(a, b, out, n):
    """out += a ⊙ b."""
    noalias()
    for j in range(n):
        out[j] += a[j] * b[j]


@kernel
def scale_rows(x: Floats, gamma: Floats, out: Floats, n: Int, start, stop):
    """Rows [start, stop) of out = gamma ⊙ x."""
    for r in range(start, stop):
        multiply(gamma, offset(x, r * n), offset(out, r * n), n)


@kernel
def scale_gradient(dy: Floats, x: Floats, dgamma: Floats, batch: Int, n: Int, accumulate: Int, start, stop):
    """Columns [start, stop) of dgamma (+)= Σ dy ⊙ x, row after row."""
    sums = offset(dgamma, start)
    if not accumulate:
        clear(sums, stop - start)
    for r in range(batch):
        first = r * n + start
        add_product(offset(dy, first), offset(x, first), sums, stop - start)


# ---------------------------------------------------------------------------------------------- ops


def add_op(a, b, out) -> Op:
    """out = a + b, for C-contiguous arrays of any one shape; out may be a or b."""
    return add_elements.op(a.dtype, a.size, quantum=QUANTUM, a=a, b=b, out=out)


def layernorm_op(x, residual, gamma, beta, out, stats, eps: float) -> Op:
    """out = y, stats = (mean, rstd) of every row. out may be x or residual."""
    return layernorm_rows.op(
        x.dtype, x.shape[0], work=work("norm", x),
        x=x, residual=residual, gamma=gamma, beta=beta, out=out, stats=stats, n=x.shape[1], eps=eps,
    )  # fmt: skip


def rmsnorm_op(x, residual, gamma, out, stats, eps: float) -> Op:
    """out = y, stats = rstd of every row. out may be x or residual."""
    return rmsnorm_rows.op(
        x.dtype, x.shape[0], work=work("norm", x),
        x=x, residual=residual, gamma=gamma, out=out, stats=stats, n=x.shape[1], eps=eps,
    )  # fmt: skip


def layernorm_dx_op(dy, x, residual, gamma, stats, dx) -> Op:
    """dx alone, which may be dy (or x, or residual)."""
    return layernorm_dx_rows.op(
        x.dtype, x.shape[0], dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, n=x.shape[1]
    )


def rmsnorm_dx_op(dy, x, residual, gamma, stats, dx) -> Op:
    """dx alone, which may be dy (or x, or residual)."""
    return rmsnorm_dx_rows.op(
        x.dtype, x.shape[0], dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, n=x.shape[1]
    )


def layernorm_gradients_op(dy, x, residual, stats, dgamma, dbeta, accumulate: bool) -> Op:
    """dgamma (+)= Σ dy h and dbeta (+)= Σ dy alone, each column in the order of the rows."""
    batch, n = x.shape
    return layernorm_gradients.op(
        x.dtype, n, quantum=COLUMN_QUANTUM,
        dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma, dbeta=dbeta, batch=batch, n=n,
        accumulate=int(accumulate),
    )  # fmt: skip


def rmsnorm_gradients_op(dy, x, residual, stats, dgamma, accumulate: bool) -> Op:
    """dgamma (+)= Σ dy h alone, each column in the order of the rows."""
    batch, n = x.shape
    return rmsnorm_gradients.op(
        x.dtype, n, quantum=COLUMN_QUANTUM,
        dy=dy, x=x, residual=residual, stats=stats, dgamma=dgamma, batch=batch, n=n, accumulate=int(accumulate),
    )  # fmt: skip


def _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta, centred: int) -> list[Op]:
    """dx, and dgamma and dbeta by way of blocks of rows that depend on the shape alone."""
    (batch, n), dtype = x.shape, x.dtype
    cost = work("norm backward", x)
    together = batch if cost < WORTH_SHARING else rows_of_block(batch)
    blocks = -(-batch // together) if batch else 1
    if blocks == 1:
        partial = np.empty(n, dtype) if dbeta is None else dbeta  # nobody asks for the sum of dy
        to_gamma, to_beta = dgamma, partial
    else:
        partial = np.empty((blocks, 2 * n), dtype)
        to_gamma, to_beta = partial, partial[0, n:]
    ops = [
        backward_blocks.op(
            dtype, blocks, work=cost,
            dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, to_gamma=to_gamma, to_beta=to_beta,
            batch=batch, n=n, together=together, centred=centred,
        )
    ]  # fmt: skip
    if blocks > 1:
        ops.append(
            sum_blocks.op(
                dtype, n, quantum=COLUMN_QUANTUM, work=work("norm, blocks", partial),
                partial=partial, dgamma=dgamma, dbeta=dbeta, blocks=blocks, n=n,
            )
        )  # fmt: skip
    return ops


def layernorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> list[Op]:
    """dx, dgamma, dbeta. dx may be dy (or x, or residual)."""
    return _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta, 1)


def rmsnorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma) -> list[Op]:
    """dx, dgamma. dx may be dy (or x, or residual)."""
    return _backward_ops(dy, x, residual, gamma, stats, dx, dgamma, None, 0)


def scale_op(x, gamma, out) -> Op:
    """out = gamma ⊙ x. out may be x."""
    cost = work("activation, cheap", x)
    return scale_rows.op(x.dtype, x.shape[0], work=cost, x=x, gamma=gamma, out=out, n=x.shape[1])


def scale_gradient_op(dy, x, dgamma, accumulate: bool) -> Op:
    """dgamma (+)= Σ dy ⊙ x, each column in the order of the rows."""
    batch, n = x.shape
    return scale_gradient.op(
        x.dtype, n, quantum=COLUMN_QUANTUM, work=work("norm", x),
        dy=dy, x=x, dgamma=dgamma, batch=batch, n=n, accumulate=int(accumulate),
    )  # fmt: skip


def scale_backward_ops(dy, x, gamma, dx, dgamma) -> list[Op]:
    """dgamma and dx, in this order: dx may be dy or x."""
    return [scale_gradient_op(dy, x, dgamma, False), scale_op(dy, gamma, dx)]


def layernorm(x, residual, gamma, beta, out, stats, eps: float) -> None:
    """See `layernorm_op`."""
    run(layernorm_op(x, residual, gamma, beta, out, stats, eps))


def rmsnorm(x, residual, gamma, out, stats, eps: float) -> None:
    """See `rmsnorm_op`."""
    run(rmsnorm_op(x, residual, gamma, out, stats, eps))


def layernorm_backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    """See `layernorm_backward_ops`."""
    run_all(layernorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma, dbeta))


def rmsnorm_backward(dy, x, residual, gamma, stats, dx, dgamma) -> None:
    """See `rmsnorm_backward_ops`."""
    run_all(rmsnorm_backward_ops(dy, x, residual, gamma, stats, dx, dgamma))


def scale(x, gamma, out) -> None:
    """See `scale_op`."""
    run(scale_op(x, gamma, out))


def scale_backward(dy, x, gamma, dx, dgamma) -> None:
    """See `scale_backward_ops`."""
    run_all(scale_backward_ops(dy, x, gamma, dx, dgamma))


def bind(call: NormCall, at: Binding) -> Op:
    """The op of a call of a plan."""
    given = at.operands(call)
    match call:
        case LayerNormForward():
            return at.by_rows(layernorm_op(**given))
        case LayerNormDx():
            return at.by_rows(layernorm_dx_op(**given))
        case LayerNormGradients():
            return at.of_parameter(layernorm_gradients_op(**given, accumulate=at.accumulate), given["dgamma"])
        case RMSNormForward():
            return at.by_rows(rmsnorm_op(**given))
        case RMSNormDx():
            return at.by_rows(rmsnorm_dx_op(**given))
        case RMSNormGradients():
            return at.of_parameter(rmsnorm_gradients_op(**given, accumulate=at.accumulate), given["dgamma"])
        case Scale():
            return at.by_rows(scale_op(**given))
        case ScaleGradient():
            return at.of_parameter(scale_gradient_op(**given, accumulate=at.accumulate), given["dgamma"])
        case Add():
            return at.by_rows(add_op(**given))
        case _:
            assert_never(call)
