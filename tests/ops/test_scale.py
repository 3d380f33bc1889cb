"""gd.scale and its backward pass against the reference, finite differences and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu.cost import work
from gdkernels.cpu.runtime import team
from gdkernels.ops.norm import scale, scale_backward
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

SHAPES = [(1, 1), (5, 3), (33, 17), (64, 257), (300, 16)]


def numbers(rng, dtype, batch, n):
    """x, dy (batch, n) and gamma (n,)."""
    x, dy = rng.standard_normal((2, batch, n))
    return [values.astype(dtype) for values in (x, dy, rng.standard_normal(n))]


def assert_scale(x, dy, gamma):
    """Forward and backward keep to their bounds."""
    y = scale(x, gamma)
    assert y.dtype == x.dtype
    assert_within(y, reference.scale(x, gamma), bounds.scale(x, gamma), "y")
    given_here = dy, x, gamma
    every = zip(
        scale_backward(*given_here),
        reference.scale_backward(*given_here),
        bounds.scale_backward(*given_here),
        strict=True,
    )
    for name, (result, exact, bound) in zip(("dx", "dgamma"), every, strict=True):
        assert result.dtype == x.dtype
        assert_within(result, exact, bound, name)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_and_its_backward_match_the_reference(shape, dtype, rng):
    assert_scale(*numbers(rng, dtype, *shape))


@given(batch=st.integers(0, 40), n=st.integers(1, 70), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_any_shape(batch, n, dtype, seed):
    assert_scale(*numbers(np.random.default_rng(seed), dtype, batch, n))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout, dtype, rng):
    x, dy, gamma = numbers(rng, dtype, 7, 19)
    strided = [laid_out(values, layout) for values in (x, dy, gamma)]
    np.testing.assert_array_equal(scale(strided[0], strided[2]), scale(x, gamma))
    for result, truth in zip(
        scale_backward(strided[1], strided[0], strided[2]), scale_backward(dy, x, gamma), strict=True
    ):
        np.testing.assert_array_equal(result, truth)


def test_equals_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x, dy, gamma = numbers(rng, "float64", 6, 9)
    leaves = [torch.tensor(values, requires_grad=True) for values in (x, gamma)]
    out = leaves[0] * leaves[1]
    out.backward(torch.tensor(dy))
    np.testing.assert_array_equal(scale(x, gamma), out.detach().numpy())
    # Sums of 6 products below 10, in any order, in either of the two.
    for result, leaf in zip(scale_backward(dy, x, gamma), leaves, strict=True):
        np.testing.assert_allclose(result, leaf.grad.numpy(), rtol=0, atol=2 * 6 * 10 * np.finfo("f8").eps)


def test_results_go_where_they_are_wanted_also_in_place(dtype, rng):
    x, dy, gamma = numbers(rng, dtype, 7, 19)
    y, (dx, dgamma) = scale(x, gamma), scale_backward(dy, x, gamma)
    place = x.copy()
    assert scale(place, gamma, out=place) is place
    np.testing.assert_array_equal(place, y)
    for which in (0, 1):
        places, into = (dy.copy(), x.copy()), np.full(19, 7, dtype)
        results = scale_backward(*places, gamma, dx=places[which], dgamma=into)
        assert results[0] is places[which] and results[1] is into
        np.testing.assert_array_equal(results[0], dx)
        np.testing.assert_array_equal(results[1], dgamma)


def test_the_same_bits_for_any_number_of_threads(rng):
    x, dy, gamma = numbers(rng, "float32", 3001, 1003)
    assert work("norm", x) > team.WORTH_SHARING
    before, found = team.get_threads(), []
    try:
        for threads in (1, 2, 3):
            team.set_threads(threads)
            found.append([scale(x, gamma), *scale_backward(dy, x, gamma)])
    finally:
        team.set_threads(before)
    for other in found[1:]:
        for result, truth in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(result, truth)


def test_what_is_not_finite_stays_in_its_place(dtype, rng):
    """0 · ∞ is NaN, as everywhere; an infinite gradient meets its column alone."""
    x, dy, gamma = numbers(rng, dtype, 4, 20)
    x[1, 7], dy[2, 3], gamma[9] = np.inf, np.nan, 0.0
    x[0, 9] = -np.inf
    np.testing.assert_array_equal(np.isnan(scale(x, gamma)), np.isnan(reference.scale(x, gamma)))
    for result, exact in zip(
        scale_backward(dy, x, gamma), reference.scale_backward(dy, x, gamma), strict=True
    ):
        np.testing.assert_array_equal(np.isnan(result), np.isnan(exact))


def test_an_empty_batch_gives_empty_rows_and_a_gradient_of_zero(dtype):
    x, gamma = np.zeros((0, 4), dtype), np.ones(4, dtype)
    assert scale(x, gamma).shape == (0, 4)
    dx, dgamma = scale_backward(x, x, gamma, dgamma=np.full(4, 7, dtype))
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal(dgamma, np.zeros(4))


def test_what_cannot_be_done_is_refused_before_anything_is_written(rng):
    x, dy, gamma = numbers(rng, "float32", 8, 6)
    out = np.full((8, 6), 7, "f4")
    with pytest.raises(
        ValueError, match=r"scale: gamma has shape \(1, 6\), expected \(6,\) because it has one"
    ):
        scale(x, gamma[None], out=out)
    with pytest.raises(TypeError, match="scale: gamma has dtype float64, expected float32"):
        scale(x, gamma.astype("f8"), out=out)
    with pytest.raises(ValueError, match=r"scale: x has shape \(6,\), expected 2 dimensions"):
        scale(gamma, gamma)
    with pytest.raises(ValueError, match="scale: out overlaps another argument"):
        square = np.zeros((1, 6), "f4")
        scale(x[:1], square[0], out=square)
    with pytest.raises(ValueError, match="scale: out partly overlaps an input"):
        scale(out[1:], gamma, out=out[:-1])
    with pytest.raises(ValueError, match=r"scale_backward: dy has shape \(4, 6\), expected \(8, 6\)"):
        scale_backward(dy[:4], x, gamma, dx=out)
    with pytest.raises(ValueError, match="scale_backward: dgamma overlaps another argument"):
        scale_backward(dy, x, gamma, dx=out, dgamma=gamma)
    assert (out == 7).all()
