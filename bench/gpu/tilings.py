"""What the choices of `gdkernels.cuda.gemm.tiling` cost: the same product by other tiles, and in other numbers of parts.

Only where it is asked for: ``python -m bench.gpu --sections tilings --json tilings.json``. There is a measurement for each
shape of `gemm`; the first contestant is what is chosen, the others are named by the side of their tile and by their parts.
That is what the numbers of the model are fitted to.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gdkernels.cuda.gemm import simt, tensorcore
from gdkernels.cuda.gemm import tiling as gemm_tiling

from . import gemm, rows
from .lab import EPS, ROUNDOFF, Lab, deviation
from .peers import Work

MOST = 12  # tilings of a product: those that the model likes best


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """An item for each shape and precision."""
    return [
        (f"{shape} {precision}", partial(examine, lab, shape, precision))
        for precision in lab.kinds
        for shape in gemm.grid(lab)
    ]


def examine(lab: Lab, shape: gemm.Shape, precision: str) -> Iterator[rows.Row]:
    """The chosen tiling against others; and that they all compute the same."""
    operands = gemm.Operands(lab, shape, precision)
    module = simt if precision == "float32" else tensorcore
    asked: list[tuple[Any, ...]] = []
    contestants = {"chosen": by_tiling(operands, module, "chosen", lambda *what: asked.append(what))}
    for tiling in gemm_tiling.ranked(*asked[-1])[:MOST]:
        name = f"{tiling.tile.side} in {tiling.parts}"
        contestants[name] = by_tiling(operands, module, name, lambda *what, tiling=tiling: tiling)
    samples = lab.clock.compare(contestants, lab.seconds)
    if samples:
        yield rows.measurement(f"tiling, {shape.why}", precision, str(shape), samples, "TFLOP/s", shape.work)
    ours, *others = (operands.results[name][: gemm.SAMPLE].to_numpy() for name in contestants)
    # Sums of k products of random numbers: their errors add up as the numbers do, like √k.
    allowed = 4 * ROUNDOFF[precision] + 8 * np.sqrt(shape.k) * EPS
    error = max(deviation(other, ours) for other in others)
    yield rows.check("tilings agree", precision, str(shape), error, allowed)


def by_tiling(operands: gemm.Operands, module: Any, name: str, choose: Callable[..., Any]) -> Work:
    """The product by our kernels, where `choose` gives the tiling, or None for what is chosen usually."""
    usual = module.choose
    module.choose = lambda *what: choose(*what) or usual(*what)
    try:
        return operands.by_engine(name, "own")
    finally:
        module.choose = usual
