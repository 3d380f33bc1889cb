"""Calls through the doors: they are taken, give the bits of the way past them, and keep count of what they hold."""

import gc
import inspect
import sys
import threading
import time

import numpy as np
import pytest

import gdkernels as gd
from gdkernels.cpu import activation as cpu_activation
from gdkernels.cpu import doors
from gdkernels.cpu.cost import NS, rows_of_block
from gdkernels.cpu.doors import words as at
from gdkernels.cpu.doors.door import Door
from gdkernels.cpu.runtime import objects
from gdkernels.cpu.runtime.jit import native
from gdkernels.cpu.runtime.team import WORTH_SHARING
from tests.ordinary import (
    NAMES,
    OF_MANY,
    OPTIMIZERS,
    VARIANTS,
    arguments,
    past_door,
    placed,
    through_door,
    varied,
)

pytestmark = pytest.mark.skipif(
    not objects.READABLE, reason="on this interpreter no call goes through a door"
)

SEED = 1
WIDE = (2100, 3, 80)  # where sums over rows are cut into blocks, of float32 too


@pytest.fixture(autouse=True)
def threads():
    """One thread, unless the test says otherwise: then no call is too large for a door."""
    before = gd.get_threads()
    gd.set_threads(1)
    yield gd.set_threads
    gd.set_threads(before)


def built(name, dtype, change, sizes=(6, 5, 7)):
    """The arguments of a call by place: the same bits, in other memory, each time."""
    rng = np.random.default_rng(SEED)
    return placed(name, varied(arguments(name, dtype, rng, sizes), change, dtype, rng, sizes))


def bits(value):
    """What two calls must have in common."""
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype, value.tobytes())
    return (type(value), np.float64(value).tobytes() if isinstance(value, float) else value)


def both_ways(name, dtype, change, sizes=(6, 5, 7), put=lambda args: None):
    """The same call through the door and past it: (result, arguments afterwards) of each."""
    getattr(gd, name)(*built(name, dtype, change))
    outcomes = []
    for call in (through_door, past_door):
        args = built(name, dtype, change, sizes)
        put(args)
        outcomes.append((call(name, args), args))
    made = outcomes[0][0]
    assert made is not None, f"{name}: the door refuses {change}"
    if name in OPTIMIZERS:
        assert made is True
        outcomes[0] = (None, outcomes[0][1])
    return [(bits(result), bits(args)) for result, args in outcomes]


def answered(name):
    """The variants of a call that go through the door: terms that are not added up go past it."""
    return [change for change in VARIANTS[name] if change.get("reduction") != "none"]


# ---------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("name", NAMES)
def test_a_door_asks_for_the_parameters_of_its_operation(name):
    door, function = doors.find(name), getattr(gd, name)
    parameters = inspect.signature(function.__wrapped__).parameters
    assert tuple(inspect.signature(function).parameters) == tuple(parameters)
    if name in OF_MANY:
        return
    assert tuple(door.arguments) == tuple(parameters)
    while door is not None:
        assert [*door.arguments] == [*parameters]
        assert len(door.arguments) <= at.MOST_ARGUMENTS and len(door.kernel.words) <= at.MOST_RECORD_WORDS
        assert len(door.letters) <= at.LETTERS
        door = door.otherwise


def test_every_operation_has_a_door():
    arrays_in = [name for name in gd.__all__ if hasattr(getattr(gd, name, None), "__wrapped__")]
    assert sorted(set(arrays_in)) == sorted(NAMES)


def every_door():
    for family in doors._FAMILIES:
        yield from (
            doors.find(doors._FAMILIES[family][0])
            and vars(sys.modules[f"gdkernels.cpu.doors.{family}"])["DOORS"].values()
        )


def test_operands_have_the_names_of_arguments():
    supplied = {"value", "fault", *(f"{kind}{axis}" for kind in ("rs", "cs") for axis in "abxw")}
    for door in every_door():
        if not isinstance(door, Door):
            continue
        known = {*door.arguments, *(f"{name}_number" for name in door.arguments), *door.letters, *supplied}
        for operand in door.kernel.words:
            unused = (
                "step",
                "first",
                "second",
                "third",
                "fourth",
                "option",
            )  # 0 where a rule or a loss has no such number
            optional = door.kernel.words[operand].endswith("?") or operand in unused
            assert optional or door.operands.get(operand, operand) in known, (door.name, operand)


# ---------------------------------------------------------------------------------------------- the same bits


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_bits(name, dtype):
    for change in answered(name):
        door, checked = both_ways(name, dtype, change)
        assert door == checked, change


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_bits_of_extremes(name, dtype):
    def spoil(args):
        odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal]
        for place, array in enumerate(args):
            if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                array.flat[place % 3 : 7 : 2] = odd[
                    place % 4 : place % 4 + array.flat[place % 3 : 7 : 2].size
                ]

    for change in answered(name):
        door, checked = both_ways(name, dtype, change, put=spoil)
        assert door == checked, change


@pytest.mark.parametrize("sizes", [(0, 5, 7), (1, 1, 1), (3, 0, 7), (33, 64, 16)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_bits_of_any_size(name, sizes, dtype):
    for change in answered(name)[:4]:
        door, checked = both_ways(name, dtype, change, sizes)
        assert door == checked, change


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_give_the_same_bits_where_work_is_shared(name, workers, dtype, threads):
    sizes = (600, 70, 80) if name in ("linear", "matmul") else WIDE
    for change in answered(name)[:3]:
        door = both_ways(name, dtype, change, sizes)[0]
        threads(workers)
        args = built(name, dtype, change, sizes)
        result = getattr(gd, name)(*args)
        threads(1)
        assert door == (bits(result), bits(args)), change


@pytest.mark.parametrize(
    "name", ["activation_backward", "linear_backward", "layernorm_backward", "rmsnorm_backward"]
)
def test_blocks_begin_at_the_same_batch(name, dtype):
    """One row more decides whether sums are cut into blocks, both ways."""
    each, columns = (
        NS["norm backward" if "norm" in name else "activation"] * (np.dtype(dtype).itemsize // 4),
        53,
    )
    edge = int(WORTH_SHARING / each / columns)
    assert rows_of_block(edge) < edge
    for batch in (edge - 1, edge, edge + 1, edge + 2, 2 * edge + 5):
        door, checked = both_ways(name, dtype, {}, (batch, 2, columns))
        assert door == checked, batch


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lists_give_the_same_bits(name, dtype):
    shapes = [(3, 5), (0,), (7,), (), (40, 70)]

    def lists():
        rng = np.random.default_rng(SEED)
        given = arguments(name, dtype, rng)
        for key, value in given.items():
            if isinstance(value, np.ndarray):
                given[key] = [rng.uniform(0.5, 2, shape).astype(dtype) for shape in shapes]
        return placed(name, given)

    getattr(gd, name)(*lists())
    through, past = lists(), lists()
    assert through_door(name, through) is True
    past_door(name, past)
    for ours, theirs in zip(through, past, strict=True):
        if isinstance(ours, list):
            assert [*map(bits, ours)] == [*map(bits, theirs)]
    mixed = tuple(tuple(one) if isinstance(one, list) else one for one in lists())
    assert through_door(name, mixed) is True


def test_the_norm_of_one_list(dtype):
    def arrays():
        return [
            np.arange(9000, dtype=dtype),
            np.ones((3, 4), dtype),
            np.ones((), dtype),
            np.ones((0, 2), dtype),
        ]

    gd.global_norm(arrays()), gd.clip_by_global_norm(1.0, arrays())
    assert through_door("global_norm", (arrays(),)) == past_door("global_norm", tuple(arrays()))
    through, past = arrays(), arrays()
    assert through_door("clip_by_global_norm", (2, tuple(through))) == past_door(
        "clip_by_global_norm", (2, *past)
    )
    assert [*map(bits, through)] == [*map(bits, past)]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_leaves_the_arrays_alone(bad, dtype):
    g = np.array([1.0, bad, -2.0], dtype)
    g.flags.writeable = False
    gd.global_norm(g)
    np.testing.assert_equal(through_door("global_norm", (g,)), abs(bad))
    np.testing.assert_array_equal(g, [1.0, bad, -2.0])


# ---------------------------------------------------------------------------------------------- names


def test_names_that_are_equal_but_not_the_same_go_through_the_door(dtype):
    z = np.linspace(-2, 2, 7, dtype=dtype)
    gd.activation(z, "relu")
    other = "".join(["re", "lu"])
    assert other is not "relu"  # noqa: F632
    np.testing.assert_array_equal(through_door("activation", (z, other, None)), np.maximum(z, 0))


def test_unknown_names_are_refused_each_time_and_not_collected():
    z = np.ones(3, "f4")
    for number in range(2000):
        with pytest.raises(ValueError, match=f"activation: kind is 'no{number}', expected one of"):
            gd.activation(z, f"no{number}")
    known = gd.activation.__globals__["refused"].__self__._known
    assert len(known) <= 256
    gd.activation(z, "relu")
    assert through_door("activation", (z, "relu", None)) is not None


# ---------------------------------------------------------------------------------------------- what is held


def counts(args):
    """References to the arguments, and to what every call gives."""
    flat = [one for arg in args for one in (arg if isinstance(arg, list) else [arg])]
    return [sys.getrefcount(one) for one in flat if not isinstance(one, int)] + [
        sys.getrefcount(one) for one in (np.ndarray, float, np.dtype("f4"), np.dtype("f8"))
    ]


def grows(call, args, number=2000):
    """How the counts of references change in this many calls; None and True may be counted elsewhere by a few."""
    call(*args)
    before, single = counts(args), [sys.getrefcount(one) for one in (None, True, False)]
    for _ in range(number):
        call(*args)
    after = counts(args)
    off = [
        abs(now - then)
        for now, then in zip([sys.getrefcount(one) for one in (None, True, False)], single, strict=True)
    ]
    assert max(off) < number // 10
    return [now - then for now, then in zip(after, before, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_no_reference_is_lost_or_kept(name):
    args = built(name, "float32", {})
    gd_call = getattr(gd, name)
    assert not any(grows(gd_call, args))
    wrong = (*args[:-1], object()) if name not in OF_MANY else (*args, object())
    assert not any(grows(gd_call.__globals__["enter"], wrong))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "softmax_cross_entropy",
            {"target": np.full(6, 99)},
        ),  # what only the kernel can see, after results were made
        ("linear_backward", {"saved": None}),
        ("activation_backward", {"saved": None, "out": None}),
        ("sgd_step", {"velocity": None}),
        ("log_softmax", {"x": np.float32(1) * np.ones(())}),
    ],
)
def test_a_fault_found_by_the_kernel_drops_what_was_made(name, change):
    getattr(gd, name)(*built(name, "float32", {}))
    args = built(name, "float32", change)
    enter = getattr(gd, name).__globals__["enter"]
    assert enter(*args) is None
    assert not any(grows(enter, args))


def test_results_are_owned_by_the_caller_alone():
    results = gd.linear_backward(*built("linear_backward", "float32", {}))
    assert sys.getrefcount(results) == 2 and [sys.getrefcount(one) for one in results] == [3, 3, 3]
    assert all(one.flags.owndata and one.flags.writeable and one.base is None for one in results)
    assert gc.is_tracked(results)
    out = np.empty((6, 7), "f4")
    before = sys.getrefcount(out)
    assert gd.linear(*built("linear", "float32", {})[:4], out) is out
    assert sys.getrefcount(out) == before


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as numbers:
        return int(numbers.read().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow():
    args = built("linear_backward", "float32", {}, (64, 32, 64))
    bad = built("softmax_cross_entropy", "float32", {"target": np.full(64, 99)}, (64, 5, 64))
    enter = gd.softmax_cross_entropy.__globals__["enter"]

    def calls(number):
        for _ in range(number):
            gd.linear_backward(*args)
            enter(*bad)

    calls(100)
    before = resident()
    calls(3000)  # 24 kB of results each
    assert resident() - before < 4 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_working_memory_is_freed_with_its_thread():
    args = built("linear_backward", "float32", {}, (512, 64, 512))  # 3 MB of working memory behind the panels

    def run():
        thread = threading.Thread(target=gd.linear_backward, args=args)
        thread.start()
        thread.join()

    for _ in range(10):
        run()
    before = resident()
    for _ in range(200):
        run()
    assert resident() - before < 16 << 20


def test_sums_over_no_row_stay_in_their_memory(dtype):
    """Nothing is kept for the sums that nobody asks for where there is no row: they must not be written."""
    n = 3 << 20  # far beyond the working memory
    x, gamma, stats = np.empty((0, n), dtype), np.ones(n, dtype), np.empty(0, dtype)
    gd.rmsnorm_backward(x, x, gamma, stats)
    dx, dgamma = through_door("rmsnorm_backward", (x, x, gamma, stats, None, None, None))
    assert dx.shape == (0, n) and not dgamma.any()


def test_a_call_that_needs_much_memory_goes_past_the_door():
    args = built("linear_backward", "float32", {}, (3100, 1, 1024))
    gd.linear_backward(*args)
    assert through_door("linear_backward", args) is None


# ---------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sizes", [(6, 5, 7), (200, 60, 80)], ids=["short", "long"])
def test_calls_of_several_threads_at_once(workers, sizes, threads):
    threads(workers)
    names = (
        "linear_backward",
        "softmax_cross_entropy",
        "adam_step",
        "layernorm_backward",
        "clip_by_global_norm",
    )
    expected = {name: bits(past_door(name, built(name, "float32", {}, sizes))) for name in names}
    wrong, until = [], time.monotonic() + 1.0

    def work(first):
        turn = first
        while time.monotonic() < until and not wrong:
            name = names[turn % len(names)]
            args = built(name, "float32", {}, sizes)
            if bits(getattr(gd, name)(*args)) != expected[name]:
                wrong.append(name)
            turn += 1

    callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("name", ["linear", "adam_step", "clip_by_global_norm"])
def test_other_threads_run_during_a_long_call(name):
    sizes = (2500, 900, 900)
    args = built(name, "float32", {}, sizes)
    if name == "adam_step":
        args = tuple([one] if isinstance(one, np.ndarray) else one for one in args)
    getattr(gd, name)(*args)
    enter, ticks, stop = getattr(gd, name).__globals__["enter"], [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.0001)

    before = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # nothing but a lock that is released lets the other thread run
    other = threading.Thread(target=tick)
    try:
        other.start()
        began = ticks[0]
        for _ in range(20):
            assert enter(*args) is not None
        assert ticks[0] > began
    finally:
        stop.set()
        sys.setswitchinterval(before)
        other.join()


def test_arrays_taken_out_of_a_list_live_until_the_call_is_over():
    """While the lock is released another thread empties the lists: their arrays must not go."""
    size, stop = 1 << 16, threading.Event()
    names = ("p", "g", "m", "v")
    lists = {name: [] for name in names}

    def refill():
        for items in lists.values():
            items[:] = [np.ones(size, "f4") for _ in range(8)]

    def empty():
        while not stop.is_set():
            for items in lists.values():
                items.clear()
            time.sleep(0)

    refill()
    gd.adam_step(*lists.values(), 1, 0.1)
    gd.clip_by_global_norm(1.0, lists["g"])
    other = threading.Thread(target=empty)
    other.start()
    try:
        for _ in range(300):
            refill()
            try:
                gd.adam_step(*lists.values(), 1, 0.1)
                gd.clip_by_global_norm(1.0, lists["g"])
            except (ValueError, TypeError):  # emptied before the call, or between two lists
                pass
    finally:
        stop.set()
        other.join()


# ---------------------------------------------------------------------------------------------- mistakes


@native("F*, F*, i8")
def relu_of_the_other_sign(z, a, count):
    for i in range(count):
        a[i] = min(z[i], type(z[i])(0))


def test_a_wrong_kernel_behind_the_door_is_caught(monkeypatch):
    door = doors.find("activation")
    gd.activation(np.ones(3, "f4"), "relu")
    monkeypatch.setitem(cpu_activation.FORWARD, "relu", relu_of_the_other_sign)
    door.choose("float32", 1, "relu")
    monkeypatch.undo()
    through, past = both_ways("activation", "float32", {"kind": "relu"})
    door.choose("float32", 1, "relu")
    assert through != past
    through, past = both_ways("activation", "float32", {"kind": "relu"})
    assert through == past
