"""The words and the limits of what every public function asks of its arguments."""

import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from gdkernels import check
from gdkernels.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, PROBABILITY, UNIT, integers

TINY, HUGE = math.ulp(0.0), math.nextafter(math.inf, 0.0)

# Range: what is just inside, what is just outside.
EDGES = {
    POSITIVE: ((TINY, HUGE), (0.0, -TINY, math.inf)),
    NOT_NEGATIVE: ((0.0, -0.0, HUGE), (-TINY, math.inf)),
    UNIT: ((0.0, 1.0), (-TINY, math.nextafter(1.0, 2.0))),
    PROBABILITY: ((0.0, 1.0), (-TINY, math.nextafter(1.0, 2.0))),
    BELOW_ONE: ((0.0, math.nextafter(1.0, 0.0)), (-TINY, 1.0)),
}


@pytest.mark.parametrize("among", EDGES, ids=lambda among: among.words)
def test_a_range_ends_where_its_words_say(among):
    inside, outside = EDGES[among]
    for value in inside:
        assert value in among
        assert check.number("op", "x", value, among) == value
    for value in (*outside, math.nan):
        assert value not in among
        with pytest.raises(ValueError, match=re.escape(f"op: x is {value!r}, expected {among.words}")):
            check.number("op", "x", value, among)


@pytest.mark.parametrize(
    "value", [1, True, np.float32(1), np.int8(1), np.array(1.0), Fraction(1), Decimal(1)], ids=repr
)
def test_whatever_converts_to_a_number_is_one(value):
    found = check.number("op", "x", value, UNIT)
    assert (type(found), found) == (float, 1.0)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("1", "is '1'"),
        (b"1", "is b'1'"),
        (None, "is None"),
        (1j, "is 1j"),
        ([1.0], "is of type list"),
        (np.ones(2), "is of type ndarray"),
    ],
)
def test_what_is_no_number_is_shown_or_named_by_its_type(value, seen):
    with pytest.raises(TypeError, match=re.escape(f"op: x {seen}, expected a number in [0, 1]")):
        check.number("op", "x", value, UNIT)
    with pytest.raises(TypeError, match=re.escape(f"op: n {seen}, expected an integer")):
        check.whole("op", "n", value)


@pytest.mark.parametrize(
    ("least", "words"), [(None, "an integer"), (0, "an integer ≥ 0"), (1, "a positive integer")]
)
def test_integers_are_those_of_any_library_and_never_truth_values(least, words):
    assert integers(least) == words
    for value in (3, np.int64(3), np.uint8(3)):
        found = check.whole("op", "n", value, least)
        assert (type(found), found) == (int, 3)
    for value in (True, 3.0, np.bool_(True)):
        with pytest.raises(TypeError, match=f"expected {words}"):
            check.whole("op", "n", value, least)
    if least is None:
        assert check.whole("op", "n", -3) == -3
    else:
        with pytest.raises(ValueError, match=f"op: n is {least - 1}, expected {words}"):
            check.whole("op", "n", least - 1, least)


@pytest.mark.parametrize("value", [None, 1, ["relu"], np.array(["relu"]), b"relu"], ids=repr)
def test_a_choice_is_one_of_the_names_and_nothing_like_it(value):
    for names in (("relu", "tanh"), {"relu": 0, "tanh": 1}):
        check.choice("op", "kind", "relu", names)
        with pytest.raises(ValueError, match=r"op: kind is .*, expected one of relu, tanh"):
            check.choice("op", "kind", value, names)
    check.choice("op", "norm", None, (None, "layer"))


def test_true_and_false_are_the_only_truth_values():
    check.truth("op", "flag", False)
    for value in (0, "True", np.bool_(True)):
        with pytest.raises(TypeError, match=r"op: flag is .*, expected True or False"):
            check.truth("op", "flag", value)


def test_labels_are_looked_at_once_or_named():
    labels = np.array([0, 2, 1])
    assert check.labels_in_range("op", "y", labels, 3, -100)
    assert check.labels_in_range("op", "y", labels[:0], 3, -100)
    assert not check.labels_in_range("op", "y", np.array([0, -100, 1]), 3, -100)
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=re.escape(f"op: y[1] is {wrong}, expected a class in [0, 3)")):
            check.labels_in_range("op", "y", np.array([-100, wrong, 7]), 3, -100)


def test_the_arrays_of_the_device_have_what_is_asked_of_them():
    arrays = pytest.importorskip("gdkernels.cuda.runtime.arrays")
    asked = {name for name in vars(check.DeviceArray) if not name.startswith("_")}
    assert asked >= {"address", "overlaps", "same_memory", "empty", "copy", "astype"}
    numpy_has = {"shape", "strides", "dtype", "ndim", "size", "itemsize", "flags", "T"}
    for name in (*asked, *numpy_has, "__getitem__", "__setitem__"):
        assert hasattr(arrays.Array, name), name
    assert not check.is_on_device(np.ones(3))
    assert check.is_on_device(arrays.Array(np.ones(3), np.dtype("f8"), arrays.Numba, None))
