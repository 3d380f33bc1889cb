"""The kernels of layer and RMS normalisation that work on rows: forward, and the gradient of the input.

Each row has a team of threads (`rows`). The kernels that end in 4 load four elements at a time and keep the row in
registers (at most 8192 columns), so that memory is read and written once: 8 n bytes a row forward and 12 n for dx in
float32, and 4 n for a residual; gamma and beta come from the caches. Those that end in 1 take any length and alignment and
read the row again for each pass, three times forward and twice for dx, from the caches unless it is very long.

RMS norm is layer norm with the mean left at 0 and no beta, and runs through the same kernels (`centred` 0). An absent
residual is address 0. Statistics are of the computed type: (mean, rstd) of each row, or rstd alone.
"""

import math

from .rows import HELD, HELD_COLUMNS, THREADS, WARPS, fours, member, part, team_sum
from .runtime.intrinsics import load4, store4
from .runtime.jit import device, kernel
from .runtime.pointer import is_null, offset, real, registers, shared
from .runtime.storages import NETWORKS, SINGLES


@device
def summed(x, residual, j):
    """x[j] + residual[j]."""
    return x[j] if is_null(residual) else x[j] + residual[j]


@device
def hold(held, row, mine, step):
    """held = the thread's part of a row: `mine` groups of four, and zeros.

    Nothing is computed here, so that all loads are on their way before the first one is waited for.
    """
    zero = real(held, 0)
    for c in range(HELD):
        store4(held, 4 * c, load4(row, c * step) if c < mine else (zero, zero, zero, zero))


@device
def add_to(held, residual, mine, step):
    """held += the thread's part of the residual, if there is one."""
    if not is_null(residual):
        for c in range(HELD):
            if c < mine:
                x0, x1, x2, x3 = load4(held, 4 * c)
                r0, r1, r2, r3 = load4(residual, c * step)
                store4(held, 4 * c, (x0 + r0, x1 + r1, x2 + r2, x3 + r3))


@device
def keep(stats, row, mean, rstd, centred):
    """The statistics of a row: mean and rstd, or rstd alone."""
    if centred != 0:
        stats[2 * row] = mean
        stats[2 * row + 1] = rstd
    else:
        stats[row] = rstd


@device
def kept(stats, row, centred):
    """(mean, rstd) of a row."""
    if centred != 0:
        return stats[2 * row], stats[2 * row + 1]
    return real(stats, 0), stats[row]


@kernel("F*, F*, F*, F*, F*, R*, i8, i8, R, i4, i4", threads=THREADS, blocks=2, variants=SINGLES)
def forward4(x, residual, gamma, beta, out, stats, rows, n, eps, centred, shift):
    """out = gamma (x − mean) rstd + beta and stats (mean, rstd) of every row; without `centred` no mean and beta."""
    row, lane = member(shift)
    mine, step = fours(rows, n, row, lane, shift)
    first = row * n + 4 * lane
    x, residual, out = offset(x, first), part(residual, first), offset(out, first)
    gamma, beta = offset(gamma, 4 * lane), offset(beta, 4 * lane)
    memory = shared(x, WARPS)
    d = registers(x, HELD_COLUMNS)
    hold(d, x, mine, step)
    add_to(d, residual, mine, step)
    mean = real(x, 0)
    if centred != 0:
        total = real(x, 0)
        for k in range(HELD_COLUMNS):
            total += d[k]
        mean = team_sum(total, shift, memory) / real(x, n)
    squares = real(x, 0)
    for c in range(HELD):
        if c < mine:
            for k in range(4 * c, 4 * c + 4):
                d[k] = d[k] - mean
                squares += d[k] * d[k]
    rstd = real(x, 1) / math.sqrt(team_sum(squares, shift, memory) / real(x, n) + eps)
    for c in range(HELD):
        if c < mine:
            g0, g1, g2, g3 = load4(gamma, c * step)
            d0, d1, d2, d3 = load4(d, 4 * c)
            y = d0 * rstd * g0, d1 * rstd * g1, d2 * rstd * g2, d3 * rstd * g3
            if centred != 0:
                b0, b1, b2, b3 = load4(beta, c * step)
                y = y[0] + b0, y[1] + b1, y[2] + b2, y[3] + b3
            store4(out, c * step, y)
    if lane == 0 and row < rows:
        keep(stats, row, mean, rstd, centred)


@kernel("F*, F*, F*, F*, F*, R*, i8, i8, R, i4, i4", threads=THREADS, variants=NETWORKS)
def forward1(x, residual, gamma, beta, out, stats, rows, n, eps, centred, shift):
    """As `forward4`, for rows of any length and alignment."""
    row, lane = member(shift)
    length = n if row < rows else 0
    x, residual, out = offset(x, row * n), part(residual, row * n), offset(out, row * n)
    memory = shared(x, WARPS)
    mean = real(x, 0)
    if centred != 0:
        total = real(x, 0)
        j = lane
        while j < length:
            total += summed(x, residual, j)
            j += 1 << shift
        mean = team_sum(total, shift, memory) / real(x, n)
    squares = real(x, 0)
    j = lane
    while j < length:
        d = summed(x, residual, j) - mean
        squares += d * d
        j += 1 << shift
    rstd = real(x, 1) / math.sqrt(team_sum(squares, shift, memory) / real(x, n) + eps)
    j = lane
    while j < length:
        y = (summed(x, residual, j) - mean) * rstd * gamma[j]
        out[j] = y + beta[j] if centred != 0 else y
        j += 1 << shift
    if lane == 0 and row < rows:
        keep(stats, row, mean, rstd, centred)


# ---------------------------------------------------------------------------------------------- backward: rows


@kernel("F*, F*, F*, F*, R*, F*, i8, i8, i4, i4", threads=THREADS, blocks=2, variants=SINGLES)
def dx4(dy, x, residual, gamma, stats, dx, rows, n, centred, shift):
    """dx of every row; without `centred` the mean of g stays. dx may be dy, x or the residual."""
    row, lane = member(shift)
    mine, step = fours(rows, n, row, lane, shift)
    first = row * n + 4 * lane
    dy, x, residual, dx = offset(dy, first), offset(x, first), part(residual, first), offset(dx, first)
    gamma = offset(gamma, 4 * lane)
    mean, rstd = kept(stats, row if row < rows else 0, centred)
    memory, zero = shared(x, WARPS), real(x, 0)
    d, g = registers(x, HELD_COLUMNS), registers(x, HELD_COLUMNS)
    hold(d, x, mine, step)
    hold(g, dy, mine, step)
    add_to(d, residual, mine, step)
    for c in range(HELD):
        if c < mine:
            dy0, dy1, dy2, dy3 = load4(g, 4 * c)
            g0, g1, g2, g3 = load4(gamma, c * step)
            store4(g, 4 * c, (dy0 * g0, dy1 * g1, dy2 * g2, dy3 * g3))
    along_ones, along_h = zero, zero
    for k in range(HELD_COLUMNS):
        d[k] = d[k] - mean
        along_ones += g[k]
        along_h += g[k] * d[k]
    # h mean(g h) is d slope
    slope = team_sum(along_h, shift, memory) / real(x, n) * rstd * rstd
    level = team_sum(along_ones, shift, memory) / real(x, n) if centred != 0 else zero
    for c in range(HELD):
        if c < mine:
            d0, d1, d2, d3 = load4(d, 4 * c)
            g0, g1, g2, g3 = load4(g, 4 * c)
            y0, y1 = rstd * (g0 - level - d0 * slope), rstd * (g1 - level - d1 * slope)
            y2, y3 = rstd * (g2 - level - d2 * slope), rstd * (g3 - level - d3 * slope)
            store4(dx, c * step, (y0, y1, y2, y3))


@kernel("F*, F*, F*, F*, R*, F*, i8, i8, i4, i4", threads=THREADS, variants=NETWORKS)
def dx1(dy, x, residual, gamma, stats, dx, rows, n, centred, shift):
    """As `dx4`, for rows of any length and alignment."""
    row, lane = member(shift)
    length = n if row < rows else 0
    dy, x, residual = offset(dy, row * n), offset(x, row * n), part(residual, row * n)
    dx = offset(dx, row * n)
    mean, rstd = kept(stats, row if row < rows else 0, centred)
    memory, zero = shared(x, WARPS), real(x, 0)
    along_ones, along_h = zero, zero
    j = lane
    while j < length:
        g = dy[j] * gamma[j]
        along_ones += g
        along_h += g * (summed(x, residual, j) - mean)
        j += 1 << shift
    slope = team_sum(along_h, shift, memory) / real(x, n) * rstd * rstd
    level = team_sum(along_ones, shift, memory) / real(x, n) if centred != 0 else zero
    j = lane
    while j < length:
        dx[j] = rstd * (dy[j] * gamma[j] - level - (summed(x, residual, j) - mean) * slope)
        j += 1 << shift
