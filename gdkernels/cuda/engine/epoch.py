"""The device's side of training: what stands around the plan in a step.

A step is a CUDA graph, captured once for a number of rows and replayed for each batch. What differs from one step to the
next lies on the device: `fields` holds the number of the step and where the call's data are, `begin` reads the step's own
rate and scale, `finish` decides whether the update may be made. The host waits once, at the end of the call.
"""

import math

from ..clip import root, sum_of_planes
from ..elements import elementwise
from ..rows import BLOCK_SHIFT, THREADS, WARPS, team_sum
from ..runtime.jit import Launch, kernel
from ..runtime.pointer import at, real, shared
from ..runtime.storages import NETWORKS, REALS
from ..runtime.target import cuda

# The words of `fields`: the step within this call and the samples seen before it, the rows of a full batch, then
# addresses.
FIELDS = ("step", "seen", "batch", "x", "y", "order", "scales", "table", "losses", "norms", "done")
STEP, SEEN, BATCH, X, Y, ORDER, SCALES, TABLE, LOSSES, NORMS, DONE = range(len(FIELDS))


@kernel("i8*, i8*, R*, R*, i8", threads=THREADS, variants=REALS)
def begin(fields, samples, scale, row, width):
    """Set what the step's kernels read: samples seen before it, the factor of its loss, the optimizer's row of numbers."""
    step = fields[STEP]
    table = at(row, fields[TABLE])
    place = cuda.threadIdx.x
    while place < width:
        row[place] = table[step * width + place]
        place += THREADS
    if cuda.threadIdx.x == 0:
        samples[0] = fields[SEEN] + step * fields[BATCH]
        scale[0] = at(scale, fields[SCALES])[step]


@kernel("i8*, R*, F*, i8", variants=NETWORKS)
def gather_rows(fields, like, target, n):
    """target[i] = x[order[step · batch + i]], rows of n elements: one row for each block in x."""
    source, order = at(like, fields[X]), at(fields, fields[ORDER])
    row, column = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column < n:
        target[row * n + column] = source[order[fields[STEP] * fields[BATCH] + row] * n + column]


@kernel("i8*, R*, i8", variants=REALS)
def gather_values(fields, target, n):
    """As `gather_rows`, for the targets of a regression."""
    source, order = at(target, fields[Y]), at(fields, fields[ORDER])
    row, column = cuda.blockIdx.x, cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column < n:
        target[row * n + column] = source[order[fields[STEP] * fields[BATCH] + row] * n + column]


@kernel("i8*, i8*, i8", variants=("int64",))
def gather_labels(fields, target, rows):
    """As `gather_rows`, for labels."""
    source, order = at(fields, fields[Y]), at(fields, fields[ORDER])
    row = cuda.grid(1)
    if row < rows:
        target[row] = source[order[fields[STEP] * fields[BATCH] + row]]


@kernel("R*, i8, R*, R*, i4*", threads=THREADS, variants=REALS)
def loss_of_batch(row_loss, rows, scale, value, stop):
    """value = scale · Σ row_loss, summed in a fixed order by one block; stop where it is not finite."""
    total = real(row_loss, 0)
    row = cuda.threadIdx.x
    while row < rows:
        total += row_loss[row]
        row += THREADS
    total = team_sum(total, BLOCK_SHIFT, shared(row_loss, WARPS))
    if cuda.threadIdx.x == 0:
        total *= scale[0]
        value[0] = total
        if not math.isfinite(total):
            stop[0] = 1


@kernel("i8*, R*, i8, i8*, i8, R, R*, R*, i4*", threads=THREADS, blocks=2, variants=REALS)
def finish(fields, squares, planes, first, parameters, clip, value, factor, stop):
    """From the sums of squares of blocks of the gradient to the factor of the update, or to the end of training.

    `squares` holds three planes of sums (`clip.squares_launches`); `first` tells where the blocks of each part of the
    gradient begin. factor = min(1, clip / (norm + 10⁻⁶)), or 1 where clip is 0. A step that is finite is counted, and its
    loss, and the norm of each part where that is wanted, are kept.
    """
    zero, one = real(squares, 0), real(squares, 1)
    step = fields[STEP]
    norms = at(squares, fields[NORMS])
    whole, whole_down, whole_up = zero, zero, zero
    for part in range(parameters):
        plain, down, up = sum_of_planes(squares, planes, first[part], first[part + 1])
        if cuda.threadIdx.x == 0:
            whole, whole_down, whole_up = whole + plain, whole_down + down, whole_up + up
            if fields[NORMS] != 0:
                norms[step * parameters + part] = root(plain, down, up)
        cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        norm = root(whole, whole_down, whole_up)
        if not math.isfinite(norm):
            stop[0] = 1
        limit = clip / (norm + type(norm)(1e-6))
        factor[0] = limit if clip > zero and limit < one else one
        if stop[0] == 0:
            at(value, fields[LOSSES])[step] = value[0]
            at(fields, fields[DONE])[0] = step + 1
        fields[STEP] = step + 1


def gather_launches(storage: str, fields: int, target: int, rows: int, n: int) -> list[Launch]:
    """The batch's rows of x into the plan's input."""
    grid = rows, gather_rows.grid(n)[0], 1
    return [gather_rows.on(storage, grid, fields=fields, like=0, target=target, n=n)]


def target_launches(
    real_name: str, fields: int, target: int, rows: int, n: int, labels: bool
) -> list[Launch]:
    """The batch's targets: labels (rows,) or values (rows, n)."""
    if labels:
        grid = gather_labels.grid(rows)
        return [gather_labels.on("int64", grid, fields=fields, target=target, rows=rows)]
    grid = rows, gather_values.grid(n)[0], 1
    return [gather_values.on(real_name, grid, fields=fields, target=target, n=n)]


@elementwise("R*, F*", "out", NETWORKS)
def narrowed(x):
    """out = x in the storage type: parameters or an input on their way into a plan."""
    return x


@elementwise("F*, R*", "out", NETWORKS)
def widened(x):
    """out = x in the type that is computed with: what comes out of a plan."""
    return x
