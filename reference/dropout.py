"""Dropout whose mask is a function, not a memory.

During training each element is set to zero with probability p and otherwise scaled by 1 / (1 - p), so
that its expected value stays what it was and prediction needs no correction (Srivastava et al. 2014,
"inverted" form). The backward pass needs the same mask again. A generator with a state would have to
store it; a *counter-based* generator computes the n-th random word from n itself, so that any thread, in
any order, on any device, finds the same mask:

    c      = (offset + flat index) mod 2^64, flat index in C order
    block  = philox4x32(counter = (low 32, high 32 bits of c // 4, 0, 0), key = (low 32, high 32 of seed))
    word   = block[c mod 4]
    keep   = word >= floor(p 2^32)

Nothing else enters: neither the dtype nor the shape nor the memory layout.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .precision import Array, f64, ieee

__all__ = ["dropout", "dropout_backward", "dropout_mask", "philox4x32", "uniform_words"]

Words = NDArray[np.uint32]

# Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 4.3 and
# Random123.
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))  # golden ratio, √3 - 1: fractions of 2^32
ROUNDS = 10

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(
    counter_lo: ArrayLike,
    counter_hi: ArrayLike,
    key_lo: ArrayLike,
    key_hi: ArrayLike,
    counter_2: ArrayLike = 0,
    counter_3: ArrayLike = 0,
) -> Words:
    """Four random words from a 128-bit counter and a 64-bit key, by ten rounds of Philox4x32.

    One round multiplies two of the words by constants to 64 bits. The low half of a product is a
    bijection of the word (the constant is odd), the high half is well mixed; the high half is XORed onto
    another word and the key, the low half passed on in exchange. Each round is hence invertible, so
    different counters give different blocks, and ten rounds make them pass every known test of
    randomness. The key grows by a constant (modulo 2^32) between rounds.

    Parameters
    ----------
    counter_lo, counter_hi, counter_2, counter_3 : arrays of integers < 2^32
        words 0 to 3 of the counter, which are broadcast
    key_lo, key_hi : arrays of integers < 2^32
        words 0 and 1 of the key, likewise

    Returns
    -------
    uint32 array of the broadcast shape with a last axis of length 4 added
    """
    # 64-bit variables that hold 32-bit values: a product of two never overflows
    words = np.broadcast_arrays(counter_lo, counter_hi, counter_2, counter_3, key_lo, key_hi)
    x0, x1, x2, x3, k0, k1 = (w.astype(np.uint64) for w in words)
    for _ in range(ROUNDS):
        product0, product1 = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1 = (product1 >> HALF) ^ x1 ^ k0, product1 & LOW
        x2, x3 = (product0 >> HALF) ^ x3 ^ k1, product0 & LOW
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW, (k1 + KEY_STEPS[1]) & LOW
    block: Words = np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)
    return block


def uniform_words(seed: int, offset: int, n: int) -> Words:
    """The n words that belong to the counters offset, offset + 1, …; seed and offset count modulo 2^64."""
    seed, offset = seed % 2**64, offset % 2**64
    c = np.uint64(offset) + np.arange(n, dtype=np.uint64)  # wraps
    block, word = c // np.uint64(4), c % np.uint64(4)
    words: Words = philox4x32(block & LOW, block >> HALF, seed % 2**32, seed // 2**32)[np.arange(n), word]
    return words


def dropout_mask(shape: tuple[int, ...], p: float, seed: int, offset: int = 0) -> NDArray[np.bool_]:
    """True where an element is kept. A word is below floor(p 2^32) with probability p, to within 2^-32.

    p = 0 keeps everything (no word is below 0), p = 1 nothing (every word is below 2^32). ValueError for
    other p outside [0, 1], and for NaN.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p is {p}, expected a probability in [0, 1]")
    threshold = np.uint64(math.floor(p * 2.0**32))
    return (uniform_words(seed, offset, math.prod(shape)) >= threshold).reshape(shape)


@ieee
def dropout(x: ArrayLike, p: float, seed: int, offset: int = 0) -> Array:
    """y = x / (1 - p) where kept, else 0; also for a dropped NaN or infinity.

    E[y] = (1 - p) x / (1 - p) + p 0 = x.
    """
    x = f64(x)
    keep = dropout_mask(x.shape, p, seed, offset)
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return np.where(keep, np.where(keep, x, 0.0) * scale, 0.0)


def dropout_backward(dy: ArrayLike, p: float, seed: int, offset: int = 0) -> Array:
    """dx = dy / (1 - p) where kept, else 0: y is x times a constant, so dx is dy times the same constant."""
    return dropout(dy, p, seed, offset)
