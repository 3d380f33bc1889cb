"""A contestant in a process of its own: ``python -m bench.worker REQUEST``, called by `process`.

REQUEST is JSON: {"contestant": name, "job": {"kind": …, …}, "threads": n}. All that libraries print goes to stderr; on
stdout a line of JSON is written for each thing that happens: {"ready": facts}, or {"missing": why} or {"failed": why} and
the end. Then each line on stdin is answered: {"times": n} by {"seconds": s}, the time that n units took,
{"outcome": n, "path": file} by {"outcome": file}, an .npz of what `outcome(n)` of the contestant gives, and {"turn": i} by
{"turned": i, "seconds": s} after `turn(i)`.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "GDKERNELS_NUM_THREADS",
)  # fmt: skip
OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # would tie a peer's hands
CHOSEN = (
    "GDKERNELS_BENCH_ISA"  # the instruction set to which all contestants are held, where one was asked for
)
# By instruction set: every library's own switch. XLA has products of oneDNN, and PyTorch those of oneMKL.
VARIABLES = {
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",  # which alone leaves the features of this machine: masks, 32 registers
        "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+movbe",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        # Without YNNPACK, whose products heed no flag: oneDNN's take their place.
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",
        "DEV": "CPU:CLANG:x86_64,haswell",  # tinygrad's
    }
}


def main() -> None:
    request = json.loads(sys.argv[1])
    with telling() as tell:
        confine(request["threads"])
        serve(request, tell)


@contextmanager
def telling() -> Iterator[Callable[..., None]]:
    """A function that tells whoever started this process its keywords; what libraries print goes to stderr meanwhile."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield lambda **message: print(json.dumps(message), file=channel, flush=True)


def reason(error: BaseException) -> str:
    """An error in a line of words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def confine(threads: int) -> None:
    """Let every library see that many threads and that many cores, before any of them is loaded."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    settle(os.environ)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def settle(environment: MutableMapping[str, str]) -> None:
    """Take out what ties a peer's hands, and hold every library to the instruction set that was chosen, if one was."""
    for variable in OVERRIDES:
        environment.pop(variable, None)
    environment |= VARIABLES.get(environment.get(CHOSEN, ""), {})


def serve(request: dict[str, Any], tell: Any) -> None:
    """Build what is asked for and answer until stdin ends."""
    from .contestants import Missing, build

    start = time.perf_counter()
    try:
        contestant = build(request["contestant"], request["job"], request["threads"])
    except (Missing, ModuleNotFoundError) as error:
        tell(missing=" ".join(str(error).split()))
        return
    except Exception as error:
        tell(failed=reason(error))
        return
    tell(ready={"seconds": time.perf_counter() - start, "threads": threads_reported(), **facts(contestant)})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            tell(**answer(contestant, order))
        except Exception as error:
            tell(failed=reason(error))
            return


def answer(contestant: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Do what a line on stdin asks for."""
    if "outcome" in order:
        import numpy as np

        np.savez(order["path"], **contestant.outcome(order["outcome"]))
        return {"outcome": order["path"]}
    start = time.perf_counter()
    if "turn" in order:
        contestant.turn(order["turn"])
        return {"turned": order["turn"], "seconds": time.perf_counter() - start}
    contestant.run(order["times"])
    return {"seconds": time.perf_counter() - start}


def facts(contestant: Any) -> dict[str, Any]:
    """What a contestant tells of itself: its attribute `facts`, if it has one."""
    return dict(getattr(contestant, "facts", {}))


def threads_reported() -> dict[str, Any]:
    """How many threads and cores the loaded libraries say that they use."""
    found: dict[str, Any] = {}
    if hasattr(os, "sched_getaffinity"):
        found["cores"] = len(os.sched_getaffinity(0))
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    if "gdkernels" in sys.modules:
        from gdkernels.cpu.runtime.team import get_threads

        found["gdkernels"] = get_threads()
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return found
    for pool in threadpool_info():
        found[f"{pool['user_api']} {pool['internal_api']}"] = pool["num_threads"]
    return found


if __name__ == "__main__":
    main()
