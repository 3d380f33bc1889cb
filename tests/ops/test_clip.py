"""The global norm and clipping by it, against the reference and PyTorch; and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdkernels as gd
import reference
from gdkernels.cpu import clip
from gdkernels.cpu.cost import work
from gdkernels.cpu.runtime import team
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

EPS64 = float(np.finfo(np.float64).eps)


def arrays_of(rng, dtype, *shapes):
    return [np.array(rng.standard_normal(shape), dtype) for shape in shapes]


def assert_norm(found, arrays):
    """Squares are added in float64 for every dtype."""
    assert_within(found, reference.global_norm(*arrays), bounds.global_norm(*arrays), dtype="float64")


def assert_scaled(found, before, max_norm, dtype):
    _, expected = reference.clip_by_global_norm(max_norm, *before)
    allowed = bounds.clip_by_global_norm(max_norm, *before, of_norm=0.5)
    for one, exact, bound in zip(found, expected, allowed, strict=True):
        assert_within(one, exact, bound, dtype=dtype)


def test_norm_and_clipping_match_the_reference(dtype, rng):
    arrays = arrays_of(
        rng, dtype, (3, 5), (clip.BLOCK_ELEMENTS,), (2 * clip.BLOCK_ELEMENTS + 17,), (), (0, 4), (100, 129)
    )
    before = [array.copy() for array in arrays]
    norm = gd.global_norm(*arrays)
    assert type(norm) is float
    assert_norm(norm, before)
    assert gd.clip_by_global_norm(1.5, *arrays) == norm
    assert_scaled(arrays, before, 1.5, dtype)


@given(
    shapes=st.lists(st.lists(st.integers(0, 90), max_size=2).map(tuple), max_size=4),
    max_norm=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_clipping_matches_the_reference_for_any_shapes(shapes, max_norm, dtype, seed):
    arrays = arrays_of(np.random.default_rng(seed), dtype, *shapes)
    before = [array.copy() for array in arrays]
    assert_norm(gd.clip_by_global_norm(max_norm, *arrays), before)
    assert_scaled(arrays, before, max_norm, dtype)


@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0])
@pytest.mark.parametrize("spoiled_by", [None, math.inf, -math.inf, math.nan])
def test_clipping_is_that_of_pytorch_also_where_the_norm_is_not_finite(spoiled_by, max_norm, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    arrays = arrays_of(rng, "float64", (4, 3), (7,))
    if spoiled_by is not None:
        arrays[1][2] = spoiled_by
    theirs = [torch.nn.Parameter(torch.zeros(array.shape, dtype=torch.float64)) for array in arrays]
    for parameter, array in zip(theirs, arrays, strict=True):
        parameter.grad = torch.tensor(array)
    norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert gd.clip_by_global_norm(max_norm, *arrays) == pytest.approx(
        float(norm), rel=20 * EPS64, nan_ok=True
    )
    for parameter, array in zip(theirs, arrays, strict=True):
        np.testing.assert_allclose(array, parameter.grad.numpy(), rtol=20 * EPS64, atol=0)


def test_no_arrays_have_the_norm_0():
    assert gd.global_norm() == gd.clip_by_global_norm(1.0) == 0.0


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e4, 1e38])
def test_no_square_of_a_float32_overflows_or_vanishes(size):
    g = np.full(100, size, np.float32)
    assert gd.global_norm(g) == pytest.approx(10 * float(g[0]), rel=100 * EPS64, abs=0)


def test_a_short_gradient_is_not_touched(rng):
    (g,) = arrays_of(rng, "float32", (50,))
    kept = g.copy()
    gd.clip_by_global_norm(1.01 * gd.global_norm(g) + 1e-5, g)
    gd.clip_by_global_norm(math.inf, g)
    np.testing.assert_array_equal(g, kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_measured_and_clipped(layout, dtype, rng):
    (values,) = arrays_of(rng, dtype, (13, 21))
    g = laid_out(values, layout)
    before = g.tobytes()
    assert_norm(gd.global_norm(g), [values])
    assert g.tobytes() == before
    if layout != "read-only":
        before = values.copy()
        gd.clip_by_global_norm(0.1, g)
        gd.clip_by_global_norm(0.1, values)
        np.testing.assert_array_equal(g, values)
        assert_scaled([g], [before], 0.1, dtype)


def test_the_bits_do_not_depend_on_the_number_of_threads(rng):
    (g,) = arrays_of(rng, "float32", (1_600_007,))
    assert min(work("squares", g), work("clip", g)) > 2 * team.WORTH_SHARING, "too small to be shared"
    before, results = gd.get_threads(), []
    try:
        for threads in (1, 2, 3):
            gd.set_threads(threads)
            mine = g.copy()
            results.append((gd.clip_by_global_norm(2.5, mine), mine.tobytes()))
    finally:
        gd.set_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: gd.clip_by_global_norm(-1.0, a), ValueError, "max_norm is -1.0, expected a number ≥ 0"),
        (lambda a: gd.clip_by_global_norm(math.nan, a), ValueError, "max_norm is nan, expected a number ≥ 0"),
        (lambda a: gd.clip_by_global_norm("1", a), TypeError, "max_norm is '1', expected a number ≥ 0"),
        (lambda a: gd.clip_by_global_norm(1.0, a, a), ValueError, r"arrays\[1\] overlaps arrays\[0\], expected memory of"),
        (lambda a: gd.clip_by_global_norm(1.0, a[5:], a + 1, a[:6]), ValueError, r"arrays\[2\] overlaps arrays\[0\]"),
        (lambda a: gd.clip_by_global_norm(1.0, a[::-2], a[::3]), ValueError, r"arrays\[1\] overlaps arrays\[0\]"),
        (lambda a: gd.clip_by_global_norm(1.0, a, laid_out(a, "read-only")), ValueError, r"arrays\[1\] is read-only"),
        (lambda a: gd.clip_by_global_norm(1.0, a, a.astype("f4")), TypeError, r"arrays\[1\] has dtype float32"),
        (lambda a: gd.global_norm(a, a.astype("f4")), TypeError, r"arrays\[1\] has dtype float32, expected float64"),
        (lambda a: gd.global_norm(a.astype("i8")), TypeError, r"arrays\[0\] has dtype int64, expected float32 or float64"),
        (lambda a: gd.global_norm([1.0]), TypeError, r"arrays\[0\] is of type float, expected a NumPy or CUDA array"),
        (lambda a: gd.global_norm([1.0], a), TypeError, r"arrays\[0\] is of type list, expected a NumPy or CUDA array"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named_and_nothing_is_written(call, error, words):
    array = np.arange(10.0)
    with pytest.raises(error, match=words):
        call(array)
    np.testing.assert_array_equal(array, np.arange(10.0))


def test_views_between_each_other_do_not_overlap(rng):
    """Even and odd elements of one array share none, though their addresses interleave."""
    (g,) = arrays_of(rng, "float64", (40,))
    whole = g.copy()
    norm = gd.clip_by_global_norm(1.0, g[::2], g[1::2])
    assert_norm(norm, [whole])
    assert_scaled([g], [whole], 1.0, "float64")


@pytest.mark.parametrize("lost", [0, clip.BLOCK_ELEMENTS, 3 * clip.BLOCK_ELEMENTS + 4])
def test_one_lost_element_would_be_caught(lost, rng):
    (g,) = arrays_of(rng, "float32", (3 * clip.BLOCK_ELEMENTS + 5,))
    with pytest.raises(AssertionError):
        assert_norm(gd.global_norm(np.delete(g, lost)), [g])
