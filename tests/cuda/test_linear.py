"""The dense layer on CUDA arrays: gd.linear and gd.linear_backward, held against the reference in float64."""

import numpy as np
import pytest

import gdkernels as gd
import reference
from reference import bounds
from reference.rounding import GPU, column_sums
from tests.within import assert_within

CASES = (  # dtype, batch, n_in, n_out
    ("float32", 1, 1, 1),
    ("float32", 33, 20, 17),
    ("float32", 16, 8, 12),
    ("float64", 33, 20, 17),
)


def assert_near(result, exact, bound):
    assert_within(gd.cuda.to_numpy(result), exact, bound)


@pytest.mark.parametrize(("dtype", "batch", "n_in", "n_out"), CASES)
def test_linear_and_its_gradients(device, rng, dtype, batch, n_in, n_out):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((batch, n_in), (n_in, n_out), (n_out,)))
    on_device = [device.put(array).owner for array in (x, w, b)]
    z = device.empty((batch, n_out), dtype)
    a = gd.linear(*on_device, "tanh", z=z.owner)
    wide = [array.astype("f8") for array in (x, w, b)]
    exact, exact_z = reference.linear(*wide, "tanh")
    of_a, of_z = bounds.linear(x, w, b, "tanh", GPU)
    assert_near(z.owner, exact_z, of_z)
    assert_near(a, exact, of_a)

    da = rng.standard_normal((batch, n_out)).astype(dtype)
    saved = gd.cuda.to_numpy(a)
    dx, dw, db = gd.linear_backward(device.put(da).owner, on_device[0], on_device[1], a, "tanh")
    truths = reference.linear_backward(da, x, w, saved, "tanh")
    allowed = bounds.linear_backward(da, x, w, saved, "tanh", GPU)
    for result, truth, bound in zip((dx, dw, db), truths, allowed, strict=True):
        assert_near(result, truth, bound)


def test_a_transposed_weight_and_strided_rows_are_read_where_they_are(device, rng):
    x, w = rng.standard_normal((12, 10)).astype("f4"), rng.standard_normal((7, 10)).astype("f4")
    array, weight = device.put(x), device.put(w)
    out = gd.linear(array.owner[2:, :], weight.T, None, "relu")
    exact = np.maximum(x[2:].astype("f8") @ w.T, 0)
    assert_near(out, exact, bounds.matmul(x[2:], w.T))


def test_without_bias_or_saved_preactivation(device, rng):
    x, w = rng.standard_normal((5, 6)).astype("f4"), rng.standard_normal((6, 4)).astype("f4")
    out = gd.linear(device.put(x).owner, device.put(w).owner)
    assert_near(out, x.astype("f8") @ w, bounds.matmul(x, w))


@pytest.mark.parametrize("batch", [0, 3])
def test_empty_batches_and_widths(device, batch):
    x, w = np.ones((batch, 0), "f4"), np.ones((0, 4), "f4")
    b = np.arange(4, dtype="f4")
    out = gd.linear(device.put(x).owner, device.put(w).owner, device.put(b).owner)
    np.testing.assert_array_equal(gd.cuda.to_numpy(out), np.broadcast_to(b, (batch, 4)))


def test_gradients_are_accumulated(device, rng):
    x, w, da = (rng.standard_normal(shape).astype("f4") for shape in ((9, 5), (5, 3), (9, 3)))
    dw, db = rng.standard_normal((5, 3)).astype("f4"), rng.standard_normal(3).astype("f4")
    into = device.put(dw), device.put(db)
    places = [device.put(array).owner for array in (da, x, w)]
    gd.linear_backward(*places, None, dw=into[0].owner, db=into[1].owner, need_dx=False, accumulate=True)
    wide = x.astype("f8"), da.astype("f8")
    assert_near(into[0].owner, dw + wide[0].T @ wide[1], bounds.matmul(x.T, da, dw))
    assert_near(into[1].owner, db + wide[1].sum(axis=0), column_sums(np.vstack([db, da]), 0.0))
