"""Kernels compiled, measured and judged: a row for each kernel, storage type and architecture.

Every kernel that `gdkernels.cuda.budgets` names is compiled for each storage type and architecture: from Python to PTX,
from there to machine code (ptxas), which is disassembled and read (`sass`). What exceeds the budget is a complaint.
"""

import gc
import importlib
import inspect
import multiprocessing
import pkgutil
import re
from collections.abc import Iterable
from typing import NamedTuple

from . import sass

# For one process at a time. Those of a kernel follow each other, because one pass of the compiler serves all of its
# architectures; what is for the same architecture goes through ptxas and nvdisasm together.
CHUNK_JOBS = 128
ATOMICS = ("ATOM", "ATOMG", "ATOMS", "RED", "REDG", "REDAS")
ANYWHERE = ("LD", "ST")  # of addresses that may lie in any memory
LOCAL = ("LDL", "STL")


class Row(NamedTuple):
    """A kernel for a storage type and an architecture: what it uses, and where that exceeds the budget."""

    budget: str
    kernel: str
    storage: str
    architecture: str
    registers: int
    spills: int
    stack: int
    local: int
    shared: int
    doubles: int
    calls: int
    loads: frozenset[int]  # bytes
    stores: frozenset[int]
    hot: str
    share: float
    length: int
    complaints: tuple[str, ...]


class Job(NamedTuple):
    """One kernel to compile, by its places in the table of budgets, where another process can look it up."""

    budget: int
    kernel: int
    storage: str
    architecture: str


def missing() -> str:
    """What is needed here and not installed; empty if nothing is."""
    try:
        for name in sass.WHEELS:
            sass.tool(name)
        importlib.import_module("gdkernels.cuda.runtime.target")
    except (sass.MissingTool, ImportError) as error:
        return str(error)
    return ""


def jobs(word: str = "") -> list[Job]:
    """Everything that the budgets name, or the kernels whose name contains a word; the slow ones first."""
    from gdkernels.cuda.budgets import BUDGETS

    return [
        Job(number, place, storage, architecture)
        for number, budget in enumerate(BUDGETS)
        for place, kernel in enumerate(budget.kernels)
        if word in kernel.name
        for storage, architecture in budget.each(kernel)
    ]


def measure(chosen: list[Job], processes: int) -> list[Row]:
    """The rows of jobs, compiled by this many processes."""
    chunks = [chosen[start : start + CHUNK_JOBS] for start in range(0, len(chosen), CHUNK_JOBS)]
    if processes == 1:
        return [row for chunk in chunks for row in _measure_chunk(chunk)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return [row for rows in pool.imap_unordered(_measure_chunk, chunks) for row in rows]


def _measure_chunk(chunk: list[Job]) -> list[Row]:
    from gdkernels.cuda.budgets import BUDGETS

    return compile_all(
        [
            (BUDGETS[job.budget], BUDGETS[job.budget].kernels[job.kernel], job.storage, job.architecture)
            for job in chunk
        ]
    )


def compile_all(chosen) -> list[Row]:
    """The rows of (budget, kernel, storage, architecture)."""
    from gdkernels.cuda.budgets import ARCHITECTURES

    wanted: dict[tuple, list[str]] = {}
    for _, kernel, storage, architecture in chosen:
        wanted.setdefault((kernel, storage), []).append(architecture)
    texts: dict[str, dict[str, str]] = {}
    for (kernel, storage), architectures in wanted.items():
        made = kernel.ptx_for_each(storage, [ARCHITECTURES[name] for name in architectures])
        for architecture, ptx in zip(architectures, made, strict=True):
            texts.setdefault(architecture, {})[f"{kernel.name}_{storage}"] = ptx
    codes = {architecture: sass.assemble(together, architecture) for architecture, together in texts.items()}
    return [
        _row(budget, kernel, storage, architecture, codes[architecture][f"{kernel.name}_{storage}"])
        for budget, kernel, storage, architecture in chosen
    ]


def _row(budget, kernel, storage: str, architecture: str, code: sass.Code) -> Row:
    return Row(
        budget=budget.name,
        kernel=kernel.name,
        storage=storage,
        architecture=architecture,
        registers=code.registers,
        spills=code.spills,
        stack=code.stack,
        local=code.count(*LOCAL),
        shared=code.shared + kernel.shared,
        doubles=code.doubles(),
        calls=len(code.calls()),
        loads=frozenset(code.widths("LDG", "LDGSTS")),
        stores=frozenset(code.widths("STG")),
        hot=budget.hot,
        share=code.share(budget.hot),
        length=len(code.instructions),
        complaints=tuple(complaints(budget, kernel, storage, architecture, code)),
    )


# ---------------------------------------------------------------------------------------------- judging


def complaints(budget, kernel, storage: str, architecture: str, code: sass.Code) -> Iterable[str]:
    """Where a kernel exceeds its budget, in words."""
    from gdkernels.cuda.budgets import SHARED
    from gdkernels.cuda.runtime.pointer import BYTES

    if code.spills > budget.spilled:
        yield f"{code.spills} bytes of registers are spilled"
    if code.stack > budget.spilled or (code.count(*LOCAL) and not budget.spilled):
        yield f"local memory is used: {code.stack} bytes of stack, {code.count(*LOCAL)} accesses"
    if code.count(*ANYWHERE):
        yield f"{code.count(*ANYWHERE)} accesses go through generic addresses"
    if code.count(*ATOMICS):
        yield f"{code.count(*ATOMICS)} atomic operations, whose order is not fixed"
    if storage != "float64" and code.doubles():
        yield f"{code.doubles()} float64 instructions in a kernel for {storage}"
    if strange := [name for name in code.calls() if not _is_routine(name, storage, budget.routines)]:
        yield f"calls {', '.join(sorted(set(strange)))}"
    most = budget.double if storage == "float64" else budget.registers
    if code.registers > most:
        yield f"{code.registers} registers, at most {most} expected"
    shared, most = code.shared + kernel.shared, budget.shared * (2 if storage == "float64" else 1)
    if shared > most:
        yield f"{shared} bytes of shared memory, at most {most} expected"
    if shared > SHARED[architecture]:
        yield f"{shared} bytes of shared memory, a block can have {SHARED[architecture]}"
    if short := sum(count for width, count in code.widths("LDGSTS").items() if width < 16):
        yield f"{short} copies to shared memory of less than 128 bits"
    size = min(16, 4 * BYTES[storage])
    for name, allowed in (("LDG", budget.loads), ("STG", budget.stores)):
        if allowed is not None:
            widths = code.widths(name)
            narrow = sum(count for width, count in widths.items() if width < size)
            if narrow > allowed:
                yield f"{narrow} {name} of less than {8 * size} bits, at most {allowed} expected"
            if not widths[size]:
                yield f"no {name} of {8 * size} bits"
    if code.share(budget.hot) < budget.share:
        yield f"{code.share(budget.hot):.1%} {budget.hot} in the hot loop, at least {budget.share:.0%} expected"


def _is_routine(name: str, storage: str, allowed: tuple[str, ...]) -> bool:
    """Whether a call goes to a routine of the compiler that the kernel may use."""
    from gdkernels.cuda.budgets import DOUBLE_ROUTINES

    found = name.partition("__cuda_sm")[2].partition("_")[2]  # $__internal_0_$__cuda_sm20_div_s64
    return found.startswith((*allowed, *DOUBLE_ROUTINES) if storage == "float64" else allowed)


def unnamed() -> list[str]:
    """The kernels of the package that no budget names, and functions that make kernels of which none is named.

    To be called in a fresh process, where nobody else has made kernels. Kernels are found because they exist once all
    modules are imported; those that are made when they are needed come from functions with a cache, which is empty if the
    table of budgets did not call them.
    """
    import gdkernels.cuda
    from gdkernels.cuda import budgets
    from gdkernels.cuda.runtime.jit import Kernel

    names = [module.name for module in pkgutil.walk_packages(gdkernels.cuda.__path__, "gdkernels.cuda.")]
    modules = [importlib.import_module(name) for name in names]
    unused = {
        f"what {maker.__module__}.{maker.__name__} makes"
        for module in modules
        for maker in vars(module).values()
        if hasattr(maker, "cache_info")
        and maker.cache_info().currsize == 0
        and re.search(r"\bkernel\(", inspect.getsource(maker))
    }
    budgeted = {
        (id(kernel), storage)
        for budget in budgets.BUDGETS
        for kernel in budget.kernels
        for storage in budget.holds_for(kernel)
    }
    alone = {
        f"{kernel.name} for {storage}"
        for kernel in gc.get_objects()
        if isinstance(kernel, Kernel)
        for storage in kernel.variants
        if (id(kernel), storage) not in budgeted
    }
    return sorted(unused | alone)
