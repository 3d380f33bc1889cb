"""Dropout on the device: the mask and the bits are the CPU's, for any place, address, size and storage."""

import math

import numpy as np
import pytest

import reference
from gdkernels.cpu import dropout as cpu_dropout

COUNTS = (1, 3, 4, 5, 1000, 4097)


def dropped(device, x, p, seed, begin, storage=None):
    """Dropout of a copy on the device, as NumPy array."""
    from gdkernels.cuda import dropout

    source = device.put(x, storage)
    out = device.empty(x.shape, source.dtype)
    dropout.forward(source, p, seed, begin, out)
    return out.to_numpy()


def dropped_on_cpu(x, p, seed, begin):
    out = np.empty_like(x)
    cpu_dropout.forward(x, p, seed, begin, out)
    return out


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16", "float16"])
def test_the_mask_is_that_of_the_reference(device, storage, rng):
    """Elements that storage holds exactly, times 2: exact in every storage."""
    x = rng.integers(1, 100, 1003).astype("f4" if storage == "bfloat16" else storage)
    for begin in (0, 6):
        keep = reference.dropout_mask(x.shape, 0.5, 5, begin)
        found = dropped(device, x, 0.5, 5, begin, storage)
        np.testing.assert_array_equal(found, np.where(keep, 2 * x, 0))


@pytest.mark.parametrize("count", COUNTS)
def test_bits_are_those_of_the_cpu(device, dtype, count, rng):
    x = rng.standard_normal(count).astype(dtype)
    for p in (0.0, 0.1, 0.5, 0.999, 1.0):
        for seed, begin in ((0, 0), (5, 1), (-3, 2), (2**63 - 1, 3), (7, 2**40 + 2), (11, -3)):
            expected = dropped_on_cpu(x, p, seed, begin)
            assert dropped(device, x, p, seed, begin).tobytes() == expected.tobytes(), (p, seed, begin)


def test_numbers_wrap_at_two_to_the_64(device):
    x = np.ones(66, np.float32)
    for begin in (-30, -29, 2**63 - 30, 2**62 - 31, 4 * 2**32 - 28):
        expected = dropped_on_cpu(x, 0.5, 3, begin)
        np.testing.assert_array_equal(dropped(device, x, 0.5, 3, begin), expected)
        assert ((expected != 0) == reference.dropout_mask((66,), 0.5, 3, begin)).all()


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_misaligned_slices_in_place(device, dtype, first, rng):
    from gdkernels.cuda import dropout
    from gdkernels.cuda.runtime import driver

    x = rng.standard_normal(103).astype(dtype)
    whole = device.put(x)
    place = whole.address + first * whole.itemsize
    for one in dropout.launches(
        dtype, x=place, out=place, count=90, n=90, p=0.4, seed=9, begin=100, samples=0
    ):
        one.run(whole.stream)
    driver.synchronize(whole.stream)
    expected = x.copy()
    expected[first : first + 90] = dropped_on_cpu(x[first : first + 90].copy(), 0.4, 9, 100)
    assert whole.to_numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(("n", "samples"), [(5, 3), (8, 7), (5, 2**61 + 5)])
def test_rows_of_a_batch_continue_the_count_of_samples(device, n, samples, rng):
    """Element (r, j) of a step after `samples` rows is number begin + samples · n + r · n + j, modulo 2^64."""
    from gdkernels.cuda import dropout

    x = rng.standard_normal((6, n)).astype("f4")
    source, counter = device.put(x), device.put(np.array([samples]))
    launches = dropout.launches(
        "float32", x=source.address, out=source.address, count=x.size, n=n, p=0.5, seed=77, begin=2,
        samples=counter.address,
    )  # fmt: skip
    for one in launches:
        one.run(source.stream)
    begin = (2 + samples * n + 2**63) % 2**64 - 2**63
    np.testing.assert_array_equal(source.to_numpy(), dropped_on_cpu(x, 0.5, 77, begin))


def test_a_dropped_nan_or_infinity_is_zero_and_a_kept_one_stays(device, dtype):
    x = np.tile(np.array([math.nan, math.inf, -math.inf, 1e4, -1e4], dtype), 21)
    for p in (0.5, 1.0):
        keep = reference.dropout_mask(x.shape, p, 1)
        np.testing.assert_array_equal(dropped(device, x, p, 1, 0), np.where(keep, 2 * x, 0))
    np.testing.assert_array_equal(dropped(device, x, 0.0, 1, 0), x)


def test_nothing_of_an_empty_array_is_launched(device):
    from gdkernels.cuda import dropout

    assert dropout.launches("float32", x=0, out=0, count=0, n=7, p=0.5, seed=1, begin=0, samples=0) == []
    assert dropped(device, np.zeros((0, 3), "f4"), 0.5, 1, 0).shape == (0, 3)
