"""Softmax and its logarithm on the device, against the reference."""

import numpy as np
import pytest

import reference
from reference import bounds
from reference.rounding import GPU
from tests.cuda.mutation import mutant
from tests.within import assert_within

OPS = ("softmax", "log_softmax")
# One number; narrow rows side by side in a warp; several turns of a warp; a block a row; longer than what registers hold.
# By fours, of float32: 64, 1000, 5000. One by one: the others, and all of float64.
SHAPES = ((1, 1), (5, 3), (33, 10), (3, 127), (9, 64), (3, 1000), (2, 5000), (2, 5001), (1, 8196))


def on_device(device, op, x, first=0, in_place=False):
    """The operation on a copy that begins `first` elements behind an aligned address."""
    from gdkernels.cuda import softmax
    from gdkernels.cuda.runtime.arrays import Array

    flat = device.put(np.concatenate([np.full(first, np.nan, x.dtype), x.ravel()]))
    source = Array(flat.shadow[first:].reshape(x.shape), flat.dtype, flat.library, flat.owner)
    out = source if in_place else device.empty(x.shape, x.dtype)
    getattr(softmax, op)(source, out)
    if not in_place:
        np.testing.assert_array_equal(source.to_numpy(), x)
    return out.to_numpy()


def assert_close(op, result, x):
    assert result.dtype == x.dtype
    assert_within(result, getattr(reference, op)(x), getattr(bounds, op)(x, GPU), op)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_the_reference(device, shape, dtype, op, rng):
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    result = on_device(device, op, x)
    assert_close(op, result, x)
    np.testing.assert_array_equal(on_device(device, op, x, in_place=True), result)


@pytest.mark.every_kernel
@pytest.mark.parametrize("op", OPS)
def test_every_kernel_with_few_rows(device, dtype, op, rng):
    """By fours and one by one, in parts of a warp and in whole blocks."""
    for shape in ((9, 8), (3, 5), (2, 1028), (2, 1025)):
        x = (5 * rng.standard_normal(shape)).astype(dtype)
        assert_close(op, on_device(device, op, x), x)


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("op", OPS)
def test_misaligned_rows(device, op, first, rng):
    for shape in ((5, 64), (2, 1028)):
        x = (5 * rng.standard_normal(shape)).astype("f4")
        assert_close(op, on_device(device, op, x, first), x)


@pytest.mark.parametrize("n", [12, 13, 1028, 1029])
def test_extremes_are_what_ieee_says(device, n, dtype, rng):
    """In the first and the last place of a row, of which different threads take care."""
    x = rng.standard_normal((14, n)).astype(dtype)
    x[0, [0, 1]] = 1e4, -1e4
    x[1] = 1e4
    x[2, 3] = np.nan
    x[3, 3] = np.inf
    x[4, [2, 3]] = np.inf
    x[5, 3] = -np.inf
    x[6] = -np.inf
    x[7, 0] = np.nan
    x[8] = np.finfo(dtype).max
    x[9, :-1] = -np.inf  # all but one: before the first finite number there is no peak
    x[10, 1:] = -np.inf
    x[11, [0, -1]] = np.inf
    x[12, [0, -1]] = np.nan, np.inf
    x[13, 0], x[13, 1:] = np.inf, -np.inf
    for op in OPS:
        result = on_device(device, op, x)
        assert_close(op, result, x)
        if op == "softmax":
            np.testing.assert_array_equal(result[0, :2], [1, 0])


@pytest.mark.parametrize("n", [12, 45])
def test_the_maximum_may_stand_anywhere(device, n, dtype):
    one_hot = np.eye(n, dtype=dtype)
    np.testing.assert_array_equal(on_device(device, "softmax", 10_000 * one_hot), one_hot)
    np.testing.assert_array_equal(on_device(device, "log_softmax", 10_000 * one_hot), 10_000 * (one_hot - 1))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("n", [12, 13, 1028])
def test_the_same_bits_wherever_a_row_stands(device, n, op, rng):
    x = rng.standard_normal((37, n)).astype("f4")
    whole = on_device(device, op, x)
    assert on_device(device, op, x).tobytes() == whole.tobytes()
    for row in (0, 17, 36):
        np.testing.assert_array_equal(on_device(device, op, x[row : row + 1]), whole[row : row + 1])


@pytest.mark.parametrize("op", OPS)
def test_the_last_axis_is_taken_whatever_the_dimensions(device, op, rng):
    x = rng.standard_normal((4, 3, 11)).astype("f4")
    expected = on_device(device, op, x.reshape(12, 11)).reshape(x.shape)
    np.testing.assert_array_equal(on_device(device, op, x), expected)
    np.testing.assert_array_equal(on_device(device, op, x[1, 2]), expected[1, 2])
    for empty in ((0, 5), (5, 0), (0,)):
        assert on_device(device, op, np.zeros(empty, "f4")).shape == empty


@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        pytest.param("softmax4", "c * step) if c < mine else", "c * step) if c < mine - 1 else", id="tail"),
        pytest.param("softmax1", "scaled(total, peak, common), shift", "total, shift", id="peaks of threads"),
        pytest.param(
            "softmax1", "return z, total * exp(peak - z) + one", "return z, total + one", id="online"
        ),
    ],
)
def test_a_wrong_kernel_is_caught(device, kernel, old, new, rng, monkeypatch):
    from gdkernels.cuda import softmax

    x = (5 * rng.standard_normal((2, 40 if kernel == "softmax4" else 41))).astype("f4")
    assert_close("softmax", on_device(device, "softmax", x), x)
    monkeypatch.setattr(softmax, kernel, getattr(mutant(softmax, old, new), kernel))
    with pytest.raises(AssertionError):
        assert_close("softmax", on_device(device, "softmax", x), x)
