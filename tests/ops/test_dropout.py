"""gd.dropout against the reference: the mask, the values, and that nothing but seed and place decides it."""

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu import dropout as cpu_dropout
from gdkernels.cpu.runtime import team
from gdkernels.cpu.runtime.jit import Kernel, Native
from gdkernels.ops.dropout import dropout, dropout_backward
from gdkernels.scalar.philox import philox4x32
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

PIECE = cpu_dropout.PIECE_ELEMENTS


def assert_dropout(x, y, p, seed, offset=0) -> None:
    """The mask exactly, and kept values to their roundings."""
    assert y.dtype == x.dtype
    keep = reference.dropout_mask(x.shape, p, seed, offset)
    assert not y[~keep].any()
    assert_within(y, reference.dropout(x, p, seed, offset), bounds.dropout(x, p, seed, offset))
    assert y[keep & (x != 0)].all()


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 0.999, 1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (3, PIECE + 5)])
def test_dropout_is_that_of_the_reference(shape, p, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for seed, offset in ((0, 0), (5, 1), (2**63 + 3, 2), (-1, 3), (7, 2**40 + 2), (2**70 + 11, -3)):
        assert_dropout(x, dropout(x, p, seed, offset), p, seed, offset)


def test_counters_wrap_at_two_to_the_64():
    x = np.ones(64, np.float32)
    for offset in (2**64 - 30, 2**63 - 30, 2**62 - 30, 4 * 2**32 - 30):
        assert_dropout(x, dropout(x, 0.5, 3, offset), 0.5, 3, offset)


@given(
    shape=st.lists(st.integers(0, 12), min_size=1, max_size=3).map(tuple),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    p=st.floats(0, 1),
    seed=st.integers(-(2**63), 2**64),
    offset=st.integers(0, 2**64),
)
def test_dropout_of_any_shape_layout_and_place(shape, layout, dtype, p, seed, offset):
    x = np.linspace(-2, 3, int(np.prod(shape)), dtype=dtype).reshape(shape)
    source = laid_out(x, layout)
    before = source.tobytes()
    assert_dropout(x, dropout(source, p, seed, offset), p, seed, offset)
    assert source.tobytes() == before


def test_parts_of_an_array_are_the_array_of_parts():
    """Rows may begin at any counter: every cut, every remainder of the blocks of four."""
    x = np.random.default_rng(1).standard_normal(200).astype("f4")
    whole = dropout(x, 0.4, 9, 100)
    for cut in range(0, 200, 7):
        parts = dropout(x[:cut], 0.4, 9, 100), dropout(x[cut:], 0.4, 9, 100 + cut)
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_rows_of_a_batch_continue_the_count_of_samples():
    """The kernel of a plan: element (r, j) of a step after `samples` rows is number samples · n + r · n + j."""
    x = np.random.default_rng(2).standard_normal((6, 5)).astype("f4")
    out, samples = np.empty_like(x), np.array([3])
    team.run(cpu_dropout.forward_op(x, 0.5, 77, 2, out, samples, 5))
    assert_dropout(x, out, 0.5, 77, 2 + 3 * 5)


def test_the_mask_is_the_same_for_every_dtype():
    x = np.ones((50, 50))
    assert (dropout(x, 0.3, 4) == 0).tobytes() == (dropout(x.astype("f4"), 0.3, 4) == 0).tobytes()


def test_same_bits_for_any_number_of_threads(dtype):
    x = np.random.default_rng(3).standard_normal((300, 701)).astype(dtype)  # 147 microseconds by the estimate
    before, seen = team.get_threads(), set()
    try:
        for threads in (1, 2, 3):
            team.set_threads(threads)
            seen.add(dropout(x, 0.25, 12, 1).tobytes())
    finally:
        team.set_threads(before)
    assert len(seen) == 1


def test_a_dropped_nan_or_infinity_is_zero_and_a_kept_one_stays(dtype):
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 1e4, -1e4], dtype), 20)
    for p in (0.5, 1.0):
        y, keep = dropout(x, p, 1), reference.dropout_mask(x.shape, p, 1)
        np.testing.assert_array_equal(y, np.where(keep, 2 * x, 0))
    np.testing.assert_array_equal(dropout(x, 0.0, 1), x)


def test_the_share_of_kept_elements_is_one_minus_p():
    n = 200_000
    for p in (0.02, 0.5, 0.9):
        kept = np.count_nonzero(dropout(np.ones(n, "f4"), p, 5))
        assert abs(kept - n * (1 - p)) < 5 * np.sqrt(n * p * (1 - p))  # five standard deviations


def test_backward_is_the_transpose_of_forward():
    """⟨dropout(x), dy⟩ = ⟨x, dropout_backward(dy)⟩, exactly, for integers and p = 1/2."""
    rng = np.random.default_rng(6)
    x, dy = rng.integers(-9, 9, (40, 30)).astype(float), rng.integers(-9, 9, (40, 30)).astype(float)
    assert np.vdot(dropout(x, 0.5, 8, 3), dy) == np.vdot(x, dropout_backward(dy, 0.5, 8, 3))


def test_backward_matches_finite_differences():
    """Dropout is linear: a difference quotient has no error but eps |y| / h, below 1e-12 for h = 1/8."""
    x, dy = np.random.default_rng(7).standard_normal((2, 5, 6))
    numerical = reference.numerical_gradient(lambda v: float(np.vdot(dropout(v, 0.3, 2), dy)), x)
    np.testing.assert_allclose(dropout_backward(dy, 0.3, 2), numerical, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "read-only"])
def test_in_place_and_into_any_layout(layout):
    plain = np.random.default_rng(8).standard_normal((9, 11)).astype("f4")
    expected = dropout(plain, 0.4, 6)
    x, out = laid_out(plain, layout), laid_out(np.zeros_like(plain), layout)
    assert dropout(x, 0.4, 6, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert dropout_backward(x, 0.4, 6, out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_the_philox_of_one_counter_is_that_of_the_reference():
    """Also in the interpreter; the first block of Random123's known answers (kat_vectors: counter 0, key 0)."""
    zero = np.uint64(0)
    assert [int(w) for w in philox4x32(zero, zero, zero, zero)] == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]
    for words in np.random.default_rng(9).integers(0, 2**32, (20, 4), np.uint64):
        assert [int(w) for w in philox4x32(*words)] == reference.philox4x32(*words).tolist()


X = np.ones((3, 4), "f4")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dropout(X, -0.1, 0), ValueError, r"dropout: p is -0.1, expected a probability in \[0, 1\]"),
        (lambda: dropout(X, 1.5, 0), ValueError, r"dropout: p is 1.5, expected a probability in \[0, 1\]"),
        (lambda: dropout(X, float("nan"), 0), ValueError, "dropout: p is nan, expected a probability"),
        (lambda: dropout_backward(X, 2, 0), ValueError, "dropout_backward: p is 2, expected a probability"),
        (lambda: dropout(X, "0.5", 0), TypeError, "dropout: p is '0.5', expected a probability"),
        (lambda: dropout(X, 0.5, 0.5), TypeError, "dropout: seed is 0.5, expected an integer"),
        (lambda: dropout(X, 0.5, 0, 1.0), TypeError, "dropout: offset is 1.0, expected an integer"),
        (
            lambda: dropout([1.0], 0.5, 0),
            TypeError,
            "dropout: x is of type list, expected a NumPy or CUDA array",
        ),
        (
            lambda: dropout_backward(X.astype("i8"), 0.5, 0),
            TypeError,
            "dropout_backward: dy has dtype int64, exp",
        ),
        (
            lambda: dropout(X, 0.5, 0, out=np.ones((4, 3), "f4")),
            ValueError,
            r"out has shape \(4, 3\), expected",
        ),
        (
            lambda: dropout(X, 0.5, 0, out=np.ones((3, 4))),
            TypeError,
            "out has dtype float64, expected float32",
        ),
        (lambda: dropout(X, 0.5, 0, out=X[::-1]), ValueError, "dropout: out partly overlaps an input"),
    ],
)
def test_says_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert (X == 1).all()


def with_globals(native: Native, name: str, **changes) -> Native:
    """A compiled function made again from the same source with other globals: a mutant."""
    function = native.source
    changed = types.FunctionType(function.__code__, {**function.__globals__, **changes}, name)
    changed.__annotations__ = function.__annotations__
    if isinstance(native, Kernel):
        return Kernel(changed)
    return Native(changed, ", ".join(native._arguments), native._flags)


@pytest.mark.parametrize("change", [{"WORD_BITS": np.uint64(31)}, {"LAST_BLOCK": np.uint64(2**63 - 1)}])
def test_a_wrong_generator_is_caught(change, monkeypatch):
    name = "_".join(change).lower()
    words = with_globals(cpu_dropout.random_words, f"words_{name}", **change)
    monkeypatch.setattr(
        cpu_dropout, "elements", with_globals(cpu_dropout.elements, f"elements_{name}", random_words=words)
    )
    with pytest.raises(AssertionError):
        test_counters_wrap_at_two_to_the_64()
