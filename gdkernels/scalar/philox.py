"""Philox4x32-10: four random words from a counter, without a state.

J. Salmon, M. Moraes, R. Dror, D. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011, section 4.3. The words are
held in uint64, where the product of two of them fits.
"""

import numpy as np

from . import elementwise

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEP_0, KEY_STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, WORD_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10


@elementwise
def philox4x32(counter_lo, counter_hi, key_lo, key_hi):
    """The block of four words (uint64 below 2^32) for the counter (counter_lo, counter_hi, 0, 0), all words uint64."""
    x0, x1, x2, x3 = counter_lo, counter_hi, np.uint64(0), np.uint64(0)
    for _ in range(ROUNDS):
        product_0, product_1 = x0 * MULTIPLIER_0, x2 * MULTIPLIER_1
        x0, x1 = (product_1 >> WORD_BITS) ^ x1 ^ key_lo, product_1 & WORD
        x2, x3 = (product_0 >> WORD_BITS) ^ x3 ^ key_hi, product_0 & WORD
        key_lo, key_hi = (key_lo + KEY_STEP_0) & WORD, (key_hi + KEY_STEP_1) & WORD
    return x0, x1, x2, x3
