"""What a door does with arguments that are wrong, rare or malicious: what the operation does that it stands before."""

import inspect
import os
import tempfile
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gdkernels as gd
from tests.ordinary import NAMES, OF_MANY, OPTIMIZERS, VARIANTS, arguments, past_door, placed, varied


class Own(np.ndarray):
    """A subclass of the user's."""


class Word(str):
    """A subclass of str."""


class Many(list):
    """A subclass of list."""


def aside(values):
    """The same values one byte beside where they should begin."""
    memory = np.zeros(values.nbytes + 1, np.uint8)
    view = np.ndarray(values.shape, values.dtype, memory.data, offset=1)
    view[...] = values
    return view


def read_only(values):
    values.flags.writeable = False
    return values


def mapped(values):
    """The same values in a file."""
    if values.size == 0 or values.ndim == 0:
        return values
    with tempfile.TemporaryFile() as file:
        made = np.memmap(file, values.dtype, "w+", shape=values.shape)
    made[...] = values
    return made


def doubled(values):
    """Every second element of twice as many."""
    larger = np.repeat(values, 2, axis=-1) if values.ndim else np.repeat(values, 2)
    return larger[..., ::2] if values.ndim else larger[:1].reshape(())


def backwards(values):
    every = tuple(slice(None, None, -1) for _ in values.shape)
    return np.ascontiguousarray(values[every])[every]


def of_a_record(values):
    """A field of records of 12 bytes: strides that are no whole elements of float64."""
    made = np.zeros(values.shape, [("pad", "f4"), ("values", values.dtype)])
    made["values"] = values
    return made["values"]


ARRAYS = {
    "other float": lambda a: a.astype("f4" if a.dtype.itemsize == 8 else "f8"),
    "half": lambda a: a.astype("f2"),
    "integers": lambda a: a.astype("i8"),
    "int32": lambda a: a.astype("i4"),
    "unsigned": lambda a: a.astype("u8"),
    "bool": lambda a: a.astype("?"),
    "complex": lambda a: a.astype("c8"),
    "objects": lambda a: a.astype("O"),
    "texts": lambda a: a.astype("U4"),
    "long double": lambda a: a.astype("g"),
    "long long": lambda a: a.astype("q"),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "with metadata": lambda a: a.astype(np.dtype(a.dtype, metadata={"unit": "m"})),
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "strided": doubled,
    "backwards": backwards,
    "of a record": of_a_record,
    "broadcast": lambda a: np.broadcast_to(a.flat[0] if a.size else np.float32(0), a.shape),
    "one row broadcast": lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim else a,
    "read-only": read_only,
    "misaligned": aside,
    "own class": lambda a: a.view(Own),
    "matrix": lambda a: np.matrix(a) if a.ndim == 2 else a.view(np.matrix) if a.ndim == 1 else a,
    "mapped": mapped,
    "masked": lambda a: np.ma.masked_array(a),
    "0-d": lambda a: a.reshape(-1)[:1].reshape(()) if a.size else a,
    "flat": lambda a: a.reshape(-1),
    "one axis more": lambda a: a[None],
    "one row less": lambda a: a[1:] if a.ndim else a,
    "one column less": lambda a: a[..., :-1] if a.ndim else a,
    "no row": lambda a: a[:0] if a.ndim else a,
    "no column": lambda a: a[..., :0] if a.ndim else a,
    "list": lambda a: a.tolist(),
    "list of it": lambda a: [a],
    "list of rows": lambda a: [*a] if a.ndim else [a],
    "tuple of it": lambda a: (a, a),
    "own list": lambda a: Many([a]),
    "generator": lambda a: (one for one in [a]),
    "buffer": lambda a: memoryview(np.ascontiguousarray(a)),
    "scalar": lambda a: a.reshape(-1)[0] if a.size else None,
    "None": lambda a: None,
    "text": lambda a: "relu",
    "number": lambda a: 1.0,
    "integer": lambda a: 3,
    "class": lambda a: np.ndarray,
    "huge and empty": lambda a: np.broadcast_to(np.zeros((), a.dtype), (2**40, 0)),
    "huge": lambda a: np.broadcast_to(np.zeros((), a.dtype), (2**30, 2**28)),
    "many axes": lambda a: a.reshape((1,) * 20 + a.shape),
}
OTHERS = {
    "True": True, "False": False, "0": 0, "1": 1, "-1": -1, "2**63": 2**63, "-2**63": -(2**63), "2**64+3": 2**64 + 3,
    "10**400": 10**400, "0.0": 0.0, "-0.0": -0.0, "0.5": 0.5, "1.0": 1.0, "1.5": 1.5, "-1.0": -1.0,
    "nan": float("nan"), "inf": float("inf"), "tiny": 5e-324, "None": None, "text": "relu",
    "same text": "".join(["me", "an"]), "sum": "sum", "own text": Word("tanh"), "bytes": b"relu", "empty text": "",
    "long text": "r" * 1000, "other text": "relu\0", "odd text": "\ud800", "complex": 1j, "f4": np.float32(0.5),
    "f8": np.float64(0.5), "f8 nan": np.float64("nan"), "f2": np.float16(0.5), "i8": np.int64(3), "i4": np.int32(3),
    "u8": np.uint64(2**63 + 1), "bool_": np.bool_(True), "array": np.array(0.5), "array of one": np.array([2]),
    "list": [1.0], "tuple": (), "class": float, "dict": {},
}  # fmt: skip
LISTS = {
    "shorter": lambda items: items[:-1],
    "longer": lambda items: [*items, items[-1]],
    "empty": lambda items: [],
    "tuple": tuple,
    "own list": Many,
    "generator": lambda items: (one for one in items),
    "array": lambda items: items[0],
    "None": lambda items: None,
    "gap": lambda items: [*items[:-1], None],
    "gap first": lambda items: [None, *items[1:]],
    "mixed": lambda items: [*items[:-1], items[-1].astype("f8" if items[-1].dtype == "f4" else "f4")],
    "nested": lambda items: [items, *items[1:]],
    "twice": lambda items: [items[0], *items[:-1]],
    "numbers": lambda items: [1.0 for _ in items],
    "read-only": lambda items: [*items[:-1], read_only(items[-1])],
    "strided": lambda items: [*items[:-1], doubled(items[-1])],
    "own class": lambda items: [*items[:-1], items[-1].view(Own)],
    "other shape": lambda items: [*items[:-1], items[-1][1:]],
    "dict": lambda items: dict.fromkeys(range(len(items)), items[0]),
}
OVERLAPS = ("the same", "shifted", "reversed", "half")


def shared(one: np.ndarray, how: str, rng) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of the shape of one that share memory in this way."""
    if how == "the same":
        return one, one
    memory = rng.standard_normal(2 * one.size + 8).astype(one.dtype)
    first = memory[: one.size].reshape(one.shape)
    if how == "reversed":
        return first, first[::-1] if one.ndim else first
    begin = 1 if how == "shifted" else one.size // 2
    return first, memory[begin : begin + one.size].reshape(one.shape)


def build(name, dtype, variant, changes, overlap, lists):
    """The arguments of a call by place, the same each time, and all memory that it could write to."""
    rng = np.random.default_rng(5)
    given = varied(arguments(name, dtype, rng), VARIANTS[name][variant % len(VARIANTS[name])], dtype, rng)
    keys = [*given]
    if lists and name in OPTIMIZERS:
        for key, value in given.items():
            if isinstance(value, np.ndarray):
                given[key] = [value, value[:2].copy(), value[0].copy()]
    if name not in OF_MANY:
        given = dict(zip(_names(name), placed(name, given), strict=True))
        keys = [*given]
    arrays = [key for key in keys if isinstance(given[key], np.ndarray) and given[key].ndim]
    if overlap is not None and len(arrays) > 1:
        how, first, second = overlap
        first, second = arrays[first % len(arrays)], arrays[second % len(arrays)]
        if first != second and given[first].dtype == dtype:
            given[first], other = shared(given[first], how, rng)
            if given[second].shape == other.shape:
                given[second] = other
            elif other.ndim == 2 and given[second].shape == other.shape[1:]:
                given[second] = other[0]
    for place, word in changes:
        key = keys[place % len(keys)]
        value = given[key]
        if isinstance(value, np.ndarray):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given[key] = ARRAYS[[*ARRAYS][word % len(ARRAYS)]](value)
        elif isinstance(value, list) and all(isinstance(one, np.ndarray) for one in value):
            given[key] = LISTS[[*LISTS][word % len(LISTS)]](value)
        else:
            given[key] = OTHERS[[*OTHERS][word % len(OTHERS)]]
    return tuple(given.values())


def _names(name):
    return [*inspect.signature(getattr(gd, name).__wrapped__).parameters]


def contents(array):
    """The bytes of an array; of addresses, and of numbers with bytes that mean nothing, the values."""
    return repr(array.tolist()) if array.dtype.char in "OgG" else np.asarray(array).tobytes()


def memory_of(args):
    """The bits of everything that the arguments hold."""
    seen = []
    for one in args:
        if isinstance(one, np.ndarray):
            if one.size > 10**6:
                continue
            base = one
            while isinstance(base.base, np.ndarray):
                base = base.base
            seen += [one.shape, one.dtype.str, contents(one), contents(base)]
        elif isinstance(one, list | tuple):
            seen += memory_of(one)
        elif not hasattr(one, "send"):
            seen.append((type(one), repr(one) if not isinstance(one, memoryview) else bytes(one)))
    return seen


def result_of(call):
    """What a call comes to: the bits of its result, or its complaint."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = call()
    except Exception as error:
        return "raises", type(error), str(error)
    parts = made if isinstance(made, tuple) else (made,)
    return (
        "gives",
        *((type(one), *memory_of([one])) for one in parts),
        [one.flags.c_contiguous for one in parts if isinstance(one, np.ndarray)],
    )


def same_both_ways(name, dtype, variant, changes, overlap=None, lists=False):
    """The public function does what the operation does without a door."""
    asked = (name, dtype, variant, changes, overlap, lists)
    ours, theirs = build(*asked), build(*asked)
    before = memory_of(ours)
    public = getattr(gd, name)
    found = result_of(lambda: public(*ours))
    assert found == result_of(lambda: past_door(name, theirs))
    after = memory_of(ours)
    assert after == memory_of(theirs)
    if found[0] == "raises":
        assert after == before, "written before an error"
    return found[0]


PLACES = st.tuples(st.integers(0, 11), st.integers(0, 10**4))


@pytest.fixture(scope="module", autouse=True)
def opened():
    """Every door knows what it must: from now on it sees all arguments first."""
    before = gd.get_threads()
    gd.set_threads(1)
    for name in NAMES:
        for dtype in ("float32", "float64"):
            for variant in range(len(VARIANTS[name])):
                getattr(gd, name)(*build(name, dtype, variant, (), None, False))
    yield
    gd.set_threads(before)


EXAMPLES = int(os.environ.get("DOORS_EXAMPLES", "20"))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES)
@given(
    dtype=st.sampled_from(["float32", "float64"]), variant=st.integers(0, 40),
    changes=st.lists(PLACES, min_size=1, max_size=2),
    overlap=st.none() | st.tuples(st.sampled_from(OVERLAPS), st.integers(0, 8), st.integers(0, 8)),
)  # fmt: skip
def test_unusual_arguments(name, dtype, variant, changes, overlap):
    same_both_ways(name, dtype, variant, changes, overlap)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=EXAMPLES)
@given(
    dtype=st.sampled_from(["float32", "float64"]), variant=st.integers(0, 40), changes=st.lists(PLACES, max_size=3)
)  # fmt: skip
def test_unusual_lists(name, dtype, variant, changes):
    same_both_ways(name, dtype, variant, changes, lists=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_change_of_every_argument(name):
    count = len(build(name, "float32", 0, (), None, False))
    outcomes = [
        same_both_ways(name, dtype, 0, [(place, word)])
        for place in range(count)
        for word in range(max(len(ARRAYS), len(OTHERS)))
        for dtype in ("float32", "float64")[: 1 + (word % 2)]
    ]
    assert {"raises", "gives"} == set(outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_every_overlap_of_two_arguments(name):
    for variant in range(len(VARIANTS[name])):
        count = len(build(name, "float32", variant, (), None, False))
        for how in OVERLAPS:
            for first in range(count):
                for second in range(count):
                    if first != second:
                        same_both_ways(name, "float32", variant, (), (how, first, second))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_change_of_every_list(name):
    count = len(build(name, "float32", 0, (), None, True))
    for variant in range(len(VARIANTS[name])):
        for place in range(count):
            for word in range(len(LISTS)):
                same_both_ways(name, "float64", variant, [(place, word)], lists=True)


@pytest.mark.parametrize("name", OF_MANY)
@pytest.mark.parametrize("word", LISTS)
def test_every_change_of_the_arrays_of_a_norm(name, word):
    def arrays():
        rng = np.random.default_rng(1)
        given = LISTS[word]([rng.standard_normal((3, 2)).astype("f4") for _ in range(4)])
        return ((0.5,) if name == "clip_by_global_norm" else ()) + (given,)

    public, ours, theirs = getattr(gd, name), arrays(), arrays()
    before = memory_of(ours)
    found = result_of(lambda: public(*ours))
    assert found == result_of(lambda: past_door(name, theirs))
    assert memory_of(ours) == (before if found[0] == "raises" else memory_of(theirs))


def test_lists_that_are_too_long_for_a_door():
    p, g = ([np.ones(3, "f4") for _ in range(600)] for _ in range(2))
    gd.sgd_step(p[:2], g[:2], None, 0.5)
    assert gd.sgd_step.__globals__["enter"](p, g, None, 0.5, 0.0, False, 0.0) is None
    gd.sgd_step(p, g, None, 0.5)
    assert all((one == 0.5).all() for one in p[2:])
