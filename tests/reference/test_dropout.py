"""Dropout: the generator against its published vectors, the mask against its definition."""

import numpy as np
import pytest

import reference as ref

# Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, result.
ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    block = ref.philox4x32(counter[0], counter[1], *key, counter[2], counter[3])
    assert block.dtype == np.uint32
    assert tuple(block.tolist()) == answer


def test_philox_of_arrays_is_philox_of_each_element():
    counters = np.array([[0, 1, 2], [3, 4, ONES]])
    blocks = ref.philox4x32(counters, 7, 11, 13)
    assert blocks.shape == (2, 3, 4)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(blocks[i], ref.philox4x32(int(counters[i]), 7, 11, 13))


@pytest.mark.parametrize("offset", [0, 3, 2**34 - 2, 2**64 - 5])
@pytest.mark.parametrize("seed", [0, 5, 2**32 + 9, 2**64 - 1])
def test_a_word_depends_on_seed_and_counter_alone(seed, offset):
    """Across the place where c // 4 needs a second word (2^34), and where c wraps (2^64)."""
    words = ref.uniform_words(seed, offset, 9)
    for i, word in enumerate(words):
        c = (offset + i) % 2**64
        block = ref.philox4x32(c // 4 % 2**32, c // 4 // 2**32, seed % 2**32, seed // 2**32)
        assert word == block[c % 4]


def test_seeds_and_offsets_count_modulo_2_to_the_64():
    np.testing.assert_array_equal(ref.uniform_words(-1, -4, 6), ref.uniform_words(2**64 - 1, 2**64 - 4, 6))


def test_words_are_uniform():
    n = 100_000
    u = ref.uniform_words(1, 0, n) / 2.0**32
    # standard error of the mean is √(1/12n); of each of 16 bins (count ~ n/16) about √(n/16). Five of either.
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / (12 * n))
    counts = np.histogram(u, bins=16, range=(0, 1))[0]
    assert np.abs(counts - n / 16).max() < 5 * np.sqrt(n / 16)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_a_fraction_p_and_keeps_the_mean(p):
    n = 100_000
    y = ref.dropout(np.ones(n), p, seed=3)
    five_sigma = 5 * np.sqrt(p * (1 - p) / n)
    assert abs((y == 0).mean() - p) < five_sigma
    assert abs(y.mean() - 1) < five_sigma / (1 - p)
    np.testing.assert_array_equal(y[y != 0], 1 / (1 - p))


def test_the_threshold_is_p_times_2_to_the_32_rounded_down():
    words = ref.uniform_words(8, 0, 64).astype(np.uint64)
    at = int(words[10])
    # word < floor(p 2^32) drops: p = at / 2^32 keeps the word itself, the next multiple of 2^-32 drops it
    assert ref.dropout_mask((64,), at / 2**32, 8)[10]
    assert ref.dropout_mask((64,), (at + 0.5) / 2**32, 8)[10]
    assert not ref.dropout_mask((64,), (at + 1) / 2**32, 8)[10]
    for p in (0.3, 0.7):
        np.testing.assert_array_equal(ref.dropout_mask((64,), p, 8), words >= int(p * 2**32))


def test_nothing_is_dropped_at_0_and_everything_at_1(rng):
    x = rng.standard_normal((50, 40))
    np.testing.assert_array_equal(ref.dropout(x, 0.0, 1), x)
    x[0, 0], x[0, 1] = np.nan, np.inf
    np.testing.assert_array_equal(ref.dropout(x, 1.0, 1), np.zeros_like(x))


def test_the_mask_follows_the_flat_index_not_shape_or_layout_or_dtype():
    x = np.ones((6, 5))
    whole = ref.dropout(x, 0.5, seed=9)
    np.testing.assert_array_equal(ref.dropout(x.ravel(), 0.5, seed=9), whole.ravel())
    np.testing.assert_array_equal(ref.dropout(np.asfortranarray(x), 0.5, seed=9), whole)
    np.testing.assert_array_equal(ref.dropout(x.astype(np.float16), 0.5, seed=9), whole)
    np.testing.assert_array_equal(ref.dropout(x[2:], 0.5, seed=9, offset=10), whole[2:])
    assert (ref.dropout(x, 0.5, seed=10) != whole).any()


def test_dropout_backward_matches_finite_differences(rng, assert_gradient):
    x, dy = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    dx = ref.dropout_backward(dy, 0.4, 7, offset=3)
    assert 0 < np.count_nonzero(dx) < 20
    assert_gradient(lambda x: (dy * ref.dropout(x, 0.4, 7, offset=3)).sum(), x, dx)


def test_nan_passes_through_where_it_is_kept():
    kept = ref.dropout_mask((100,), 0.5, 2)
    np.testing.assert_array_equal(np.isnan(ref.dropout(np.full(100, np.nan), 0.5, 2)), kept)


def test_dropout_of_nothing_is_nothing():
    assert ref.dropout(np.zeros((0, 4)), 0.5, 1).shape == (0, 4)


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
def test_a_p_that_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"dropout: p is .*, expected a probability in \[0, 1\]"):
        ref.dropout(np.ones(3), p, 1)
