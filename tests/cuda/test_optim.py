"""The optimizer steps on the device, against the reference and the CPU: sizes, addresses, flags, copies, graphs."""

import numpy as np
import pytest

import gdkernels as gd
from gdkernels.cpu import optim as cpu_optim
from gdkernels.scalar.optim import OPTIMIZERS, PLAIN, ROW, ROWS, RULES
from reference import bounds
from tests.ops.test_optim import CASES, assert_close, problem
from tests.rules import OPTIONS, exact_step, is_counted

NAMES = list(OPTIMIZERS)
LR, DECAY, STEP = 0.01, 0.1, 5


def settings_of(name, step=STEP, lr=LR, decay=DECAY):
    """What the row of a step is computed from."""
    return float(step), lr, decay, options_of(name)


def row_of(name, step=STEP, lr=LR, decay=DECAY):
    return ROWS[name](*settings_of(name, step, lr, decay))


def options_of(name):
    return () if name == PLAIN else tuple(OPTIONS[name].values())


def launched(device, name, dtype, arrays, first=0, row=None, scale=None, stop=None, bf16_copy=None):
    """What `update_launches` makes of copies of p, g and the states from element `first` on; all arrays."""
    from gdkernels.cuda import optim
    from gdkernels.cuda.runtime import driver

    if row is None:
        row = row_of(name)
    there = [device.put(array) for array in arrays]
    row = device.put(np.asarray(row, dtype))
    factor, flag = (None if value is None else device.put(value) for value in (scale, stop))
    factor_place, flag_place = (0 if one is None else one.address for one in (factor, flag))
    copy_place = 0 if bf16_copy is None else bf16_copy.address + 2 * first
    p, g, *states = (one.address + first * one.itemsize for one in there)
    count = arrays[0].size - first
    for launch in optim.update_launches(
        dtype, name, p=p, g=g, states=states, count=count, row=row.address, scale=factor_place, stop=flag_place,
        bf16_copy=copy_place,
    ):  # fmt: skip
        launch.run(there[0].stream)
    driver.synchronize(there[0].stream)
    return [one.to_numpy() for one in there]


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.every_kernel
@pytest.mark.parametrize("name", RULES)
def test_each_kernel_matches_the_reference(device, name, dtype, rng):
    """257 threads of four elements, one single element."""
    from gdkernels.cuda import optim

    public, options = ("sgd", {}) if name == PLAIN else (name, OPTIONS[name])
    p, g, states = problem(public, (1029,), dtype, rng)
    arrays = [device.put(array) for array in (p, g, *states)]
    new = exact_step(public, p, g, states, LR, STEP, weight_decay=DECAY, **options)
    allowed = bounds.step(public, p, g, states, LR, STEP, weight_decay=DECAY, **options)
    own = tuple(arrays[2 : 2 + len(RULES[name].states)])
    optim.step(name, *arrays[:2], own, settings_of(name))
    found = [array.to_numpy() for array in arrays]
    assert_close(public, (found[0], *found[2:]), new, allowed)
    np.testing.assert_array_equal(found[1], g)
    for one, given in zip(found[2 + len(own) :], states[len(own) :], strict=True):
        np.testing.assert_array_equal(one, given)


@pytest.mark.parametrize("name, options", CASES)
def test_the_operations_match_the_reference_with_every_option(device, name, options, dtype, rng):
    """The bounds of the CPU hold: they leave room for a root of 1 ulp and a division of 2."""
    p, g, states = problem(name, (7, 67), dtype, rng)
    new = exact_step(name, p, g, states, 0.1, **options)
    allowed = bounds.step(name, p, g, states, 0.1, 5, **options)
    arrays = [device.put(array) for array in (p, g, *states)]
    counted = (5,) if is_counted(name) else ()
    assert getattr(gd, f"{name}_step")(*arrays, *counted, 0.1, **options) is None
    found = [array.to_numpy() for array in arrays]
    assert_close(name, (found[0], *found[2:]), new, allowed)


@pytest.mark.parametrize("name", NAMES)
def test_ten_steps_are_those_of_the_cpu(device, name, dtype, rng):
    """Each step makes some 10 roundings of numbers up to 4 on either side, which add up."""
    from gdkernels.cuda import optim

    here = [rng.standard_normal(300).astype(dtype), np.empty(300, dtype)]
    here += [np.zeros(300, dtype) for _ in RULES[name].states]
    there = [device.put(array) for array in here]
    for step in range(1, 11):
        here[1][...] = rng.standard_normal(300)
        there[1].fill_from(here[1])
        for arrays, kernels in ((here, cpu_optim), (there, optim)):
            kernels.step(name, *arrays[:2], tuple(arrays[2:]), settings_of(name, step))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other.to_numpy(), one, rtol=0, atol=2 * 10 * 10 * 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_gradients_leave_finite_parameters(device, name):
    """Squares of 1e30 overflow in float32, where v becomes infinite and the update 0."""
    from gdkernels.cuda import optim

    g = np.array([0.0, 1e-45, -1e-30, 1e-8, 1e4, -1e4, 1e30, -1e30] * 9, np.float32)
    p, states = np.linspace(-1e4, 1e4, g.size, dtype="f4"), [np.zeros_like(g) for _ in RULES[name].states]
    arrays = [device.put(array) for array in (p, g, *states)]
    for step in range(1, 6):
        optim.step(name, *arrays[:2], tuple(arrays[2:]), settings_of(name, step, 1e-3, 0.0))
    assert np.isfinite(arrays[0].to_numpy()).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_inf_stay_in_their_element(device, name, rng):
    p, g, states = problem(name, (101,), "float32", rng)
    clean = launched(device, name, "float32", [p, g, *states])
    g[17], g[100], p[40] = np.nan, np.nan, np.inf
    found = launched(device, name, "float32", [p, g, *states])
    others = np.delete(np.arange(101), [17, 40, 100])
    assert np.isnan(found[0][[17, 100]]).all()
    for one, without in zip(found, clean, strict=True):
        np.testing.assert_array_equal(one[others], without[others])


# ---------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("name", NAMES)
def test_an_element_does_not_depend_on_its_place(device, name, dtype, rng):
    """Threads of four and of one give the same bits, whatever the size and the address; nothing else is written."""
    p, g, states = problem(name, (1024,), dtype, rng)
    arrays = [p, g, *states]
    whole = launched(device, name, dtype, arrays)
    for first in (1, 2, 3, 4, 1021):  # 4: aligned for float32 again; the others are not
        found = launched(device, name, dtype, arrays, first)
        for one, given, moved in zip(found, arrays, whole, strict=True):
            np.testing.assert_array_equal(one[:first], given[:first])
            np.testing.assert_array_equal(one[first:], moved[first:])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 1000, 4097])
def test_every_size(device, dtype, count, rng):
    p, g, states = problem("adamw", (count,), dtype, rng)
    new = exact_step("adamw", p, g, states, LR, STEP, weight_decay=DECAY)
    allowed = bounds.step("adamw", p, g, states, LR, STEP, weight_decay=DECAY)
    found = launched(device, "adamw", dtype, [p, g, *states])
    assert_close("adamw", (found[0], *found[2:]), new, allowed)


def test_nothing_of_empty_arrays_is_launched(device):
    from gdkernels.cuda import optim

    assert optim.update_launches("float32", "adam", p=0, g=0, states=(0, 0), count=0, row=0) == []
    empty = device.put(np.zeros((0, 3)))
    optim.step("lion", empty, empty, (empty,), settings_of("lion"))


def test_transposed_arrays_are_stepped_in_place(device, dtype, rng):
    p, g, states = problem("adam", (9, 14), dtype, rng)
    arrays = [device.put(array) for array in (p, g, *states)]
    gd.adam_step(*(array.T for array in arrays), STEP, LR, weight_decay=DECAY)
    other = [device.put(array) for array in (p, g, *states)]
    gd.adam_step(*other, STEP, LR, weight_decay=DECAY)
    for one, straight in zip(arrays, other, strict=True):
        np.testing.assert_array_equal(one.to_numpy(), straight.to_numpy())


# ---------------------------------------------------------------------------------------------- flags and copies


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_stop_leaves_everything_untouched(device, name, dtype, first, rng):
    p, g, states = problem(name, (70,), dtype, rng)
    copy = device.put(np.full(70, 3.0), "bfloat16")
    found = launched(
        device, name, dtype, [p, g, *states], first, stop=np.array([1], np.int32), bf16_copy=copy
    )
    for one, given in zip(found, (p, g, *states), strict=True):
        np.testing.assert_array_equal(one, given)
    assert (copy.to_numpy() == 3).all()
    going = launched(device, name, dtype, [p, g, *states], first, stop=np.zeros(1, np.int32))
    assert (going[0][first:] != p[first:]).all()


@pytest.mark.parametrize("first", [0, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_copy_is_the_new_p_in_bfloat16(device, name, first, rng):
    p, g, states = problem(name, (71,), "float32", rng)
    copy = device.put(np.full(71, 3.0), "bfloat16")
    found = launched(device, name, "float32", [p, g, *states], first, bf16_copy=copy)
    rounded = device.put(found[0], "bfloat16").to_numpy()
    rounded[:first] = 3
    np.testing.assert_array_equal(copy.to_numpy(), rounded)


def test_the_copy_rounds_to_nearest_even(device):
    """p stays where it is with a rate of 0: ties, denormals, what overflows, and NaN of every kind."""
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x00008000,
         0x00018000, 0x80000001, 0x7F800001, 0xFFFFFFFF, 0x7FC00000],
        np.uint32,
    )  # fmt: skip
    p = bits.view(np.float32)
    copy = device.empty(p.shape, "bfloat16")
    found = launched(device, PLAIN, "float32", [p, np.zeros_like(p)], row=np.zeros(8), bf16_copy=copy)[0]
    np.testing.assert_array_equal(found, p)
    np.testing.assert_array_equal(copy.to_numpy(), device.put(found, "bfloat16").to_numpy())


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_scale_is_a_factor_of_the_gradient(device, name, dtype, first, rng):
    p, g, states = problem(name, (70,), dtype, rng)
    found = launched(device, name, dtype, [p, g, *states], first, scale=np.full(1, 0.25, dtype))
    expected = launched(device, name, dtype, [p, g / 4, *states], first)  # exact: a power of two
    for one, other in zip((found[0], *found[2:]), (expected[0], *expected[2:]), strict=True):
        np.testing.assert_array_equal(one[first:], other[first:])


# ---------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_a_row_for_each_step_and_segment(name):
    optim = pytest.importorskip(
        "gdkernels.cuda.optim", reason="numba-cuda is not installed", exc_type=ImportError
    )
    rates, decays = [0.1, 0.05, 0.0], [0.0, 0.3]
    rows = optim.table(name, options_of(name), decays, 6, rates)
    assert rows.shape == (3, 2, ROW) and rows.dtype == np.float64
    for step, rate in enumerate(rates):
        for segment, decay in enumerate(decays):
            assert tuple(rows[step, segment]) == row_of(name, 7 + step, rate, decay)


def test_a_captured_update_takes_the_row_that_is_there(device, rng):
    from gdkernels.cuda import optim
    from gdkernels.cuda.runtime import driver
    from gdkernels.cuda.runtime.jit import run

    p, g, states = problem("adam", (1000,), "float32", rng)
    arrays = [device.put(array) for array in (p, g, *states)]
    rows = optim.table("adam", options_of("adam"), [DECAY], 0, [LR, LR / 2, LR / 4])
    row = device.put(rows[0, 0].astype("f4"))
    places = [array.address for array in arrays]
    launches = optim.update_launches(
        "float32", "adam", p=places[0], g=places[1], states=places[2:], count=1000, row=row.address
    )
    for launch in launches:
        launch.load()  # compiling is not captured
    stream = driver.Stream()
    graph = driver.Graph(stream.handle, lambda: run(launches, stream.handle))
    expected = [p, g, *states]
    for step in range(3):
        row.fill_from(rows[step, 0].astype("f4"))
        driver.synchronize(row.stream)
        graph.replay(stream.handle)
        driver.synchronize(stream.handle)
        expected = launched(device, "adam", "float32", expected, row=rows[step, 0])
    for one, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(one.to_numpy(), other)


def test_a_rate_beyond_float32_is_infinite(device):
    from gdkernels.cuda import optim

    p, g = device.put(np.ones(5, "f4")), device.put(np.ones(5, "f4"))
    optim.step(PLAIN, p, g, (), settings_of(PLAIN, lr=1e300))
    assert np.isneginf(p.to_numpy()).all()
