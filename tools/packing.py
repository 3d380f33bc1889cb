"""Whether packing pays: the time of a matrix product with an operand packed, over that without, for shapes that decide.

    python tools/packing.py

On one core, interleaved, medians. A * stands where `cpu.gemm.product` packs: there the ratio should be below 1, elsewhere
above. Bits do not depend on it.
"""

import statistics
import time
import types
from pathlib import Path

import numpy as np

from gdkernels.cli.info import facts
from gdkernels.cpu import matmul
from gdkernels.cpu.gemm import product
from gdkernels.cpu.runtime.jit import inlined
from gdkernels.cpu.runtime.machine import VECTOR_BITS
from gdkernels.cpu.runtime.team import run, set_threads

ROUNDS, SECONDS = 15, 2e-3  # and how long a turn is
K, ROWS = 256, 256
COLUMNS = 32, 64, 128, 256, 512


def copy_of(module, name, **instead):
    """A module again, under another name, with other functions in the places of its own."""
    path = Path(module.__file__)
    made = types.ModuleType(f"{module.__name__}_{name}")
    made.__package__, made.__file__ = module.__package__, str(path)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), made.__dict__)
    vars(made).update(instead)  # kernels are compiled when they are first run
    return made


def products(decision, never):
    """Products that decide "always" and "never" where `decision` is asked: functions of (a, b, out) that give an op."""
    made = []
    for name, function in (("always", lambda *given: True), ("never", never)):
        gemm = copy_of(product, f"{decision}_{name}", **{decision: inlined(function)}).gemm
        made.append(copy_of(matmul, f"{decision}_{name}", gemm=gemm).product_op)
    return made


def ratio(a, b, always, never):
    """The time of one product over that of another."""
    out = np.empty((len(a), b.shape[1]), a.dtype)
    ops = always(a, b, out), never(a, b, out)
    for op in ops:
        run(op)
    start = time.perf_counter()
    run(ops[1])
    repeats = max(1, int(SECONDS / (time.perf_counter() - start)))
    seconds = [[], []]
    for _ in range(ROUNDS):
        for op, taken in zip(ops, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                run(op)
            taken.append(time.perf_counter() - start)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def line(head, cells):
    print(f"{head:>10}", *(f"{value:7.2f}{'*' if packs else ' '}" for value, packs in cells), flush=True)


def main():
    set_threads(1)
    rng = np.random.default_rng(0)
    of_a = products("worth_packing_a", lambda n, k, rsa, csa, width: csa != 1)
    of_b = products("worth_packing_b", lambda m, n, rsb, csb, width: csb != 1)
    print(f"{facts()['cpu']}, vectors of {VECTOR_BITS} bits")
    for dtype in ("float32", "float64"):
        width = VECTOR_BITS // (8 * np.dtype(dtype).itemsize)

        def matrix(rows, columns, dtype=dtype):
            return rng.standard_normal((rows, columns)).astype(dtype)

        heights = 24, 48, 96, 192, 512
        print(
            f"\n{dtype}, B (k = {K}, n), by columns n and rows of A\n{'n':>10}", *(f"{m:>8}" for m in heights)
        )
        for n in (*COLUMNS[1:], 2048):
            b = matrix(K, n)
            packs = [product.worth_packing_b(m, n, n, 1, width) for m in heights]
            line(n, [(ratio(matrix(m, K), b, *of_b), pack) for m, pack in zip(heights, packs, strict=True)])
        for stored, sums in (("rows", (64, 512, 1024, 4096)), ("columns", (64, 128, 256, 1024))):
            print(f"\n{dtype}, A ({ROWS}, k), stored by {stored}, by k and columns of B", end="\n         k ")
            print(*(f"{n:>8}" for n in COLUMNS))
            for k in sums:
                a = matrix(ROWS, k) if stored == "rows" else matrix(k, ROWS).T
                strides = [stride // a.itemsize for stride in a.strides]
                packs = [product.worth_packing_a(n, k, *strides, width) for n in COLUMNS]
                line(
                    k, [(ratio(a, matrix(k, n), *of_a), pack) for n, pack in zip(COLUMNS, packs, strict=True)]
                )


if __name__ == "__main__":
    main()
