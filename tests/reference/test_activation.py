"""The activations: against long decimals, finite differences and PyTorch, and at the extremes."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

import reference as ref

EPS = float(np.finfo(np.float64).eps)
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706"
)
FROM_OUTPUT = {"identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu"}
SCALE, ALPHA = Decimal("1.0507009873554804934193349852946"), Decimal("1.6732632423543772848170429916717")
EXTREMES = np.array([-np.inf, -1e308, -1e4, -750.0, 750.0, 1e4, 1e308, np.inf])


def in_decimals(kind: str, x: float) -> float:
    """The textbook formula at 120 digits (π at 78), where its cancellation does no harm."""
    with localcontext() as context:
        context.prec = 120
        z, cubic = Decimal(x), Decimal("0.044715")

        def tanh(t):
            return ((2 * t).exp() - 1) / ((2 * t).exp() + 1)

        def erf(t):  # 2/√π Σ (-1)^n t^(2n + 1) / (n! (2n + 1))
            power = total = t
            for n in range(1, 600):
                power *= -t * t / n
                total += power / (2 * n + 1)
            return 2 / PI.sqrt() * total

        value = {
            "identity": lambda: z,
            "sigmoid": lambda: 1 / (1 + (-z).exp()),
            "tanh": lambda: tanh(z),
            "relu": lambda: max(z, Decimal(0)),
            "leaky_relu": lambda: z if z > 0 else Decimal("0.01") * z,
            "elu": lambda: z if z > 0 else z.exp() - 1,
            "selu": lambda: SCALE * (z if z > 0 else ALPHA * (z.exp() - 1)),
            "gelu": lambda: z * (1 + erf(z / Decimal(2).sqrt())) / 2,
            "gelu_tanh": lambda: z * (1 + tanh((2 / PI).sqrt() * (z + cubic * z**3))) / 2,
            "silu": lambda: z / (1 + (-z).exp()),
            "softplus": lambda: (1 + z.exp()).ln(),
            "mish": lambda: z * tanh((1 + z.exp()).ln()),
        }[kind]()
        return float(value)


@pytest.mark.parametrize("kind", ref.KINDS)
def test_activation_has_the_digits_of_its_formula(kind):
    z = np.array([-11.3, -6.1, -3.0, -1.0, -0.3, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.7, 1.9, 5.5, 14.2])
    expected = np.array([in_decimals(kind, float(v)) for v in z])
    # A handful of roundings, eps/2 each. In the left tail of the gelus exp(-z²/2) and exp(2u) amplify that of
    # their argument by its size; 2u = 1.6 (z + 0.0447 z³) stays below 2 z² here.
    ulps = 8 + (4 * z * z if kind in {"gelu", "gelu_tanh"} else 0)
    assert (np.abs(ref.activation(z, kind) - expected) <= ulps * EPS * np.abs(expected)).all()


@pytest.mark.parametrize("kind", ref.KINDS)
def test_activation_backward_matches_finite_differences(kind, rng, assert_gradient):
    z, da = rng.standard_normal((4, 5)) * 2, rng.standard_normal((4, 5))  # no |z| near the kink at 0
    assert np.abs(z).min() > 1e-4
    saved = ref.activation(z, kind) if ref.saved_for(kind) == "output" else z
    assert_gradient(
        lambda z: (da * ref.activation(z, kind)).sum(), z, ref.activation_backward(da, saved, kind)
    )


def in_torch(kind):
    functional = pytest.importorskip("torch", reason="PyTorch is the outside oracle").nn.functional
    return {
        "identity": lambda z: z * 1.0,
        "sigmoid": functional.sigmoid,
        "tanh": functional.tanh,
        "relu": functional.relu,
        "leaky_relu": functional.leaky_relu,
        "elu": functional.elu,
        "selu": functional.selu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        "silu": functional.silu,
        "softplus": lambda z: functional.softplus(z, threshold=1000),
        "mish": functional.mish,
    }[kind]


@pytest.mark.parametrize("kind", ref.KINDS)
def test_activation_and_slope_match_pytorch_also_at_the_kink(kind, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside oracle")
    z = np.append(rng.standard_normal(200) * 4, [0.0, 20.5, -20.5])
    tensor = torch.tensor(z, requires_grad=True)
    a = in_torch(kind)(tensor)
    a.sum().backward()
    # PyTorch forms 1 + erf(z), 1 - tanh² and the like, which cancel: its error is absolute, a few eps |z|
    # (in gelu_tanh's slope: a few eps z u', u' < 0.8 + 0.11 z²); ours, being smaller, does not count.
    bound = 16 * EPS * np.maximum(1, np.abs(z)) ** (2 if kind == "gelu_tanh" else 1)
    saved = a.detach().numpy() if ref.saved_for(kind) == "output" else z
    assert (np.abs(ref.activation(z, kind) - a.detach().numpy()) <= bound).all()
    assert (np.abs(ref.activation_slope(saved, kind) - tensor.grad.numpy()) <= bound).all()


@pytest.mark.parametrize("kind", ref.KINDS)
def test_saved_for_names_what_the_backward_reads(kind):
    assert ref.saved_for(kind) == ("output" if kind in FROM_OUTPUT else "preactivation")


def test_slope_at_the_kinks():
    zero = np.zeros(1)
    assert ref.activation_slope(zero, "relu") == 0.0
    assert ref.activation_slope(zero, "leaky_relu") == 0.01
    assert ref.activation_slope(zero, "elu") == 1.0
    assert ref.activation_slope(zero, "selu") == float(SCALE * ALPHA)


def test_selu_keeps_mean_0_and_variance_1():
    """What its two constants are made for, for a normal z: integrals, wrong by h²/12 times the jump of slope at 0."""
    z = np.linspace(-40.0, 40.0, 800_001)
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) * (z[1] - z[0])
    a = ref.activation(z, "selu")
    assert abs((a * density).sum()) < 1e-9 and abs((a * a * density).sum() - 1.0) < 1e-9


@pytest.mark.parametrize("kind", ref.KINDS)
def test_extremes_give_the_limits(kind):
    left = {
        "identity": EXTREMES, "leaky_relu": 0.01 * EXTREMES, "tanh": -1.0, "elu": -1.0, "selu": float(-SCALE * ALPHA),
    }.get(kind, 0.0)  # fmt: skip
    right = {"sigmoid": 1.0, "tanh": 1.0, "selu": float(SCALE) * EXTREMES}.get(kind, EXTREMES)
    # exp(-750) = 2e-326 is below the smallest denormal
    np.testing.assert_array_equal(ref.activation(EXTREMES, kind), np.where(EXTREMES < 0, left, right))


@pytest.mark.parametrize("kind", ref.KINDS)
def test_slopes_at_the_extremes_are_the_limits(kind):
    left = {"identity": 1.0, "leaky_relu": 0.01}.get(kind, 0.0)
    right = {"sigmoid": 0.0, "tanh": 0.0, "selu": float(SCALE)}.get(kind, 1.0)
    saved = ref.activation(EXTREMES, kind) if ref.saved_for(kind) == "output" else EXTREMES
    np.testing.assert_array_equal(ref.activation_slope(saved, kind), np.where(EXTREMES < 0, left, right))


@pytest.mark.parametrize("kind", ref.KINDS)
def test_nan_passes_through(kind):
    z = np.array([1.0, np.nan])
    np.testing.assert_array_equal(np.isnan(ref.activation(z, kind)), [False, True])
    np.testing.assert_array_equal(np.isnan(ref.activation_backward(z, [1.0, 1.0], kind)), [False, True])
    np.testing.assert_array_equal(np.isnan(ref.activation_slope(z, kind)), [False, kind != "identity"])


@pytest.mark.parametrize("kind", ref.KINDS)
def test_denormals_are_not_flushed(kind):
    tiny = np.array([5e-324, 1e-310])
    at_zero = {"sigmoid": 0.5, "softplus": np.log(2.0)}
    if kind in at_zero:
        np.testing.assert_array_equal(ref.activation(tiny, kind), at_zero[kind])
    else:
        assert ref.activation(tiny, kind)[1] >= 4.9e-311


@pytest.mark.parametrize("kind", ref.KINDS)
def test_activation_gives_a_new_array_and_accepts_nothing(kind):
    z = np.ones((2, 3))
    assert not np.shares_memory(ref.activation(z, kind), z)
    assert ref.activation(np.zeros((0, 3)), kind).shape == (0, 3)
    assert ref.activation_backward(np.zeros((0, 3)), np.zeros((0, 3)), kind).shape == (0, 3)


@pytest.mark.parametrize("f", [ref.saved_for, lambda k: ref.activation([1.0], k)])
def test_an_unknown_name_lists_the_known_ones(f):
    with pytest.raises(ValueError, match=r"'swish', expected one of identity, .*mish"):
        f("swish")
