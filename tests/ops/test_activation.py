"""gd.activation and gd.activation_backward against the reference, over all floats, layouts and threads."""

from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import reference
from gdkernels.cpu import activation as cpu_activation
from gdkernels.cpu import cost
from gdkernels.cpu.runtime import stream, team
from gdkernels.cpu.runtime.jit import native
from gdkernels.cpu.runtime.simd import noalias
from gdkernels.ops.activation import KINDS, activation, activation_backward, saved_for
from gdkernels.scalar import activation as activations
from reference import bounds
from reference.activation import SELU_TAIL
from reference.rounding import CPU
from tests.conftest import DTYPES
from tests.layouts import LAYOUTS, laid_out
from tests.ordinary import by, in_place_of, past_door, through_door
from tests.within import assert_within

EXTREMES = (0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan)


def assert_forward(z, a, kind: str, on=CPU) -> None:
    assert a.dtype == z.dtype
    assert_within(a, in_range(reference.activation(z, kind), z.dtype), bounds.activation(z, kind, on), kind)


def in_range(exact, dtype):
    """What is beyond the largest number of a type is infinite there (selu's λ z is, for the largest z)."""
    return np.where(np.abs(exact) > np.finfo(dtype).max, np.copysign(np.inf, exact), exact)


def assert_backward(da, saved, dz, kind: str, on=CPU) -> None:
    assert dz.dtype == da.dtype
    exact = reference.activation_backward(da, saved, kind)
    assert_within(dz, exact, bounds.activation_backward(da, saved, kind, on), kind)


def saved_of(z, a, kind: str):
    return a if saved_for(kind) == "output" else z


@cache
def sample(dtype: str) -> np.ndarray:
    """Floats of every exponent, many of middling size, and the extremes."""
    rng = np.random.default_rng(0)
    unsigned = {"float32": np.uint32, "float64": np.uint64}[dtype]
    patterns = rng.integers(0, np.iinfo(unsigned).max, 20_000, unsigned, endpoint=True).view(dtype)
    middling = np.concatenate([rng.uniform(-s, s, 10_000) for s in (1.5, 6.0, 120.0)]).astype(dtype)
    values = np.concatenate([patterns, middling, np.array(EXTREMES, dtype)])
    values[np.isnan(values)] = np.nan  # the quiet one: NumPy warns when it converts the others
    values.flags.writeable = False
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_within_the_derived_error_for_all_floats(kind, dtype):
    assert_forward(sample(dtype), activation(sample(dtype), kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_backward_is_within_the_derived_error_for_all_floats(kind, dtype):
    z = sample(dtype)
    saved = saved_of(z, in_range(reference.activation(z, kind), dtype).astype(dtype), kind)
    da = np.random.default_rng(1).standard_normal(z.size).astype(dtype)
    assert_backward(da, saved, activation_backward(da, saved, kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_exact_and_nan_passes_through(kind, dtype):
    z = np.array(EXTREMES, dtype)
    with np.errstate(under="ignore"):
        limits = reference.activation(z, kind).astype(dtype)
        slopes = reference.activation_slope(saved_of(z, limits, kind), kind).astype(dtype)
    rough = {
        "rtol": 0 if kind not in ("sigmoid", "softplus", "leaky_relu", "selu") else 4 * np.finfo(dtype).eps,
        "atol": 0,
    }
    np.testing.assert_allclose(activation(z, kind), limits, **rough)
    assert np.isnan(activation(z, kind)[-1])
    a = activation(z, kind)
    rough["rtol"] = 4 * np.finfo(dtype).eps
    if kind == "selu":  # whose slope a + λ α meets 0 where a is -λ α, rounded
        rough["atol"] = SELU_TAIL * np.finfo(dtype).eps / 2
    np.testing.assert_allclose(
        activation_backward(np.ones_like(z), saved_of(z, a, kind), kind), slopes, **rough
    )
    in_da = activation_backward(np.array([np.nan, np.inf], dtype), np.full(2, 0.5, dtype), kind)
    np.testing.assert_array_equal(in_da, np.array([np.nan, np.inf], dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_backward_matches_finite_differences(kind):
    """Central differences with h = 1e-5: error h²/6 |act‴| (below 1e-10, |act‴| < 6) and eps |act| / h < 1e-10."""
    z = np.random.default_rng(3).uniform(-4, 4, (5, 7))
    z[np.abs(z) < 1e-3] += 0.5  # away from the kinks
    da = np.random.default_rng(4).standard_normal(z.shape)
    saved = saved_of(z, activation(z, kind), kind)
    difference = (activation(z + 1e-5, kind) - activation(z - 1e-5, kind)) / 2e-5
    np.testing.assert_allclose(activation_backward(da, saved, kind), da * difference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    oracle = {
        "identity": lambda z: 1.0 * z,
        "gelu_tanh": lambda z: f.gelu(z, approximate="tanh"),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }.get(kind) or getattr(f, kind)
    z = np.random.default_rng(5).standard_normal((6, 9)) * 3
    da = np.random.default_rng(6).standard_normal(z.shape)
    leaf = torch.tensor(z, requires_grad=True)
    a = oracle(leaf)
    a.backward(torch.tensor(da))
    # both in float64 with errors of a few eps of terms up to 10 (PyTorch's gelu: 1 + erf cancels in the tail)
    ours = activation(z, kind)
    np.testing.assert_allclose(ours, a.detach().numpy(), rtol=0, atol=1e-14)
    dz = activation_backward(da, saved_of(z, ours, kind), kind)
    np.testing.assert_allclose(dz, leaf.grad.numpy(), rtol=0, atol=2e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_every_layout_gives_the_same_and_stays_unchanged(kind, layout):
    rng = np.random.default_rng(7)
    plain, da = rng.standard_normal((13, 21)).astype("f4"), rng.standard_normal((13, 21)).astype("f4")
    z, gradient = laid_out(plain, layout), laid_out(da, layout)
    expected = activation(plain, kind)
    assert activation(z, kind).tobytes() == expected.tobytes()
    saved = laid_out(saved_of(plain, expected, kind), layout)
    before = z.tobytes(), gradient.tobytes(), saved.tobytes()
    db, db_expected = np.empty(21, "f4"), np.empty(21, "f4")
    dz = activation_backward(gradient, saved, kind, db=db)
    np.testing.assert_array_equal(
        dz, activation_backward(da, saved_of(plain, expected, kind), kind, db=db_expected)
    )
    assert db.tobytes() == db_expected.tobytes()
    assert (z.tobytes(), gradient.tobytes(), saved.tobytes()) == before


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "read-only"])
def test_out_and_db_may_have_any_writable_layout(layout):
    z = np.random.default_rng(8).standard_normal((9, 10)).astype("f4")
    out, dz = laid_out(np.zeros_like(z), layout), laid_out(np.zeros_like(z), layout)
    db, expected = laid_out(np.zeros(10, "f4"), layout), np.empty(10, "f4")
    assert activation(z, "silu", out) is out
    np.testing.assert_array_equal(out, activation(z, "silu"))
    assert activation_backward(z, z, "silu", dz, db) is dz
    np.testing.assert_array_equal(dz, activation_backward(z, z, "silu", db=expected))
    np.testing.assert_array_equal(db, expected)


@pytest.mark.parametrize("layout", ["C", "strided", "misaligned"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_place(kind, layout):
    rng = np.random.default_rng(9)
    plain, da = rng.standard_normal((11, 37)).astype("f4"), rng.standard_normal((11, 37)).astype("f4")
    z = laid_out(plain, layout)
    a = activation(plain, kind)
    assert activation(z, kind, z) is z
    np.testing.assert_array_equal(z, a)
    saved = saved_of(plain, a, kind)
    dz = activation_backward(da, saved, kind)
    for place in (0, 1):
        arguments = [laid_out(da, layout), laid_out(saved, layout)]
        activation_backward(*arguments, kind, out=arguments[place])
        np.testing.assert_array_equal(arguments[place], dz)
        np.testing.assert_array_equal(arguments[1 - place], (da, saved)[1 - place])


@pytest.mark.parametrize("kind", KINDS)
def test_large_results_have_the_same_bits_and_leave_their_surroundings_alone(kind, dtype):
    """They go past the caches: in whole lines where these begin, and element by element before and behind."""
    few = sample(dtype)
    count = stream.LARGE // few.itemsize + 37
    z = np.resize(few, count)
    expected = np.resize(activation(few, kind), count)
    before = team.get_threads()
    team.set_threads(1)
    try:
        for shift in (0, 3):
            memory = np.full(count + 32, 7, dtype)
            activation(z, kind, memory[shift : shift + count])
            assert memory[shift : shift + count].tobytes() == expected.tobytes()
            assert (memory[:shift] == 7).all() and (memory[shift + count :] == 7).all()
        assert activation(z, kind, z) is z
        assert z.tobytes() == expected.tobytes()
    finally:
        team.set_threads(before)


def in_row_order(dz) -> np.ndarray:
    total = np.zeros_like(dz[0]) if len(dz) else np.zeros(dz.shape[1], dz.dtype)
    for row in dz:
        total += row
    return total


def block_starts(dz) -> range:
    """Where the blocks of rows begin, all but the first, that are added up one by one where the work is worth sharing."""
    rows = max(cost.LEAST_ROWS, -(-len(dz) // cost.MOST_BLOCKS))
    return range(rows, len(dz), rows)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 16), (257, 10), (30, 300), (2000, 3), (0, 4), (4, 0)])
@pytest.mark.parametrize("kind", ["identity", "tanh", "silu"])
def test_db_is_the_sum_of_dz_in_row_order(kind, shape, dtype):
    rng = np.random.default_rng(10)
    z, da = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    db = np.full(shape[1], np.nan, dtype)
    dz = activation_backward(da, saved_of(z, activation(z, kind), kind), kind, db=db)
    assert db.tobytes() == in_row_order(dz).tobytes()


@pytest.mark.parametrize("shape", [(3000, 300), (100_000, 7), (900_000,)])
@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_same_bits_for_any_number_of_threads(kind, shape):
    """Large enough that the work is shared, by rows or by blocks of rows."""
    rng = np.random.default_rng(11)
    z, da = rng.standard_normal(shape).astype("f4"), rng.standard_normal(shape).astype("f4")
    assert cpu_activation._work(kind, z) > team.WORTH_SHARING
    before, seen = team.get_threads(), set()
    try:
        for threads in (1, 2, 3):
            team.set_threads(threads)
            db = np.empty(shape[1], "f4") if len(shape) == 2 else None
            a = activation(z, kind)
            dz = activation_backward(da, saved_of(z, a, kind), kind, db=db)
            assert dz.tobytes() == activation_backward(da, saved_of(z, a, kind), kind).tobytes()
            seen.add((a.tobytes(), dz.tobytes(), b"" if db is None else db.tobytes()))
    finally:
        team.set_threads(before)
    assert len(seen) == 1


def test_accumulated_column_sums_continue_the_sum():
    """What linear_backward does with accumulate: db starts from what it holds."""
    rng = np.random.default_rng(12)
    for shape, kind in (((50, 20), "tanh"), ((60_000, 9), "tanh"), ((50, 20), "identity")):
        a, da = rng.standard_normal(shape).astype("f4"), rng.standard_normal(shape).astype("f4")
        db = rng.standard_normal(shape[1]).astype("f4")
        dz = da.copy()
        expected = activation_backward(da, a, kind)
        if cpu_activation._work(kind, da) >= team.WORTH_SHARING:
            expected = np.array([in_row_order(dz) for dz in np.split(expected, block_starts(expected))])
        expected = in_row_order(np.concatenate([db[None], expected]))
        cpu_activation.backward(dz, a, kind, dz, db, accumulate=True)
        assert db.tobytes() == expected.tobytes()


@given(
    kind=st.sampled_from(KINDS),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
    z=arrays(
        "f4", array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9), elements=st.floats(width=32)
    ),
)
def test_any_shape_and_value(kind, layout, dtype, z):
    z = z.astype(dtype)
    given_z = laid_out(z, layout)
    a = activation(given_z, kind)
    assert_forward(z, a, kind)
    da = np.linspace(-2, 2, z.size, dtype=dtype).reshape(z.shape)
    saved = saved_of(z, a, kind)
    assert_backward(da, saved, activation_backward(laid_out(da, layout), laid_out(saved, layout), kind), kind)


def test_an_array_without_dimensions_is_one_element():
    assert activation(np.array(-2.0), "leaky_relu").shape == ()
    assert activation_backward(np.array(3.0), np.array(-2.0), "leaky_relu") == np.array(0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_for_agrees_with_the_reference(kind):
    assert saved_for(kind) == reference.saved_for(kind) == activations.SAVED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_scalar_functions_work_in_the_interpreter(kind):
    act, slope, *_ = activations.ACTIVATIONS[kind]
    for z in (-30.0, -1.5, 0.0, 2.5, 30.0):
        a = float(activation(np.array([z]), kind)[0])
        saved = float(saved_of(z, a, kind))
        assert act(z) == pytest.approx(a, rel=1e-13, abs=1e-300)
        dz = activation_backward(np.ones(1), np.array([saved]), kind)[0]
        assert slope(saved) == pytest.approx(dz, rel=1e-12, abs=1e-300)


Z = np.ones((3, 4), "f4")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: saved_for("swish"), ValueError, "saved_for: kind is 'swish', expected one of identity, .*mish"),
        (lambda: activation(Z, "swish"), ValueError, "activation: kind is 'swish', expected one of identity, "),
        (lambda: activation([1.0], "relu"), TypeError, "activation: z is of type list, expected a NumPy or CUDA array"),
        (lambda: activation(Z.astype("i4"), "relu"), TypeError, "activation: z has dtype int32, expected float32 or"),
        (lambda: activation(Z, "relu", np.ones((4, 3), "f4")), ValueError, r"out has shape \(4, 3\), expected \(3, 4\) b"),
        (lambda: activation(Z, "relu", np.ones((3, 4))), TypeError, "activation: out has dtype float64, expected float32"),
        (lambda: activation(Z, "relu", laid_out(Z, "read-only")), ValueError, "activation: out is read-only"),
        (lambda: activation_backward(Z, Z[:2], "relu"), ValueError, r"saved has shape \(2, 4\), expected \(3, 4\) because"),
        (lambda: activation_backward(Z, Z.astype("f8"), "relu"), TypeError, "saved has dtype float64, expected float32"),
        (lambda: activation_backward(Z, None, "silu"), ValueError, "saved is None, expected the preactivation of silu"),
        (lambda: activation_backward(Z, Z, "relu", db=np.ones(3, "f4")), ValueError, r"db has shape \(3,\), expected \(4,"),
        (lambda: activation_backward(Z[0], Z[0], "relu", db=np.ones(4, "f4")), ValueError, "da has shape .*2 dimensions"),
    ],
)  # fmt: skip
def test_says_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert (Z == 1).all()


def test_overlaps_are_refused_before_anything_is_written():
    memory = np.arange(40, dtype="f4")
    kept = memory.copy()
    early, late = memory[:20].reshape(4, 5), memory[4:24].reshape(4, 5)
    other = np.ones((4, 5), "f4")
    with pytest.raises(ValueError, match="activation: out partly overlaps an input"):
        activation(early, "relu", late)
    with pytest.raises(ValueError, match="activation_backward: out partly overlaps an input"):
        activation_backward(early, other, "relu", late)
    with pytest.raises(ValueError, match="activation_backward: out partly overlaps an input"):
        activation_backward(other, early, "relu", late)
    for arguments in ((early, other, "relu"), (other, early, "relu"), (other, other, "relu", early)):
        with pytest.raises(ValueError, match="activation_backward: db overlaps another argument"):
            activation_backward(*arguments, db=memory[:5])
    np.testing.assert_array_equal(memory, kept)


def test_the_identity_needs_nothing_saved():
    da, db = np.arange(6, dtype="f4").reshape(2, 3), np.empty(3, "f4")
    dz = activation_backward(da, None, "identity", db=db)
    assert dz is not da
    np.testing.assert_array_equal(dz, da)
    np.testing.assert_array_equal(db, [3, 5, 7])


@native("F*, F*, F*, i8")
def silu_backward_with_a_wrong_sign(da, saved, dz, count):
    noalias()
    for i in range(count):
        s = activations.sigmoid(saved[i])
        dz[i] = da[i] * (s - saved[i] * s * (type(s)(1) - s))


@native("F*, F*, i8")
def softplus_without_its_correction(z, a, count):
    noalias()
    for i in range(count):
        a[i] = activations.relu(z[i])


@pytest.mark.parametrize("way", [through_door, past_door])
def test_a_wrong_kernel_is_caught(way, monkeypatch):
    monkeypatch.setattr(f"{__name__}.activation_backward", partial(by, way, "activation_backward"))
    monkeypatch.setattr(f"{__name__}.activation", partial(by, way, "activation"))
    test_backward_is_within_the_derived_error_for_all_floats("silu", "float32")
    wrong = in_place_of(
        cpu_activation.BACKWARD, "activation_backward", "silu", silu_backward_with_a_wrong_sign
    )
    with wrong, pytest.raises(AssertionError):
        test_backward_is_within_the_derived_error_for_all_floats("silu", "float32")
    wrong = in_place_of(cpu_activation.FORWARD, "activation", "softplus", softplus_without_its_correction)
    with wrong, pytest.raises(AssertionError):
        test_forward_is_within_the_derived_error_for_all_floats("softplus", "float32")
