"""The gradients of gamma and beta: sums over the batch, in two stages of fixed order.

A block adds up a strip of rows, eight warps its rows in turn; then the strips are added up (`rows`). Same input, same bits.
As in `norm`, kernels that end in 4 load four elements at a time, those that end in 1 single ones, and RMS norm is layer norm
with the mean left at 0 and no beta (`centred` 0).
"""

from .norm_rows import kept, summed
from .rows import FOURS, THREADS, WARPS, add_warps, columns_launches, strips_of
from .runtime.intrinsics import is_wide, load4
from .runtime.jit import Launch, kernel
from .runtime.pointer import BYTES, COMPUTED, is_null, real, shared
from .runtime.storages import NETWORKS
from .runtime.target import cuda
from .runtime.widths import FOUR, ONE

STRIP = 32  # rows whose sums are one partial result, at least

add_four, add_one = add_warps(FOUR), add_warps(ONE)


@kernel("F*, F*, F*, R*, R*, R*, i8, i8, i8, i4", threads=THREADS, blocks=2, variants=NETWORKS)
def strips4(dy, x, residual, stats, gammas, betas, rows, n, height, centred):
    """Sums of dy h and, if `centred`, of dy over strips of rows, of 128 columns a block, four a lane."""
    warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
    column = 4 * (cuda.blockIdx.y * 32 + lane)
    zero = real(x, 0)
    s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = zero
    if column < n:
        last = min(rows, (cuda.blockIdx.x + 1) * height)
        for row in range(cuda.blockIdx.x * height + warp, last, WARPS):
            mean, rstd = kept(stats, row, centred)
            spot = row * n + column
            dy0, dy1, dy2, dy3 = load4(dy, spot)
            x0, x1, x2, x3 = load4(x, spot)
            if not is_null(residual):
                r0, r1, r2, r3 = load4(residual, spot)
                x0, x1, x2, x3 = x0 + r0, x1 + r1, x2 + r2, x3 + r3
            s0, s1 = s0 + dy0 * ((x0 - mean) * rstd), s1 + dy1 * ((x1 - mean) * rstd)
            s2, s3 = s2 + dy2 * ((x2 - mean) * rstd), s3 + dy3 * ((x3 - mean) * rstd)
            t0, t1, t2, t3 = t0 + dy0, t1 + dy1, t2 + dy2, t3 + dy3
    sums = shared(x, FOURS)
    add_four(sums, (s0, s1, s2, s3), gammas, n)
    if centred != 0:
        cuda.syncthreads()
        add_four(sums, (t0, t1, t2, t3), betas, n)


@kernel("F*, F*, F*, R*, R*, R*, i8, i8, i8, i4", threads=THREADS, blocks=2, variants=NETWORKS)
def strips1(dy, x, residual, stats, gammas, betas, rows, n, height, centred):
    """As `strips4`, for rows of any length and alignment: 32 columns a block, one a lane."""
    warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
    column = cuda.blockIdx.y * 32 + lane
    along_h = along_ones = real(x, 0)
    if column < n:
        last = min(rows, (cuda.blockIdx.x + 1) * height)
        for row in range(cuda.blockIdx.x * height + warp, last, WARPS):
            mean, rstd = kept(stats, row, centred)
            dh = dy[row * n + column]
            along_h += dh * ((summed(x, residual, row * n + column) - mean) * rstd)
            along_ones += dh
    sums = shared(x, THREADS)
    add_one(sums, (along_h,), gammas, n)
    if centred != 0:
        cuda.syncthreads()
        add_one(sums, (along_ones,), betas, n)


def gradient_launches(
    room, storage: str, *, centred: bool, dy: int, x: int, residual: int, stats: int, dgamma: int, dbeta: int = 0,
    rows: int, n: int, accumulate: bool, out_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dgamma (+)= Σ dy h (n,) and, if `centred`, dbeta (+)= Σ dy (n,), of type `out_storage` if given.

    `room(bytes)` gives temporaries, for what lies between the two stages.
    """
    strips, height = strips_of(rows, STRIP)
    wide = is_wide(storage, dy, x, residual, n * BYTES[storage])
    grid = strips, -(-n // (128 if wide else 32)), 1

    def sums(gammas, betas):
        return (strips4 if wide else strips1).on(
            storage, grid, dy=dy, x=x, residual=residual, stats=stats, gammas=gammas, betas=betas, rows=rows, n=n,
            height=height, centred=centred,
        )  # fmt: skip

    return columns_launches(
        room, out_storage or storage, str(COMPUTED[storage]), sums, strips=strips, n=n, first=dgamma,
        second=dbeta if centred else 0, accumulate=accumulate,
    )  # fmt: skip
