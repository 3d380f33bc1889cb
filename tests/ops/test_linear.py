"""gd.linear and gd.linear_backward against the reference, finite differences and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from gdkernels.cpu.runtime import team
from gdkernels.ops.activation import KINDS, saved_for
from gdkernels.ops.linear import linear, linear_backward
from reference import bounds
from tests.layouts import LAYOUTS, laid_out
from tests.within import assert_within


def layer(rng, dtype, batch=23, n_in=37, n_out=19):
    x = rng.standard_normal((batch, n_in)).astype(dtype)
    w = (rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)).astype(dtype)
    b = rng.standard_normal(n_out).astype(dtype)
    return x, w, b


@pytest.mark.parametrize("kind", KINDS)
def test_linear_matches_the_reference(kind, dtype, rng):
    x, w, b = layer(rng, dtype)
    z = np.empty((23, 19), dtype)
    a = linear(x, w, b, kind, z=z)
    exact_a, exact_z = reference.linear(x, w, b, kind)
    of_a, of_z = bounds.linear(x, w, b, kind)
    assert_within(z, exact_z, of_z, "z")
    assert_within(a, exact_a, of_a, "a")
    assert a.tobytes() == linear(x, w, b, kind).tobytes(), "z changes nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_linear_backward_matches_the_reference(kind, dtype, rng):
    x, w, b = layer(rng, dtype)
    da = rng.standard_normal((23, 19)).astype(dtype)
    a, z = reference.linear(x, w, b, kind)
    saved = (a if saved_for(kind) == "output" else z).astype(dtype)
    results = linear_backward(da, x, w, saved, kind)
    exact = reference.linear_backward(da, x, w, saved, kind)
    allowed = bounds.linear_backward(da, x, w, saved, kind)
    for name, result, truth, bound in zip(("dx", "dw", "db"), results, exact, allowed, strict=True):
        assert result.dtype == dtype
        assert_within(result, truth, bound, name)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_backward_matches_finite_differences(kind, rng):
    x, w, b = layer(rng, "float64", 3, 4, 5)
    da = rng.standard_normal((3, 5))
    z = np.empty((3, 5))
    a = linear(x, w, b, kind, z=z)
    analytic = linear_backward(da, x, w, a if saved_for(kind) == "output" else z, kind)
    for values, gradient in zip((x, w, b), analytic, strict=True):

        def total(changed, values=values):
            arguments = [changed if original is values else original for original in (x, w, b)]
            return float((linear(*arguments, kind) * da).sum())

        numerical = reference.numerical_gradient(total, values)
        # Central differences at h ≈ eps^(1/3): errors of some eps^(2/3) ≈ 4e-11 times sums of about 15 terms.
        np.testing.assert_allclose(gradient, numerical, rtol=0, atol=3e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_and_its_backward_read_every_layout_and_change_no_input(layout, dtype, rng):
    x, w, b = layer(rng, dtype)
    da = rng.standard_normal((23, 19)).astype(dtype)
    a = linear(x, w, b, "tanh")
    expected = linear_backward(da, x, w, a, "tanh")
    given_x, given_w, given_b = laid_out(x, layout), laid_out(w, layout), laid_out(b, layout)
    given_da, given_a = laid_out(da, layout), laid_out(a, layout)
    inputs = (given_x, given_w, given_b, given_da, given_a)
    before = [array.tobytes() for array in inputs]
    np.testing.assert_array_equal(linear(given_x, given_w, given_b, "tanh"), a)
    for result, truth in zip(
        linear_backward(given_da, given_x, given_w, given_a, "tanh"), expected, strict=True
    ):
        np.testing.assert_array_equal(result, truth)
    assert [array.tobytes() for array in inputs] == before


def test_results_go_where_they_are_asked_to_go(rng):
    x, w, b = layer(rng, "float32")
    da = rng.standard_normal((23, 19)).astype("f4")
    out = laid_out(np.zeros((23, 19), "f4"), "strided")
    assert linear(x, w, b, "gelu", out=out) is out
    np.testing.assert_array_equal(out, linear(x, w, b, "gelu"))
    dx, dw, db = (laid_out(np.zeros(shape, "f4"), "strided") for shape in (x.shape, w.shape, b.shape))
    results = linear_backward(da, x, w, None, dx=dx, dw=dw, db=db)
    assert results[0] is dx and results[1] is dw and results[2] is db
    for result, truth in zip(results, linear_backward(da, x, w, None), strict=True):
        np.testing.assert_array_equal(result, truth)


def test_accumulate_adds_to_dw_and_db_and_overwrites_dx(dtype, rng):
    x, w, _ = layer(rng, dtype)
    da = rng.standard_normal((23, 19)).astype(dtype)
    dx, dw, db = linear_backward(da, x, w, None)
    sums = linear_backward(da, x, w, None, dx=np.full_like(x, 7), dw=dw.copy(), db=db.copy(), accumulate=True)
    np.testing.assert_array_equal(sums[0], dx)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(sums[1], 2 * dw, rtol=0, atol=30 * eps * np.abs(x).T.dot(np.abs(da)).max())
    np.testing.assert_allclose(sums[2], 2 * db, rtol=0, atol=30 * eps * np.abs(da).sum(0).max())


def test_dx_can_be_left_out(rng):
    x, w, _ = layer(rng, "float32")
    da = rng.standard_normal((23, 19)).astype("f4")
    assert linear_backward(da, x, w, None, need_dx=False)[0] is None


@given(batch=st.integers(0, 40), n_in=st.integers(1, 40), n_out=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_shape(batch, n_in, n_out, seed):
    x, w, b = layer(np.random.default_rng(seed), "float32", batch, n_in, n_out)
    a, _ = reference.linear(x, w, b, "relu")
    assert_within(linear(x, w, b, "relu"), a, bounds.linear(x, w, b, "relu")[0])
    dx, dw, db = linear_backward(a.astype("f4"), x, w, a.astype("f4"), "relu")
    assert dx.shape == x.shape and dw.shape == w.shape and db.shape == b.shape
    if batch == 0:
        assert not dw.any() and not db.any()


@pytest.mark.parametrize("kind", ["relu", "mish"])
def test_the_same_bits_for_any_number_of_threads(kind, rng):
    x, w, b = layer(rng, "float32", 333, 257, 129)
    da = rng.standard_normal((333, 129)).astype("f4")
    before, results = team.get_threads(), []
    try:
        for threads in (1, 2, 3):
            team.set_threads(threads)
            z = np.empty((333, 129), "f4")
            a = linear(x, w, b, kind, z=z)
            gradients = linear_backward(da, x, w, a if kind == "relu" else z, kind)
            results.append(b"".join(array.tobytes() for array in (a, z, *gradients)))
    finally:
        team.set_threads(before)
    assert results[0] == results[1] == results[2]


def test_linear_equals_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    x, w, b = layer(rng, "float64")
    da = rng.standard_normal((23, 19))
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, w, b)]
    a = torch.nn.functional.silu(tensors[0] @ tensors[1] + tensors[2])
    a.backward(torch.tensor(da))
    z = np.empty((23, 19))
    np.testing.assert_allclose(linear(x, w, b, "silu", z=z), a.detach().numpy(), rtol=1e-12, atol=1e-14)
    for result, tensor in zip(linear_backward(da, x, w, z, "silu"), tensors, strict=True):
        np.testing.assert_allclose(result, tensor.grad.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"w": (38, 19)},
            ValueError,
            r"linear: w has shape \(38, 19\), expected \(37, n\) because x has shape \(23, 37\)",
        ),
        (
            {"b": (18,)},
            ValueError,
            r"linear: b has shape \(18,\), expected \(19,\) because w has shape \(37, 19\)",
        ),
        ({"x": (37,)}, ValueError, r"linear: x has shape \(37,\), expected 2 dimensions"),
        ({"out": (19, 23)}, ValueError, r"linear: out has shape \(19, 23\), expected \(23, 19\)"),
        ({"z": (19, 23)}, ValueError, r"linear: z has shape \(19, 23\), expected \(23, 19\)"),
    ],
)
def test_linear_names_the_argument_whose_shape_is_wrong(change, error, words, rng):
    x, w, b = layer(rng, "float32")
    arguments = {"x": x, "w": w, "b": b, **{name: np.zeros(shape, "f4") for name, shape in change.items()}}
    with pytest.raises(error, match=words):
        linear(**arguments)


def test_linear_refuses_what_it_cannot_do(rng):
    x, w, b = layer(rng, "float32")
    with pytest.raises(ValueError, match="linear: activation is 'swish', expected one of identity, sigmoid"):
        linear(x, w, b, "swish")
    with pytest.raises(
        TypeError, match="linear: w has dtype float64, expected float32 because x has float32"
    ):
        linear(x, w.astype("f8"), b)
    square = rng.standard_normal((19, 19)).astype("f4")
    with pytest.raises(ValueError, match="linear: out overlaps another argument"):
        linear(square, square.copy(), b, out=square)
    out = np.zeros((23, 19), "f4")
    with pytest.raises(ValueError, match="linear: out overlaps another argument"):
        linear(x, w, b, out=out, z=out)
    da = np.zeros((23, 19), "f4")
    with pytest.raises(ValueError, match="saved is None, expected the preactivation of gelu"):
        linear_backward(da, x, w, None, "gelu")
    with pytest.raises(ValueError, match="accumulate is set but dw is not given"):
        linear_backward(da, x, w, None, accumulate=True)
    with pytest.raises(ValueError, match=r"linear_backward: x has shape \(22, 37\), expected \(23, n\)"):
        linear_backward(da, x[:-1], w, None)


def test_a_wrong_derivative_would_be_caught(rng):
    """The bound of the comparison sees σ′ taken as σ(1 + σ) instead of σ(1 − σ)."""
    x, w, b = layer(rng, "float32")
    a, _ = reference.linear(x, w, b, "sigmoid")
    da = np.ones_like(a)
    exact = reference.linear_backward(da, x, w, a, "sigmoid")[2]
    _, _, of_db = bounds.linear_backward(da, x, w, a, "sigmoid")
    with pytest.raises(AssertionError, match="bounds"):
        assert_within((da * a * (1 + a)).sum(0), exact, of_db, dtype="float32")
