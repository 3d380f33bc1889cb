"""The optimizer steps against the reference and PyTorch: every option, layout and dtype, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdkernels as gd
from gdkernels.cpu.cost import work
from gdkernels.cpu.runtime import team
from gdkernels.scalar.optim import OPTIMIZERS, RULES
from reference import bounds
from tests import rules
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.rules import exact_step, is_counted
from tests.within import assert_within

# Options besides the defaults, and those that are off by default turned on.
OPTIONS = {
    "sgd": [{"momentum": 0.9}],
    "rmsprop": [{"alpha": 0.9, "eps": 1e-3}],
    "adagrad": [{"eps": 1e-3}],
    "adam": [{"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}, {"beta1": 0.0, "beta2": 0.0}],
    "adamw": [{"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}],
    "amsgrad": [{"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}],
    "nadam": [{"beta1": 0.8, "momentum_decay": 0.5}, {"beta1": 0.0}, {"momentum_decay": 0.0}],
    "lion": [{"beta1": 0.5, "beta2": 0.8}],
}
NAMES = list(OPTIMIZERS)
CASES = [
    pytest.param(name, options | decay, id="-".join([name, *options, *decay]))
    for name in NAMES
    for options in ({}, rules.OPTIONS[name], *OPTIONS[name])
    for decay in ({}, {"weight_decay": 0.1})
]


def problem(name, shape, dtype, rng):
    """p, g and a state such as some steps leave: v and vmax are of the size of g²."""
    p, g, *states = (np.array(rng.standard_normal(shape), dtype) for _ in range(2 + len(RULES[name].states)))
    for label, state in zip(RULES[name].states, states, strict=True):
        if label in ("v", "vmax"):
            np.square(state, out=state)
    return p, g, states


def step(name, p, g, states, lr, count=5, **options):
    """One step of gdkernels, in place."""
    counted = (count,) if is_counted(name) else ()
    assert getattr(gd, f"{name}_step")(p, g, *states, *counted, lr, **options) is None


def assert_close(name, found, new, allowed):
    """p and the states of one step, where it has them."""
    for label, one, exact, bound in zip(("p", *RULES[name].states), found, new, allowed, strict=True):
        if exact is not None:
            assert_within(one, exact, bound, label)


@pytest.mark.parametrize("name, options", CASES)
def test_step_matches_the_reference(name, options, dtype, rng):
    p, g, states = problem(name, (7, 67), dtype, rng)
    new = exact_step(name, p, g, states, 0.1, **options)
    allowed = bounds.step(name, p, g, states, 0.1, 5, **options)
    before = g.copy()
    step(name, p, g, states, 0.1, **options)
    assert_close(name, (p, *states), new, allowed)
    np.testing.assert_array_equal(g, before)


@given(
    name=st.sampled_from(NAMES),
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    count=st.sampled_from([1, 2, 1000, 10**9]),
    seed=st.integers(0, 99),
)
def test_step_matches_the_reference_for_any_shape_and_step(name, shape, count, seed):
    p, g, states = problem(name, shape, "float64", np.random.default_rng(seed))
    new = exact_step(name, p, g, states, 0.01, count)
    allowed = bounds.step(name, p, g, states, 0.01, count)
    step(name, p, g, states, 0.01, count)
    assert_close(name, (p, *states), new, allowed)


TORCH = {
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamw": "AdamW",
    "amsgrad": "Adam",
    "nadam": "NAdam",
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", TORCH)
def test_a_hundred_steps_match_pytorch(name, weight_decay, dtype, rng, torch64):
    fixed = {"sgd": {"momentum": 0.9, "nesterov": True}, "amsgrad": {"amsgrad": True}}.get(name, {})
    start = rng.standard_normal((5, 13)).astype(dtype)
    theirs = torch64.nn.Parameter(torch64.tensor(start))
    optimizer = getattr(torch64.optim, TORCH[name])([theirs], lr=0.01, weight_decay=weight_decay, **fixed)
    ours, states = start.copy(), [np.zeros_like(start) for _ in RULES[name].states]
    options = fixed if name == "sgd" else {}
    for count in range(1, 101):
        g = (rng.standard_normal(start.shape) / count).astype(dtype)
        theirs.grad = torch64.tensor(g)
        optimizer.step()
        step(name, ours, g, states, 0.01, count, weight_decay=weight_decay, **options)
    # Each step makes some 10 roundings of numbers up to 4 in either of the two, which add up.
    np.testing.assert_allclose(
        ours, theirs.detach().numpy(), rtol=0, atol=2 * 10 * 100 * 4 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("name", NAMES)
def test_extreme_gradients_leave_finite_parameters(name, dtype):
    """Squares of 1e30 overflow in float32, where v becomes infinite and the update 0, as in PyTorch."""
    g = np.array([0.0, 1e-45, -1e-30, 1e-8, 1e4, -1e4, 1e30, -1e30] * 9, dtype)
    p, states = np.linspace(-1e4, 1e4, g.size).astype(dtype), [np.zeros_like(g) for _ in RULES[name].states]
    for count in range(1, 6):
        step(name, p, g, states, 1e-3, count)
        assert np.isfinite(p).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_inf_stay_in_their_element(name, rng):
    p, g, states = problem(name, (100,), "float32", rng)
    g[17], g[18], p[40] = np.nan, np.inf, np.inf
    others = np.delete(np.arange(100), [17, 18, 40])
    clean = p.copy(), g.copy(), [state.copy() for state in states]
    clean[0][40], clean[1][17], clean[1][18] = 0, 0, 0
    step(name, p, g, states, 0.1, weight_decay=0.0)
    step(name, *clean, 0.1, weight_decay=0.0)
    assert np.isnan(p[17])
    assert np.isinf(p[40])
    np.testing.assert_array_equal(p[others], clean[0][others])


@pytest.mark.parametrize("name, options", CASES)
def test_an_element_does_not_depend_on_its_place(name, options, rng):
    """Vector body, tail and single element give the same bits."""
    for dtype in DTYPES:
        p, g, states = problem(name, (83,), dtype, rng)
        pieces = [
            (p[i : i + 1].copy(), g[i : i + 1], [s[i : i + 1].copy() for s in states]) for i in range(p.size)
        ]
        step(name, p, g, states, 0.1, **options)
        for i, (p_i, g_i, states_i) in enumerate(pieces):
            step(name, p_i, g_i, states_i, 0.1, **options)
            for one, whole in zip((p_i, *states_i), (p, *states), strict=True):
                assert one[0] == whole[i]


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_do_not_depend_on_the_number_of_threads(name, rng):
    p, g, states = problem(name, (400_003,), "float32", rng)
    assert work("update", p) > 2 * team.WORTH_SHARING, "too small to be shared"
    before, results = gd.get_threads(), []
    try:
        for threads in (1, 2, 3):
            gd.set_threads(threads)
            mine = p.copy(), [state.copy() for state in states]
            step(name, mine[0], g, mine[1], 0.1)
            results.append([mine[0].tobytes(), *(state.tobytes() for state in mine[1])])
    finally:
        gd.set_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_layout_gives_the_same_bits(name, layout, rng):
    p, g, states = problem(name, (9, 14), "float32", rng)
    written = "C" if layout == "read-only" else layout
    others = laid_out(p, written), laid_out(g, layout), [laid_out(state, written) for state in states]
    step(name, p, g, states, 0.1)
    step(name, *others, 0.1)
    np.testing.assert_array_equal(others[0], p)
    for other, state in zip(others[2], states, strict=True):
        np.testing.assert_array_equal(other, state)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("name", NAMES)
def test_lists_take_the_step_of_each_of_their_arrays(name, kind, dtype, rng):
    options = {"momentum": 0.9} if name == "sgd" else {}
    shapes = ((20, 64), (64,), (), (0, 3), (7, 1))
    together = [problem(name, shape, dtype, rng) for shape in shapes]
    alone = [(p.copy(), g, [state.copy() for state in states]) for p, g, states in together]
    p, g = (kind(one[place] for one in together) for place in range(2))
    states = [kind(one[2][place] for one in together) for place in range(len(RULES[name].states))]
    step(name, p, g, states, 0.1, **options)
    for (p_one, g_one, states_one), (p_all, _, states_all) in zip(alone, together, strict=True):
        step(name, p_one, g_one, states_one, 0.1, **options)
        for one, other in zip((p_one, *states_one), (p_all, *states_all), strict=True):
            np.testing.assert_array_equal(one, other)


def test_arrays_with_strides_in_lists_take_the_same_step(rng):
    p, g, (m, v) = problem("adam", (6, 4), np.float32, rng)
    expected = [array.copy() for array in (p, m, v)]
    gd.adam_step(expected[0], g, *expected[1:], 5, 0.1)
    turned = [np.asfortranarray(array) for array in (p, m, v)]
    gd.adam_step([turned[0]], [g], [turned[1]], [turned[2]], 5, 0.1)
    for one, other in zip(turned, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_sgd_without_momentum_a_list_needs_no_velocity(rng):
    arrays = [rng.standard_normal(5), rng.standard_normal((2, 3))]
    before = [array.copy() for array in arrays]
    gd.sgd_step(arrays, [array.copy() for array in arrays], None, 0.5)
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_allclose(one, 0.5 * other)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p, g, m, v: (p, g[:1], m, v), ValueError, "adam_step: g has 1 arrays, expected 2 like p"),
        (lambda p, g, m, v: (p, g[0], m, v), TypeError, "adam_step: g is of type ndarray, expected a list like p"),
        (lambda p, g, m, v: (p, g, [m[0], v[1]], v), ValueError, r"adam_step: v\[1\] overlaps m\[1\], expected memory"),
        (lambda p, g, m, v: ([p[0], p[0]], [g[0], g[0]], [m[0], m[0]], [v[0], v[0]]), ValueError, r"p\[1\] overlaps p\[0\]"),
        (lambda p, g, m, v: (p, g, m, [v[0], v[1].astype("f4")]), TypeError, r"adam_step: v\[1\] has dtype float32"),
        (lambda p, g, m, v: (p, g, [m[0], m[1][:2]], v), ValueError, r"adam_step: m\[1\] has shape \(2,\), expected \(3,\)"),
        (lambda p, g, m, v: (p, [g[0], None], m, v), TypeError, r"adam_step: g\[1\] is of type NoneType, expected a NumPy"),
    ],
)  # fmt: skip
def test_of_lists_the_array_that_is_wrong_is_named_and_nothing_is_written(change, error, words):
    lists = [[np.full(3, 1.0 + place), np.full(3, 2.0 + place)] for place in range(4)]
    with pytest.raises(error, match=words):
        gd.adam_step(*change(*lists), 1, 0.1)
    for place, arrays in enumerate(lists):
        assert (arrays[0] == 1.0 + place).all() and (arrays[1] == 2.0 + place).all()


def test_sgd_without_momentum_needs_no_velocity_and_leaves_it_alone(rng):
    p, g, (velocity,) = problem("sgd", (30,), "float32", rng)
    kept, other = velocity.copy(), p.copy()
    gd.sgd_step(p, g, velocity, 0.1)
    gd.sgd_step(other, g, None, 0.1)
    np.testing.assert_array_equal(velocity, kept)
    np.testing.assert_array_equal(p, other)


def test_lion_stands_still_where_gradient_and_memory_are_zero():
    p, m = np.ones(3, np.float32), np.zeros(3, np.float32)
    gd.lion_step(p, np.array([0.0, 5.0, -1e-30], np.float32), m, 0.25)
    np.testing.assert_array_equal(p, np.array([1.0, 0.75, 1.25], np.float32))


def test_views_between_each_other_do_not_overlap(rng):
    """Rows of one (2, n) array read column by column share no element, though their addresses interleave."""
    both = np.ascontiguousarray(rng.standard_normal((2, 50)).astype("f4").T)
    p, g = both[:, 0], both[:, 1]
    expected = p - np.float32(0.5) * g
    gd.sgd_step(p, g, None, 0.5)
    np.testing.assert_array_equal(p, expected)


def adam(**given):
    """A call of adam_step with one argument replaced."""
    arguments = {name: np.ones((3, 4), "f4") for name in "pgmv"} | {"step": 1, "lr": 0.1} | given
    return lambda: gd.adam_step(**arguments), arguments


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"g": np.ones((4, 3), "f4")}, ValueError, r"adam_step: g has shape \(4, 3\), expected \(3, 4\) because p has it"),
        ({"m": np.ones((3, 4), "f8")}, TypeError, "adam_step: m has dtype float64, expected float32 because p has it"),
        ({"p": np.ones((3, 4), "i4")}, TypeError, "adam_step: p has dtype int32, expected float32 or float64"),
        ({"v": [1.0]}, TypeError, "adam_step: v is of type list, expected a NumPy or CUDA array"),
        ({"v": None}, TypeError, "adam_step: v is of type NoneType, expected a NumPy or CUDA array"),
        ({"v": laid_out(np.ones((3, 4)), "read-only", "f4")}, ValueError, "adam_step: v is read-only"),
        ({"p": laid_out(np.ones((3, 4)), "read-only", "f4")}, ValueError, "adam_step: p is read-only"),
        ({"step": 0}, ValueError, "adam_step: step is 0, expected a positive integer"),
        ({"step": 1.0}, TypeError, "adam_step: step is 1.0, expected a positive integer"),
        ({"lr": -1.0}, ValueError, "adam_step: lr is -1.0, expected a finite number ≥ 0"),
        ({"lr": np.nan}, ValueError, "adam_step: lr is nan, expected a finite number"),
        ({"lr": "fast"}, TypeError, "adam_step: lr is 'fast', expected a finite number ≥ 0"),
        ({"beta1": 1.0}, ValueError, r"adam_step: beta1 is 1.0, expected a number in \[0, 1\)"),
        ({"beta2": -0.1}, ValueError, r"adam_step: beta2 is -0.1, expected a number in \[0, 1\)"),
        ({"eps": -1e-8}, ValueError, "adam_step: eps is -1e-08"),
        ({"weight_decay": np.inf}, ValueError, "adam_step: weight_decay is inf"),
    ],
)  # fmt: skip
def test_adam_says_what_is_wrong_and_writes_nothing(given, error, words):
    call, arguments = adam(**given)
    with pytest.raises(error, match=words):
        call()
    for name in "pmv":
        if isinstance(arguments[name], np.ndarray):
            assert (arguments[name] == 1).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: gd.sgd_step(a, a + 1, None, 0.1, 0.9), "velocity is None, expected an array because momentum is 0.9"),
        (lambda a: gd.sgd_step(a, a, None, 0.1), "sgd_step: g overlaps p, expected memory of its own"),
        (lambda a: gd.adagrad_step(a, a + 1, a, 0.1), "adagrad_step: v overlaps p"),
        (lambda a: gd.lion_step(a[1:], a + 1, a[:-1], 0.1), r"lion_step: g has shape \(8,\), expected \(7,\)"),
        (lambda a: gd.lion_step(a[1:], a[1:] + 1, a[:-1], 0.1), "lion_step: m overlaps p"),
        (lambda a: gd.rmsprop_step(a, a + 1, a[::-1], 0.1), "rmsprop_step: v overlaps p"),
        (lambda a: gd.rmsprop_step(a, a + 1, a + 2, 0.1, alpha=1.0), r"alpha is 1.0, expected a number in \[0, 1\)"),
        (lambda a: gd.amsgrad_step(a, a + 1, a + 2, a + 3, a, 1, 0.1), "amsgrad_step: vmax overlaps p"),
        (lambda a: gd.adamw_step(a, a + 1, a + 2, a + 3, -1, 0.1), "adamw_step: step is -1"),
    ],
)  # fmt: skip
def test_steps_say_what_is_wrong_and_write_nothing(call, words):
    array = np.arange(8.0)
    with pytest.raises(ValueError, match=words):
        call(array)
    np.testing.assert_array_equal(array, np.arange(8.0))


@pytest.mark.parametrize(
    "mutation",
    ["betas exchanged", "no bias correction", "eps under the root", "a wrong sign", "decay twice"],
)
def test_a_wrong_step_would_be_caught(mutation, rng):
    p, g, states = problem("adam", (500,), "float32", rng)
    new = exact_step("adam", p, g, states, 0.1, weight_decay=0.1, eps=1e-4)
    options = {"eps": 1e-4, "weight_decay": 0.1}
    allowed = bounds.step("adam", p, g, states, 0.1, 5, **options)
    changed = {
        "betas exchanged": lambda: gd.adam_step(p, g, *states, 5, 0.1, 0.999, 0.9, **options),
        "no bias correction": lambda: gd.adam_step(p, g, *states, 10**6, 0.1, **options),
        "eps under the root": lambda: gd.adam_step(p, g, *states, 5, 0.1, eps=1e-8, weight_decay=0.1),
        "a wrong sign": lambda: gd.adam_step(p, -g, *states, 5, 0.1, **options),
        "decay twice": lambda: gd.adam_step(p, g, *states, 5, 0.1, eps=1e-4, weight_decay=0.2),
    }
    changed[mutation]()
    with pytest.raises(AssertionError, match="p: "):
        assert_close("adam", (p, *states), new, allowed)
