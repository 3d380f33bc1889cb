"""The losses of elements on the device, against the reference; sums of many numbers."""

import numpy as np
import pytest

import reference
from gdkernels.ranges import POSITIVE, Option
from gdkernels.scalar.loss import Loss
from reference import bounds
from reference.rounding import GPU, rounded
from tests.cuda.mutation import mutant
from tests.ops.test_loss import pair
from tests.within import assert_within

REDUCTIONS = ("mean", "sum", "none")
OPS = {
    "mse": {},
    "huber": {"delta": 0.7},
    "log_cosh": {},
    "binary_cross_entropy": {"pos_weight": 3.0},
}
# No dimension, one, three; what is one row, more than one, and what is left over by rows and by fours.
SHAPES = ((), (1,), (3, 4, 5), (1024,), (1025,), (3, 1000), (2, 2048))
# A number a row; narrow rows side by side in a warp; several turns of a warp; a block a row. By fours: 64, 1028.
ROWS = ((70, 1), (33, 10), (9, 64), (3, 127), (2, 1028), (2, 1029))


# All sums are of one sign; an element takes part in at most 32 additions of a thread, 5 of a warp and 7 of a block for its
# row, and in 16, 5 and 7 for the sum of rows.
ADDITIONS = 32 + 5 + 7 + 16 + 5 + 7


def assert_elements(device, name, pred, target, reduction):
    from gdkernels.cuda import loss

    options = OPS[name]
    exact, slope = getattr(reference, name)(pred, target, reduction=reduction, **options)
    given, wanted = device.put(pred), device.put(target)
    grad = device.empty(pred.shape, pred.dtype)
    result = loss.elements(name, given, wanted, grad, reduction, tuple(options.values()))
    value, grad = result.to_numpy(), grad.to_numpy()
    assert result.dtype == pred.dtype and result.shape == (pred.shape if reduction == "none" else ())
    of_value, of_grad = getattr(bounds, name)(pred, target, reduction, ADDITIONS, GPU, **options)
    assert_within(value, exact, of_value, "value")
    assert_within(grad, slope, of_grad, "grad")
    alone = loss.elements(name, given, wanted, None, reduction, tuple(options.values())).to_numpy()
    np.testing.assert_array_equal(alone, value, "without grad")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OPS)
def test_elements_match_the_reference(device, name, dtype, reduction, rng):
    for shape in SHAPES:
        assert_elements(device, name, *pair(rng, dtype, shape), reduction)


def rows_on_device(device, name, storage, pred, target, scale=0.25, first=0, with_grad=True):
    """(row losses, gradient), whose arrays begin `first` elements behind an aligned address."""
    from gdkernels.cuda import loss
    from gdkernels.cuda.runtime import driver
    from gdkernels.cuda.runtime.pointer import BYTES

    computed = "float64" if storage == "float64" else "float32"
    rows, n = pred.shape

    def behind(values, kind):
        array = device.put(np.concatenate([np.full(first, np.nan), np.ravel(values)]), kind)
        return array, array.address + first * BYTES[kind]

    (_, p), (_, t) = kept = behind(pred, storage), behind(target, computed)
    grad, g = behind(np.full(pred.shape, np.nan), storage)
    row_loss, r = behind(np.full(rows, np.nan), computed)
    factor = device.put(np.array([scale]), computed)
    options = tuple(OPS[name].values())
    launches = loss.element_launches(
        name, storage, pred=p, target=t, grad=g if with_grad else 0, row_loss=r, terms=0, rows=rows, n=n,
        scale=factor.address, factor=1.0, options=options,
    )  # fmt: skip
    for one in launches:
        one.run(row_loss.stream)
    driver.synchronize(row_loss.stream)
    assert kept
    return row_loss.to_numpy()[first:], grad.to_numpy()[first:].reshape(pred.shape)


def assert_rows(device, name, storage, pred, target, first=0):
    """Row losses are not scaled, gradients are."""
    options, computed = OPS[name], "float64" if storage == "float64" else "float32"
    pred = device.put(pred, storage).to_numpy().astype("f8")
    target = target.astype(computed).astype("f8")
    row_loss, grad = rows_on_device(device, name, storage, pred, target, 0.25, first)
    terms, slope = getattr(reference, name)(pred, target, reduction="none", **options)
    of_terms, of_grad = getattr(bounds, name)(pred, target, "none", on=GPU, **options)
    of_rows = of_terms.through(lambda e: e.sum(axis=1)) + rounded(terms.sum(axis=1), ADDITIONS / 2)
    assert_within(row_loss, terms.sum(axis=1), of_rows, "rows", computed)
    of_grad = of_grad.stored(slope, storage).through(lambda e: 0.25 * e)
    assert_within(grad, 0.25 * slope, of_grad, "grad", computed)
    alone, untouched = rows_on_device(device, name, storage, pred, target, 0.25, first, with_grad=False)
    np.testing.assert_array_equal(alone, row_loss, "without grad")
    assert np.isnan(untouched).all()


@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", OPS)
def test_rows_match_the_reference(device, name, storage, rng):
    for shape in ROWS:
        assert_rows(device, name, storage, *pair(rng, "f8", shape))


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("name", OPS)
def test_misaligned_rows(device, name, first, rng):
    for storage in ("float32", "bfloat16"):
        assert_rows(device, name, storage, *pair(rng, "f8", (5, 12)), first)


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", OPS)
def test_every_kernel_with_few_rows(device, name, storage, rng):
    """By fours and one by one, in parts of a warp and in whole blocks."""
    for shape in ((9, 8), (3, 5), (2, 1028), (2, 1025)):
        assert_rows(device, name, storage, *pair(rng, "f8", shape))
    if storage != "bfloat16":
        assert_elements(device, name, *pair(rng, storage, (1025,)), "mean")


@pytest.mark.parametrize("name", OPS)
def test_extremes_are_what_ieee_says(device, dtype, name):
    from gdkernels.cuda import loss

    values = np.array([0, -0.0, 1e4, -1e4, 1, 200, -200, np.inf, -np.inf, np.nan], dtype)
    pred, target = (grid.ravel() for grid in np.meshgrid(values, np.array([0, 0.25, 1, np.nan], dtype)))
    for count in (40, 39):  # by fours, and with three left over
        p, t = (np.ascontiguousarray(array[:count]) for array in (pred, target))
        grad = device.empty(p.shape, dtype)
        options = OPS[name]
        result = loss.elements(
            name, device.put(p), device.put(t), grad, "none", tuple(options.values())
        ).to_numpy()
        exact, slope = getattr(reference, name)(p, t, reduction="none", **options)
        of_value, of_grad = getattr(bounds, name)(p, t, "none", on=GPU, **options)
        assert_within(result, exact, of_value, "value")
        assert_within(grad.to_numpy(), slope, of_grad, "grad")


@pytest.mark.parametrize("name", OPS)
def test_the_mean_over_nothing_is_nan_and_the_sum_zero(device, name):
    from gdkernels.cuda import loss

    empty, options = device.put(np.zeros((0, 3), "f4")), tuple(OPS[name].values())
    grad = device.empty((0, 3), "float32")
    assert np.isnan(loss.elements(name, empty, empty, grad, "mean", options).to_numpy())
    assert loss.elements(name, empty, empty, grad, "sum", options).to_numpy() == 0.0
    assert loss.elements(name, empty, empty, grad, "none", options).shape == (0, 3)


@pytest.mark.parametrize("n", [12, 13, 1028])
def test_the_same_bits_wherever_a_row_stands(device, n, rng):
    pred, target = pair(rng, "float32", (37, n))
    row_loss, grad = rows_on_device(device, "huber", "float32", pred, target)
    again = rows_on_device(device, "huber", "float32", pred, target)
    assert again[0].tobytes() == row_loss.tobytes() and again[1].tobytes() == grad.tobytes()
    part = rows_on_device(device, "huber", "float32", pred[18:20], target[18:20])
    np.testing.assert_array_equal(part[0], row_loss[18:20])
    np.testing.assert_array_equal(part[1], grad[18:20])


# ------------------------------------------------------------------------------------------------- options


def lopsided(pred, target, above, below, power):
    """A loss of three options: (power − 1) · above · e for e > 0, else (power − 1) · −below · e."""
    error = pred - target
    slope = (power - type(power)(1)) * (above if error > type(error)(0) else -below)
    return slope * error, slope


@pytest.mark.parametrize("n", [8, 7])
def test_a_loss_has_any_number_of_options(device, n, rng, monkeypatch):
    """Each of which counts, by fours and one by one."""
    from gdkernels.cuda import loss

    row = Loss(lopsided, options=dict.fromkeys(("above", "below", "power"), Option(1.0, POSITIVE)))
    monkeypatch.setitem(loss.ELEMENT_LOSSES, "lopsided", row)
    monkeypatch.setitem(loss.ELEMENTS, "lopsided", loss._kernels("lopsided", row))
    pred, target = pair(rng, "f4", (5, n))
    grad = device.empty(pred.shape, "f4")
    for options in ((2.0, 4.0, 3.0), (8.0, 4.0, 3.0), (2.0, 8.0, 3.0), (2.0, 4.0, 9.0)):
        result = loss.elements("lopsided", device.put(pred), device.put(target), grad, "none", options)
        error = pred - target
        slope = (options[2] - 1) * np.where(error > 0, options[0], -options[1])
        np.testing.assert_array_equal(result.to_numpy(), slope * error)  # by powers of two: exact
        np.testing.assert_array_equal(grad.to_numpy(), slope)


@pytest.mark.parametrize("name", OPS)
def test_options_too_many_or_too_few_are_refused(name):
    loss = pytest.importorskip(
        "gdkernels.cuda.loss", reason="numba-cuda is not installed", exc_type=ImportError
    )

    places = dict.fromkeys(("pred", "target", "grad", "row_loss", "terms", "rows", "n", "scale"), 0)
    right = tuple(OPS[name].values())
    loss.element_launches(name, "float32", **places, factor=1.0, options=right)
    for options in {(*right, 1.0), right[:-1]} - {right}:
        with pytest.raises(ValueError, match="zip"):
            loss.element_launches(name, "float32", **places, factor=1.0, options=options)


# ------------------------------------------------------------------------------------------------- sums


def total_of(device, values, divisor=1.0, mass=0.0, rows=None):
    """What `sum_launches` makes of numbers."""
    from gdkernels.cuda import rows as right

    array, total = device.put(values), device.empty((), values.dtype)
    by = device.put(np.array([mass], values.dtype))
    launches = (rows or right).sum_launches(
        array.workspace, values.dtype.name, array.address, total.address, values.size, divisor,
        by.address if mass is not None else 0,
    )  # fmt: skip
    for one in launches:
        one.run(array.stream)
    return total.to_numpy()


@pytest.mark.parametrize("count", [0, 1, 255, 4096, 4097, 12_345])
def test_sums_of_many_numbers(device, count, dtype, rng):
    """Integers: every order of additions gives the same."""
    values = rng.integers(-50, 50, count).astype(dtype)
    assert total_of(device, values, mass=None) == values.sum()
    assert total_of(device, values, divisor=4.0, mass=None) == values.sum() / 4
    assert total_of(device, values, mass=8.0) == values.sum() / 8
    assert np.isnan(total_of(device, values, mass=0.0))
    assert np.isnan(total_of(device, values, divisor=0.0, mass=None))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("last = min(count, start + SUMMED)", "last = min(count - 1, start + SUMMED)", id="tail"),
        pytest.param("of_neighbours(value, shift)", "of_neighbours(value, 4)", id="half a warp"),
        pytest.param("for warp in range(1, WARPS):\n                value = ",
                     "for warp in range(1, WARPS - 1):\n                value = ", id="reduction"),
    ],
)  # fmt: skip
def test_a_wrong_sum_is_caught(device, old, new):
    from gdkernels.cuda import rows

    values = np.ones(4096 + 7, "f4")
    assert total_of(device, values, mass=None) == values.size
    assert total_of(device, values, mass=None, rows=mutant(rows, old, new)) != values.size


@pytest.mark.parametrize("missing", [False, True])
def test_a_missing_barrier_is_caught(missing):
    """Between writing the sums of warps and reading them: by the race detector, in whatever order the warps run."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda import rows

    sums = "            value = memory[0]\n"
    module = mutant(rows, f"            cuda.syncthreads()\n{sums}", sums) if missing else rows
    kernel = module.add_up
    emulated = ptxemu.PtxModule(kernel.ptx("float32", (8, 0)), race=True)
    values, total = np.ones(1000, np.float32), np.zeros(1, np.float32)
    ranges = [(array.ctypes.data, array.nbytes, "array") for array in (values, total)]
    operands = [values.ctypes.data, total.ctypes.data, 1000, 1.0, 0]
    for order in ("forward", "reverse"):
        if missing:
            with pytest.raises(ptxemu.PtxError, match="race"):
                emulated.run(f"{kernel.name}_float32", 1, 256, operands, order=order, ranges=ranges)
        else:
            emulated.run(f"{kernel.name}_float32", 1, 256, operands, order=order, ranges=ranges)
            assert total == 1000
