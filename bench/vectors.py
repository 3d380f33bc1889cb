"""What a library says of the vectors that it runs, and how fast it multiplies: ``python -m bench.vectors LIBRARY``.

`isa` asks it, in a process of its own. Nothing is imported before the number of threads and the instruction set are settled.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from .worker import confine, telling

SIZE = 768  # of the matrices
MKL_BRANCHES = {9: "AVX", 10: "AVX2", 12: "AVX-512", 14: "AVX-512 with VNNI"}

Product = Callable[[], Any]


def ours() -> tuple[str, Product]:
    import numpy as np

    import gdkernels as gd
    from gdkernels.cpu.runtime.machine import VECTOR_BITS

    a = np.ones((SIZE, SIZE), np.float32)
    out = np.empty_like(a)
    cpu = os.environ.get("NUMBA_CPU_NAME") or "this CPU"
    return f"vectors of {VECTOR_BITS} bits, compiled for {cpu}", lambda: gd.matmul(a, a, out=out)


def numpy() -> tuple[str, Product]:
    import numpy as np
    from threadpoolctl import threadpool_info

    a = np.ones((SIZE, SIZE), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    kernels = [f"{pool['internal_api']}'s kernels for {pool.get('architecture', '?')}"
               for pool in threadpool_info() if pool["user_api"] == "blas"]  # fmt: skip
    dispatched = [
        name for name in ("X86_V4", "X86_V3") if np._core._multiarray_umath.__cpu_features__.get(name)
    ]
    return ", ".join([*kernels, *dispatched[:1]]), lambda: np.matmul(a, a, out=out)


def torch() -> tuple[str, Product]:
    import ctypes
    from pathlib import Path

    import torch

    a = torch.ones(SIZE, SIZE)
    out = torch.empty_like(a)
    said = f"ATen for {torch.backends.cpu.get_cpu_capability()}"
    try:  # oneMKL has no public name for it
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        branch = library.mkl_serv_cbwr_get_auto_branch()
        said += f", oneMKL for {MKL_BRANCHES.get(branch, f'branch {branch}')}"
    except (OSError, AttributeError):
        said += ", oneMKL does not say"
    return said, lambda: torch.mm(a, a, out=out)


def jax() -> tuple[str, Product]:
    import jax
    import jax.numpy as jnp

    a = jnp.ones((SIZE, SIZE), jnp.float32)
    product = jax.jit(jnp.matmul)
    flags = os.environ.get("XLA_FLAGS", "")
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA", "this CPU")
    return f"XLA with {flags or 'no flags'}, oneDNN for {onednn}", lambda: product(a, a).block_until_ready()


def sklearn() -> tuple[str, Product]:
    """Its networks multiply by NumPy; what else it has is compiled for every x86-64."""
    import sklearn  # noqa: F401  (must be there)

    said, product = numpy()
    return f"NumPy's products: {said}", product


def tinygrad() -> tuple[str, Product]:
    os.environ |= {"DEV": os.environ.get("DEV", "CPU"), "NUM_CPU_THREADS": "1"}
    from tinygrad import Tensor, TinyJit

    a = Tensor.ones(SIZE, SIZE).contiguous().realize()
    product = TinyJit(lambda: (a @ a).realize())
    return f"clang for {os.environ['DEV']}", lambda: product().numpy()


LIBRARIES = {
    "gdkernels": ours, "numpy": numpy, "torch": torch, "jax": jax, "scikit-learn": sklearn, "tinygrad": tinygrad,
}  # fmt: skip


def main() -> None:
    """Answer for one library: what it runs, and then the rate of its product for every line on stdin."""
    library = json.loads(sys.argv[1])
    with telling() as tell:
        confine(1)
        try:
            said, product = LIBRARIES[library]()
        except ModuleNotFoundError as error:
            tell(missing=str(error))
            return
        for _ in range(3):
            product()
        tell(runs=said)
        for line in sys.stdin:
            end, count = json.loads(line)["seconds"], 0
            start = time.perf_counter()
            while (seconds := time.perf_counter() - start) < end:
                product()
                count += 1
            tell(rate=2e-9 * SIZE**3 * count / seconds)


if __name__ == "__main__":
    main()
