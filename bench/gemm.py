"""Our matrix product against the multiply-add peak of a core and numpy.matmul, one thread: ``python -m bench.gemm``.

All forms in which the cases need it: NN forward, NT for dx, TN for dw. Both contestants and the peak are measured in
turns; medians are reported.
"""

import argparse
import os
import statistics
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is loaded
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy as np

from gdkernels.cpu import gemm, panels
from gdkernels.cpu.jit import kernel
from gdkernels.cpu.machine import VECTOR_BITS
from gdkernels.cpu.memory import aligned_zeros
from gdkernels.cpu.simd import invoke, unpack
from gdkernels.cpu.team import _own_scratch, address, invoke_alone
from gdkernels.cpu.tile import ROWS, VECTORS

from .cases import CASES


@kernel
def repeat(record, start, stop, worker):
    """Call a kernel again and again, so that Python is not measured."""
    _, entry, operands, rows, times = unpack(record, "i8, i8, i8, i8, i8")
    for _ in range(times):
        invoke(entry, operands, 0, rows, worker)


@kernel
def peak(record, start, stop, worker):
    """The register tile on operands that stay in the first-level cache: as fast as multiply-adds come."""
    _, a, c, times = unpack(record, "i8, F*, F*, i8")
    for _ in range(times):
        panels.full(ROWS, 4096, a, 0, 0, 0, a, 0, c, 0, c, 0, c, 0)


def seconds(entry, operands) -> float:
    record = np.array([_own_scratch(), *operands], np.int64)
    start = time.perf_counter()
    invoke_alone(entry.address("float32"), address(record), 0, 1)
    return time.perf_counter() - start


def peak_rate() -> float:
    """GFLOP/s of multiply-adds."""
    a, c = np.full(64, 1e-3, np.float32), np.zeros(64, np.float32)
    times = 20
    width = VECTORS * VECTOR_BITS // 32
    return 2e-9 * 4096 * ROWS * width * times / seconds(peak, (address(a), address(c), times))


def shapes(letters: str):
    """(m, n, k, form) of every product in a step of the cases."""
    yield from (
        (128, 256, 784, "NN"),
        (512, 1024, 1024, "NN"),
        (512, 1024, 1024, "NT"),
        (512, 1024, 1024, "TN"),
    )
    for letter in letters:
        case = CASES[letter]
        for layer, (n_in, n_out) in enumerate(zip(case.sizes, case.sizes[1:], strict=False)):
            yield case.batch, n_out, n_in, "NN"
            yield n_in, n_out, case.batch, "TN"
            if layer:
                yield case.batch, n_in, n_out, "NT"


def matrix(rows: int, columns: int, number: int) -> np.ndarray:
    """Random numbers that begin on a cache line, as in a network, and not all on the same one of their pages."""
    out = aligned_zeros(rows * columns, np.float32, 12 * number).reshape(rows, columns)
    out[...] = np.random.default_rng(number).standard_normal(out.shape, dtype=np.float32)
    return out


def measure(m: int, n: int, k: int, form: str, rounds: int) -> None:
    a = matrix(k, m, 0).T if form == "TN" else matrix(m, k, 0)
    b = matrix(n, k, 1).T if form == "NT" else matrix(k, n, 1)
    out = matrix(m, n, 2)
    record = np.array(
        [_own_scratch(), n, k, address(a), a.strides[0] // 4, a.strides[1] // 4, address(b), b.strides[0] // 4,
         b.strides[1] // 4, address(gemm.ZEROS), 0, 0, address(out), n, 0], np.int64,
    )  # fmt: skip
    flops = 2e-9 * m * n * k
    times = max(1, round(0.5 / (flops * 1e3)))
    job = (gemm.product.address("float32"), address(record), m, times)
    seconds(repeat, job)
    ours, theirs, limits = [], [], []
    for _ in range(rounds):
        ours.append(flops * times / seconds(repeat, job))
        start = time.perf_counter()
        for _ in range(times):
            np.matmul(a, b, out=out)
        theirs.append(flops * times / (time.perf_counter() - start))
        limits.append(peak_rate())
    rate, numpy_rate, limit = map(statistics.median, (ours, theirs, limits))
    print(
        f"{m:5d} × {n:4d} × {k:4d} {form} {rate:7.1f} GFLOP/s {100 * rate / limit:5.1f} % of the peak {limit:.1f}"
        f"   {rate / numpy_rate:5.2f} × numpy",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gemm", description=__doc__)
    parser.add_argument("--cases", default="abcde")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for shape in shapes(options.cases):
        measure(*shape, options.rounds)


if __name__ == "__main__":
    main()
