"""What the machine code of the kernels may cost: the table that the static gate holds them against.

`python -m tools.gate` compiles every kernel that is named here for every architecture and prints what it uses;
tests/cuda/test_static_gate.py fails where that exceeds its budget, and where a kernel has none. No GPU takes part.

For all kernels: no access through generic addresses, no atomics, copies to shared memory of 16 bytes only, and no float64
instruction where the storage is not float64. Nothing spilled, no stack and no local memory, but for the bytes of spilled
registers that a budget names. No call either, except that of the compiler's own routines for float64 division and roots,
which every float64 kernel may use, and those that a budget names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from . import (
    activation,
    clip,
    cross_entropy,
    dropout,
    loss,
    norm,
    norm_gradients,
    norm_rows,
    optim,
    rows,
    softmax,
)
from .device import specimens
from .engine import epoch
from .gemm import epilogue, simt, tensorcore
from .gemm.simt import TILE_64, TILE_64_FLOAT64, TILE_128
from .gemm.tensorcore import CORE_64, CORE_128
from .runtime import strided
from .runtime.jit import Kernel
from .runtime.storages import HALVES

ARCHITECTURES = {"sm_75": (7, 5), "sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
ALL = tuple(ARCHITECTURES)
AMPERE = ("sm_80", "sm_90", "sm_100")  # have bfloat16, copies to shared memory, and its tensor cores
USUAL = ("sm_80", "sm_90")  # for variants of what is compiled for all in another one

# The shared memory that a block may have, in bytes. GPUs that run code for sm_80 have 99 KiB at least (sm_86, sm_120).
SHARED = {name: 1024 * (64 if name == "sm_75" else 99) for name in ARCHITECTURES}

# What the compiler calls for a float64 division or root whose operands are extreme (how the names begin).
DOUBLE_ROUTINES = ("div_rn_f64", "dblrcp_rn", "dsqrt_rn_f64", "drsqrt_f64")


@dataclass(frozen=True)
class Budget:
    """What some kernels may use.

    A processor has 65536 registers for up to 2048 threads: with 64 a thread, 1024 threads run at a time; beyond 128, one
    block of 256.

    kernels : that share the budget
    why : it is what it is
    registers, double : of a thread, at most; the second for float64
    shared : bytes of shared memory of a block, at most, twice as many for float64
    loads, stores : how many from and to global memory are not of four elements (16 bytes at most); None: any number
    routines : of the compiler that may be called (how the names begin)
    spilled : bytes of registers that may be spilled, where the compiler does so for the sake of more loads on their way
    hot, share : the instruction that the innermost loop is there for, and the part of that loop that it makes up, at least
    architectures : that are compiled for
    left_out : storage types that are not compiled, since they differ from another one in conversions alone
    storages : for which the budget holds, if not for all that a kernel has
    """

    name: str
    kernels: tuple[Kernel, ...]
    why: str
    registers: int = 64
    double: int = 128
    shared: int = 0
    loads: int | None = None
    stores: int | None = None
    routines: tuple[str, ...] = ()
    spilled: int = 0
    hot: str = ""
    share: float = 0.0
    architectures: tuple[str, ...] = ALL
    left_out: tuple[str, ...] = ()
    storages: tuple[str, ...] = ()

    def holds_for(self, kernel: Kernel) -> list[str]:
        """The storage types of a kernel that have this budget."""
        return [storage for storage in kernel.variants if not self.storages or storage in self.storages]

    def each(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        """The storage types and architectures that a kernel is compiled for."""
        for storage in self.holds_for(kernel):
            for architecture in self.architectures:
                if storage not in self.left_out and (storage != "bfloat16" or architecture in AMPERE):
                    yield storage, architecture


def _at(place: int, *tables) -> tuple[Kernel, ...]:
    """The kernels at one place of the pairs in some tables: four elements a thread, one element a thread."""
    return tuple(dict.fromkeys(pair[place] for table in tables for pair in table.values()))


# fmt: off

# ---------------------------------------------------------------------------------------------- products

# A matrix is N (row-major) or T (transposed), which is whether A is, and B is not, contiguous along k.
NN, NT, TN, TT = (True, False), (True, True), (False, False), (False, True)
HARD = ("gelu", "softplus", "mish")  # the activations that need most registers


def _simt(tile, wide, forms, kinds=("identity",)):
    storage = "float64" if tile is TILE_64_FLOAT64 else "float32"
    return tuple(simt.product(storage, tile, *form, wide, kind) for form in forms for kind in kinds)


def _tensor(size, tile, wide, forms, kinds=("identity",)):
    return tuple(tensorcore.product(size, tile, *form, kind, wide) for form in forms for kind in kinds)


def _parts(place, parts, kinds):
    return tuple(epilogue.kernels(kind, parts)[place] for kind in kinds)


# The activation follows the loop and takes over its registers: the hardest ones are compiled, behind the form that a layer
# computes. Results are wider than the operands in gradients of weights alone, whose form is TN.
GEMM = (
    Budget("gemm 128 by four", _simt(TILE_128, True, (NN, NT, TN)), "64 sums a thread, two blocks of 256",
           128, shared=17408, loads=0, stores=0, hot="FFMA", share=0.88),
    Budget("gemm 128 by four, activations", _simt(TILE_128, True, (NN,), HARD), "as above",
           128, shared=17408, loads=0, stores=0, hot="FFMA", share=0.88, architectures=USUAL),
    Budget("gemm 64 by four", _simt(TILE_64, True, (NN, NT, TN, TT)), "32 sums a thread, four blocks of 128",
           128, shared=18432, loads=0, stores=0, hot="FFMA", share=0.83),
    Budget("gemm 64 by four, activations", _simt(TILE_64, True, (NN,), HARD[:1]), "as above",
           128, shared=18432, loads=0, stores=0, hot="FFMA", share=0.83, architectures=USUAL),
    Budget("gemm 64 by one", _simt(TILE_64, False, (NN, NT, TN, TT)), "as above, for any address and length",
           128, shared=18432, hot="FFMA", share=0.76),
    Budget("gemm 64 by one, activations", _simt(TILE_64, False, (NN,), HARD[:1]), "as above",
           128, shared=18432, hot="FFMA", share=0.76, architectures=USUAL),
    Budget("gemm float64 by four", _simt(TILE_64_FLOAT64, True, (NN, NT, TN)), "16 sums a thread, two blocks of 256",
           shared=18432, loads=0, stores=0, hot="DFMA", share=0.68),
    Budget("gemm float64 by one", _simt(TILE_64_FLOAT64, False, (NN, TN)), "as above",
           shared=18432, hot="DFMA", share=0.64),
    Budget("gemm float64, activations",
           _simt(TILE_64_FLOAT64, True, (NN,), HARD[:1]) + _simt(TILE_64_FLOAT64, False, (NN,), HARD[:1]),
           "as above", shared=18432, hot="DFMA", share=0.64, architectures=USUAL),

    Budget("gemm tensor core 128", _tensor(2, CORE_128, False, (NN,)), "64 sums a thread, two blocks of 256",
           128, shared=49152, hot="HMMA", share=0.34, architectures=AMPERE),
    Budget("gemm tensor core 128, forms",
           _tensor(2, CORE_128, False, (NT, TN, TT)) + _tensor(2, CORE_128, True, (TN,)), "as above",
           128, shared=49152, hot="HMMA", share=0.34, architectures=AMPERE, left_out=("float16",)),
    Budget("gemm tensor core 128, activations", _tensor(2, CORE_128, False, (NN,), HARD),
           "as above", 128, shared=49152, hot="HMMA", share=0.34, architectures=("sm_80",), left_out=("float16",)),
    Budget("gemm tensor core 64", _tensor(2, CORE_64, False, (NN,)), "32 sums a thread, four blocks of 128",
           128, shared=24576, hot="HMMA", share=0.22, architectures=AMPERE),
    Budget("gemm tensor core 64, forms",
           _tensor(2, CORE_64, False, (NT, TN, TT)) + _tensor(2, CORE_64, True, (TN,)), "as above",
           128, shared=24576, hot="HMMA", share=0.22, architectures=AMPERE, left_out=("float16",)),
    Budget("gemm tf32 128", _tensor(4, CORE_128, False, (NN, NT, TN, TT)), "as in 16 bits, but half as much at a time",
           128, shared=49152, hot="HMMA", share=0.12, architectures=AMPERE),
    Budget("gemm tf32 64", _tensor(4, CORE_64, False, (NN, NT, TN, TT)), "as above",
           128, shared=24576, hot="HMMA", share=0.10, architectures=AMPERE),
    Budget("gemm tf32, activations", _tensor(4, CORE_128, False, (NN,), HARD[:1]),
           "as above", 128, shared=49152, hot="HMMA", share=0.12, architectures=USUAL),
    Budget("gemm operands in chunks", (tensorcore.pad,), "one element a thread", 40),

    Budget("gemm parts by four", _parts(0, "R*", ("identity", HARD[0])), "several parts at a time", 96, loads=0, stores=0,
           left_out=("float16",)),
    Budget("gemm parts by one", _parts(1, "R*", ("identity", HARD[0])), "several parts at a time",
           left_out=("float16",)),
    Budget("gemm of others by four", _parts(0, "F*", ("identity", HARD[0])), "several parts at a time",
           96, loads=0, stores=0, architectures=USUAL, left_out=("float32", "float64", "float16")),
    Budget("gemm of others by one", _parts(1, "F*", ("identity", HARD[0])), "several parts at a time",
           architectures=USUAL, left_out=("float32", "float64", "float16")),
)

# ---------------------------------------------------------------------------------------------- elements and rows

_ELEMENTS = activation.FORWARD, activation.BACKWARD
ACTIVATION = (
    Budget("activation by four", _at(0, *_ELEMENTS), "gelu's two polynomials", 64, 64, loads=0, stores=0),
    Budget("activation by one", _at(1, *_ELEMENTS), "what is left over", 32, 48, left_out=HALVES),
    Budget("bias gradient by four", _at(0, activation.BACKWARD_SUMS), "four rows at a time; a sum is stored alone",
           96, shared=4096, loads=0, stores=1, left_out=("float16",)),
    Budget("bias gradient by one", _at(1, activation.BACKWARD_SUMS), "four rows at a time",
           64, 96, shared=1024, left_out=HALVES),
    Budget("sums of strips", (rows.add_strips,), "several strips at a time", 48, 64, shared=1024),
)
DROPOUT = (
    Budget("dropout by four", (dropout.drop.by_four,), "two blocks of Philox", 32, 32, loads=1, stores=0),
    Budget("dropout by one", (dropout.drop.by_one,), "one block of Philox", 24, 24),
)
OPTIM = (
    Budget("update by four", _at(0, optim.UPDATE), "five arrays; the row, factor, flag and copy are narrower",
           64, 96, loads=3, stores=1),
    Budget("update by one", _at(1, optim.UPDATE), "what is left over", 40, 64),
    Budget("row of numbers", (optim.write_row,), "one thread", 32, 32),
    Budget("squares by four", (clip.squares4,), "three scales; three sums a block", 40, 48, shared=96, loads=0),
    Budget("squares by one", (clip.squares1,), "as above", 40, 48, shared=96),
    Budget("norm of squares", (clip.norm_of_sums,), "one block: registers are free", 128, shared=96),
    Budget("clip by four", (clip.clipped.by_four,), "the norm is single", 24, 32, loads=1, stores=0),
    Budget("clip by one", (clip.clipped.by_one,), "what is left over", 16, 32),
)
NORM = (
    Budget("norm by four", (norm_rows.forward4,), "32 numbers; statistics are stored alone",
           96, shared=32, loads=0, stores=3),
    Budget("norm gradient by four", (norm_rows.dx4,), "64 numbers; statistics are loaded alone",
           120, shared=32, loads=3, stores=0),
    Budget("norm by one", (norm_rows.forward1, norm_rows.dx1), "several columns at a time", 56, 64, shared=32),
    Budget("norm parameters by four", (norm_gradients.strips4,), "several rows at a time, each with its statistics",
           96, shared=4096, loads=24),
    Budget("norm parameters by one", (norm_gradients.strips1,), "several rows at a time", 80, 112, shared=1024),
    Budget("scale by four", (norm.scale_rows.by_four,), "several groups at a time", 40, 48, loads=0, stores=0),
    Budget("scale by one", (norm.scale_rows.by_one,), "several columns at a time", 32, 32),
    Budget("scale parameter by four", (norm.scale_strips.by_four,), "several rows at a time; a sum is stored alone",
           64, 96, shared=4096, loads=0),
    Budget("scale parameter by one", (norm.scale_strips.by_one,), "several rows at a time", 48, 64, shared=1024),
    Budget("sum by four", (norm.add.by_four,), "two loads, one store", 24, 32, loads=0, stores=0),
    Budget("sum by one", (norm.add.by_one,), "what is left over", 16, 16),
)
SOFTMAX = (
    Budget("softmax by four", (softmax.softmax4,), "32 numbers", 64, shared=32, loads=0, stores=0),
    Budget("softmax by one", (softmax.softmax1,), "one number at a time", 32, 64, shared=32),
)
_CROSS = cross_entropy.KERNELS
LOSS = (
    Budget("loss by four", _at(0, loss.ELEMENTS), "scale and row loss are single", 64, 64, shared=32, loads=1, stores=1),
    Budget("loss by one", _at(1, loss.ELEMENTS), "several elements at a time", 48, 56, shared=32),
    Budget("sum of losses", (rows.add_up,), "several losses at a time", 48, 56, shared=32),
    Budget("cross-entropy by four", _at(0, _CROSS), "32 numbers; scale, label, its weight and the row loss are single",
           80, shared=32, loads=3, stores=1),
    Budget("cross-entropy by one", _at(1, _CROSS), "several classes at a time", 64, 64, shared=32),
    Budget("weights of labels", (cross_entropy.weigh,), "several labels at a time", 48, 56, shared=32),
    Budget("check of labels", (cross_entropy.find_wrong,), "one label a thread", 32),
)

# ---------------------------------------------------------------------------------------------- around them

EPOCH = (
    Budget("batches", (epoch.begin, epoch.gather_rows, epoch.gather_values, epoch.gather_labels),
           "addresses that are read from memory", 40, 40),
    Budget("end of a step", (epoch.loss_of_batch, epoch.finish), "one block: registers are free", 96, shared=96),
    Budget("narrowed by four", (epoch.narrowed.by_four,), "loads are as wide as the computed type", 24, 32, stores=0),
    Budget("widened by four", (epoch.widened.by_four,), "stores are as wide as the computed type", 24, 32, loads=0),
    Budget("change of precision by one", (epoch.narrowed.by_one, epoch.widened.by_one), "what is left over", 16, 16),
)
STRIDED = (
    Budget("strided copy", (strided.copy_elements,), "an index of six axes is divided out in 64 bits",
           40, routines=("div_s64", "rem_s64")),
    Budget("labels of 32 bits", (strided.widen_integers,), "one element a thread", 16),
)

# ---------------------------------------------------------------------------------------------- in the user's kernels

# Written out, a network in one thread is one block of instructions, of which the compiler starts as many loads as there are
# registers for; where stores stand among them, it spills a few, with any number of registers.
DEVICE = (
    Budget("device elements", (specimens.elements,), "gelu, huber, AdamW and Philox at once", 48, 64),
    Budget("device reductions", (specimens.reduced,), "two sums of warps; a warp that is not whole shuffles by a routine",
           48, 48, shared=256, routines=("shflsync",)),
    Budget("device thread 4-16-2", tuple(specimens.SMALL), "every weight is on its way at once", 240),
    Budget("device thread forward", (specimens.MIDDLE.predict, specimens.LARGE.predict), "as above", 255,
           architectures=USUAL),
    Budget("device thread backward", (specimens.MIDDLE.vjp, specimens.LARGE.vjp), "as above", 255, spilled=320,
           architectures=USUAL),
    Budget("device block", specimens.TRAINED, "four rows by one or two outputs a thread, a block of 256", 144,
           shared=42240, hot="FFMA", share=0.40, storages=("float32",)),
    Budget("device block, float64", specimens.TRAINED[:1], "as above", double=168, shared=20480, storages=("float64",)),
)
# fmt: on

BUDGETS = (*GEMM, *ACTIVATION, *NORM, *LOSS, *SOFTMAX, *OPTIM, *DROPOUT, *EPOCH, *STRIDED, *DEVICE)
