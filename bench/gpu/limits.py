"""The limits of this GPU, measured: copies, by a kernel and by the driver, and the products of cuBLAS."""

from collections.abc import Callable, Iterator
from functools import partial

from gdkernels.cuda.runtime import driver

from . import gemm, rows
from .lab import Lab, bound, deviation

SIDE, TINY_SIDE = 4096, 32


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """Copies of each size, products of each precision."""
    copies = [(f"copy, {name}", partial(copy, lab, name, size)) for name, size in lab.sizes.items()]
    side = TINY_SIDE if lab.tiny else SIDE
    shape = gemm.Shape("limit", side, side, side, "NN")
    return copies + [
        (f"cuBLAS {precision}", partial(product, lab, shape, precision)) for precision in lab.kinds
    ]


def copy(lab: Lab, name: str, size: int) -> Iterator[rows.Row]:
    """`size` bytes are moved: half of them read, half written."""
    count = size // 8 // 4 * 4
    source = lab.normal((count,), "float32")
    by_kernel, by_driver = lab.empty((count,), "float32"), lab.empty((count,), "float32")
    launches = lab.copies(source.address, by_kernel.address, source.nbytes)
    samples = lab.clock.compare(
        {
            "kernel": partial(lab.run, launches),
            "driver": partial(driver.copy, by_driver.address, source.address, source.nbytes, lab.stream),
        },
        2 * lab.seconds,
    )
    shape = f"{name}, {size / 2**20:.3g} MiB"
    for what, target in (("copy by our kernel", by_kernel), ("copy by the driver", by_driver)):
        sample = slice(0, 1 << 20)  # the rest has the same numbers again
        yield rows.check(
            what, "float32", shape, deviation(target[sample].to_numpy(), source[sample].to_numpy()), 0.0
        )
    if samples:
        yield rows.measurement("copy", "float32", shape, samples, "GB/s", 2 * source.nbytes)


def product(lab: Lab, shape: gemm.Shape, precision: str) -> Iterator[rows.Row]:
    """The vendor's product, through PyTorch and through CuPy as far as they are here."""
    operands = gemm.Operands(lab, shape, precision)
    contestants, failures = gemm.vendors(lab, operands)
    yield from failures
    if not contestants:
        yield rows.note("cuBLAS cannot be measured without PyTorch or CuPy")
        return
    samples = lab.clock.compare(contestants, 2 * lab.seconds)
    for name in contestants:
        allowed = bound(precision, shape.k + 2)
        yield rows.check(f"cuBLAS by {name}", precision, str(shape), operands.error(name), allowed)
    if samples:
        yield rows.measurement("cuBLAS", precision, str(shape), samples, "TFLOP/s", shape.work)
