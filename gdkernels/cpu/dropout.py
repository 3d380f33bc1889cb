"""Dropout: the mask is computed from the position of an element, never stored.

Element number c, counted over everything that a seed is used for, takes word c mod 4 of the Philox block c // 4. Rows
and threads therefore may begin anywhere; what they need of a block is computed again.
"""

import numpy as np

from ..plan import Dropout
from ..scalar.philox import WORD, WORD_BITS, philox4x32
from .binding import Binding
from .cost import NS
from .runtime.jit import Op, kernel, native
from .runtime.layout import Double, Floats, Int, Ints
from .runtime.memory import QUANTUM
from .runtime.simd import int32_at, noalias, offset
from .runtime.team import run

PIECE_ELEMENTS = 4096  # for which words are made at once: words, x and out stay in the first cache
LAST_BLOCK = np.uint64(2**62 - 1)  # counters are modulo 2^64, blocks of four modulo 2^62
NO_SAMPLES = np.zeros(1, np.int64)


@native("i8, i8, i8, i4*")
def random_words(seed, first, blocks, words):
    """The words (uint32) of `blocks` blocks from block number `first` on."""
    noalias()
    key_lo, key_hi = np.uint64(seed) & WORD, np.uint64(seed) >> WORD_BITS
    for i in range(blocks):
        block = np.uint64(first + i) & LAST_BLOCK
        word_0, word_1, word_2, word_3 = philox4x32(block & WORD, block >> WORD_BITS, key_lo, key_hi)
        words[4 * i] = np.int32(word_0)
        words[4 * i + 1] = np.int32(word_1)
        words[4 * i + 2] = np.int32(word_2)
        words[4 * i + 3] = np.int32(word_3)


@native("F*, F*, i4*, i8, i8, F")
def keep(x, out, words, count, threshold, scale):
    """out = scale · x where word ≥ threshold (below 2^32), else 0; out may be x."""
    noalias()
    lowest, zero = np.uint32(threshold), type(scale)(0)
    for i in range(count):
        kept = x[i] * scale
        out[i] = kept if np.uint32(words[i]) >= lowest else zero


@kernel
def elements(
    x: Floats, out: Floats, n: Int, p: Double, seed: Int, samples: Ints, begin: Int, start, stop, scratch
):
    """Elements [start, stop) of out = x / (1 − p) with probability 1 − p, else 0; also the backward pass, of dy.

    Element i has number begin + samples[0] · n + i.
    """
    x, out, count = offset(x, start), offset(out, start), stop - start
    words = int32_at(scratch)
    number = begin + samples[0] * n + start
    threshold = np.int64(p * 2.0**32)
    if p == 1.0:
        for i in range(count):
            out[i] = type(out[i])(0)
        return
    scale = type(x[0])(1.0 / (1.0 - p))
    for done in range(0, count, PIECE_ELEMENTS):
        length = min(PIECE_ELEMENTS, count - done)
        block = np.int64(np.uint64(number + done) >> np.uint64(2))
        skip = (number + done) & 3
        random_words(seed, block, (skip + length + 3) // 4, words)
        keep(offset(x, done), offset(out, done), offset(words, skip), length, threshold, scale)


def forward_op(x, p: float, seed: int, begin: int, out, samples=NO_SAMPLES, n: int = 1) -> Op:
    """out = dropout(x), for C-contiguous arrays of any one shape; out may be x.

    x[0] has number begin + samples[0] n: `samples` is an int64 that may change from run to run.
    """
    return elements.op(
        x.dtype, x.size, quantum=QUANTUM, work=NS["dropout"] * x.size,
        x=x, out=out, n=n, p=p, seed=seed, samples=samples, begin=begin,
    )  # fmt: skip


def forward(x, p: float, seed: int, begin: int, out) -> None:
    """out = dropout(x), where `begin` is the number of x[0]; see `forward_op`."""
    run(forward_op(x, p, seed, begin, out))


def bind(call: Dropout, at: Binding) -> Op:
    """The op of a call of a plan: element j of sample i of all that were seen has number i n + j."""
    x = at(call.x)
    return at.by_rows(forward_op(x, call.p, call.seed, 0, at(call.out), at.samples, x.shape[1]))
