"""The dense layer on CUDA arrays: gd.linear and gd.linear_backward, held against the reference in float64."""

import numpy as np
import pytest

import gdkernels as gd
import reference

CASES = (  # dtype, batch, n_in, n_out
    ("float32", 1, 1, 1),
    ("float32", 33, 20, 17),
    ("float32", 16, 8, 12),
    ("float64", 33, 20, 17),
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def assert_near(result, exact, roundings, size):
    """Each of the roundings errs by eps/2 of the size of what is summed."""
    result = gd.cuda.to_numpy(result)
    assert (np.abs(result - exact) <= 0.5 * roundings * np.finfo(result.dtype).eps * size).all()


@pytest.mark.parametrize(("dtype", "batch", "n_in", "n_out"), CASES)
def test_linear_and_its_gradients(device, rng, dtype, batch, n_in, n_out):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((batch, n_in), (n_in, n_out), (n_out,)))
    on_device = [device.put(array).owner for array in (x, w, b)]
    z = device.empty((batch, n_out), dtype)
    a = gd.linear(*on_device, "tanh", z=z.owner)
    wide = [array.astype("f8") for array in (x, w, b)]
    exact, exact_z = reference.linear(*wide, "tanh")
    # The slope of tanh is at most 1, so that it passes on the error of z; its own is at most 6 eps.
    error = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(b)
    assert_near(z.owner, exact_z, n_in + 2, error)
    assert_near(a, exact, n_in + 2 + 12, error + 1)

    da = rng.standard_normal((batch, n_out)).astype(dtype)
    saved = gd.cuda.to_numpy(a)
    dx, dw, db = gd.linear_backward(device.put(da).owner, on_device[0], on_device[1], a, "tanh")
    exact_dx, exact_dw, exact_db = reference.linear_backward(
        *(array.astype("f8") for array in (da, x, w, saved)), "tanh"
    )
    slopes = np.abs(da.astype("f8")) * (1 + saved.astype("f8") ** 2)  # (1 − a)(1 + a) da: 3 roundings
    assert_near(dx, exact_dx, n_out + 7, slopes @ np.abs(wide[1]).T)
    assert_near(dw, exact_dw, batch + 7, np.abs(wide[0]).T @ slopes)
    assert_near(db, exact_db, batch + 7, slopes.sum(axis=0))


def test_a_transposed_weight_and_strided_rows_are_read_where_they_are(device, rng):
    x, w = rng.standard_normal((12, 10)).astype("f4"), rng.standard_normal((7, 10)).astype("f4")
    array, weight = device.put(x), device.put(w)
    out = gd.linear(array.owner[2:, :], weight.T, None, "relu")
    exact = np.maximum(x[2:].astype("f8") @ w.T, 0)
    assert_near(out, exact, 10, np.abs(x[2:]).astype("f8") @ np.abs(w.T))


def test_without_bias_or_saved_preactivation(device, rng):
    x, w = rng.standard_normal((5, 6)).astype("f4"), rng.standard_normal((6, 4)).astype("f4")
    out = gd.linear(device.put(x).owner, device.put(w).owner)
    assert_near(out, x.astype("f8") @ w, 6, np.abs(x).astype("f8") @ np.abs(w))


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
    assert_near(into[0].owner, dw + wide[0].T @ wide[1], 10, np.abs(dw) + np.abs(wide[0]).T @ np.abs(wide[1]))
    assert_near(into[1].owner, db + wide[1].sum(axis=0), 10, np.abs(db) + np.abs(wide[1]).sum(axis=0))
