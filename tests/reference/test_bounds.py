"""The bounds of rounding: kept by float32 arithmetic of every formula, and by nothing that is wrong by little more."""

import numpy as np
import pytest

import reference as ref
from gdkernels.scalar.optim import OPTIMIZERS, RULES
from reference import bounds
from reference.activation import GATE_ROUNDINGS, ROUNDINGS
from reference.rounding import CPU, GPU, Bound, column_sums, relative_to_largest, rounded
from tests.within import assert_within

F4 = np.float32


def single(rng, *shape):
    return rng.standard_normal(shape).astype(F4)


# ------------------------------------------------------------------------------------------------ units


def test_what_is_allowed_is_counted_in_eps_of_the_type_judged():
    bound = Bound(np.array([2.0, 4.0]), 2.0, reference=np.array([1.0, 0.0]), denormals=3.0)
    np.testing.assert_array_equal(bound.size, [1, 2])
    for dtype in ("float32", "float64"):
        info = np.finfo(dtype)
        expected = (
            np.array([2.0, 4.0]) * info.eps + np.array([2.0**-52, 0]) + 3 * float(info.smallest_subnormal)
        )
        np.testing.assert_array_equal(bound.allowed(dtype), expected)


def test_bounds_add_up_and_pass_through_linear_functions():
    one, two = rounded([[1.0, -2.0]], 0.5), Bound(np.array([[4.0, 4.0]]), 2.0, reference=1.0, denormals=1.0)
    both = (one + two).through(lambda e: e.sum(axis=1))
    np.testing.assert_array_equal(both.error, [0.5 + 1.0 + 8.0])
    np.testing.assert_array_equal(both.reference, [2.0])
    np.testing.assert_array_equal(both.denormals, [2.0])
    assert both.ulps == 2.5


def test_storing_in_fewer_digits_is_one_more_rounding():
    values = np.array([1.0, -3.0])
    plain = rounded(values, 1.0)
    assert plain.stored(values, "float32") is plain
    np.testing.assert_allclose(
        plain.stored(values, "bfloat16").allowed("float32"), [2**-8, 3 * 2**-8], rtol=1e-3
    )
    for storage, digits in (("bfloat16", 8), ("float16", 11)):
        assert plain.stored(values, storage).allowed("float32")[0] > 2.0**-digits


def test_a_sum_of_columns_takes_as_many_roundings_as_additions():
    terms = np.array([[1.0], [-2.0], [3.0]])
    assert column_sums(terms, 1.0).error == 6 * (1.0 + 3 / 2)
    assert column_sums(terms, 1.0, additions=2).error == 6 * (1.0 + 1.0)


def test_random_sums_are_wrong_by_the_root_of_their_length():
    assert relative_to_largest() == 8
    assert relative_to_largest(1024) == 40


def test_the_comparison_sees_each_kind_of_fault():
    exact, bound = np.array([1.0, np.inf, np.nan, 0.0]), rounded([1.0, np.inf, np.nan, 0.0], 0.5)
    half = float(np.finfo(F4).eps) / 2
    assert_within(np.array([1 + half, np.inf, np.nan, 0]), exact, bound, dtype="float32")
    for place, wrong in ((0, 1 + 1.01 * half), (0, np.nan), (1, 1.0), (1, -np.inf), (2, 0.0), (3, 1e-30)):
        result = exact.copy()
        result[place] = wrong
        with pytest.raises(AssertionError):
            assert_within(result, exact, bound, dtype="float32")
    with pytest.raises(AssertionError):
        assert_within(exact[:3], exact, bound, dtype="float32")


# ------------------------------------------------------------------------------------------------ families


def test_every_activation_has_bounds_and_a_steepest_slope():
    z = np.linspace(-20, 20, 40001)
    assert {*ROUNDINGS, *GATE_ROUNDINGS} == set(ref.KINDS)
    for kind, row in (ROUNDINGS | GATE_ROUNDINGS).items():
        saved = z if ref.saved_for(kind) == "preactivation" else ref.activation(z, kind)
        steepest = np.abs(ref.activation_slope(saved, kind)).max()
        assert steepest <= row(CPU)[2] <= max(1.0, 1.02 * steepest), kind


@pytest.mark.parametrize("kind", ref.KINDS)
def test_a_gpu_is_allowed_more_where_it_divides(kind, rng):
    """And never less where its functions are as good; expm1, log1p and tanh are better there."""
    z = 3 * rng.standard_normal(50)
    one, other = bounds.activation(z, kind, CPU), bounds.activation(z, kind, GPU)
    if kind in ("sigmoid", "silu", "mish", "gelu_tanh"):
        assert (other.error > one.error).all()
    assert (other.error > 0).all() == (one.error > 0).all() == (kind not in ("identity", "relu"))


def plain_softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def plain_layernorm(x, gamma, beta):
    mean = x.mean(axis=1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True) + F4(1e-5))
    return gamma * (x - mean) * rstd + beta


def test_the_formulas_in_float32_keep_to_their_bounds(rng):
    x, w, b = single(rng, 9, 33), single(rng, 33, 17), single(rng, 17)
    gamma, beta = single(rng, 33), single(rng, 33)
    for result, exact, bound in (
        (x @ w, ref.matmul(x, w), bounds.matmul(x, w)),
        (x @ w + b, ref.linear(x, w, b)[1], bounds.linear(x, w, b)[1]),
        (plain_softmax(x), ref.softmax(x), bounds.softmax(x)),
        (
            plain_layernorm(x, gamma, beta),
            ref.layernorm(x, gamma, beta)[0],
            bounds.layernorm(x, gamma, beta)[0],
        ),
        (np.square(x - 1), ref.mse(x, np.ones_like(x), "none")[0], bounds.mse(x, np.ones_like(x), "none")[0]),
    ):
        assert result.dtype == F4
        assert_within(result, exact, bound)
        # Wrong by twice what is allowed at one element, and of one element: neither is a matter of luck.
        for place in ((0, 0), (8, 4)):
            wrong = result.astype("f8")
            wrong[place] = exact[place] + 2 * bound.allowed("float32")[place]
            with pytest.raises(AssertionError):
                assert_within(wrong, exact, bound, dtype="float32")


def test_bounds_stay_within_a_few_times_what_is_found(rng):
    """A bound that is far too large says nothing: rows of 33 are rounded some dozen times, and so are these bounds."""
    x = single(rng, 200, 33)
    for result, exact, bound, least in (
        (plain_softmax(x), ref.softmax(x), bounds.softmax(x), 0.05),
        (x @ x.T, ref.matmul(x, x, trans_b=True), bounds.matmul(x, x.T), 0.05),
    ):
        assert (np.abs(result - exact) / bound.allowed("float32")).max() > least


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_have_a_bound_for_p_and_for_each_state(name, rng):
    states = [np.square(rng.standard_normal(5)) for _ in RULES[name].states]
    p, g = rng.standard_normal((2, 5))
    allowed = bounds.step(name, p, g, states, 0.1)
    assert len(allowed) == 1 + len(states)
    assert all((one.error >= 0).all() and one.error.shape == (5,) for one in allowed)
