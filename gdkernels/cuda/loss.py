"""The losses of elements, summed by rows, with their gradients in the same pass.

Every kernel fills ``row_loss`` with the unscaled loss of each row and, unless it is absent (address 0), ``grad`` with
scale · d(row loss)/d pred. Targets, row losses and scales are of the computed type (float32 for a network in bfloat16).

Each row has a team of threads (`rows`), and every array is read once, 8 n bytes a row in float32 and 4 n for the gradient.
An array of any shape is cut into rows of `ROW_ELEMENTS`. Sums over rows run in stages of fixed order. Same input, same bits.
"""

from ..scalar.loss import ELEMENT_LOSSES, Loss
from .rows import THREADS, WARPS, member, part, sum_launches, team_sum, teams
from .runtime.arrays import address_of
from .runtime.intrinsics import is_wide, times, transposed
from .runtime.jit import Launch, device, run
from .runtime.pointer import BYTES, COMPUTED, is_null, offset, real, shared
from .runtime.storages import NETWORKS
from .runtime.widths import Pair, both_widths

ROW_ELEMENTS = 1024  # elements whose losses are added up by a warp


def _kernels(name: str, row: Loss) -> Pair:
    """The kernels of a loss of elements, for each of whose options there is an operand of its name."""
    loss_of, options = device(row.loss), tuple(row.options)

    def make(width):
        load, store, total_of, size = width.load, width.store, width.total, width.size
        losses_of, scaled = width.each(loss_of, 2), width.each(times, 1)

        def body(pred, target, grad, row_loss, terms, rows, n, scale, factor, options, shift):
            row, lane = member(shift)
            length, first = n if row < rows else 0, row * n
            pred, target = offset(pred, first), offset(target, first)
            grad, terms = part(grad, first), part(terms, first)
            by = factor if is_null(scale) else factor * scale[0]
            total = real(target, 0)
            j = size * lane
            while j < length:
                values, slopes = transposed(losses_of(load(pred, j), load(target, j), *options))
                total += total_of(values)
                if not is_null(grad):
                    store(grad, j, scaled(slopes, by))
                if not is_null(terms):
                    store(terms, j, values)
                j += size << shift
            total = team_sum(total, shift, shared(target, WARPS))
            if lane == 0 and row < rows and not is_null(row_loss):
                row_loss[row] = total

        return body

    make.__name__ = name
    make.__doc__ = (
        f"row_loss = Σ {name}, terms = {name}, grad = factor · scale · its slope; any may be absent."
    )
    signature = f"F*, R*, F*, R*, R*, i8, i8, R*, R, ({', '.join('R' for _ in options)}), i4"
    operands = (
        "pred", "target", "grad", "row_loss", "terms", "rows", "n", "scale", "factor", *options, "shift",
    )  # fmt: skip
    return both_widths(signature, threads=THREADS, variants=NETWORKS, operands=operands)(make)


ELEMENTS = {name: _kernels(name, row) for name, row in ELEMENT_LOSSES.items()}

# ---------------------------------------------------------------------------------------------- launches


def element_launches(
    name: str, storage: str, *, pred: int, target: int, grad: int, row_loss: int, terms: int, rows: int, n: int,
    scale: int, factor: float, options: tuple,
) -> list[Launch]:  # fmt: skip
    """The loss of each row, each term's, and the gradient times factor · scale[0]; what is at address 0 is absent.

    `options` in their order in `scalar.loss`.
    """
    computed = str(COMPUTED[storage])
    wide = is_wide(storage, pred, grad, n * BYTES[storage]) and is_wide(computed, target, terms)
    chosen = ELEMENTS[name][0 if wide else 1]
    grid, shift = teams(chosen, rows, n, 4 if wide else 1)
    return [
        chosen.on(
            storage, grid, pred=pred, target=target, grad=grad, row_loss=row_loss, terms=terms, rows=rows, n=n,
            scale=scale, factor=factor, shift=shift, **dict(zip(ELEMENT_LOSSES[name].options, options, strict=True)),
        )
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- entry points


def elements(name: str, pred, target, grad, reduction: str, options: tuple = ()):
    """The loss of arrays of any one shape: of every element ("none"), their sum or their mean. grad receives the slope."""
    storage, size, alone = pred.storage, pred.size, reduction == "none"
    result = pred.empty(pred.shape if alone else ())
    whole, rest = divmod(size, ROW_ELEMENTS)
    sums = whole + (rest > 0)
    row_loss = 0 if alone else pred.workspace(sums * BYTES[storage])
    mean = reduction == "mean"
    factor = 1.0 / size if mean and size else 1.0
    launches, slopes = [], address_of(grad)
    for row, rows, n in ((0, whole, ROW_ELEMENTS), (whole, int(rest > 0), rest)):
        skip = row * ROW_ELEMENTS * BYTES[storage]
        launches += element_launches(
            name, storage, pred=pred.address + skip, target=target.address + skip,
            grad=slopes and slopes + skip,
            row_loss=0 if alone else row_loss + row * BYTES[storage], terms=result.address + skip if alone else 0,
            rows=rows, n=n, scale=0, factor=factor, options=options,
        )  # fmt: skip
    if not alone:
        divisor = float(size) if mean else 1.0
        launches += sum_launches(pred.workspace, storage, row_loss, result.address, sums, divisor)
    run(launches, pred.stream)
    return result
