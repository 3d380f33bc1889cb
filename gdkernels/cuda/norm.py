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
from .rows import can_hold, teams
from .runtime.arrays import address_of
from .runtime.jit import Launch, run
from .runtime.storages import NETWORKS

# ---------------------------------------------------------------------------------------------- sums


@elementwise("F*, F*, F*", "out", NETWORKS)
def add(a, b):
    """out = a + b; out may be a or b."""
    return a + b


# ---------------------------------------------------------------------------------------------- launches


def add_launches(storage: str, a: int, b: int, out: int, count: int) -> list[Launch]:
    """out = a + b for `count` elements; out may be a or b."""
    return elements.launches(add, storage, count, {"a": a, "b": b, "out": out})


def forward_launches(
    storage: str, *, centred: bool, x: int, residual: int, gamma: int, beta: int = 0, out: int, stats: int,
    rows: int, n: int, eps: float,
) -> list[Launch]:  # fmt: skip
    """out = y (rows, n), and what is kept of every row: layer norm with (mean, rstd) (rows, 2), or if not `centred` RMS norm
    with rstd (rows,). out may be x or the residual."""
    held = can_hold(storage, n, x, residual, gamma, beta, out)
    chosen = forward4 if held else forward1
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    return [
        chosen.on(
            storage, grid, x=x, residual=residual, gamma=gamma, beta=beta, out=out, stats=stats, rows=rows, n=n,
            eps=eps, centred=centred, shift=shift,
        )
    ]  # fmt: skip


def dx_launches(
    storage: str, *, centred: bool, dy: int, x: int, residual: int, gamma: int, stats: int, dx: int, rows: int, n: int
) -> list[Launch]:  # fmt: skip
    """dx (rows, n) of layer norm, or if not `centred` of RMS norm. It may be dy, x or the residual."""
    held = can_hold(storage, n, dy, x, residual, gamma, dx)
    chosen = dx4 if held else dx1
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    return [
        chosen.on(
            storage, grid, dy=dy, x=x, residual=residual, gamma=gamma, stats=stats, dx=dx, rows=rows, n=n,
            centred=centred, shift=shift,
        )
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- entry points


def _forward(centred: bool, x, residual, gamma, beta, out, stats, eps: float) -> None:
    rows, n = x.shape
    launches = forward_launches(
        x.storage, centred=centred, x=x.address, residual=address_of(residual), gamma=gamma.address,
        beta=address_of(beta), out=out.address, stats=stats.address, rows=rows, n=n, eps=eps,
    )  # fmt: skip
    run(launches, x.stream)


def _backward(centred: bool, dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    storage, (rows, n) = x.storage, x.shape
    given = {
        "dy": dy.address, "x": x.address, "residual": address_of(residual), "stats": stats.address, "rows": rows, "n": n,
        "centred": centred,
    }  # fmt: skip
    launches = gradient_launches(
        x.workspace, storage, **given, dgamma=dgamma.address, dbeta=address_of(dbeta), accumulate=False
    )
    launches += dx_launches(storage, **given, gamma=gamma.address, dx=dx.address)
    run(launches, x.stream)


def layernorm(x, residual, gamma, beta, out, stats, eps: float) -> None:
    """out = y, stats = (mean, rstd) of every row. out may be x or residual."""
    _forward(True, x, residual, gamma, beta, out, stats, eps)


def rmsnorm(x, residual, gamma, out, stats, eps: float) -> None:
    """out = y, stats = rstd of every row. out may be x or residual."""
    _forward(False, x, residual, gamma, None, out, stats, eps)


def layernorm_backward(dy, x, residual, gamma, stats, dx, dgamma, dbeta) -> None:
    """dx, dgamma, dbeta. The parameters go first, so that dx may be dy (or x, or residual)."""
    _backward(True, dy, x, residual, gamma, stats, dx, dgamma, dbeta)


def rmsnorm_backward(dy, x, residual, gamma, stats, dx, dgamma) -> None:
    """dx, dgamma. The parameters go first, so that dx may be dy (or x, or residual)."""
    _backward(False, dy, x, residual, gamma, stats, dx, dgamma, None)


def bind(call: NormCall, at: Binding) -> list[Launch]:
    """The launches of a call of a plan."""
    given = {"storage": at.storage, "rows": at.rows, **at.operands(call)}
    sums = {"room": at.room, "accumulate": at.accumulate, "out_storage": at.real}
    match call:
        case LayerNormForward() | RMSNormForward():
            return forward_launches(centred=isinstance(call, LayerNormForward), n=call.x.columns, **given)
        case LayerNormDx() | RMSNormDx():
            return dx_launches(centred=isinstance(call, LayerNormDx), n=call.x.columns, **given)
        case LayerNormGradients() | RMSNormGradients():
            centred = isinstance(call, LayerNormGradients)
            return gradient_launches(centred=centred, n=call.x.columns, **sums, **given)
        case Add():
            return add_launches(at.storage, **at.operands(call), count=at.rows * call.out.columns)
        case _:
            assert_never(call)
