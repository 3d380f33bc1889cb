"""Activations over memory: forward, backward, and the column sums that are the bias gradient.

For each kind there is a kernel for four elements a thread, and one for single elements: what is left over by fours, and what
is not aligned (`elements`). All of them may work in place.

Bias gradients are summed in two stages with a fixed order: each block adds up a strip of rows, eight warps its rows in
turn, then the strips are added up (`rows`). Same input, same bits.
"""

from typing import assert_never

from ..plan import ActivationBackward, ActivationCall, ActivationForward, BiasGradient
from ..scalar.activation import ACTIVATIONS
from . import elements
from .binding import Binding
from .elements import elementwise
from .rows import FOURS, THREADS, WARPS, add_warps, columns_launches, strips_of
from .runtime.intrinsics import is_wide, load4, store4
from .runtime.jit import Launch, kernel, run
from .runtime.pointer import BYTES, COMPUTED, is_null, real, shared
from .runtime.storages import EVERY
from .runtime.target import cuda
from .runtime.widths import FOUR, ONE, Pair

STRIP = 64  # rows whose sums are one partial result, at least

add_four, add_one = add_warps(FOUR), add_warps(ONE)


def _forward(kind) -> Pair:
    act = ACTIVATIONS[kind].act

    def forward(z):
        return act(z)

    forward.__name__, forward.__doc__ = f"{kind}_forward", f"a = {kind}(z); a may be z."
    return elementwise("F*, F*", "a", EVERY)(forward)


def _backward(kind) -> Pair:
    _, slope, saved_is, _ = ACTIVATIONS[kind]

    def backward(da, saved):
        return da * slope(saved)

    backward.__name__ = f"{kind}_backward"
    backward.__doc__ = f"dz = da ⊙ {kind}′, from the {saved_is}; dz may be da or saved."
    return elementwise("F*, F*, F*", "dz", EVERY)(backward)


def _backward_sums(kind) -> Pair:
    """The kernels of dz = da ⊙ act′ with the sums of strips of it: of 128 columns a block (four a lane), or of 32."""
    slope = ACTIVATIONS[kind].slope

    def sums4(da, saved, dz, partial, rows, n, height):
        warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
        column = 4 * (cuda.blockIdx.y * 32 + lane)
        t0 = t1 = t2 = t3 = real(da, 0)
        if column < n:
            row = cuda.blockIdx.x * height + warp
            last = min(rows, (cuda.blockIdx.x + 1) * height)
            while row < last:
                d0, d1, d2, d3 = load4(da, row * n + column)
                s0, s1, s2, s3 = load4(saved, row * n + column)
                d0, d1, d2, d3 = d0 * slope(s0), d1 * slope(s1), d2 * slope(s2), d3 * slope(s3)
                if not is_null(dz):
                    store4(dz, row * n + column, (d0, d1, d2, d3))
                t0, t1, t2, t3 = t0 + d0, t1 + d1, t2 + d2, t3 + d3
                row += WARPS
        add_four(shared(da, FOURS), (t0, t1, t2, t3), partial, n)

    def sums1(da, saved, dz, partial, rows, n, height):
        warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
        column = cuda.blockIdx.y * 32 + lane
        total = real(da, 0)
        if column < n:
            row = cuda.blockIdx.x * height + warp
            last = min(rows, (cuda.blockIdx.x + 1) * height)
            while row < last:
                d = da[row * n + column] * slope(saved[row * n + column])
                if not is_null(dz):
                    dz[row * n + column] = d
                total += d
                row += WARPS
        add_one(shared(da, THREADS), (total,), partial, n)

    made = []
    for body in (sums4, sums1):
        body.__name__ = f"{kind}_backward_{body.__name__}"
        body.__doc__ = f"dz = da ⊙ {kind}′ (unless dz is absent) and its sums over strips of rows."
        made.append(kernel("F*, F*, F*, R*, i8, i8, i8", threads=THREADS, blocks=2, variants=EVERY)(body))
    return Pair(*made)


FORWARD = {kind: _forward(kind) for kind in ACTIVATIONS}
BACKWARD = {kind: _backward(kind) for kind in ACTIVATIONS}
BACKWARD_SUMS = {kind: _backward_sums(kind) for kind in ACTIVATIONS}


# ---------------------------------------------------------------------------------------------- launches


def forward_launches(storage: str, kind: str, z: int, a: int, count: int) -> list[Launch]:
    """a = act(z) for `count` elements at these addresses; a may be z."""
    return elements.launches(FORWARD[kind], storage, count, {"z": z, "a": a})


def backward_launches(storage: str, kind: str, da: int, saved: int, dz: int, count: int) -> list[Launch]:
    """dz = da ⊙ act′; dz may be da or saved."""
    return elements.launches(BACKWARD[kind], storage, count, {"da": da, "saved": saved, "dz": dz})


def sums_launches(
    room, storage: str, kind: str, *, da: int, saved: int, dz: int, db: int, rows: int, n: int, accumulate: bool,
    sum_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dz = da ⊙ act′ (dz = 0: not wanted) and db (+)= its column sums, in one pass. `room(bytes)` gives temporaries.

    db is of type `sum_storage`, which is `storage` unless it is given.
    """
    strips, height = strips_of(rows, STRIP)
    wide = is_wide(storage, da, saved, dz, n * BYTES[storage])
    grid = strips, -(-n // (128 if wide else 32)), 1

    def sums(partial, _):
        return BACKWARD_SUMS[kind][0 if wide else 1].on(
            storage, grid, da=da, saved=saved, dz=dz, partial=partial, rows=rows, n=n, height=height
        )

    computed = str(COMPUTED[storage])
    return columns_launches(
        room, sum_storage or storage, computed, sums, strips=strips, n=n, first=db, accumulate=accumulate
    )


# ---------------------------------------------------------------------------------------------- entry points


def forward(z, kind: str, out) -> None:
    """out = act(z), for C-contiguous arrays of any one shape; out may be z."""
    run(forward_launches(z.storage, kind, z.address, out.address, z.size), z.stream)


def backward(da, saved, kind: str, dz, db=None, accumulate: bool = False) -> None:
    """dz = da ⊙ act′, and db (+)= its sums over the rows if db is given; dz may be da or saved.

    All arrays are C-contiguous. The identity reads no `saved`, and writes nothing where dz is da.
    """
    storage = da.storage
    kept = da if saved is None else saved
    still = kind == "identity" and dz.address == da.address
    if db is not None:
        to = 0 if still else dz.address
        rows, n = da.shape
        launches = sums_launches(
            da.workspace, storage, kind, da=da.address, saved=kept.address, dz=to, db=db.address, rows=rows, n=n,
            accumulate=accumulate,
        )  # fmt: skip
        run(launches, da.stream)
    elif not still:
        run(backward_launches(storage, kind, da.address, kept.address, dz.address, da.size), da.stream)


def bind(call: ActivationCall, at: Binding) -> list[Launch]:
    """The launches of a call of a plan."""
    given = at.operands(call)
    match call:
        case ActivationForward():
            return forward_launches(at.storage, **given, count=at.rows * call.z.columns)
        case ActivationBackward():
            return backward_launches(at.storage, **given, count=at.rows * call.dz.columns)
        case BiasGradient():
            return sums_launches(
                at.room, at.storage, "identity", da=given["dz"], saved=given["dz"], dz=0, db=given["db"], rows=at.rows,
                n=call.dz.columns, accumulate=at.accumulate, sum_storage=at.real,
            )  # fmt: skip
        case _:
            assert_never(call)
