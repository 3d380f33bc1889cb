"""Random words by a counter, and dropout: element number c of a seed takes word c mod 4 of the Philox block c // 4."""

import numpy as np

from ...scalar.philox import WORD, WORD_BITS, philox4x32
from ..runtime.target import device


@device
def philox_words(seed, number):
    """The four words (uint64 below 2^32) of the block that the element with this number belongs to."""
    counter = np.uint64(number)
    block, key = counter >> np.uint64(2), np.uint64(seed)
    return philox4x32(block & WORD, block >> WORD_BITS, key & WORD, key >> WORD_BITS)


@device
def philox_word(seed, number):
    """The word (uint64 below 2^32) of the element with this number."""
    counter = np.uint64(number)
    w0, w1, w2, w3 = philox_words(seed, counter)
    low, high = (w1, w3) if counter & np.uint64(1) != 0 else (w0, w2)
    return high if counter & np.uint64(2) != 0 else low


@device
def is_kept(p, seed, number):
    """Whether dropout with probability p keeps the element with this number: the mask of ``gd.dropout(x, p, seed)``."""
    return philox_word(seed, number) >= np.uint64(p * 4294967296.0)
