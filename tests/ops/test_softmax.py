"""gd.softmax and gd.log_softmax against the reference and PyTorch, over narrow rows, wide rows and their border."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu.runtime import stream, team
from gdkernels.cpu.softmax import CHUNK_COLUMNS, MOST_ROWS, NARROW_COLUMNS
from gdkernels.ops.softmax import log_softmax, softmax
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

OPS = (softmax, log_softmax)
# Both sides of what is transposed, of a block of rows and of a chunk of a row.
SHAPES = (
    (1, 1),
    (3, 10),
    (MOST_ROWS + 1, NARROW_COLUMNS),
    (MOST_ROWS, NARROW_COLUMNS + 1),
    (5, 1000),
    (2, CHUNK_COLUMNS + 1),
)


def bound_of(op, x):
    return getattr(bounds, op.__name__)(x)


def assert_close(op, result, x):
    assert result.dtype == x.dtype
    assert_within(result, getattr(reference, op.__name__)(x), bound_of(op, x), op.__name__)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_the_reference(shape, dtype, op, rng):
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    assert_close(op, op(x), x)


@pytest.mark.parametrize("n", [10, 1000, CHUNK_COLUMNS + 5])
def test_large_results_have_the_same_bits_and_leave_their_surroundings_alone(n, dtype, rng):
    few = (5 * rng.standard_normal((97, n))).astype(dtype)
    rows = stream.LARGE // (n * few.itemsize) + 1
    x, expected = np.resize(few, (rows, n)), np.resize(softmax(few), (rows, n))
    before = team.get_threads()
    team.set_threads(1)
    try:
        for shift in (0, 3):
            memory = np.full(x.size + 32, 7, dtype)
            softmax(x, memory[shift : shift + x.size].reshape(rows, n))
            assert memory[shift : shift + x.size].tobytes() == expected.tobytes()
            assert (memory[:shift] == 7).all() and (memory[shift + x.size :] == 7).all()
    finally:
        team.set_threads(before)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("batch", [15, 16, 32])
def test_narrow_rows_leave_what_is_behind_the_last_one_alone(batch, n, dtype, rng):
    """A row's last columns are written together with the beginning of the next row."""
    x = rng.standard_normal((batch, n)).astype(dtype)
    memory = np.full(x.size + 16, 7, dtype)
    softmax(x, memory[: x.size].reshape(batch, n))
    assert_close(softmax, memory[: x.size].reshape(batch, n), x)
    assert (memory[x.size :] == 7).all()


@given(
    batch=st.integers(0, 2 * MOST_ROWS + 3),
    n=st.integers(1, NARROW_COLUMNS + 20),
    dtype=st.sampled_from(DTYPES),
    op=st.sampled_from(OPS),
    seed=st.integers(0, 99),
)
def test_any_shape(batch, n, dtype, op, seed):
    x = (20 * np.random.default_rng(seed).standard_normal((batch, n))).astype(dtype)
    assert_close(op, op(x), x)


def test_the_textbook_formula_would_be_caught(rng):
    """exp(x) / Σ exp(x) without the maximum subtracted breaks down where exp overflows; its logarithm before that."""
    x = (30 * rng.standard_normal((5, 10))).astype("f4")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        wrong = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        with pytest.raises(AssertionError):
            assert_close(log_softmax, np.log(wrong), x)
        x[0, 0] = 100
        wrong = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    with pytest.raises(AssertionError):
        assert_close(softmax, wrong, x)
    assert_close(softmax, softmax(x), x)


@pytest.mark.parametrize("n", [10, NARROW_COLUMNS + 3])
def test_they_equal_pytorch(n, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x = (5 * rng.standard_normal((7, n))).astype(dtype)
    for op in OPS:
        theirs = getattr(torch, op.__name__)(torch.tensor(x), dim=1).numpy()
        assert_within(op(x), theirs, bound_of(op, x).through(lambda e: 2 * e))  # both may be off


@pytest.mark.parametrize("n", [10, NARROW_COLUMNS + 3])
def test_extremes_are_what_ieee_says(n, dtype, rng):
    x = rng.standard_normal((9, n)).astype(dtype)
    x[0] = [1e4, -1e4] + [0] * (n - 2)
    x[1] = 1e4
    x[2, 3] = np.nan
    x[3, 3] = np.inf
    x[4, [2, 3]] = np.inf
    x[5, 3] = -np.inf
    x[6] = -np.inf
    x[7, 0] = np.nan
    x[8] = np.finfo(dtype).max
    for op in OPS:
        assert_close(op, op(x), x)
    np.testing.assert_array_equal(softmax(x)[0, :2], [1, 0])


@pytest.mark.parametrize("n", [10, NARROW_COLUMNS + 3])
def test_the_maximum_may_stand_anywhere(n, dtype):
    one_hot = np.eye(n, dtype=dtype)
    np.testing.assert_array_equal(softmax(10_000 * one_hot), one_hot)
    np.testing.assert_array_equal(log_softmax(10_000 * one_hot), 10_000 * (one_hot - 1))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("n", [10, NARROW_COLUMNS + 3])
def test_a_row_does_not_depend_on_where_it_stands(n, dtype, op, rng):
    x = rng.standard_normal((2 * MOST_ROWS + 5, n)).astype(dtype)
    whole = op(x)
    for row in range(len(x)):
        np.testing.assert_array_equal(op(x[row : row + 1]), whole[row : row + 1])


@pytest.mark.parametrize("op", OPS)
def test_the_last_axis_is_taken_whatever_the_dimensions(op, rng):
    x = rng.standard_normal((4, 3, 11)).astype("f4")
    expected = op(x.reshape(12, 11)).reshape(x.shape)
    np.testing.assert_array_equal(op(x), expected)
    np.testing.assert_array_equal(op(x[1, 2]), expected[1, 2])
    for empty in ((0, 5), (5, 0), (0,)):
        assert op(np.zeros(empty, "f4")).shape == empty


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_no_input_changed(layout, dtype, op, rng):
    x = rng.standard_normal((7, 19)).astype(dtype)
    expected = op(x)
    given_x = laid_out(x, layout)
    before = given_x.tobytes()
    np.testing.assert_array_equal(op(given_x), expected)
    assert given_x.tobytes() == before


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("n", [19, NARROW_COLUMNS + 3, CHUNK_COLUMNS + 1])
def test_out_receives_the_result_and_may_be_x(n, op, rng):
    x = rng.standard_normal((7, n)).astype("f4")
    expected = op(x)
    for layout in ("C", "Fortran", "strided", "negative", "misaligned"):
        out = laid_out(np.zeros_like(x), layout)
        assert op(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
        in_place = laid_out(x, layout)
        assert op(in_place, out=in_place) is in_place
        np.testing.assert_array_equal(in_place, expected)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(8009, 10), (131, 1003)])  # above the work that is worth sharing
def test_the_same_bits_for_any_number_of_threads(shape, op, rng):
    x = rng.standard_normal(shape).astype("f4")
    before, results = team.get_threads(), []
    try:
        for threads in (1, 2):
            team.set_threads(threads)
            results.append(op(x).tobytes())
    finally:
        team.set_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("op", OPS)
def test_what_cannot_be_done_is_refused_before_anything_is_written(op, rng):
    name = op.__name__
    x = rng.standard_normal((7, 5)).astype("f4")
    before = x.copy()
    with pytest.raises(TypeError, match=f"{name}: x has dtype int64, expected float32 or float64"):
        op(np.zeros((2, 2), np.int64))
    with pytest.raises(TypeError, match=f"{name}: x is of type float, expected a NumPy or CUDA array"):
        op(1.0)
    with pytest.raises(ValueError, match=rf"{name}: x has shape \(\), expected at least 1 dimension"):
        op(np.array(1.0))
    with pytest.raises(ValueError, match=rf"{name}: out has shape \(5, 7\), expected \(7, 5\) because"):
        op(x, out=np.zeros((5, 7), "f4"))
    with pytest.raises(TypeError, match=f"{name}: out has dtype float64, expected float32"):
        op(x, out=np.zeros((7, 5)))
    with pytest.raises(ValueError, match=f"{name}: out partly overlaps an input"):
        op(x[1:], out=x[:-1])
    with pytest.raises(ValueError, match=f"{name}: out is read-only"):
        op(x, out=laid_out(x, "read-only"))
    np.testing.assert_array_equal(x, before)
