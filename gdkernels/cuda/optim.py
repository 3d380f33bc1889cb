"""Optimizer steps over flat arrays, in place; the norm of a gradient, and clipping by it.

For each optimizer there is a kernel for four elements a thread (`load4`), and one for single elements: what is left over
by fours, and what is not aligned. What is the same for all elements (bias corrections, 1 − beta) comes from a row of a
table on the device, computed on the host in float64: the launches of a step can be captured in a graph once, and each
replay finds another row there.

A norm is the root of sums of `BLOCK` squares, summed in an order that depends on the number of elements alone. Squares of
float32 may overflow or vanish: they are summed in three scales, since float64 arithmetic is slow on most GPUs.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..scalar import optimizers
from .runtime.arrays import Array
from .runtime.intrinsics import bfloat16_bits, is_wide, load4, store4, warp_sum
from .runtime.jit import Launch, device, kernel, run
from .runtime.pointer import BYTES, is_null, real, shared
from .runtime.strided import blocks
from .runtime.target import cuda

THREADS = 256
BLOCK = 4096  # elements whose squares are one sum
TURNS = BLOCK // (4 * THREADS)
WARPS = THREADS // 32
TABLE = 8  # numbers of a row: rate, weight_decay, share (decoupled decay), eps, keep1, gain1, keep2, gain2


# ---------------------------------------------------------------------------------------------- steps


@device
def _descend(p, g, a, b, c, rate, eps, means):
    return p - rate * g, a, b, c


@device
def _descend_with_momentum(p, g, velocity, b, c, rate, eps, means):
    momentum, nesterov, _, _ = means
    p, velocity = optimizers.sgd(p, g, velocity, rate, momentum, nesterov != 0)
    return p, velocity, b, c


@device
def _divide_by_size(p, g, v, b, c, rate, eps, means):
    _, _, keep, gain = means
    p, v = optimizers.rmsprop(p, g, v, rate, keep, gain, eps)
    return p, v, b, c


@device
def _adam(p, g, m, v, c, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    p, m, v = optimizers.adam(p, g, m, v, rate, keep1, gain1, keep2, gain2, eps)
    return p, m, v, c


@device
def _amsgrad(p, g, m, v, vmax, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    return optimizers.amsgrad(p, g, m, v, vmax, rate, keep1, gain1, keep2, gain2, eps)


@device
def _lion(p, g, m, b, c, rate, eps, means):
    keep1, gain1, keep2, gain2 = means
    p, m = optimizers.lion(p, g, m, rate, keep1, gain1, keep2, gain2)
    return p, m, b, c


def _update(name, element, states):
    """The kernels of an optimizer with so many state arrays, the others of a, b, c being absent."""

    @device
    def moved(p, g, a, b, c, scale, rates, means):
        """(p, state…) of an element; of the two decays, at least one is 0."""
        rate, weight_decay, share, eps = rates
        gradient = optimizers.decayed(g, p, scale, weight_decay)
        return element(optimizers.shrunk(p, share), gradient, a, b, c, rate, eps, means)

    def update4(p, g, a, b, c, table, scale, stop, half, fours):
        place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if place < fours:
            at = 4 * place
            p0, p1, p2, p3 = load4(p, at)
            g0, g1, g2, g3 = load4(g, at)
            a0, a1, a2, a3 = load4(a, at) if states > 0 else (p0, p1, p2, p3)
            b0, b1, b2, b3 = load4(b, at) if states > 1 else (p0, p1, p2, p3)
            c0, c1, c2, c3 = load4(c, at) if states > 2 else (p0, p1, p2, p3)
            rates, means = load4(table, 0), load4(table, 4)
            factor = real(p, 1) if is_null(scale) else scale[0]
            halt = False if is_null(stop) else stop[0] != 0
            p0, a0, b0, c0 = moved(p0, g0, a0, b0, c0, factor, rates, means)
            p1, a1, b1, c1 = moved(p1, g1, a1, b1, c1, factor, rates, means)
            p2, a2, b2, c2 = moved(p2, g2, a2, b2, c2, factor, rates, means)
            p3, a3, b3, c3 = moved(p3, g3, a3, b3, c3, factor, rates, means)
            if not halt:
                store4(p, at, (p0, p1, p2, p3))
                if states > 0:
                    store4(a, at, (a0, a1, a2, a3))
                if states > 1:
                    store4(b, at, (b0, b1, b2, b3))
                if states > 2:
                    store4(c, at, (c0, c1, c2, c3))
                if not is_null(half):
                    bits = bfloat16_bits(p0), bfloat16_bits(p1), bfloat16_bits(p2), bfloat16_bits(p3)
                    store4(half, at, bits)

    def update1(p, g, a, b, c, table, scale, stop, half, count):
        at = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if at < count:
            p0 = p[at]
            a0 = a[at] if states > 0 else p0
            b0 = b[at] if states > 1 else p0
            c0 = c[at] if states > 2 else p0
            rates, means = load4(table, 0), load4(table, 4)
            factor = real(p, 1) if is_null(scale) else scale[0]
            halt = False if is_null(stop) else stop[0] != 0
            p0, a0, b0, c0 = moved(p0, g[at], a0, b0, c0, factor, rates, means)
            if not halt:
                p[at] = p0
                if states > 0:
                    a[at] = a0
                if states > 1:
                    b[at] = b0
                if states > 2:
                    c[at] = c0
                if not is_null(half):
                    half[at] = bfloat16_bits(p0)

    made = []
    for body in (update4, update1):
        body.__name__ = f"{name}{body.__name__[-1]}"
        body.__doc__ = f"A step of {name} by a row of the table, unless stop; half becomes p in bfloat16."
        made.append(kernel("F*, F*, F*, F*, F*, R*, R*, i4*, i2*, i8", threads=THREADS)(body))
    return made


DESCEND = _update("descend", _descend, 0)
_SIZED = _update("divide_by_size", _divide_by_size, 1)
_ADAM = _update("adam", _adam, 2)
UPDATE = {
    "sgd": _update("descend_with_momentum", _descend_with_momentum, 1),
    "rmsprop": _SIZED,
    "adagrad": _SIZED,
    "adam": _ADAM,
    "adamw": _ADAM,
    "amsgrad": _update("amsgrad", _amsgrad, 3),
    "lion": _update("lion", _lion, 1),
}


@kernel("R*, R, R, R, R, R, R, R, R", threads=32)
def write_row(table, rate, weight_decay, share, eps, keep1, gain1, keep2, gain2):
    """A table of one row, from the arguments of the launch."""
    if cuda.threadIdx.x == 0:
        store4(table, 0, (rate, weight_decay, share, eps))
        store4(table, 4, (keep1, gain1, keep2, gain2))


# ---------------------------------------------------------------------------------------------- norms

# Squares are summed three times: of elements as they are, scaled down, and scaled up. Down: the square of the largest
# float32 becomes 2⁶⁴. Up: that of the smallest, 2⁻¹⁴⁹, becomes 2⁻¹¹⁸. The sum of the elements as they are will do from
# TINY on: what it lacks of squares below the smallest normal number, 2⁻¹²⁶, is nothing beside it. Below TINY no element
# is above 2⁻²⁸, whose square becomes 2¹²⁴. These are powers of two, by which scaling is exact.
DOWN, UP, TINY = 2.0**-96, 2.0**90, 2.0**-56


@device
def _add_square(sums, x):
    """(Σ x², Σ (DOWN x)², Σ (UP x)²) with one more x."""
    plain, down, up = sums
    less, more = type(x)(DOWN) * x, type(x)(UP) * x
    return plain + x * x, down + less * less, up + more * more


@device
def sum_of_block(like, sums):
    """The sums over the threads of a block, lane by lane and warp by warp; they are right in thread 0."""
    plain, down, up = warp_sum(sums[0]), warp_sum(sums[1]), warp_sum(sums[2])
    warp = cuda.threadIdx.x >> 5
    of_warps = shared(like, 24)
    if cuda.threadIdx.x & 31 == 0:
        of_warps[warp], of_warps[WARPS + warp], of_warps[2 * WARPS + warp] = plain, down, up
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for w in range(1, WARPS):
            plain += of_warps[w]
            down += of_warps[WARPS + w]
            up += of_warps[2 * WARPS + w]
    return plain, down, up


@device
def _write_sums(partial, planes, sums):
    plain, down, up = sum_of_block(partial, sums)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = plain
        if planes > 0:
            partial[planes + cuda.blockIdx.x] = down
            partial[2 * planes + cuda.blockIdx.x] = up


@device
def root(plain, down, up):
    """√Σ x² from the one of the three sums that neither overflowed nor vanished; NaN and infinity pass."""
    if plain <= type(plain)(TINY):
        return math.sqrt(up) * type(plain)(1.0 / UP)
    if plain < type(plain)(math.inf):
        return math.sqrt(plain)
    return math.sqrt(down) * type(plain)(1.0 / DOWN)


@kernel("F*, R*, i8, i8", threads=THREADS)
def squares4(g, partial, planes, fours):
    """partial[b] = Σ g² over BLOCK elements; if planes > 0, partial[planes + b] and partial[2 planes + b] are the sums of
    (DOWN g)² and (UP g)²."""
    sums = real(partial, 0), real(partial, 0), real(partial, 0)
    for turn in range(TURNS):
        place = (cuda.blockIdx.x * TURNS + turn) * THREADS + cuda.threadIdx.x
        if place < fours:
            g0, g1, g2, g3 = load4(g, 4 * place)
            sums = _add_square(_add_square(_add_square(_add_square(sums, g0), g1), g2), g3)
    _write_sums(partial, planes, sums)


@kernel("F*, R*, i8, i8", threads=THREADS)
def squares1(g, partial, planes, count):
    """As `squares4` and with its bits, for any count and address."""
    sums = real(partial, 0), real(partial, 0), real(partial, 0)
    for turn in range(TURNS):
        place = 4 * ((cuda.blockIdx.x * TURNS + turn) * THREADS + cuda.threadIdx.x)
        for lane in range(4):
            if place + lane < count:
                sums = _add_square(sums, g[place + lane])
    _write_sums(partial, planes, sums)


@device
def sum_of_planes(partial, planes, first, last):
    """The three sums over the blocks [first, last) of the gradient, by one block of threads; right in thread 0."""
    plain = down = up = real(partial, 0)
    place = first + cuda.threadIdx.x
    while place < last:
        plain += partial[place]
        down += partial[planes + place]
        up += partial[2 * planes + place]
        place += THREADS
    return sum_of_block(partial, (plain, down, up))


@kernel("R*, i8, R*", threads=THREADS)
def norm_of_sums(partial, blocks, norm):
    """norm = √Σ g² from the sums of all blocks, by one block of threads; partial has three planes of `blocks` sums."""
    plain, down, up = sum_of_planes(partial, blocks, 0, blocks)
    if cuda.threadIdx.x == 0:
        norm[0] = root(plain, down, up)


@device
def clip_factor(norm, max_norm):
    """max_norm / (norm + 1e-6), to be applied where it is not ≥ 1: also where it is NaN."""
    return max_norm / (norm + type(norm)(1e-6))


@kernel("F*, R*, R, i8", threads=THREADS)
def clip4(g, norm, max_norm, fours):
    """g = factor g, if the factor of clipping is below 1 (or NaN)."""
    place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    factor = clip_factor(norm[0], max_norm)
    if place < fours and not factor >= 1:
        g0, g1, g2, g3 = load4(g, 4 * place)
        store4(g, 4 * place, (factor * g0, factor * g1, factor * g2, factor * g3))


@kernel("F*, R*, R, i8", threads=THREADS)
def clip1(g, norm, max_norm, count):
    """As `clip4`, for single elements."""
    place = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    factor = clip_factor(norm[0], max_norm)
    if place < count and not factor >= 1:
        g[place] *= factor


# ---------------------------------------------------------------------------------------------- launches


def row(name: str, specific: Sequence, step: float, lr: float, weight_decay: float) -> tuple:
    """What the kernels need in a step (counted from 1), as `TABLE` lists it; `specific` as in `scalar.hyper`."""
    if name == "sgd":
        momentum, nesterov, *_ = specific
        return lr, weight_decay, 0.0, 0.0, momentum, nesterov, 0.0, 0.0
    if name == "rmsprop":
        alpha, eps, *_ = specific
        return lr, weight_decay, 0.0, eps, 0.0, 0.0, alpha, 1.0 - alpha
    if name == "adagrad":
        return lr, weight_decay, 0.0, specific[0], 0.0, 0.0, 1.0, 1.0
    beta1, beta2, eps, *_ = specific
    means = beta1, 1.0 - beta1, beta2, 1.0 - beta2
    if name == "lion":
        return lr, 0.0, lr * weight_decay, 0.0, *means
    rate, eps = optimizers.adam_rates(step, lr, beta1, beta2, eps)
    decays = (0.0, lr * weight_decay) if name == "adamw" else (weight_decay, 0.0)
    return rate, *decays, eps, *means


def table(name: str, hyper: np.ndarray, decays: Sequence, first: int, rates: Iterable) -> np.ndarray:
    """The rows of the steps that follow the first `first` ones, for each segment with a decay of its own.

    Parameters
    ----------
    name, hyper : the optimizer and its `scalar.hyper` vector; lr, weight_decay, scale and step are not taken from there
    decays : the weight decay of each segment
    first : steps done before
    rates : the learning rate of each step

    Returns
    -------
    (steps, segments, TABLE) array
        float64; the kernels read rows of it in the type they compute with.
    """
    specific = hyper[4:].tolist()
    steps = enumerate(map(float, rates), start=first + 1)
    rows = [[row(name, specific, float(step), lr, decay) for decay in decays] for step, lr in steps]
    return np.array(rows, np.float64).reshape(len(rows), len(decays), TABLE)


def update_launches(
    storage: str,
    name: str,
    p: int,
    g: int,
    states: Sequence,
    count: int,
    table: int,
    scale: int,
    stop: int,
    half: int = 0,
) -> list[Launch]:
    """A step of an optimizer on `count` elements at these addresses, sgd without `states` being that without momentum.

    Parameters
    ----------
    table : of a row, a multiple of 16, in the type that is computed with
    scale : of the factor of the gradient, or 0
    stop : of an int32 that lets nothing be written where it is not 0, or 0
    half : of a copy of p in bfloat16, or 0
    """
    by_four, by_one = UPDATE[name] if states else DESCEND
    arrays = (p, g, *states)
    fours = count // 4 if is_wide(storage, *arrays) and half % 8 == 0 else 0
    done, absent = 4 * fours, (0, 0, 0)[len(states) :]
    launches = []
    if fours:
        operands = (*arrays, *absent, table, scale, stop, half, fours)
        launches.append(Launch(by_four, storage, blocks(fours), operands))
    if rest := count - done:
        arrays = tuple(array + done * BYTES[storage] for array in arrays)
        operands = (*arrays, *absent, table, scale, stop, half + 2 * done if half else 0, rest)
        launches.append(Launch(by_one, storage, blocks(rest), operands))
    return launches


def squares_count(count: int) -> int:
    """How many sums `squares_launches` writes for so many elements."""
    return -(-count // BLOCK)


def squares_launches(storage: str, g: int, count: int, partial: int, planes: int = 0) -> list[Launch]:
    """partial = Σ g² over each BLOCK of elements, in the type that is computed with.

    With planes > 0 the sums in the scales DOWN and UP follow so many and twice so many elements further (`root`).
    """
    whole = 0
    if is_wide(storage, g):
        whole = count if count % 4 == 0 else count // BLOCK * BLOCK
    launches = []
    if whole:
        grid = squares_count(whole), 1, 1
        launches.append(Launch(squares4, storage, grid, (g, partial, planes, whole // 4)))
    if rest := count - whole:
        behind = partial + squares_count(whole) * _real_bytes(storage)
        place = g + whole * BYTES[storage]
        launches.append(Launch(squares1, storage, (squares_count(rest), 1, 1), (place, behind, planes, rest)))
    return launches


def _real_bytes(storage: str) -> int:
    return 8 if storage == "float64" else 4


# ---------------------------------------------------------------------------------------------- the ops' way in


def step(name: str, arrays: tuple, hyper: np.ndarray) -> None:
    """One step of an optimizer on p, g and its states: C-contiguous arrays of the same size.

    The row of numbers comes as arguments of a launch: a copy to the device would wait, and be none in a graph.
    """
    p, storage = arrays[0], arrays[0].dtype.name
    if name == "sgd" and hyper[4] == 0.0:
        arrays = arrays[:2]  # without momentum there is no velocity
    lr, decay, _, count, *specific = hyper.tolist()
    with np.errstate(over="ignore"):  # infinite is what is too large
        numbers = np.array(row(name, specific, count, lr, decay), p.dtype).tolist()
    place = p.workspace(8 * TABLE)
    flat = [array.address for array in arrays]
    launches = [Launch(write_row, storage, (1, 1, 1), (place, *numbers))]
    launches += update_launches(storage, name, flat[0], flat[1], flat[2:], p.size, place, 0, 0)
    run(launches, p.stream)


def norm(arrays: Sequence[Array]) -> Array:
    """√(Σ g²) over C-contiguous arrays of one library, which stays on the device: an array without axes."""
    first = arrays[0]
    storage, size = first.dtype.name, first.itemsize
    total = sum(squares_count(array.size) for array in arrays)
    place = partial = first.workspace(3 * total * size)
    result = first.empty(())
    launches = []
    for array in arrays:
        launches += squares_launches(storage, array.address, array.size, place, total)
        place += squares_count(array.size) * size
    launches.append(Launch(norm_of_sums, storage, (1, 1, 1), (partial, total, result.address)))
    run(launches, first.stream)
    return result


def clip(max_norm: float, arrays: Sequence[Array]) -> Array:
    """Scale C-contiguous arrays by min(1, max_norm / (norm + 1e-6)); the norm before. Nothing waits for the device."""
    result = norm(arrays)
    storage = arrays[0].dtype.name
    limit = max_norm if math.isinf(max_norm) else min(max_norm, float(np.finfo(arrays[0].dtype).max))
    for array in arrays:
        fours = array.size // 4 if is_wide(storage, array.address) else 0
        rest, behind = array.size - 4 * fours, array.address + 4 * fours * array.itemsize
        launches = [
            Launch(clip4, storage, blocks(fours), (array.address, result.address, limit, fours)),
            Launch(clip1, storage, blocks(rest), (behind, result.address, limit, rest)),
        ]
        run(launches, array.stream)
    return result
