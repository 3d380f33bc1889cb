"""The contestants: ours and the peers, one file a library, each as well tuned as somebody who knows it would.

A file offers what its library can do:

``TRAINING = {contestant: make(case, threads)}``
    `make` builds a network with the case's weights; ``run(epochs)`` of the result takes whole passes over the case's
    batches, always in the same order, and returns when they are done; ``outcome(steps)`` takes that many steps from the
    start and returns {"losses": (steps,), "0.w": (n_in, n_out), "0.b": (n_out,), "1.w": …}.
``KERNELS = {contestant: {op: make(shape, form, threads)}}``
    ``run(calls)`` of the result calls the operation so often; ``verdict(op)`` compares the first call with what is right
    and gives (what was compared, error, bound). `calls.Series` puts a job's items one after the other, in one process.
``CALLS = {contestant: {op: make(shape, form, threads)}}``
    The same of the operations that people call from a loop of their own, as they write them (`array_calls`).
``LOOPS = {contestant: make(case, threads)}``
    As `TRAINING`: a loop over steps that is written out in such operations.

``NJIT = {contestant: make(case, threads)}``
    As `TRAINING`: the same steps inside a function that the user compiles, or however a peer is called.

Nothing is imported before it is needed: each contestant lives in a process of its own (`bench.worker`).
"""

import importlib
from typing import Any

# The file of each contestant.
TRAINING = {
    "gdkernels": "ours_training",
    "gdkernels step": "ours_training",
    "torch eager": "pytorch_training",
    "torch compile": "pytorch_training",
    "jax jit": "jax_training",
    "jax scan": "jax_training",
    "tinygrad": "tinygrad_training",
    "scikit-learn": "sklearn_training",
}
LOOPS = {"gdkernels": "ours_loop", "numpy": "numpy_loop", "torch eager": "pytorch_training"}
NJIT = {
    "gdkernels": "ours_njit",
    "gdkernels view": "ours_njit",
    "gdkernels epoch": "ours_njit",
    "numpy": "numpy_loop",
    "torch eager": "pytorch_training",
    "jax jit": "jax_training",
}
CALLS = {"gdkernels": "ours_calls", "numpy": "numpy_calls", "torch": "pytorch_calls"}
KERNELS = {
    "gdkernels": "ours_kernels",
    "gdkernels from Python": "ours_kernels",
    "torch": "pytorch_kernels",
    "jax": "jax_kernels",
    "numpy": "numpy_kernels",
}

OURS = ("gdkernels", "gdkernels step", "gdkernels view", "gdkernels epoch")
LIBRARIES = ("torch", "jax", "tinygrad", "scikit-learn", "numpy")


class Missing(Exception):
    """A library, or what it needs, is not installed here."""


def build(contestant: str, job: dict[str, Any], threads: int) -> Any:
    """What a contestant makes of a job: {"kind": "train", "loop" or "njit", "case": {…}}, the same with "cases": [{…}, …]
    (`turns`),
    {"kind": "kernels" or "calls", "items": [(op, shape, form), …]}, {"kind": "costs"} (`ours_costs`) or
    {"kind": "limit", "op": …}.

    Raises Missing where it cannot be done here.
    """
    from ..cases import Case

    kind = job["kind"]
    if kind == "limit":
        from .limits import LIMITS

        return LIMITS[job["op"]](job, threads)
    if kind == "costs":
        from .ours_costs import JOBS, Job
        from .turns import Turns

        return Turns(Job.calls, JOBS)
    table, name = {
        "train": (TRAINING, "TRAINING"),
        "loop": (LOOPS, "LOOPS"),
        "njit": (NJIT, "NJIT"),
        "kernels": (KERNELS, "KERNELS"),
        "calls": (CALLS, "CALLS"),
    }[kind]
    try:
        module = importlib.import_module(f"{__name__}.{table[contestant]}")
    except ModuleNotFoundError as error:
        raise Missing(f"{error.name} is not installed") from error
    makers = getattr(module, name)[contestant]
    if "case" in job:
        return makers(Case.of(job["case"]), threads)
    if "cases" in job:
        from .turns import Turns

        return Turns(lambda case: makers(Case.of(case), threads), job["cases"])
    from .calls import Series

    return Series(makers, job["items"], threads)
