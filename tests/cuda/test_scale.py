"""The scale of columns on the device, against the reference: forward, dx, the gradient of its parameter."""

import numpy as np
import pytest

import reference
from reference import bounds
from reference.rounding import GPU
from tests.cuda.mutation import mutant
from tests.cuda.test_norm import STORAGES, Case, assert_each

# One number; narrow rows; several turns of a warp and of a block; more strips than warps. By fours: 1000, 12; else by one.
SHAPES = ((1, 1), (5, 3), (33, 10), (3, 1000), (2, 5001), (300, 12))


def scaled(case):
    """[y, dx, dgamma]"""
    from gdkernels.cuda import norm

    (batch, n), x = case.shape, case._x
    y, dx, dgamma = case.new(batch, n), case.new(batch, n), case.new(n)
    norm.scale(x, case._gamma, y)
    norm.scale_backward(case._dy, x, case._gamma, dx, dgamma)
    return [array.to_numpy() for array in (y, dx, dgamma)]


def assert_scale(case):
    results, given = scaled(case), (case.dy, case.x, case.gamma)
    truths = reference.scale(*given[1:]), *reference.scale_backward(*given)
    allowed = bounds.scale(*given[1:], on=GPU), *bounds.scale_backward(*given, on=GPU)
    assert_each(case, ("y", "dx", "dgamma"), results, truths, allowed)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_matches_the_reference(device, shape, storage, rng):
    assert_scale(Case(device, rng, storage, *shape, with_residual=False))


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", STORAGES)
def test_every_kernel_with_few_rows(device, storage, rng):
    """By fours and one by one, in parts of a warp and in whole blocks."""
    for shape in ((35, 8), (3, 5), (2, 1028), (2, 1025)):
        assert_scale(Case(device, rng, storage, *shape, with_residual=False))


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [1, 2])
def test_misaligned_rows(device, first, storage, rng):
    assert_scale(Case(device, rng, storage, 5, 64, with_residual=False, first=first))


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_batch_gives_empty_rows_and_a_gradient_of_zero(device, storage, rng):
    y, dx, dgamma = scaled(Case(device, rng, storage, 0, 12, with_residual=False))
    assert y.shape == dx.shape == (0, 12)
    np.testing.assert_array_equal(dgamma, np.zeros(12))


@pytest.mark.parametrize("n", [20, 19])
def test_results_may_take_the_place_of_inputs(device, n, rng):
    from gdkernels.cuda import norm

    case = Case(device, rng, "float32", 7, n, with_residual=False)
    y, *back = scaled(case)
    x, dy = device.put(case.x.astype("f4")), device.put(case.dy.astype("f4"))
    norm.scale(x, case._gamma, x)
    np.testing.assert_array_equal(x.to_numpy(), y)
    for which in (0, 1):
        x, dy = device.put(case.x.astype("f4")), device.put(case.dy.astype("f4"))
        dx, dgamma = (x, dy)[which], case.new(n)
        norm.scale_backward(dy, x, case._gamma, dx, dgamma)
        for result, truth in zip((dx, dgamma), back, strict=True):
            np.testing.assert_array_equal(result.to_numpy(), truth)


@pytest.mark.parametrize("n", [12, 13])
@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        ("scale_rows", "while j < length:", "while j < length - size:"),
        ("scale_strips", "blockIdx.x * height + warp, last, WARPS)", "blockIdx.x * height + warp, last - 1, WARPS)"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_caught(device, kernel, old, new, n, rng, monkeypatch):
    from gdkernels.cuda import norm

    case = Case(device, rng, "float32", 40, n, with_residual=False)
    assert_scale(case)
    monkeypatch.setattr(norm, kernel, getattr(mutant(norm, old, new), kernel))
    with pytest.raises(AssertionError):
        assert_scale(case)
