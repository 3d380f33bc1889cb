"""gd.layernorm, gd.rmsnorm and their backward passes against the reference, finite differences and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu.runtime import team
from gdkernels.ops.norm import layernorm, layernorm_backward, rmsnorm, rmsnorm_backward
from reference import bounds
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within

SHAPES = ((1, 1), (5, 3), (33, 17), (40, 257))


@pytest.fixture
def set_threads():
    before = team.get_threads()
    yield team.set_threads
    team.set_threads(before)


def numbers(rng, dtype, batch, n):
    """x, residual, dy (batch, n) and gamma, beta (n,); the rows have a mean and a size of their own."""
    x = rng.standard_normal((batch, n)) * rng.uniform(0.5, 2, (batch, 1)) + rng.normal(size=(batch, 1)) * 3
    residual, dy = rng.standard_normal((2, batch, n))
    gamma, beta = rng.standard_normal((2, n))
    return [values.astype(dtype) for values in (x, residual, dy, gamma, beta)]


def assert_layernorm(x, gamma, beta, residual, dy):
    """Forward, statistics and backward of one batch keep to their bounds."""
    stats = np.empty((len(x), 2), x.dtype)
    y = layernorm(x, gamma, beta, residual=residual, stats=stats)
    exact, true = reference.layernorm(x, gamma, beta, residual=residual)
    of_y, of_mean, of_rstd = bounds.layernorm(x, gamma, beta, residual=residual)
    assert y.dtype == x.dtype
    assert_within(y, exact, of_y, "y")
    assert_within(stats[:, :1], true[:, :1], of_mean, "mean")
    assert_within(stats[:, 1:], true[:, 1:], of_rstd, "rstd")
    given_here = dy, x, gamma, stats
    assert_gradients(
        layernorm_backward(*given_here, residual=residual),
        reference.layernorm_backward(*given_here, residual),
        bounds.layernorm_backward(*given_here, residual),
        x.dtype,
    )


def assert_rmsnorm(x, gamma, residual, dy):
    """The same without a mean."""
    stats = np.empty(len(x), x.dtype)
    y = rmsnorm(x, gamma, residual=residual, stats=stats)
    for name, result, truth, bound in zip(
        ("y", "rstd"),
        (y, stats),
        reference.rmsnorm(x, gamma, residual=residual),
        bounds.rmsnorm(x, gamma, residual=residual),
        strict=True,
    ):
        assert_within(result, truth, bound, name)
    given_here = dy, x, gamma, stats
    assert_gradients(
        rmsnorm_backward(*given_here, residual=residual),
        reference.rmsnorm_backward(*given_here, residual),
        bounds.rmsnorm_backward(*given_here, residual),
        x.dtype,
    )


def assert_gradients(results, truths, allowed, dtype):
    """dx, dgamma and, of the layer norm, dbeta."""
    names = ("dx", "dgamma", "dbeta")[: len(truths)]
    for name, result, truth, bound in zip(names, results, truths, allowed, strict=True):
        assert result.dtype == dtype
        assert_within(result, truth, bound, name)


# ------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_layernorm_and_its_backward_match_the_reference(shape, dtype, with_residual, rng):
    x, residual, dy, gamma, beta = numbers(rng, dtype, *shape)
    assert_layernorm(x, gamma, beta, residual if with_residual else None, dy)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_rmsnorm_and_its_backward_match_the_reference(shape, dtype, with_residual, rng):
    x, residual, dy, gamma, _ = numbers(rng, dtype, *shape)
    assert_rmsnorm(x, gamma, residual if with_residual else None, dy)


@given(
    batch=st.integers(0, 40),
    n=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    with_residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(batch, n, dtype, with_residual, seed):
    x, residual, dy, gamma, beta = numbers(np.random.default_rng(seed), dtype, batch, n)
    residual = residual if with_residual else None
    assert_layernorm(x, gamma, beta, residual, dy)
    assert_rmsnorm(x, gamma, residual, dy)


def test_a_wrong_variance_or_gradient_would_be_caught(rng):
    """The bounds see mean(x²) − mean² on a high plateau, and a dx without one of its three terms."""
    x, _, dy, gamma, beta = numbers(rng, "float32", 33, 17)
    x += np.float32(1000)
    exact, _ = reference.layernorm(x, gamma, beta)
    mean = x.mean(axis=1, keepdims=True)
    variance = (x * x).mean(axis=1, keepdims=True) - mean * mean
    wrong = gamma * (x - mean) / np.sqrt(variance + np.float32(1e-5)) + beta
    of_y, _, _ = bounds.layernorm(x, gamma, beta)
    with pytest.raises(AssertionError, match="bounds"):
        assert_within(wrong, exact, of_y)
    assert_layernorm(x, gamma, beta, None, dy)

    x -= np.float32(1000)
    stats = reference.layernorm(x, gamma, beta)[1]
    mean, rstd = np.split(stats, 2, axis=1)
    h, g = (x - mean) * rstd, dy * gamma
    terms = g, -g.mean(axis=1, keepdims=True), -h * (g * h).mean(axis=1, keepdims=True)
    of_dx, _, _ = bounds.layernorm_backward(dy, x, gamma, stats)
    for missing in terms:
        with pytest.raises(AssertionError, match="bounds"):
            assert_within(rstd * (sum(terms) - missing), rstd * sum(terms), of_dx, dtype="float32")


@pytest.mark.parametrize("with_residual", [False, True])
def test_layernorm_backward_matches_finite_differences(with_residual, rng):
    x, residual, dy, gamma, beta = numbers(rng, "float64", 3, 5)
    residual = residual if with_residual else None
    stats = np.empty((3, 2))
    layernorm(x, gamma, beta, residual=residual, stats=stats)
    dx, dgamma, dbeta = layernorm_backward(dy, x, gamma, stats, residual=residual)

    def loss(x=x, gamma=gamma, beta=beta, residual=residual):
        return float((dy * layernorm(x, gamma, beta, residual=residual)).sum())

    assert_slope(lambda v: loss(x=v), x, dx)
    assert_slope(lambda v: loss(gamma=v), gamma, dgamma)
    assert_slope(lambda v: loss(beta=v), beta, dbeta)
    if with_residual:
        assert_slope(lambda v: loss(residual=v), residual, dx)


@pytest.mark.parametrize("with_residual", [False, True])
def test_rmsnorm_backward_matches_finite_differences(with_residual, rng):
    x, residual, dy, gamma, _ = numbers(rng, "float64", 3, 5)
    residual = residual if with_residual else None
    stats = np.empty(3)
    rmsnorm(x, gamma, residual=residual, stats=stats)
    dx, dgamma = rmsnorm_backward(dy, x, gamma, stats, residual=residual)

    def loss(x=x, gamma=gamma, residual=residual):
        return float((dy * rmsnorm(x, gamma, residual=residual)).sum())

    assert_slope(lambda v: loss(x=v), x, dx)
    assert_slope(lambda v: loss(gamma=v), gamma, dgamma)
    if with_residual:
        assert_slope(lambda v: loss(residual=v), residual, dx)


def assert_slope(f, x, gradient):
    # Central differences with h = eps^(1/3): h² f'''/6 and eps·Σ|terms|/h are both some eps^(2/3) = 3.7e-11, times at
    # most 15 terms of size 3 and third derivatives of about 10.
    np.testing.assert_allclose(gradient, reference.numerical_gradient(f, x), rtol=0, atol=100 * 3.7e-11)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_both_norms_equal_pytorch(eps, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    functional = torch.nn.functional
    x, residual, dy, gamma, beta = numbers(rng, "float64", 6, 9)
    leaves = [torch.tensor(values, requires_grad=True) for values in (x + residual, gamma, beta)]
    out = functional.layer_norm(leaves[0], (9,), leaves[1], leaves[2], eps)
    out.backward(torch.tensor(dy))
    stats = np.empty((6, 2))
    # Some 20 roundings of values up to 50 in either of the two.
    close = {"rtol": 0, "atol": 2 * 20 * 50 * np.finfo("f8").eps}
    y = layernorm(x, gamma, beta, eps, residual, stats=stats)
    np.testing.assert_allclose(y, out.detach().numpy(), **close)
    for result, leaf in zip(layernorm_backward(dy, x, gamma, stats, residual), leaves, strict=True):
        np.testing.assert_allclose(result, leaf.grad.numpy(), **close)

    leaves = [torch.tensor(values, requires_grad=True) for values in (x + residual, gamma)]
    out = functional.rms_norm(leaves[0], (9,), leaves[1], eps)
    out.backward(torch.tensor(dy))
    stats = np.empty(6)
    np.testing.assert_allclose(rmsnorm(x, gamma, eps, residual, stats=stats), out.detach().numpy(), **close)
    for result, leaf in zip(rmsnorm_backward(dy, x, gamma, stats, residual), leaves, strict=True):
        np.testing.assert_allclose(result, leaf.grad.numpy(), **close)


# ------------------------------------------------------------------------------------------------- extremes


def test_a_constant_row_becomes_beta_and_a_row_of_zeros_zero(dtype, rng):
    _, _, dy, gamma, beta = numbers(rng, dtype, 2, 50)
    x = np.array([[7.0], [-1e4]], dtype).repeat(50, axis=1)  # their sums are exact, and so are the means
    stats = np.empty((2, 2), dtype)
    np.testing.assert_array_equal(layernorm(x, gamma, beta, stats=stats), np.stack([beta, beta]))
    assert np.isfinite(layernorm_backward(dy, x, gamma, stats)[0]).all()
    np.testing.assert_array_equal(rmsnorm(np.zeros_like(x), gamma), np.zeros_like(x))


def test_large_and_small_rows_keep_to_the_bounds(dtype, rng):
    x, residual, dy, gamma, beta = numbers(rng, dtype, 4, 30)
    x *= np.array([[1e4], [1e-4], [1.0], [1.0]], dtype)
    x[2] += 1e4
    x[3, 5] = -1e4
    assert_layernorm(x, gamma, beta, None, dy)
    assert_layernorm(x, gamma, beta, residual, dy)
    assert_rmsnorm(x, gamma, residual, dy)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(bad, dtype, rng):
    x, residual, dy, gamma, beta = numbers(rng, dtype, 4, 20)
    good = layernorm(x, gamma, beta)
    x[1, 7] = bad
    for added in (None, residual):
        stats, rms = np.empty((4, 2), dtype), np.empty(4, dtype)
        y, z = (
            layernorm(x, gamma, beta, residual=added, stats=stats),
            rmsnorm(x, gamma, residual=added, stats=rms),
        )
        for result, truth in (
            (y, reference.layernorm(x, gamma, beta, residual=added)[0]),
            (z, reference.rmsnorm(x, gamma, residual=added)[0]),
            (
                layernorm_backward(dy, x, gamma, stats, added)[0],
                reference.layernorm_backward(dy, x, gamma, stats, added)[0],
            ),
            (
                rmsnorm_backward(dy, x, gamma, rms, added)[0],
                reference.rmsnorm_backward(dy, x, gamma, rms, added)[0],
            ),
        ):
            np.testing.assert_array_equal(np.isnan(result), np.isnan(truth))
        if added is None:
            np.testing.assert_array_equal(np.delete(y, 1, axis=0), np.delete(good, 1, axis=0))


def test_an_empty_batch_gives_empty_rows_and_zero_parameter_gradients():
    x, gamma = np.zeros((0, 4), "f4"), np.ones(4, "f4")
    stats = np.zeros((0, 2), "f4")
    assert layernorm(x, gamma, gamma, stats=stats).shape == (0, 4)
    dx, dgamma, dbeta = layernorm_backward(x, x, gamma, stats, dgamma=np.full(4, 7, "f4"))
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, 4)))
    assert rmsnorm(x, gamma).shape == (0, 4)
    dx, dgamma = rmsnorm_backward(x, x, gamma, stats[:, 0])
    assert dx.shape == (0, 4)
    np.testing.assert_array_equal(dgamma, np.zeros(4))


# ------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_no_input_changed(layout, dtype, rng):
    x, residual, dy, gamma, beta = numbers(rng, dtype, 7, 19)
    stats, rms = np.empty((7, 2), dtype), np.empty(7, dtype)
    y, z = (
        layernorm(x, gamma, beta, 1e-5, residual, stats=stats),
        rmsnorm(x, gamma, 1e-6, residual, stats=rms),
    )
    back, rms_back = (
        layernorm_backward(dy, x, gamma, stats, residual),
        rmsnorm_backward(dy, x, gamma, rms, residual),
    )
    given = [laid_out(values, layout) for values in (x, residual, dy, gamma, beta, stats, rms)]
    before = [values.tobytes() for values in given]
    x, residual, dy, gamma, beta, stats, rms = given
    np.testing.assert_array_equal(layernorm(x, gamma, beta, 1e-5, residual), y)
    np.testing.assert_array_equal(rmsnorm(x, gamma, 1e-6, residual), z)
    for result, truth in zip(layernorm_backward(dy, x, gamma, stats, residual), back, strict=True):
        np.testing.assert_array_equal(result, truth)
    for result, truth in zip(rmsnorm_backward(dy, x, gamma, rms, residual), rms_back, strict=True):
        np.testing.assert_array_equal(result, truth)
    assert [values.tobytes() for values in given] == before


@pytest.mark.parametrize("layout", ["C", "Fortran", "strided", "negative", "misaligned"])
def test_results_go_where_they_are_asked_to_go(layout, rng):
    x, residual, dy, gamma, beta = numbers(rng, "float32", 7, 19)

    def place(*shape):
        return laid_out(np.zeros(shape, "f4"), layout)

    out, stats = place(7, 19), place(7, 2)
    assert layernorm(x, gamma, beta, residual=residual, out=out, stats=stats) is out
    np.testing.assert_array_equal(out, layernorm(x, gamma, beta, residual=residual))
    wanted = place(7, 19), place(19), place(19)
    results = layernorm_backward(dy, x, gamma, stats, residual, *wanted)
    assert all(result is place for result, place in zip(results, wanted, strict=True))
    for result, truth in zip(results, layernorm_backward(dy, x, gamma, stats.copy(), residual), strict=True):
        np.testing.assert_array_equal(result, truth)

    out, stats = place(7, 19), place(7)
    assert rmsnorm(x, gamma, out=out, stats=stats) is out
    np.testing.assert_array_equal(out, rmsnorm(x, gamma))
    wanted = place(7, 19), place(19)
    results = rmsnorm_backward(dy, x, gamma, stats, None, *wanted)
    assert all(result is place for result, place in zip(results, wanted, strict=True))
    for result, truth in zip(results, rmsnorm_backward(dy, x, gamma, stats.copy()), strict=True):
        np.testing.assert_array_equal(result, truth)


def test_out_may_be_an_input_element_for_element(rng):
    x, residual, dy, gamma, beta = numbers(rng, "float32", 7, 19)
    stats, rms = np.empty((7, 2), "f4"), np.empty(7, "f4")
    y, z = (
        layernorm(x, gamma, beta, 1e-5, residual, stats=stats),
        rmsnorm(x, gamma, 1e-6, residual, stats=rms),
    )
    for which in (0, 1):
        pair = x.copy(), residual.copy()
        assert layernorm(pair[0], gamma, beta, 1e-5, pair[1], out=pair[which]) is pair[which]
        np.testing.assert_array_equal(pair[which], y)
        pair = x.copy(), residual.copy()
        rmsnorm(pair[0], gamma, 1e-6, pair[1], out=pair[which])
        np.testing.assert_array_equal(pair[which], z)
    back, rms_back = (
        layernorm_backward(dy, x, gamma, stats, residual),
        rmsnorm_backward(dy, x, gamma, rms, residual),
    )
    for which in (0, 1, 2):
        given = dy.copy(), x.copy(), residual.copy()
        results = layernorm_backward(given[0], given[1], gamma, stats, given[2], dx=given[which])
        assert results[0] is given[which]
        for result, truth in zip(results, back, strict=True):
            np.testing.assert_array_equal(result, truth)
        given = dy.copy(), x.copy(), residual.copy()
        results = rmsnorm_backward(given[0], given[1], gamma, rms, given[2], dx=given[which])
        for result, truth in zip(results, rms_back, strict=True):
            np.testing.assert_array_equal(result, truth)


def test_the_same_bits_for_any_number_of_threads(set_threads, rng):
    x, residual, dy, gamma, beta = numbers(rng, "float32", 601, 1003)  # above the work that is worth sharing
    outcomes = []
    for threads in (1, 2):
        set_threads(threads)
        stats, rms = np.empty((601, 2), "f4"), np.empty(601, "f4")
        y, z = layernorm(x, gamma, beta, 1e-5, residual, stats=stats), rmsnorm(x, gamma, stats=rms)
        back, rms_back = (
            layernorm_backward(dy, x, gamma, stats, residual),
            rmsnorm_backward(dy, x, gamma, rms),
        )
        outcomes.append([values.tobytes() for values in (y, z, stats, rms, *back, *rms_back)])
    assert outcomes[0] == outcomes[1]


# ------------------------------------------------------------------------------------------------- complaints

LAYERNORM = {"x": (4, 6), "gamma": (6,), "beta": (6,)}
BACKWARD = {"dy": (4, 6), "x": (4, 6), "gamma": (6,), "stats": (4, 2)}


@pytest.mark.parametrize(
    ("op", "shapes", "words"),
    [
        (layernorm, {**LAYERNORM, "x": (6,)}, r"layernorm: x has shape \(6,\), expected 2 dimensions"),
        (
            layernorm,
            {**LAYERNORM, "x": (4, 0)},
            r"layernorm: x has shape \(4, 0\), expected at least one column",
        ),
        (
            layernorm,
            {**LAYERNORM, "gamma": (4,)},
            r"layernorm: gamma has shape \(4,\), expected \(6,\) because",
        ),
        (
            layernorm,
            {**LAYERNORM, "beta": (1, 6)},
            r"layernorm: beta has shape \(1, 6\), expected \(6,\) because",
        ),
        (
            layernorm,
            {**LAYERNORM, "residual": (6,)},
            r"layernorm: residual has shape \(6,\), expected \(4, 6\)",
        ),
        (layernorm, {**LAYERNORM, "stats": (4,)}, r"layernorm: stats has shape \(4,\), expected \(4, 2\)"),
        (layernorm, {**LAYERNORM, "out": (6, 4)}, r"layernorm: out has shape \(6, 4\), expected \(4, 6\)"),
        (layernorm_backward, {**BACKWARD, "dy": (4, 5)}, r"layernorm_backward: dy has shape \(4, 5\)"),
        (layernorm_backward, {**BACKWARD, "stats": (4,)}, r"layernorm_backward: stats has shape \(4,\)"),
        (layernorm_backward, {**BACKWARD, "dbeta": (4,)}, r"layernorm_backward: dbeta has shape \(4,\)"),
        (rmsnorm_backward, BACKWARD, r"rmsnorm_backward: stats has shape \(4, 2\), expected \(4,\)"),
    ],
)
def test_a_wrong_shape_is_named(op, shapes, words):
    with pytest.raises(ValueError, match=words):
        op(**{name: np.zeros(shape, "f4") for name, shape in shapes.items()})


def test_what_cannot_be_done_is_refused_before_anything_is_written(rng):
    x, _, dy, gamma, beta = numbers(rng, "float32", 8, 6)
    stats, out = np.zeros((8, 2), "f4"), np.full((8, 6), 7, "f4")
    with pytest.raises(TypeError, match="layernorm: gamma has dtype float64, expected float32"):
        layernorm(x, gamma.astype("f8"), beta, out=out)
    with pytest.raises(TypeError, match="rmsnorm: x has dtype int64, expected float32 or float64"):
        rmsnorm(np.zeros((2, 2), np.int64), gamma)
    with pytest.raises(TypeError, match="layernorm: x is of type list, expected a NumPy or CUDA array"):
        layernorm([[1.0]], gamma, beta)
    with pytest.raises(ValueError, match="layernorm: eps is -1, expected a finite number ≥ 0"):
        layernorm(x, gamma, beta, eps=-1, out=out)
    with pytest.raises(TypeError, match="rmsnorm: eps is None, expected a finite number ≥ 0"):
        rmsnorm(x, gamma, eps=None, out=out)
    with pytest.raises(ValueError, match="rmsnorm: eps is nan"):
        rmsnorm(x, gamma, eps=float("nan"), out=out)
    with pytest.raises(ValueError, match="layernorm: out partly overlaps an input"):
        layernorm(x[1:], gamma, beta, out=x[:-1])
    with pytest.raises(ValueError, match="layernorm: out overlaps another argument"):
        square = np.zeros((1, 6), "f4")
        layernorm(x[:1], square[0], beta, out=square)
    with pytest.raises(ValueError, match="layernorm: stats overlaps another argument"):
        layernorm(x, gamma, beta, out=out, stats=x[:, :2])
    with pytest.raises(ValueError, match="layernorm_backward: dgamma overlaps another argument"):
        layernorm_backward(dy, x, gamma, stats, dgamma=gamma)
    with pytest.raises(ValueError, match="layernorm_backward: dbeta overlaps another argument"):
        layernorm_backward(dy, x, gamma, stats, dgamma=out[0], dbeta=out[0])
    with pytest.raises(ValueError, match="rmsnorm_backward: dx overlaps another argument"):
        memory = np.zeros((8, 6), "f4")
        rmsnorm_backward(dy, x, memory[0], stats[:, 0], dx=memory)
    read_only = laid_out(out, "read-only")
    with pytest.raises(ValueError, match="rmsnorm: out is read-only, expected a writable array"):
        rmsnorm(x, gamma, out=read_only)
    assert (out == 7).all()
