"""Operands of kernels: given by name, and refused with the names of kernel and operand before anything is launched."""

import math

import numpy as np
import pytest

jit = pytest.importorskip(
    "gdkernels.cuda.runtime.jit", reason="numba-cuda is not installed", exc_type=ImportError
)
ONE = (1, 1, 1)
RIGHT = {"source": 64, "factor": 0.5, "like": 0, "step": -3, "count": 7}


@jit.kernel("F*, R, R*, i4, i8")
def kernel(source, factor, like, step, count):
    """Never compiled."""


def test_operands_are_what_their_names_say_in_any_order():
    launch = kernel.on("bfloat16", (4, 2, 1), **dict(reversed(RIGHT.items())))
    assert launch.operands == RIGHT and list(launch.operands) == list(kernel.operands)
    assert launch.kernel is kernel and launch.grid == (4, 2, 1)
    numpy = kernel.on(
        "float64", ONE, **RIGHT | {"count": np.int64(7), "factor": np.float64(0.5), "source": np.int64(64)}
    )
    assert numpy.operands == RIGHT


@pytest.mark.parametrize("value", [1e300, -1e300, 3.5e38])
def test_a_number_beyond_float32_is_infinite_there(value):
    assert kernel.on("float32", ONE, **RIGHT | {"factor": value}).operands["factor"] == math.copysign(
        math.inf, value
    )
    assert kernel.on("float64", ONE, **RIGHT | {"factor": value}).operands["factor"] == value


def refused(**changes):
    """The words of the refusal, with operands changed; `...` takes one away."""
    operands = {name: value for name, value in (RIGHT | changes).items() if value is not ...}
    with pytest.raises(TypeError) as caught:
        kernel.on("float32", ONE, **operands)
    words = str(caught.value)
    assert words.startswith(f"{kernel.name}: ") and kernel.name.endswith("_kernel")
    return words.partition(": ")[2]


ALL = "it takes source, factor, like, step, count"


def test_a_missing_operand_is_named():
    assert refused(like=...) == f"like is missing; {ALL}"
    assert refused(step=..., count=...) == f"step, count is missing; {ALL}"


def test_an_unknown_operand_is_named():
    assert refused(target=64) == f"there is no operand target; {ALL}"
    assert refused(like=..., likes=0).startswith("like is missing")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1.0, "1.0"),
        (None, "None"),
        (-8, "-8"),
        (1 << 64, "18446744073709551616"),
        ("64", "of type str"),
        (np.zeros(3, np.int64), "of type ndarray"),
        (np.float32(64), "of type float32"),
    ],
)
def test_what_is_no_address_is_refused(value, found):
    """A float would be a wild address, and so would None."""
    assert refused(source=value) == f"source is {found}, expected the address of float32, or 0"


@pytest.mark.parametrize("value", [0.5, None, [1], np.zeros(2)])
def test_what_is_no_whole_number_is_refused(value):
    assert refused(step=value).endswith(", expected int32")
    assert refused(count=value).endswith(", expected int64")


def test_what_has_too_many_bits_is_refused():
    assert refused(step=1 << 31) == "step is 2147483648, expected int32"
    assert refused(count=-(1 << 63) - 1) == "count is -9223372036854775809, expected int64"


@pytest.mark.parametrize("value", [None, "0.5", np.zeros(2), 1j])
def test_what_is_no_number_is_refused(value):
    assert refused(factor=value).endswith(", expected float32")


def test_special_numbers_pass():
    for value in (math.inf, -math.inf, -0.0, 3):
        assert kernel.on("float32", ONE, **RIGHT | {"factor": value}).operands["factor"] == value
    assert math.isnan(kernel.on("float32", ONE, **RIGHT | {"factor": math.nan}).operands["factor"])


def test_an_array_of_the_device_is_no_address(device):
    assert refused(source=device.put(np.ones(3))).startswith("source is of type Array, expected the address")


def test_a_signature_must_fit_the_function():
    with pytest.raises(TypeError, match="a signature of 2 words for source, count, more"):

        @jit.kernel("F*, i8")
        def short(source, count, more):
            """Never made."""


def test_a_single_operand():
    @jit.kernel("i8")
    def alone(count):
        """Never compiled."""

    assert alone.on("float32", ONE, count=5).operands == {"count": 5}
    with pytest.raises(TypeError, match="count is missing; it takes count"):
        alone.on("float32", ONE)
