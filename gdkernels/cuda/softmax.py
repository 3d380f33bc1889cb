"""Softmax of rows, and its logarithm.

    p = e / total,  e = exp(z − peak),  peak = max z,  total = Σ e        log p = z − peak − log(total)

Every exponent is at most 0 and one of them is 0: nothing overflows, and total lies in [1, n].

Each row has a team of threads (`rows`). `softmax4` loads four elements at a time and keeps the row in registers, so that it
is read once: 8 n bytes a row in float32. `softmax1` takes any length and alignment and reads the row twice, 12 n bytes: once
for peak and total together (online: the sum so far is rescaled when a larger number comes), once more for the result.
"""

import math

from ..scalar.elementary import exp, log
from .rows import HELD, HELD_COLUMNS, THREADS, WARPS, can_hold, fours, member, team_max, team_sum, teams
from .runtime.intrinsics import load4, store4
from .runtime.jit import Launch, device, kernel, run
from .runtime.pointer import offset, real, registers, shared
from .runtime.storages import REALS


@device
def further(peak, total, z):
    """(peak, total) of some numbers and one more, z: the largest, and Σ exp(number − peak).

    Of no numbers they are −∞ and 0. A NaN makes the total NaN and leaves the peak; so does −∞ beside −∞, or ∞ beside ∞,
    as soon as totals of different threads are brought to one peak (`scaled`).
    """
    one = type(z)(1)
    if z > peak:
        return z, total * exp(peak - z) + one
    return peak, total + (one if z == peak else exp(z - peak))


@device
def scaled(total, peak, common):
    """A thread's total, taken from its peak to that of its team."""
    return total * exp(peak - common)


@kernel("F*, F*, i8, i8, i4, i4", threads=THREADS, blocks=2, variants=("float32",))
def softmax4(x, out, rows, n, logarithm, shift):
    """out = softmax(x), or its logarithm, by rows; out may be x."""
    row, lane = member(shift)
    mine, step = fours(rows, n, row, lane, shift)
    x, out = offset(x, row * n + 4 * lane), offset(out, row * n + 4 * lane)
    memory, low = shared(x, WARPS), real(x, -math.inf)
    z = registers(x, HELD_COLUMNS)
    peak = low
    for c in range(HELD):
        store4(z, 4 * c, load4(x, c * step) if c < mine else (low, low, low, low))
    for k in range(HELD_COLUMNS):
        peak = z[k] if z[k] > peak else peak  # a NaN need not count: its exponential does
    peak = team_max(peak, shift, memory)
    total = real(x, 0)
    for c in range(HELD):
        if c < mine:
            for k in range(4 * c, 4 * c + 4):
                z[k] = z[k] - peak
                e = exp(z[k])
                total += e
                z[k] = z[k] if logarithm != 0 else e
    total = team_sum(total, shift, memory)
    factor = real(x, 1) / total
    less = log(total) if logarithm != 0 else real(x, 0)
    for c in range(HELD):
        if c < mine:
            z0, z1, z2, z3 = load4(z, 4 * c)
            if logarithm != 0:
                store4(out, c * step, (z0 - less, z1 - less, z2 - less, z3 - less))
            else:
                store4(out, c * step, (z0 * factor, z1 * factor, z2 * factor, z3 * factor))


@kernel("F*, F*, i8, i8, i4, i4", threads=THREADS, variants=REALS)
def softmax1(x, out, rows, n, logarithm, shift):
    """As `softmax4`, for rows of any length and alignment."""
    row, lane = member(shift)
    length = n if row < rows else 0
    x, out = offset(x, row * n), offset(out, row * n)
    memory = shared(x, WARPS)
    peak, total = real(x, -math.inf), real(x, 0)
    j = lane
    while j < length:
        peak, total = further(peak, total, x[j])
        j += 1 << shift
    common = team_max(peak, shift, memory)
    total = team_sum(scaled(total, peak, common), shift, memory)
    factor = real(x, 1) / total
    less = log(total) if logarithm != 0 else real(x, 0)
    j = lane
    while j < length:
        gap = x[j] - common
        out[j] = gap - less if logarithm != 0 else exp(gap) * factor
        j += 1 << shift


def launches(storage: str, x: int, out: int, rows: int, n: int, logarithm: bool) -> list[Launch]:
    """out = softmax(x) or log softmax(x) for rows of n; out may be x."""
    held = can_hold(storage, n, x, out)
    chosen = softmax4 if held else softmax1
    grid, shift = teams(chosen, rows, n, 4 if held else 1)
    return [chosen.on(storage, grid, x=x, out=out, rows=rows, n=n, logarithm=int(logarithm), shift=shift)]


def _run(x, out, logarithm: bool) -> None:
    n = x.shape[-1]
    run(launches(x.storage, x.address, out.address, x.size // max(n, 1), n, logarithm), x.stream)


def softmax(x, out) -> None:
    """out = softmax(x) over the last axis. out may be x."""
    _run(x, out, False)


def log_softmax(x, out) -> None:
    """out = log(softmax(x)) over the last axis. out may be x."""
    _run(x, out, True)
