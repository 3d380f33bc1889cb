"""Layer normalisation and RMS normalisation of rows, forward and backward, optionally of a sum x + residual; sums.

    layer norm   h = (x − mean) rstd    y = gamma h + beta    dx = rstd (g − mean(g) − h mean(g h)),  g = gamma dy
    RMS norm     h = x rstd             y = gamma h           dx = rstd (g − h mean(g h))

The variance is taken in a second pass around the mean. The kernels stand in `norm_rows` and `norm_gradients`; here are the
launches, and sums of arrays. An absent residual is address 0.
"""

from typing import assert_never

from ..plan import (
    Add,
    LayerNormDx,
    LayerNormForward,
    LayerNormGradients,
    NormCall,
    RMSNormDx,
    RMSNormForward,
    RMSNormGradients,
)
from . import elements
from .binding import Binding
from .elements import elementwise
from .norm_gradients import gradient_launches
from .norm_rows import dx1, dx4, forward1, forward4
from .rows import EVERY, can_hold, teams
from .runtime.jit import Launch, run

# ---------------------------------------------------------------------------------------------- sums


@elementwise("F*, F*, F*", EVERY)
def add(a, b):
    """out = a + b; out may be a or b."""
    return a + b


# ---------------------------------------------------------------------------------------------- launches


def add_launches(storage: str, a: int, b: int, out: int, count: int) -> list[Launch]:
    """out = a + b for `count` elements; out may be a or b."""
    return elements.launches(add, storage, count, (a, b, out))


def _forward(storage, x, residual, gamma, beta, out, stats, rows, n, eps, centred) -> list[Launch]:
    held = can_hold(storage, n, x, residual, gamma, beta, out)
    chosen = forward4 if held else forward1
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    operands = (x, residual, gamma, beta, out, stats, rows, n, eps, centred, shift)
    return [Launch(chosen, storage, grid, operands)]


def _dx(storage, dy, x, residual, gamma, stats, dx, rows, n, centred) -> list[Launch]:
    held = can_hold(storage, n, dy, x, residual, gamma, dx)
    chosen = dx4 if held else dx1
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    operands = (dy, x, residual, gamma, stats, dx, rows, n, centred, shift)
    return [Launch(chosen, storage, grid, operands)]


def layernorm_launches(
    storage: str, x: int, residual: int, gamma: int, beta: int, out: int, stats: int, rows: int, n: int, eps: float
) -> list[Launch]:  # fmt: skip
    """out = y (rows, n) and stats = (mean, rstd) (rows, 2) of every row; out may be x or the residual."""
    return _forward(storage, x, residual, gamma, beta, out, stats, rows, n, eps, 1)


def layernorm_dx_launches(
    storage: str, dy: int, x: int, residual: int, gamma: int, stats: int, dx: int, rows: int, n: int
) -> list[Launch]:
    """dx (rows, n), which may be dy, x or the residual."""
    return _dx(storage, dy, x, residual, gamma, stats, dx, rows, n, 1)


def layernorm_gradients_launches(
    room, storage: str, dy: int, x: int, residual: int, stats: int, dgamma: int, dbeta: int, rows: int, n: int,
    accumulate: bool, out_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dgamma (+)= Σ dy h and dbeta (+)= Σ dy (n,), of type `out_storage` if given. `room(bytes)` gives temporaries."""
    return gradient_launches(
        room, storage, dy, x, residual, stats, dgamma, dbeta, rows, n, accumulate, out_storage, 1
    )


def rmsnorm_launches(
    storage: str, x: int, residual: int, gamma: int, out: int, stats: int, rows: int, n: int, eps: float
) -> list[Launch]:
    """out = y (rows, n) and stats = rstd (rows,) of every row; out may be x or the residual."""
    return _forward(storage, x, residual, gamma, 0, out, stats, rows, n, eps, 0)


def rmsnorm_dx_launches(
    storage: str, dy: int, x: int, residual: int, gamma: int, stats: int, dx: int, rows: int, n: int
) -> list[Launch]:
    """dx (rows, n), which may be dy, x or the residual."""
    return _dx(storage, dy, x, residual, gamma, stats, dx, rows, n, 0)


def rmsnorm_gradients_launches(
    room, storage: str, dy: int, x: int, residual: int, stats: int, dgamma: int, rows: int, n: int,
    accumulate: bool, out_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dgamma (+)= Σ dy h (n,), of type `out_storage` if given. `room(bytes)` gives temporaries."""
    return gradient_launches(
        room, storage, dy, x, residual, stats, dgamma, 0, rows, n, accumulate, out_storage, 0
    )


# ---------------------------------------------------------------------------------------------- the ops' way in


def _at(array) -> int:
    return 0 if array is None else array.address


def layernorm(x, residual, gamma, beta, out, stats, eps: float) -> None:
    """out = y, stats = (mean, rstd) of every row. out may be x or residual."""
    operands = x.address, _at(residual), gamma.address, beta.address, out.address, stats.address
    rows, n = x.shape
    run(layernorm_launches(x.dtype.name, *operands, rows, n, eps), x.stream)


def rmsnorm(x, residual, gamma, out, stats, eps: float) -> None:
    """out = y, stats = rstd of every row. out may be x or residual."""
    operands = x.address, _at(residual), gamma.address, out.address, stats.address
    rows, n = x.shape
    run(rmsnorm_launches(x.dtype.name, *operands, rows, n, eps), x.stream)


def layernorm_backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    """dx, dgamma, dbeta. The parameters go first, so that dx may be dy (or x, or residual)."""
    storage, given = x.dtype.name, (dy.address, x.address, _at(residual))
    sums = (stats.address, dgamma.address, dbeta.address, *x.shape, False)
    launches = layernorm_gradients_launches(x.workspace, storage, *given, *sums)
    launches += layernorm_dx_launches(storage, *given, gamma.address, stats.address, dx.address, *x.shape)
    run(launches, x.stream)


def rmsnorm_backward(dy, x, residual, gamma, stats, dx, dgamma) -> None:
    """dx, dgamma. The parameters go first, so that dx may be dy (or x, or residual)."""
    storage, given = x.dtype.name, (dy.address, x.address, _at(residual))
    sums = (stats.address, dgamma.address, *x.shape, False)
    launches = rmsnorm_gradients_launches(x.workspace, storage, *given, *sums)
    launches += rmsnorm_dx_launches(storage, *given, gamma.address, stats.address, dx.address, *x.shape)
    run(launches, x.stream)


def bind(call: NormCall, at: Binding) -> list[Launch]:
    """The launches of a call of a plan."""
    given, rows = at.operands(call), at.rows
    match call:
        case LayerNormForward():
            return layernorm_launches(at.storage, **given, rows=rows, n=call.x.columns)
        case LayerNormDx():
            return layernorm_dx_launches(at.storage, **given, rows=rows, n=call.x.columns)
        case LayerNormGradients():
            return layernorm_gradients_launches(
                at.room,
                at.storage,
                **given,
                rows=rows,
                n=call.x.columns,
                accumulate=at.accumulate,
                out_storage=at.real,
            )
        case RMSNormForward():
            return rmsnorm_launches(at.storage, **given, rows=rows, n=call.x.columns)
        case RMSNormDx():
            return rmsnorm_dx_launches(at.storage, **given, rows=rows, n=call.x.columns)
        case RMSNormGradients():
            return rmsnorm_gradients_launches(
                at.room,
                at.storage,
                **given,
                rows=rows,
                n=call.x.columns,
                accumulate=at.accumulate,
                out_storage=at.real,
            )
        case Add():
            return add_launches(at.storage, **given, count=rows * call.out.columns)
        case _:
            assert_never(call)
