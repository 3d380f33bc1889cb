"""The elementary functions of the CPU against wider arithmetic, over samples of all floats, and how they compile."""

import dataclasses
import math
import re
from functools import cache

import numpy as np
import pytest
from numba import cfunc, types

from gdkernels.cpu.runtime import elementary as on_cpu
from gdkernels.cpu.runtime import team
from gdkernels.cpu.runtime.flags import FLAGS
from gdkernels.cpu.runtime.jit import Native, kernel, native
from gdkernels.cpu.runtime.layout import Code, Floats, Int
from gdkernels.cpu.runtime.machine import IS_X86
from gdkernels.cpu.runtime.simd import apply, noalias
from gdkernels.scalar import elementary
from reference.rounding import CPU

EXACT_NAMES = ("exp", "expm1", "log", "log1p", "tanh", "normal_cdf", "normal_pdf")
# What is as exact as another function, which has it on a part of its range.
PARTS = {"decay": "exp", "log1p_of_fraction": "log1p", "normal_tail": "normal_cdf"}
NAMES = (*EXACT_NAMES, *PARTS)

# What the docstrings of cpu/runtime/elementary.py state, rounded up: what all bounds of the CPU's rounding rest on.
ULP = {name: getattr(CPU, PARTS.get(name, name)) for name in NAMES}

WIDER = {"float32": np.float64, "float64": np.longdouble}

# How exact the wider values are, in ulp of the narrow type. For float32 they are exact in effect. For float64 erfc
# exists in double only, with an error of 1 ulp, and long double is no wider than double on some platforms.
SLACK = {"float32": 0.01, "float64": 0.01 if np.finfo(np.longdouble).eps < 1e-18 else 1.0}

_exact_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@kernel
def whole(code: Code, x: Floats, y: Floats, n: Int, start, stop):
    """Apply the loop `code` once."""
    apply(code, x, y, n)


def loop_over(function, name: str) -> Native:
    def loop(x, y, n):
        noalias()
        for i in range(n):
            y[i] = function(x[i])

    loop.__name__ = name
    return native("F*, F*, i8")(loop)


LOOPS = {name: loop_over(getattr(elementary, name), name) for name in NAMES}


def evaluate(loop: Native, x: np.ndarray, size: int | None = None) -> np.ndarray:
    """The function of every element of x, in calls of `size` elements."""
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    size = size or max(1, x.size)
    for i in range(0, x.size, size):
        part, result = x[i : i + size], y[i : i + size]
        team.run(whole.op(x.dtype, 1, code=loop, x=part, y=result, n=part.size))
    return y


@cache
def sample(dtype: str) -> np.ndarray:
    """Floats with bit patterns spread over all there are (each exponent and sign alike), and many of middling size."""
    rng = np.random.default_rng(0)
    unsigned = {"float32": np.uint32, "float64": np.uint64}[dtype]
    patterns = rng.integers(0, np.iinfo(unsigned).max, 150_000, unsigned, endpoint=True).view(dtype)
    middling = np.concatenate([rng.uniform(-s, s, 50_000) for s in (1.0, 3.0, 20.0)]).astype(dtype)
    edges = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e4, -1e4], dtype)
    return np.concatenate([patterns, middling, edges])


def inputs(name: str, dtype: str) -> np.ndarray:
    """Those of a sample that a function is made for."""
    x = sample(dtype)
    return x[(x >= 0) & (x <= 1)] if name == "log1p_of_fraction" else x


def wider(name: str, x: np.ndarray) -> np.ndarray:
    """The function in wider arithmetic."""
    if name in ("decay", "normal_tail"):
        x = -np.abs(x)
    name = PARTS.get(name, name)
    with np.errstate(all="ignore"):
        z = x.astype(WIDER[str(x.dtype)])
        if name == "normal_cdf":
            # erfc of the rounded −x/√2, and the first-order effect of that rounding
            t = -z / np.sqrt(type(z[0])(2))
            rounded = t.astype(np.float64)
            correction = -2 / np.sqrt(np.pi) * np.exp(-(t**2)) * (t - rounded)
            return 0.5 * (_exact_erfc(rounded) + np.where(np.isfinite(correction), correction, 0))
        if name == "normal_pdf":
            return np.exp(-z * z / 2) / np.sqrt(2 * z.dtype.type(math.pi))
        return getattr(np, name)(z)


def worst_ulp(y: np.ndarray, exact: np.ndarray) -> float:
    """Largest distance in units of the last place of the exact value; NaN and infinities must be where they belong."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(y.dtype)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    np.testing.assert_array_equal(y[np.isinf(rounded)], rounded[np.isinf(rounded)])
    finite = np.isfinite(rounded)
    distance = np.abs(y[finite].astype(exact.dtype) - exact[finite])
    return float((distance / np.spacing(np.abs(rounded[finite]))).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_within_the_stated_ulp(name, dtype):
    x, slack = inputs(name, dtype), SLACK[dtype]
    if dtype == "float64" and name in ("normal_cdf", "normal_tail"):
        slack = 1.1
        # Beyond, results are denormal and erfc's own error is no longer small.
        x = x[~((-x if name == "normal_cdf" else abs(x)) > 37.5)]
    assert worst_ulp(evaluate(LOOPS[name], x), wider(name, x)) <= ULP[name] + slack


def scaled_exp(x):
    """What a softmax makes of its exponents, which are at most 0."""
    return on_cpu.scale_down(on_cpu.lifted_exp(x))


def test_the_error_of_a_lifted_exponential_grows_no_faster_than_that_of_its_argument(dtype):
    loop = loop_over(on_cpu._inlined(scaled_exp), "scaled_exp")
    x = -np.abs(sample(dtype))
    for most in (1, 2, 4, 8, 16, 32, 64, 128, np.inf):
        within = x[~(x < -most)]
        assert worst_ulp(evaluate(loop, within), wider("exp", within)) <= 1.3 + min(most, 746)


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", [0, -np.inf, np.inf, 1e4, -1e4], [1, 0, np.inf, np.inf, 0]),
        ("expm1", [0, -np.inf, np.inf, 1e4, -1e4], [0, -1, np.inf, np.inf, -1]),
        ("log", [0, -0.0, 1, np.inf, -1, -np.inf], [-np.inf, -np.inf, 0, np.inf, np.nan, np.nan]),
        ("log1p", [0, -1, np.inf, -1.5, -np.inf], [0, -np.inf, np.inf, np.nan, np.nan]),
        ("tanh", [0, -np.inf, np.inf, 1e4, -1e4], [0, -1, 1, 1, -1]),
        ("normal_cdf", [0, -np.inf, np.inf, 1e4, -1e4], [0.5, 0, 1, 1, 0]),
        ("normal_pdf", [-np.inf, np.inf, 1e4, -1e4], [0, 0, 0, 0]),
        ("decay", [0, -0.0, -np.inf, np.inf, 1e4, -1e4], [1, 1, 0, 0, 0, 0]),
        ("log1p_of_fraction", [0, 1], [0, np.log(2)]),
        ("normal_tail", [0, -np.inf, np.inf, 1e4, -1e4], [0.5, 0, 0, 0, 0]),
    ],
)
def test_limits_are_exact(name, x, y, dtype):
    np.testing.assert_array_equal(evaluate(LOOPS[name], np.array(x, dtype)), np.array(y, dtype))
    assert np.isnan(evaluate(LOOPS[name], np.array([np.nan], dtype)))
    function = getattr(elementary, name)  # the same in the interpreter
    np.testing.assert_array_equal([function(float(value)) for value in x], np.array(y, float))
    assert math.isnan(function(math.nan))


@pytest.mark.parametrize("name", ["expm1", "tanh", "log1p"])
def test_odd_near_zero_down_to_the_smallest_denormal(name, dtype):
    tiny = np.array([0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny], dtype)
    above, below = evaluate(LOOPS[name], tiny), evaluate(LOOPS[name], -tiny)
    np.testing.assert_allclose(above, tiny, rtol=0, atol=np.spacing(tiny[1]))
    assert above.tobytes() == (-below).tobytes()  # also the sign of zero


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_of_an_element_do_not_depend_on_its_place(name, dtype):
    x = inputs(name, dtype)[::97]
    at_once = evaluate(LOOPS[name], x)
    for size in (1, 5, 21):  # the scalar remainder, and other lanes
        assert evaluate(LOOPS[name], x, size).tobytes() == at_once.tobytes()


@pytest.mark.skipif(not IS_X86, reason="the names of instructions are those of x86")
@pytest.mark.parametrize("name", NAMES)
def test_loops_become_vector_code_without_calls(name, dtype):
    compiled = cfunc(LOOPS[name].signature(dtype), nopython=True, **FLAGS)(LOOPS[name].function)
    assembly = compiled._library.get_asm_str()
    packed = {"float32": "ps", "float64": "pd"}[dtype]
    assert re.search(rf"\bv?(mul|fn?madd\d*){packed}\b", assembly)
    assert len(re.findall(r"\bcallq?\b", assembly)) == 1  # the C entry's, of the loop


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("exp", {"exp": (*on_cpu.FLOAT32.exp[:4], 1.01 * on_cpu.FLOAT32.exp[4])}),
        ("log1p", {"log": (*on_cpu.FLOAT32.log[:7], 0.99 * on_cpu.FLOAT32.log[7])}),
        ("tanh", {"expm1_least": -12.0}),
        (
            "normal_cdf",
            {"tail_above": (*on_cpu.FLOAT32.tail_above[:4], 1.00001 * on_cpu.FLOAT32.tail_above[4])},
        ),
        ("decay", {"ln2_low": 0.0}),
        ("log1p_of_fraction", {"log_of_fraction": (*on_cpu.FLOAT32.log_of_fraction[:8], -0.0034)}),
        ("normal_tail", {"tail_end": 13.0}),
        ("normal_pdf", {"ln2_low": 0.0}),
    ],
)
def test_a_wrong_constant_exceeds_the_bound(name, mutant):
    function = on_cpu.functions(dataclasses.replace(on_cpu.FLOAT32, **mutant))[name]
    x = inputs(name, "float32")
    wrong = evaluate(loop_over(on_cpu._inlined(function), f"wrong_{name}"), x)
    assert worst_ulp(wrong, wider(name, x)) > ULP[name] + SLACK["float32"]


def test_only_floats_have_elementary_functions():
    assert set(on_cpu.FUNCTIONS) == {types.float32, types.float64}
    assert set(on_cpu.FUNCTIONS[types.float32]) == {*NAMES, "lifted_exp", "scale_down"}
