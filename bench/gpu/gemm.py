"""Our matrix product against cuBLAS, through PyTorch and through CuPy as far as they are here.

Shapes: small ones, squares, tall gradients of weights (long k), and every product of a step of cases b, c and e. Forms: NN
forward, NT for dx, TN for dw. Precisions: float32 on the ordinary units; tf32 and bfloat16 on tensor cores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gdkernels.cuda.gemm import choice as gemm_engine
from gdkernels.cuda.gemm import product as gemm

from ..cases import CASES
from . import rows
from .lab import EPS, ROUNDOFF, Lab, bound, deviation, willing
from .peers import Work

# And how the elements are stored.
PRECISIONS = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16"}
FORMS = ("NN", "NT", "TN")
SAMPLE = 256  # rows that are compared with others


@dataclass(frozen=True)
class Shape:
    """A (m, k) @ B (k, n); the form says which of them lie transposed."""

    why: str
    m: int
    n: int
    k: int
    form: str

    def __str__(self) -> str:
        return f"{self.m} × {self.n} × {self.k} {self.form}"

    @property
    def work(self) -> float:
        """Floating-point operations."""
        return 2.0 * self.m * self.n * self.k


class Operands:
    """A and B on the device, and where results go."""

    def __init__(self, lab: Lab, shape: Shape, precision: str):
        self.lab, self.shape, self.precision = lab, shape, precision
        self.storage = PRECISIONS[precision]
        self.turned_a, self.turned_b = (letter == "T" for letter in shape.form)
        m, n, k = shape.m, shape.n, shape.k
        self.a = lab.normal((k, m) if self.turned_a else (m, k), self.storage, 1)
        self.b = lab.normal((n, k) if self.turned_b else (k, n), self.storage, 2)
        self.results: dict[str, Any] = {}

    def result(self, name: str) -> Any:
        """Where a contestant writes."""
        return self.results.setdefault(name, self.lab.empty((self.shape.m, self.shape.n), self.storage))

    def by_engine(self, name: str, engine: str) -> Work:
        """The product by an engine."""
        m, n, k, out = self.shape.m, self.shape.n, self.shape.k, self.result(name)
        steps_a, steps_b = (1, m) if self.turned_a else (k, 1), (1, k) if self.turned_b else (n, 1)
        with multiplied_by(engine, self.precision == "tf32"):
            launches = gemm.launches(
                out.workspace, self.storage, m=m, n=n, k=k, a=self.a.address, rsa=steps_a[0], csa=steps_a[1],
                b=self.b.address, rsb=steps_b[0], csb=steps_b[1], out=out.address, ldo=n,
            )  # fmt: skip
        return partial(self.lab.run, launches)

    def error(self, name: str) -> float:
        """What a contestant has written, against NumPy's product, in units of |A| @ |B|; the first rows stand for all."""
        a, b = (each.to_numpy().astype(np.float64) for each in (self.a, self.b))
        a, b = (a.T if self.turned_a else a)[:SAMPLE], b.T if self.turned_b else b
        return deviation(self.results[name][:SAMPLE].to_numpy(), a @ b, abs(a) @ abs(b))


@contextmanager
def multiplied_by(engine: str, tf32: bool = False) -> Iterator[None]:
    """Who multiplies meanwhile: an engine of `gdkernels.cuda.set_gemm_engine`."""
    before = gemm_engine.get_gemm_engine()
    gemm_engine.set_gemm_engine(engine, tf32=tf32)
    try:
        yield
    finally:
        gemm_engine.set_gemm_engine(*before)


def vendors(lab: Lab, operands: Operands) -> tuple[dict[str, Work], list[rows.Row]]:
    """cuBLAS, as PyTorch and as CuPy call it, and rows for what fails."""
    makers: dict[str, Callable[[], Work]] = {}
    if lab.torch:
        a, b, out = operands.a.owner, operands.b.owner, operands.result("torch").owner
        a, b = a.T if operands.turned_a else a, b.T if operands.turned_b else b
        makers["torch"] = partial(lab.torch.matmul, a, b, out, operands.precision == "tf32")
    if gemm_engine.vendor_is_available():
        makers["cupy"] = partial(operands.by_engine, "cupy", "vendor")
    return willing(makers)


# ---------------------------------------------------------------------------------------------- the grid


def grid(lab: Lab) -> list[Shape]:
    """What is measured, without repetitions."""
    if lab.tiny:
        return [Shape("tiny", 20, 24, 16, "NN")]
    shapes = [Shape("small", 32, 128, 64, form) for form in FORMS]
    shapes += [Shape("small", 64, 64, 64, "NN"), Shape("small", 128, 128, 128, "NN")]
    shapes += [Shape("square", side, side, side, "NN") for side in (256, 512, 1024, 2048, 4096, 8192)]
    shapes += [Shape("square", 2048, 2048, 2048, form) for form in ("NT", "TN")]
    shapes += [Shape("tall dw", n, n, k, "TN") for n, k in ((64, 65536), (256, 16384), (1024, 8192))]
    for letter in "bce":
        shapes += [Shape(f"case {letter}", *sizes, form) for form, *sizes in CASES[letter].products()]
    return list({str(shape): shape for shape in shapes}.values())


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """First all forms are held against the reference, then the grid is measured."""
    odd, even = ((33, 20, 17), (32, 16, 16)) if lab.tiny else ((129, 65, 33), (256, 192, 320))
    checked = [
        (Shape("odd" if sizes is odd else "even", *sizes, form), precision)
        for number, precision in enumerate(PRECISIONS)
        for form in FORMS
        for sizes in (odd, even)
        # an emulator compiles one kernel for each precision, of another form each
        if not lab.tiny or (form == FORMS[number] and sizes is (odd if number == 0 else even))
        if precision in lab.kinds
    ]
    found = [
        (f"{shape} {precision}", partial(compare, lab, shape, precision)) for shape, precision in checked
    ]
    precisions = lab.kinds[:1] if lab.tiny else lab.kinds
    return found + [
        (f"{shape} {precision}", partial(measure, lab, shape, precision))
        for shape in grid(lab)
        for precision in precisions
    ]


def compare(lab: Lab, shape: Shape, precision: str) -> Iterator[rows.Row]:
    """Everyone's product against NumPy's, in units of |A| @ |B|."""
    operands = Operands(lab, shape, precision)
    peers, failures = vendors(lab, operands)
    yield from failures
    contestants = {"gdkernels": operands.by_engine("gdkernels", "own"), **peers}
    for name, run in contestants.items():
        run()
        yield rows.check(
            f"product, {name}", precision, str(shape), operands.error(name), bound(precision, shape.k + 2)
        )


def measure(lab: Lab, shape: Shape, precision: str) -> Iterator[rows.Row]:
    """Ours against the vendor's; afterwards, what both wrote."""
    operands = Operands(lab, shape, precision)
    peers, failures = vendors(lab, operands)
    yield from failures
    contestants = {"gdkernels": operands.by_engine("gdkernels", "own"), **peers}
    samples = lab.clock.compare(contestants, lab.seconds)
    if samples:
        yield rows.measurement(f"product, {shape.why}", precision, str(shape), samples, "TFLOP/s", shape.work)
    ours, *theirs = (operands.results[name][:SAMPLE].to_numpy() for name in contestants)
    # Sums of k products of random numbers: their errors add up as the numbers do, like √k.
    allowed = 4 * ROUNDOFF[precision] + 8 * np.sqrt(shape.k) * EPS
    for name, other in zip(list(contestants)[1:], theirs, strict=True):
        yield rows.check(f"gdkernels − {name}", precision, str(shape), deviation(ours, other), allowed)
