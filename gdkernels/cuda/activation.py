"""Activations over memory: forward, backward, and the column sums that are the bias gradient.

For each kind there is a kernel for four elements a thread (`load4`), and one for single elements: what is left over by
fours, and what is not aligned. All of them may work in place.

Bias gradients are summed in two stages with a fixed order: each block adds up a strip of rows, eight warps its rows in
turn, then the strips are added up (`rows`). Same input, same bits.
"""

from typing import TYPE_CHECKING, assert_never

from ..plan import ActivationBackward, ActivationCall, ActivationForward, BiasGradient
from ..scalar.activation import ACTIVATIONS
from .rows import columns_launches, strips_of
from .runtime.intrinsics import is_wide, load4, store4
from .runtime.jit import Launch, kernel, run
from .runtime.pointer import BYTES, COMPUTED, is_null, real, shared
from .runtime.strided import blocks
from .runtime.target import cuda

if TYPE_CHECKING:
    from .engine.program import Binding

EVERY = ("float32", "float64", "bfloat16", "float16")
THREADS = 256
WARPS = 8
FOURS = 4 * THREADS
STRIP = 64  # rows whose sums are one partial result, at least


def _forward(kind):
    act = ACTIVATIONS[kind].act

    def forward4(z, a, fours):
        place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if place < fours:
            z0, z1, z2, z3 = load4(z, 4 * place)
            store4(a, 4 * place, (act(z0), act(z1), act(z2), act(z3)))

    def forward1(z, a, count):
        place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if place < count:
            a[place] = act(z[place])

    return _named(f"{kind}_forward", f"a = {kind}(z); a may be z.", "F*, F*, i8", forward4, forward1)


def _backward(kind):
    _, slope, saved_is, _ = ACTIVATIONS[kind]

    def backward4(da, saved, dz, fours):
        place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if place < fours:
            d0, d1, d2, d3 = load4(da, 4 * place)
            s0, s1, s2, s3 = load4(saved, 4 * place)
            store4(dz, 4 * place, (d0 * slope(s0), d1 * slope(s1), d2 * slope(s2), d3 * slope(s3)))

    def backward1(da, saved, dz, count):
        place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if place < count:
            dz[place] = da[place] * slope(saved[place])

    meaning = f"dz = da ⊙ {kind}′, from the {saved_is}; dz may be da or saved."
    return _named(f"{kind}_backward", meaning, "F*, F*, F*, i8", backward4, backward1)


def _named(name, meaning, signature, *bodies):
    """Kernels of bodies that end in the number of elements that a thread takes."""
    made = []
    for body in bodies:
        body.__name__, body.__doc__ = f"{name}{body.__name__[-1]}", meaning
        made.append(kernel(signature, threads=THREADS, blocks=2, variants=EVERY)(body))
    return made


def _backward_sums(kind):
    """The kernels of dz = da ⊙ act′ with the sums of strips of it: of 128 columns a block (four a lane), or of 32."""
    slope = ACTIVATIONS[kind].slope

    def sums4(da, saved, dz, partial, rows, n, height):
        warp, lane = cuda.threadIdx.x >> 5, cuda.threadIdx.x & 31
        column = 4 * (cuda.blockIdx.y * 32 + lane)
        zero = real(da, 0)
        t0 = t1 = t2 = t3 = zero
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
        sums = shared(da, FOURS)
        store4(sums, 4 * cuda.threadIdx.x, (t0, t1, t2, t3))
        cuda.syncthreads()
        if cuda.threadIdx.x < 128:
            column = cuda.blockIdx.y * 128 + cuda.threadIdx.x
            total = zero
            for w in range(WARPS):
                total += sums[128 * w + cuda.threadIdx.x]
            if column < n:
                partial[cuda.blockIdx.x * n + column] = total

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
        sums = shared(da, THREADS)
        sums[cuda.threadIdx.x] = total
        cuda.syncthreads()
        if cuda.threadIdx.x < 32:
            total = real(da, 0)
            for w in range(WARPS):
                total += sums[32 * w + cuda.threadIdx.x]
            if column < n:
                partial[cuda.blockIdx.x * n + column] = total

    meaning = f"dz = da ⊙ {kind}′ (unless dz is absent) and its sums over strips of so many rows."
    return _named(f"{kind}_backward_", meaning, "F*, F*, F*, R*, i8, i8, i8", sums4, sums1)


FORWARD = {kind: _forward(kind) for kind in ACTIVATIONS}
BACKWARD = {kind: _backward(kind) for kind in ACTIVATIONS}
BACKWARD_SUMS = {kind: _backward_sums(kind) for kind in ACTIVATIONS}


# ---------------------------------------------------------------------------------------------- launches


def over_elements(kernels, storage: str, count: int, *addresses: int) -> list[Launch]:
    """A kernel of four elements a thread for what is aligned, one of single elements for the rest."""
    by_four, by_one = kernels
    fours = count // 4 if is_wide(storage, *addresses) else 0
    launches = []
    if fours:
        launches.append(Launch(by_four, storage, blocks(fours), (*addresses, fours)))
    if rest := count - 4 * fours:
        behind = (address + 4 * fours * BYTES[storage] for address in addresses)
        launches.append(Launch(by_one, storage, blocks(rest), (*behind, rest)))
    return launches


def forward_launches(storage: str, kind: str, z: int, a: int, count: int) -> list[Launch]:
    """a = act(z) for `count` elements at these addresses; a may be z."""
    return over_elements(FORWARD[kind], storage, count, z, a)


def backward_launches(storage: str, kind: str, da: int, saved: int, dz: int, count: int) -> list[Launch]:
    """dz = da ⊙ act′; dz may be da or saved."""
    return over_elements(BACKWARD[kind], storage, count, da, saved, dz)


def sums_launches(
    room, storage: str, kind: str, da: int, saved: int, dz: int, db: int, rows: int, n: int, accumulate: bool,
    sum_storage: str | None = None,
) -> list[Launch]:  # fmt: skip
    """dz = da ⊙ act′ (dz = 0: not wanted) and db (+)= its column sums, in one pass. `room(bytes)` gives temporaries.

    db is of type `sum_storage`, which is `storage` unless it is given.
    """
    strips, height = strips_of(rows, STRIP)
    wide = is_wide(storage, da, saved, dz, n * BYTES[storage])
    grid = strips, -(-n // (128 if wide else 32)), 1

    def sums(partial, _):
        operands = (da, saved, dz, partial, rows, n, height)
        return Launch(BACKWARD_SUMS[kind][0 if wide else 1], storage, grid, operands)

    computed = str(COMPUTED[storage])
    return columns_launches(room, sum_storage or storage, computed, strips, n, db, 0, accumulate, sums)


# ---------------------------------------------------------------------------------------------- the ops' way in


def forward(z, kind: str, out) -> None:
    """out = act(z), for C-contiguous arrays of any one shape; out may be z."""
    run(forward_launches(z.dtype.name, kind, z.address, out.address, z.size), z.stream)


def backward(da, saved, kind: str, dz, db=None, accumulate: bool = False) -> None:
    """dz = da ⊙ act′, and db (+)= its sums over the rows if db is given; dz may be da or saved.

    All arrays are C-contiguous. The identity reads no `saved`, and writes nothing where dz is da.
    """
    storage = da.dtype.name
    kept = da if saved is None else saved
    still = kind == "identity" and dz.address == da.address
    if db is not None:
        to = 0 if still else dz.address
        rows, n = da.shape
        launches = sums_launches(
            da.workspace, storage, kind, da.address, kept.address, to, db.address, rows, n, accumulate
        )
        run(launches, da.stream)
    elif not still:
        run(backward_launches(storage, kind, da.address, kept.address, dz.address, da.size), da.stream)


def bind(call: ActivationCall, at: "Binding") -> list[Launch]:
    """The launches of a call of a plan."""
    given = at.operands(call)
    match call:
        case ActivationForward():
            return forward_launches(at.storage, **given, count=at.rows * call.z.columns)
        case ActivationBackward():
            return backward_launches(at.storage, **given, count=at.rows * call.dz.columns)
        case BiasGradient():
            dz, db, n = given["dz"], given["db"], call.dz.columns
            return sums_launches(
                at.room, at.storage, "identity", dz, dz, 0, db, at.rows, n, at.accumulate, at.real
            )
        case _:
            assert_never(call)
