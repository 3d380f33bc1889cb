"""Layer normalisation and RMS normalisation of rows, forward and backward, optionally of a sum x + residual; sums; scales.

    layer norm   h = (x − mean) rstd    y = gamma h + beta    dx = rstd (g − mean(g) − h mean(g h)),  g = gamma dy
    RMS norm     h = x rstd             y = gamma h           dx = rstd (g − h mean(g h))
    scale                               y = gamma x           dx = g

The variance is taken in a second pass around the mean. The kernels stand in `norm_rows` and `norm_gradients`; here are the
launches, and sums and scales of arrays. An absent residual is address 0.
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
    Scale,
    ScaleGradient,
)
from . import elements
from .binding import Binding
from .elements import elementwise
from .norm_gradients import STRIP, gradient_launches
from .norm_rows import dx1, dx4, forward1, forward4
from .rows import THREADS, WARPS, add_warps, can_hold, columns_launches, member, strips_of, teams
from .runtime.arrays import address_of
from .runtime.intrinsics import is_wide, plus, times
from .runtime.jit import Launch, run
from .runtime.pointer import BYTES, COMPUTED, offset, real, shared
from .runtime.storages import NETWORKS
from .runtime.target import cuda
from .runtime.widths import both_widths

# ---------------------------------------------------------------------------------------------- sums and scales


@elementwise("F*, F*, F*", "out", NETWORKS)
def add(a, b):
    """out = a + b; out may be a or b."""
    return a + b


@both_widths("F*, F*, F*, i8, i8, i4", threads=THREADS, variants=NETWORKS)
def scale_rows(width):
    """out = gamma ⊙ x, a row a team; out may be x."""
    load, store, size = width.load, width.store, width.size
    product = width.each(times, 2)

    def body(x, gamma, out, rows, n, shift):
        row, lane = member(shift)
        length, first = n if row < rows else 0, row * n
        x, out = offset(x, first), offset(out, first)
        j = size * lane
        while j < length:
            store(out, j, product(load(x, j), load(gamma, j)))
            j += size << shift

    return body


@both_widths("F*, F*, R*, i8, i8, i8", threads=THREADS, blocks=2, variants=NETWORKS)
def scale_strips(width):
    """Sums of dy ⊙ x over strips of rows, of 32 groups of columns a block."""
    load, fill, size, held = width.load, width.fill, width.size, width.size * THREADS
    product, summed, add_up = width.each(times, 2), width.each(plus, 2), add_warps(width)

    def body(dy, x, partial, rows, n, height):
        warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
        column = size * (cuda.blockIdx.y * 32 + lane)
        total = fill(real(x, 0))
        if column < n:
            last = min(rows, (cuda.blockIdx.x + 1) * height)
            for row in range(cuda.blockIdx.x * height + warp, last, WARPS):
                spot = row * n + column
                total = summed(total, product(load(dy, spot), load(x, spot)))
        add_up(shared(x, held), total, partial, n)

    return body


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


def scale_launches(storage: str, x: int, gamma: int, out: int, rows: int, n: int) -> list[Launch]:
    """out = gamma ⊙ x (rows, n). out may be x."""
    wide = is_wide(storage, x, gamma, out, n * BYTES[storage])
    chosen = scale_rows[0 if wide else 1]
    grid, shift = teams(chosen, rows, n, 4 if wide else 1)
    return [chosen.on(storage, grid, x=x, gamma=gamma, out=out, rows=rows, n=n, shift=shift)]


def scale_gradient_launches(
    room, storage: str, dy: int, x: int, dgamma: int, rows: int, n: int, accumulate: bool,
    out_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dgamma (+)= Σ dy ⊙ x (n,), of type `out_storage` if given. `room(bytes)` gives temporaries."""
    strips, height = strips_of(rows, STRIP)
    wide = is_wide(storage, dy, x, n * BYTES[storage])
    grid = strips, -(-n // (128 if wide else 32)), 1

    def sums(partial, _):
        return scale_strips[0 if wide else 1].on(
            storage, grid, dy=dy, x=x, partial=partial, rows=rows, n=n, height=height
        )

    computed = str(COMPUTED[storage])
    return columns_launches(
        room, out_storage or storage, computed, sums, strips=strips, n=n, first=dgamma, accumulate=accumulate
    )


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


def scale(x, gamma, out) -> None:
    """out = gamma ⊙ x. out may be x."""
    run(scale_launches(x.storage, x.address, gamma.address, out.address, *x.shape), x.stream)


def scale_backward(dy, x, gamma, dx, dgamma) -> None:
    """dgamma and dx. The parameter goes first, so that dx may be dy or x."""
    rows, n = x.shape
    launches = scale_gradient_launches(
        x.workspace, x.storage, dy.address, x.address, dgamma.address, rows, n, accumulate=False
    )
    launches += scale_launches(x.storage, dy.address, gamma.address, dx.address, rows, n)
    run(launches, x.stream)


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
        case Scale():
            return scale_launches(**given, n=call.x.columns)
        case ScaleGradient():
            return scale_gradient_launches(n=call.x.columns, **sums, **given)
        case Add():
            return add_launches(at.storage, **at.operands(call), count=at.rows * call.out.columns)
        case _:
            assert_never(call)
