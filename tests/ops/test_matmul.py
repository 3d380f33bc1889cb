"""gd.matmul against the reference: every form, layout and dtype, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu.runtime import team
from gdkernels.ops.matmul import matmul
from reference import bounds
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within


def assert_product(result, a, b, *summands):
    exact = reference.matmul(a, b) + sum(summand.astype("f8") for summand in summands)
    assert_within(result, exact, bounds.matmul(a, b, *summands))


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 5, 7), (129, 65, 33), (33, 17, 1000), (64, 1, 64), (9, 4, 31), (300, 70, 1100)]
)
def test_matmul_matches_the_reference_in_every_form(dtype, trans_a, trans_b, shape, rng):
    m, n, k = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    given_a = np.ascontiguousarray(a.T) if trans_a else a
    given_b = np.ascontiguousarray(b.T) if trans_b else b
    result = matmul(given_a, given_b, trans_a, trans_b)
    assert result.dtype == dtype
    assert_product(result, a, b)


def test_packed_blocks_keep_to_their_places(dtype, rng):
    """Both operands are packed, in blocks of the largest size, which a part of each is left over from."""
    m, n, k = 1100, 200, 1024
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
    assert_product(matmul(a, b, trans_b=True), a, b.T)


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("shape", [(100, 131, 530), (300, 1061, 70), (97, 96, 1045), (40, 640, 33)])
def test_panels_packed_along_with_tiles_keep_to_their_places(dtype, trans_a, trans_b, shape, rng):
    """The next panel of B is asked for, and packed where there are many rows, while the tiles of this one are computed."""
    test_matmul_matches_the_reference_in_every_form(dtype, trans_a, trans_b, shape, rng)


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("n", [5, 8, 10, 11, 20, 24])
@pytest.mark.parametrize(("m", "k"), [(45, 300), (600, 130), (13, 31)])
def test_narrow_products_match_the_reference_in_every_form(dtype, trans_a, trans_b, n, m, k, rng):
    """Few columns: dot products along long rows of A, or Cᵀ = Bᵀ Aᵀ in strips, which are packed where rows are far apart."""
    test_matmul_matches_the_reference_in_every_form(dtype, trans_a, trans_b, (m, n, k), rng)


def test_a_product_without_columns_reads_nothing():
    assert matmul(np.ones((4, 32768)), np.ones((32768, 0))).shape == (4, 0)


@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_matmul_reads_every_layout_and_leaves_it_unchanged(layout_a, layout_b, dtype, rng):
    a = laid_out(rng.standard_normal((37, 19)), layout_a, dtype)
    b = laid_out(rng.standard_normal((19, 45)), layout_b, dtype)
    before = a.tobytes(), b.tobytes()
    assert_product(matmul(a, b), a, b)
    assert (a.tobytes(), b.tobytes()) == before


@given(
    m=st.integers(0, 70),
    n=st.integers(0, 70),
    k=st.integers(0, 70),
    form=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_matmul_matches_the_reference_for_any_shape(m, n, k, form, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    given_a = np.asfortranarray(a) if form & 1 else a
    given_b = np.asfortranarray(b) if form & 2 else b
    assert_product(matmul(given_a, given_b), a, b)


@pytest.mark.parametrize("layout_a", ["C", "Fortran"])
@pytest.mark.parametrize("n", [3, 10, 23, 40])
def test_matmul_accumulates_into_out(dtype, n, layout_a, rng):
    a = laid_out(rng.standard_normal((21, 600)), layout_a, dtype)
    b = rng.standard_normal((600, n)).astype(dtype)
    start = rng.standard_normal((21, n)).astype(dtype)
    out = start.copy()
    assert matmul(a, b, out=out, accumulate=True) is out
    assert_product(out, a, b, start)
    strided = laid_out(start, "strided")
    assert matmul(a, b, out=strided, accumulate=True) is strided
    np.testing.assert_array_equal(strided, out)


@pytest.mark.parametrize("n", [10, 17, 290])
@pytest.mark.parametrize("form", ["NN", "NT", "TN"])
def test_matmul_gives_the_same_bits_for_any_number_of_threads(form, n, rng):
    a, b = rng.standard_normal((1517, 333)).astype("f4"), rng.standard_normal((333, n)).astype("f4")
    a = np.asfortranarray(a) if form[0] == "T" else a
    b = np.asfortranarray(b) if form[1] == "T" else b
    before = team.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            team.set_threads(threads)
            results.append(matmul(a, b))
    finally:
        team.set_threads(before)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("layout_a", ["C", "Fortran"])
@pytest.mark.parametrize("n", [3, 10, 40])
def test_matmul_passes_nan_and_inf_through(n, layout_a):
    a, b = np.ones((9, 300), np.float32), np.ones((300, n), np.float32)
    a[2, 3], a[4, 5] = np.nan, np.inf
    result = matmul(laid_out(a, layout_a), b)
    assert np.isnan(result[2]).all() and np.isinf(result[4]).all()
    assert np.isfinite(np.delete(result, (2, 4), axis=0)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (lambda a, b: (a, b[:-1]), ValueError, r"b has shape \(4, 6\), expected \(5, n\) because a has shape \(3, 5\)"),
        (lambda a, b: (a, b.astype("f8")), TypeError, "matmul: b has dtype float64, expected float32 because a has float32"),
        (lambda a, b: (a.astype("f2"), b), TypeError, "matmul: a has dtype float16, expected float32 or float64"),
        (lambda a, b: (a.tolist(), b), TypeError, "matmul: a is of type list, expected a NumPy or CUDA array"),
        (lambda a, b: (a[0], b), ValueError, r"matmul: a has shape \(5,\), expected 2 dimensions"),
        (lambda a, b: (a, b, False, False, np.zeros((3, 5), "f4")), ValueError, r"shape \(3, 5\), expected \(3, 6\)"),
        (lambda a, b: (a, b, False, False, np.zeros((3, 6), "f8")), TypeError, "out has dtype float64, expected float32"),
        (lambda a, b: (a, b, False, False, laid_out(np.zeros((3, 6), "f4"), "read-only")), ValueError, "out is read-only"),
        (lambda a, b: (a, b, False, False, None, True), ValueError, "accumulate is set but out is not given"),
    ],
)  # fmt: skip
def test_matmul_says_what_is_wrong(arguments, error, words, rng):
    a, b = rng.standard_normal((3, 5)).astype("f4"), rng.standard_normal((5, 6)).astype("f4")
    with pytest.raises(error, match=words):
        matmul(*arguments(a, b))


def test_matmul_refuses_an_out_that_overlaps_an_operand(rng):
    square = rng.standard_normal((8, 8)).astype("f4")
    kept = square.copy()
    with pytest.raises(ValueError, match="matmul: out overlaps another argument"):
        matmul(square, kept, out=square.T)
    np.testing.assert_array_equal(square, kept)


def test_a_wrong_product_would_be_caught(rng):
    """The bound is tight enough to see one missing product of 600."""
    a, b = rng.standard_normal((8, 600)).astype("f4"), rng.standard_normal((600, 40)).astype("f4")
    with pytest.raises(AssertionError, match="bounds"):
        assert_product(matmul(a[:, :-1], b[:-1]), a, b)
