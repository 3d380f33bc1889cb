"""Kernels that the static gate must refuse, each with one fault, and one that it must let through."""

from gdkernels.cuda.runtime.intrinsics import load4, store4
from gdkernels.cuda.runtime.jit import kernel
from gdkernels.cuda.runtime.pointer import real, shared
from gdkernels.cuda.runtime.target import cuda, types

EVERY = ("float32", "float64", "bfloat16")
MANY = 40


@kernel("F*, F*, i8", variants=EVERY)
def careful(source, target, fours):
    """target = source / 2, four elements a thread."""
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if place < fours:
        half = real(source, 0.5)
        x0, x1, x2, x3 = load4(source, 4 * place)
        store4(target, 4 * place, (half * x0, half * x1, half * x2, half * x3))


@kernel("F*, F*, i8", variants=EVERY)
def four_single_accesses(source, target, fours):
    """As `careful`, with an access for each element."""
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if place < fours:
        for i in range(4):
            target[4 * place + i] = real(source, 0.5) * source[4 * place + i]


@kernel("F*, F*, i8", variants=EVERY)
def accidental_float64(source, target, count):
    """0.5 is a float64."""
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if place < count:
        target[place] = source[place] * 0.3


@kernel("F*, F*, i8", variants=EVERY)
def dynamic_local_array(source, target, count):
    """Registers have no addresses: an array with a computed index lies in memory."""
    kept = cuda.local.array(16, types.float32)
    for i in range(16):
        kept[i] = source[i]
    for i in range(count):
        kept[(kept.size - 1) & i] += source[i]
    target[cuda.threadIdx.x] = kept[cuda.threadIdx.x & 15]


@kernel("F*, F*, i8", threads=1024, blocks=2, variants=EVERY)
def too_few_registers(source, target, count):
    """A thread uses 40 sums at a time and has 32 registers, so that two blocks of 1024 fit on a processor."""
    sums = cuda.local.array(MANY, types.float32)
    for j in range(MANY):
        sums[j] = source[j]
    for i in range(count):
        for j in range(MANY):
            sums[j] = sums[j] * source[i] + sums[(j + 1) % MANY]
    for j in range(MANY):
        target[j] = sums[j]


@kernel("F*, F*, i8", variants=EVERY)
def division_of_indices(source, target, count):
    """There is no instruction for a division of 64-bit integers."""
    place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    target[place] = source[place // count]


@kernel("F*, F*, i8", variants=EVERY)
def summed_in_shared_memory(source, target, count):
    """1024 bytes of shared memory for float32."""
    sums = shared(source, 256)
    sums[cuda.threadIdx.x] = source[cuda.threadIdx.x]
    cuda.syncthreads()
    target[cuda.threadIdx.x] = sums[255 - cuda.threadIdx.x]


@kernel("F*, F*, i8", variants=EVERY)
def dot_product(source, target, count):
    """Two loads for each multiplication."""
    total = real(source, 0)
    for i in range(count):
        total += source[i] * target[i]
    target[0] = total
