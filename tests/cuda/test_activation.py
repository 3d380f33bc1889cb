"""Activations on the GPU: over all floats against the reference, with the errors that the CPU's are held to."""

import numpy as np
import pytest

import gdkernels as gd
import reference
from gdkernels.ops.activation import KINDS, saved_for
from reference import bounds
from reference.rounding import GPU, column_sums
from tests.ops import test_activation as on_cpu
from tests.within import assert_within


def sample(dtype: str) -> np.ndarray:
    """Every fourth of the CPU's sample: floats of every exponent, many of middling size, and the extremes."""
    return np.concatenate([on_cpu.sample(dtype)[::4], np.array(on_cpu.EXTREMES, dtype)])


@pytest.mark.every_kernel
def test_every_kind_on_a_few_elements(device, dtype):
    """Fours and what they leave over, forward, backward and with the sums of columns."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for shape in ((5, 7), (3, 8)):
            z, da = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
            a = gd.cuda.to_numpy(gd.activation(device.put(z).owner, kind))
            on_cpu.assert_forward(z, a, kind, GPU)
            saved = a if saved_for(kind) == "output" else z
            there, kept = device.put(da).owner, device.put(saved).owner
            db = device.empty(shape[1:], dtype)
            for sums in (None, db.owner):
                dz = gd.cuda.to_numpy(gd.activation_backward(there, kept, kind, db=sums))
                on_cpu.assert_backward(da, saved, dz, kind, GPU)
            bound = 8 * np.finfo(dtype).eps * np.abs(dz).sum(axis=0)  # of five terms, added in another order
            assert (np.abs(db.to_numpy() - dz.sum(axis=0)) <= bound).all()


@pytest.mark.parametrize("kind", KINDS)
def test_all_floats_within_the_derived_error(device, kind, dtype):
    z = sample(dtype)
    place = device.put(z)
    a = gd.activation(place.owner, kind)
    values = gd.cuda.to_numpy(a)
    on_cpu.assert_forward(z, values, kind, GPU)
    da = np.random.default_rng(1).standard_normal(z.shape).astype(dtype)
    saved = values if saved_for(kind) == "output" else z
    dz = gd.activation_backward(device.put(da).owner, device.put(saved).owner, kind)
    on_cpu.assert_backward(da, saved, gd.cuda.to_numpy(dz), kind, GPU)


@pytest.mark.every_kernel
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (130, 132), (65, 128), (9, 33)])
def test_the_bias_gradient_is_summed_in_the_same_pass(device, dtype, shape):
    rng = np.random.default_rng(2)
    da, a = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    db = device.empty(shape[1:], dtype)
    dz = gd.activation_backward(device.put(da).owner, device.put(a).owner, "tanh", db=db.owner)
    exact = reference.activation_backward(da.astype("f8"), a.astype("f8"), "tanh")
    of_dz = bounds.activation_backward(da, a, "tanh", GPU)
    assert_within(gd.cuda.to_numpy(dz), exact, of_dz)
    # A column is a sum of at most 64 / 8 + 8 + rows / 64 terms after one another.
    of_db = of_dz.through(lambda e: e.sum(axis=0)) + column_sums(exact, 0.0, 16 + shape[0] / 64)
    assert_within(db.to_numpy(), exact.sum(axis=0), of_db)


@pytest.mark.parametrize("n", [8, 7])
@pytest.mark.parametrize("accumulate", [False, True])
def test_many_rows_are_cut_into_few_strips(device, n, accumulate, monkeypatch):
    """Three strips of 72 rows; one strip of few rows writes the sums at once, unless they are to be added."""
    from gdkernels.cuda import activation, rows

    monkeypatch.setattr(rows, "STRIPS", 3)
    for count, strips in ((200, (3, 72)), (40, (1, 64))):
        assert rows.strips_of(count, activation.STRIP) == strips
        da = np.random.default_rng(5).standard_normal((count, n)).astype("f4")
        place, db = device.put(da), device.put(np.full(n, 7, "f4"))
        activation.backward(place, None, "identity", place, db, accumulate)
        exact = da.astype("f8").sum(axis=0) + 7 * accumulate
        # at most 9 + 8 + 8 terms after one another, and what was there
        bound = 26 * np.finfo("f4").eps * (np.abs(da).sum(axis=0) + 7)
        assert (np.abs(db.to_numpy() - exact) <= bound).all()


def test_an_empty_batch_has_no_gradient(device):
    db = device.put(np.full(7, np.nan, "f4"))
    dz = gd.activation_backward(
        device.empty((0, 7), "f4").owner, device.empty((0, 7), "f4").owner, "relu", db=db.owner
    )
    assert dz.shape == (0, 7)
    assert (db.to_numpy() == 0).all()


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["relu", "gelu", "sigmoid"])
def test_halves_are_computed_in_float32_and_rounded_once(device, kind, storage):
    z = device.put(np.linspace(-6, 6, 1003), storage)
    a = gd.activation(z.owner, kind)
    exact = reference.activation(z.to_numpy().astype("f8"), kind)
    half_ulp = 2.0**-8 if storage == "bfloat16" else 2.0**-11
    values = gd.cuda.to_numpy(a).astype("f8")
    # half a unit in the last place of the storage, and float32's errors; the smallest float16 is 2^-24
    assert (np.abs(values - exact) <= half_ulp * np.abs(exact) * 1.01 + 2.0**-25).all()


def test_misaligned_and_strided_arrays(device):
    z = np.random.default_rng(3).standard_normal((12, 10)).astype("f4")
    array = device.put(z)
    whole = array.owner
    for part, values in ((whole[1:, :], z[1:]), (whole[:, 1:7], z[:, 1:7]), (array.T, z.T), (whole[3], z[3])):
        result = gd.cuda.to_numpy(gd.activation(part, "tanh"))
        on_cpu.assert_forward(np.ascontiguousarray(values), result, "tanh", GPU)
    out = device.put(np.zeros((12, 20), "f4")).owner[:, ::2]
    assert gd.activation(whole, "relu", out=out) is out
    np.testing.assert_array_equal(gd.cuda.to_numpy(out), np.maximum(z, 0))
    flat = whole.reshape(120)
    np.testing.assert_array_equal(
        gd.cuda.to_numpy(gd.activation(flat[1:], "relu")), np.maximum(z.ravel()[1:], 0)
    )


def test_in_place_and_twice_the_same_bits(device):
    z = np.random.default_rng(4).standard_normal((33, 17)).astype("f4")
    one, two = device.put(z).owner, device.put(z).owner
    assert gd.activation(one, "gelu", out=one) is one
    np.testing.assert_array_equal(gd.cuda.to_numpy(one), gd.cuda.to_numpy(gd.activation(two, "gelu")))
