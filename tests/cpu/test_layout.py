"""Records of operands by name: what is given arrives, and what is wrong is told before anything runs."""

import weakref

import numpy as np
import pytest

from gdkernels.cpu.activation import FORWARD
from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.layout import Double, Doubles, Floats, Int, Ints, OptionalCode, OptionalInts
from gdkernels.cpu.runtime.simd import address_of, float64_at, int64_at
from gdkernels.cpu.runtime.team import run

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@kernel
def note(
    x: Floats,
    numbers: Doubles,
    counts: OptionalInts,
    n: Int,
    factor: Double,
    act: OptionalCode,
    into: Ints,
    start,
    stop,
    scratch,
):
    """Write down everything that it was given."""
    into[0], into[1], into[2] = address_of(x), address_of(numbers), address_of(counts)
    into[3], into[4], into[5], into[6] = n, start, stop, act
    float64_at(address_of(into))[7] = factor
    int64_at(scratch)[0] = 1  # its own


def operands(dtype=FLOAT32, **changed):
    right = {
        "x": np.ones(3, dtype), "numbers": np.ones(2), "counts": np.ones(2, np.int64), "n": 7, "factor": 0.1,
        "act": FORWARD["tanh"], "into": np.zeros(8, np.int64),
    }  # fmt: skip
    return right | changed


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_every_operand_arrives_under_its_name(dtype):
    given = operands(dtype)
    run(note.op(dtype, 9, quantum=2, **given))
    seen = given["into"]
    assert seen[:3].tolist() == [given[name].ctypes.data for name in ("x", "numbers", "counts")]
    assert seen[3:7].tolist() == [7, 0, 9, FORWARD["tanh"].address(dtype)]
    assert seen[7:].view(np.float64)[0] == 0.1


def test_what_is_absent_is_a_null_pointer():
    given = operands(counts=None, act=None)
    run(note.op(FLOAT32, 1, **given))
    assert given["into"][[2, 6]].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["x", "numbers", "into"])
def test_what_may_not_be_absent_is_named(name):
    with pytest.raises(
        TypeError, match=rf"test_layout\.note: {name} is of type NoneType, expected an array of"
    ):
        note.op(FLOAT32, 1, **operands(**{name: None}))


def test_numbers_may_be_those_of_numpy():
    given = operands(n=np.int32(5), factor=np.float32(0.5))
    run(note.op(FLOAT32, 1, **given))
    assert given["into"][3] == 5 and given["into"][7:].view(np.float64)[0] == 0.5
    assert note.op(FLOAT32, 1, **operands(factor=2)).record[32:40] == np.float64(2.0).tobytes()


def test_a_dtype_that_is_another_object_of_the_same_meaning_will_do():
    twin = np.dtype({"names": ["f"], "formats": ["<f4"]})["f"].newbyteorder("=")
    x = np.ones(3, FLOAT32)
    record = note.op(FLOAT32, 1, **operands(x=x)).record
    assert note.op(np.dtype(twin.str), 1, **operands(x=x)).record[:8] == record[:8]


def test_an_op_keeps_the_arrays_that_it_points_into():
    given = operands(x=np.full(3, 2.0, FLOAT32))
    kept = weakref.ref(given["x"])
    op = note.op(FLOAT32, 1, **given)
    del given
    assert kept() is not None
    del op
    assert kept() is None


WRONG = {
    "x": (np.ones(3), "an array of float64, expected an array of float32$"),
    "numbers": (np.ones(3, np.float32), "an array of float32, expected an array of float64$"),
    "counts": (np.ones(3), "an array of float64, expected an array of int64 or None$"),
    "n": (1.0, "of type float, expected an integer"),
    "factor": ("0.1", "of type str, expected a number"),
    "act": (0.5, "of type float, expected a native function or None"),
    "into": (1 << 20, "of type int, expected an array of int64$"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_operand_of_another_kind_is_named(name):
    value, message = WRONG[name]
    with pytest.raises(TypeError, match=rf"test_layout\.note: {name} is {message}"):
        note.op(FLOAT32, 1, **operands(**{name: value}))


@pytest.mark.parametrize("name", ["n", "factor"])
def test_nothing_absent_will_do_for_a_number(name):
    with pytest.raises(TypeError, match=rf"{name} is of type NoneType, expected"):
        note.op(FLOAT32, 1, **operands(**{name: None}))


def test_a_missing_and_an_unknown_operand_are_named():
    given = operands()
    del given["counts"]
    with pytest.raises(TypeError, match=r"test_layout\.note\(\) missing 1 required .* 'counts'"):
        note.op(FLOAT32, 1, **given)
    with pytest.raises(TypeError, match=r"test_layout\.note\(\) got an unexpected keyword argument 'm'"):
        note.op(FLOAT32, 1, **operands(m=3))


def test_operands_have_no_order():
    with pytest.raises(TypeError, match=r"test_layout\.note\(\) takes"):
        note.record(FLOAT32, *operands().values())


def test_a_number_of_more_than_64_bits_is_refused():
    with pytest.raises(TypeError, match=r"does not fit into 64 bits"):
        note.op(FLOAT32, 1, **operands(n=1 << 63))


def test_a_kernel_says_what_each_operand_is():
    with pytest.raises(
        TypeError, match=r"the annotation of y is .*, expected one that says what operand it is"
    ):
        kernel(lambda y, start, stop: None)

    def supplied(x: Floats, start: Int, stop):
        """A range is not an operand."""

    with pytest.raises(
        TypeError, match=r"the annotation of start is .*, expected none because it is supplied"
    ):
        kernel(supplied)


def test_a_name_that_every_op_has_is_none_of_an_operand():
    def named(total: Int, start, stop):
        """A part of an op, too."""

    with pytest.raises(TypeError, match="named: total is part of every Op, expected another name"):
        kernel(named)
