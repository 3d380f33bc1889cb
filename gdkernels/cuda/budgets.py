"""What the machine code of the kernels may cost: the table that the static gate holds them against.

`python -m bench.static` compiles every kernel that is named here for every architecture and prints what it uses;
tests/cuda/test_static_gate.py fails where that exceeds its budget, and where a kernel has none. No GPU takes part.

For all kernels: nothing spilled, no stack, no local memory, no access through generic addresses, no atomics, and no
float64 instruction where the storage is not float64. No call either, except that of the compiler's own routines for
float64 division and roots, which every float64 kernel may use, and those that a budget names.
"""

from dataclasses import dataclass

from . import activation, dropout, epoch, optim, strided
from .jit import Kernel

ARCHITECTURES = {"sm_75": (7, 5), "sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
# The shared memory that a block may have, in bytes. GPUs that run code for sm_80 have 99 KiB at least (sm_86, sm_120).
SHARED = {name: 1024 * (64 if name == "sm_75" else 99) for name in ARCHITECTURES}

# What the compiler calls for a float64 division or root whose operands are extreme (how the names begin).
DOUBLE_ROUTINES = ("div_rn_f64", "dblrcp_rn", "dsqrt_rn_f64", "drsqrt_f64")

NARROW = ("float32", "bfloat16", "float16")
WIDE = ("float64",)
EVERY = (*NARROW, *WIDE)
INTEGERS = ("int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Budget:
    """What some kernels may use.

    A processor has 65536 registers for up to 2048 threads: with 64 a thread, 1024 threads run at a time; beyond 128, one
    block of 256.

    kernels : that share the budget
    why : it is what it is
    storages : for which it holds, of those that a kernel has
    registers : of a thread, at most
    shared : bytes of shared memory of a block, at most, static and dynamic
    loads, stores : from and to global memory are of four elements (16 bytes at most), but for so many; None: any
    routines : of the compiler that may be called (how the names begin)
    hot : the instruction that the innermost loop is there for
    share : the part of that loop that it makes up, at least
    since : the oldest architecture that has the instructions
    """

    name: str
    kernels: tuple[Kernel, ...]
    why: str
    storages: tuple[str, ...] = NARROW
    registers: int = 64
    shared: int = 0
    loads: int | None = None
    stores: int | None = None
    routines: tuple[str, ...] = ()
    hot: str = ""
    share: float = 0.0
    since: str = "sm_75"

    def architectures(self, storage: str) -> tuple[str, ...]:
        """Those that the budget holds for; bfloat16 is converted by an instruction that came with sm_80."""
        oldest = max(ARCHITECTURES[self.since], (8, 0) if storage == "bfloat16" else (7, 5))
        return tuple(name for name, capability in ARCHITECTURES.items() if capability >= oldest)


def _each(tables, place: int) -> tuple[Kernel, ...]:
    """The kernels at one place of the pairs (four elements a thread, one element a thread)."""
    return tuple(dict.fromkeys(pair[place] for table in tables for pair in table.values()))


_BY_FOUR = _each((activation.FORWARD, activation.BACKWARD), 0)
_BY_ONE = _each((activation.FORWARD, activation.BACKWARD), 1)
_SUMS4, _SUMS1 = (_each((activation.BACKWARD_SUMS,), place) for place in (0, 1))

ACTIVATION = (
    Budget("activation by four", _BY_FOUR, "gelu's two polynomials", loads=0, stores=0),
    Budget("activation by four", _BY_FOUR, "as above, two registers each", WIDE, loads=0, stores=0),
    Budget("activation by one", _BY_ONE, "what is left over", registers=32),
    Budget("activation by one", _BY_ONE, "as above, two registers each", WIDE),
    Budget(
        "bias gradient by four",
        _SUMS4,
        "loads of four rows at a time; the sums of strips are stored one by one",
        registers=96,
        shared=4096,
        loads=0,
        stores=1,
    ),
    Budget(
        "bias gradient by four",
        _SUMS4,
        "as above",
        WIDE,
        registers=128,
        shared=8192,
        loads=0,
        stores=1,
    ),
    Budget("bias gradient by one", _SUMS1, "loads of four rows at a time", registers=64, shared=1024),
    Budget("bias gradient by one", _SUMS1, "as above", WIDE, registers=128, shared=2048),
    Budget("sums of strips", (activation.sum_strips,), "several strips at a time", EVERY),
)

DROPOUT = (
    Budget("dropout by four", (dropout.drop4,), "two blocks of Philox", EVERY, loads=1, stores=0),
    Budget("dropout by one", (dropout.drop1,), "one block of Philox", EVERY, registers=40),
)

_UPDATES = (optim.UPDATE, {"descend": optim.DESCEND})
_UPDATE4, _UPDATE1 = (_each(_UPDATES, place) for place in (0, 1))

OPTIM = (
    Budget(
        "update by four",
        _UPDATE4,
        "five arrays; numbers of the row, factor and flag are narrower, and so is half",
        registers=64,
        loads=3,
        stores=1,
    ),
    Budget(
        "update by four",
        _UPDATE4,
        "as above",
        WIDE,
        registers=128,
        loads=3,
        stores=1,
    ),
    Budget("update by one", _UPDATE1, "what is left over", registers=40),
    Budget("update by one", _UPDATE1, "as above, two registers each", WIDE),
    Budget("row of numbers", (optim.write_row,), "one thread", EVERY, registers=32),
    Budget(
        "squares by four",
        (optim.squares4,),
        "three scales; a sum for each block",
        EVERY,
        shared=192,
        loads=0,
    ),
    Budget("squares by one", (optim.squares1,), "as above", EVERY, shared=192),
    Budget("norm", (optim.norm_of_sums,), "one block: registers are free", EVERY, registers=128, shared=192),
    Budget("clip by four", (optim.clip4,), "the norm is single", EVERY, registers=40, loads=1, stores=0),
    Budget("clip by one", (optim.clip1,), "what is left over", EVERY, registers=32),
)

STRIDED = (
    Budget(
        "strided copy",
        (strided.copy_elements,),
        "an index of six axes is divided out in 64 bits",
        INTEGERS,
        registers=40,
        routines=("div_s64", "rem_s64"),
    ),
    Budget("labels", (strided.widen_integers,), "one element a thread", ("int32",), registers=16),
)

EPOCH = (
    Budget(
        "training: batches",
        (epoch.begin, epoch.gather_rows, epoch.gather_values, epoch.gather_labels),
        "they wait for addresses that they read from memory",
        (*EVERY, "int64"),
        registers=40,
    ),
    Budget(
        "training: step",
        (epoch.loss_of_batch, epoch.finish),
        "one block: registers are free",
        EVERY,
        registers=128,
        shared=64,
    ),
    Budget(
        "training: precision", (epoch.narrowed, epoch.widened), "one element a thread", EVERY, registers=16
    ),
)

BUDGETS = (*ACTIVATION, *DROPOUT, *OPTIM, *EPOCH, *STRIDED)
