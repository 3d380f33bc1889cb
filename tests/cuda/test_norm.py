"""The norms and the sum of arrays on the device, against the reference: forward, dx, gradients of the parameters."""

import importlib

import numpy as np
import pytest

import reference
from reference import bounds
from reference.rounding import GPU, rounded
from tests.cuda.mutation import mutant
from tests.within import assert_within

STORAGES = ("float32", "float64", "bfloat16")
# One number; narrow rows side by side in a warp; several turns of a warp; a block a row; longer than what registers hold;
# more strips of rows than warps. By fours: 1000, 5000, 12. One by one: the others, and all of float64.
SHAPES = ((1, 1), (5, 3), (33, 10), (3, 127), (3, 1000), (2, 5000), (2, 5001), (2, 8196), (300, 12))


class Case:
    """Numbers as `storage` holds them, and these on the device; `first` is where rows begin behind an aligned address."""

    def __init__(self, device, rng, storage, batch, n, with_residual, first=0):
        self.device, self.storage, self.shape, self.first = device, storage, (batch, n), first
        self.computed = "float64" if storage == "float64" else "float32"
        x = rng.standard_normal((batch, n)) * rng.uniform(0.5, 2, (batch, 1))
        self.set(
            x=x + 3 * rng.normal(size=(batch, 1)),
            residual=rng.standard_normal((batch, n)) if with_residual else None,
            dy=rng.standard_normal((batch, n)),
            gamma=rng.standard_normal(n),
            beta=rng.standard_normal(n),
        )

    def set(self, **values):
        """Put values on the device and keep what it has of them."""
        for name, value in values.items():
            here = None if value is None else self.put(value, self.storage)
            setattr(self, f"_{name}", here)
            setattr(self, name, None if here is None else here.to_numpy().astype("f8"))
        return self

    def put(self, value, storage):
        """An array that begins `first` elements behind an aligned address."""
        from gdkernels.cuda.runtime.arrays import Array

        value = np.asarray(value, "f8")
        flat = self.device.put(np.concatenate([np.full(self.first, np.nan), value.ravel()]), storage)
        return Array(flat.shadow[self.first :].reshape(value.shape), flat.dtype, flat.library, flat.owner)

    def new(self, *shape, storage=None):
        return self.put(np.full(shape, np.nan), storage or self.storage)

    def layernorm(self, eps=1e-5):
        """(y, stats), (dx, dgamma, dbeta)"""
        from gdkernels.cuda import norm

        (batch, n), (x, residual) = self.shape, (self._x, self._residual)
        y, stats = self.new(batch, n), self.new(batch, 2, storage=self.computed)
        norm.layernorm(x, residual, self._gamma, self._beta, y, stats, eps)
        dx, dgamma, dbeta = self.new(batch, n), self.new(n), self.new(n)
        norm.layernorm_backward(self._dy, x, residual, self._gamma, stats, dx, dgamma, dbeta)
        return [a.to_numpy() for a in (y, stats)], [a.to_numpy() for a in (dx, dgamma, dbeta)]

    def rmsnorm(self, eps=1e-6):
        """(y, stats), (dx, dgamma)"""
        from gdkernels.cuda import norm

        (batch, n), (x, residual) = self.shape, (self._x, self._residual)
        y, stats = self.new(batch, n), self.new(batch, storage=self.computed)
        norm.rmsnorm(x, residual, self._gamma, y, stats, eps)
        dx, dgamma = self.new(batch, n), self.new(n)
        norm.rmsnorm_backward(self._dy, x, residual, self._gamma, stats, dx, dgamma)
        return [a.to_numpy() for a in (y, stats)], [a.to_numpy() for a in (dx, dgamma)]


def assert_each(case, names, results, truths, allowed):
    """Statistics have the type that is computed with; all else is stored as `case.storage`."""
    for name, result, truth, bound in zip(names, results, truths, allowed, strict=True):
        if name not in ("mean", "rstd"):
            bound = bound.stored(truth, case.storage)
        assert_within(result, truth, bound, name, case.computed)


def assert_layernorm(case):
    forward, backward = case.layernorm()
    y, stats = forward
    exact, true = reference.layernorm(case.x, case.gamma, case.beta, residual=case.residual)
    allowed = bounds.layernorm(case.x, case.gamma, case.beta, residual=case.residual, on=GPU)
    split = (y, stats[:, :1], stats[:, 1:]), (exact, true[:, :1], true[:, 1:])
    assert_each(case, ("y", "mean", "rstd"), *split, allowed)
    given_here = case.dy, case.x, case.gamma, stats, case.residual
    truths = reference.layernorm_backward(*given_here)
    allowed = bounds.layernorm_backward(*given_here, GPU)
    assert_each(case, ("dx", "dgamma", "dbeta"), backward, truths, allowed)
    return forward, backward


def assert_rmsnorm(case):
    forward, backward = case.rmsnorm()
    truths = reference.rmsnorm(case.x, case.gamma, residual=case.residual)
    allowed = bounds.rmsnorm(case.x, case.gamma, residual=case.residual, on=GPU)
    assert_each(case, ("y", "rstd"), forward, truths, allowed)
    given_here = case.dy, case.x, case.gamma, forward[1], case.residual
    truths = reference.rmsnorm_backward(*given_here)
    assert_each(case, ("dx", "dgamma"), backward, truths, bounds.rmsnorm_backward(*given_here, GPU))
    return forward, backward


# ------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_norms_match_the_reference(device, shape, storage, with_residual, rng):
    case = Case(device, rng, storage, *shape, with_residual)
    assert_layernorm(case)
    assert_rmsnorm(case)


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", STORAGES)
def test_every_kernel_with_few_rows(device, storage, rng):
    """By fours and one by one, in parts of a warp and in whole blocks."""
    from gdkernels.cuda import norm

    for shape in ((35, 8), (3, 5), (2, 1028), (2, 1025)):
        case = Case(device, rng, storage, *shape, with_residual=True)
        assert_layernorm(case)
        assert_rmsnorm(case)
    for count in (8, 7):
        a, b = (
            device.put(rng.standard_normal(count), storage),
            device.put(rng.standard_normal(count), storage),
        )
        exact = a.to_numpy() + b.to_numpy()  # rounded once, as on the device; bfloat16 once more
        for one in norm.add_launches(storage, a.address, b.address, a.address, count):
            one.run(a.stream)
        np.testing.assert_array_equal(a.to_numpy(), device.put(exact, storage).to_numpy())


@pytest.mark.parametrize("n", [12, 13])
def test_many_rows_are_cut_into_few_strips(device, n, rng, monkeypatch):
    """Two strips of 56 rows, where otherwise there would be four of 32."""
    from gdkernels.cuda import rows

    monkeypatch.setattr(rows, "STRIPS", 2)
    assert rows.strips_of(100, 32) == (2, 56)
    case = Case(device, rng, "float32", 100, n, with_residual=True)
    assert_layernorm(case)
    assert_rmsnorm(case)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [1, 2])
def test_misaligned_rows(device, first, storage, rng):
    for shape in ((5, 64), (2, 1028)):
        case = Case(device, rng, storage, *shape, with_residual=True, first=first)
        assert_layernorm(case)
        assert_rmsnorm(case)


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_batch_gives_empty_rows_and_zero_parameter_gradients(device, storage, rng):
    case = Case(device, rng, storage, 0, 12, with_residual=False)
    (y, stats), (dx, dgamma, dbeta) = case.layernorm()
    assert y.shape == (0, 12) and stats.shape == (0, 2) and dx.shape == (0, 12)
    np.testing.assert_array_equal([dgamma, dbeta], np.zeros((2, 12)))
    (y, stats), (dx, dgamma) = case.rmsnorm()
    assert y.shape == (0, 12) and stats.shape == (0,) and dx.shape == (0, 12)
    np.testing.assert_array_equal(dgamma, np.zeros(12))


@pytest.mark.parametrize(("storage", "out_storage"), [("float32", "float32"), ("bfloat16", "float32")])
def test_gradients_of_parameters_may_add_up_and_be_wider(device, storage, out_storage, rng):
    """What bfloat16 networks ask for: sums in float32, added to what is there."""
    from gdkernels.cuda.norm_gradients import gradient_launches

    case = Case(device, rng, storage, 40, 12, with_residual=False)
    (_, stats), _ = case.layernorm()
    here = case.put(stats, "float32")
    operands = {
        "dy": case._dy.address, "x": case._x.address, "residual": 0, "stats": here.address, "rows": 40, "n": 12,
        "out_storage": out_storage,
    }  # fmt: skip
    exact = reference.layernorm_backward(case.dy, case.x, case.gamma, stats, None)[1:]
    before = [case.put(rng.standard_normal(12), out_storage) for _ in range(2)]
    start = [array.to_numpy().astype("f8") for array in before]
    places = [array.address for array in before]
    launches = gradient_launches(
        here.workspace, storage, centred=True, dgamma=places[0], dbeta=places[1], accumulate=True, **operands
    )
    launches += gradient_launches(
        here.workspace, storage, centred=False, dgamma=places[1], accumulate=False, **operands
    )
    for one in launches[:2]:
        one.run(here.stream)
    allowed = bounds.layernorm_backward(case.dy, case.x, case.gamma, stats)[1:]
    for result, old, truth, bound in zip(before, start, exact, allowed, strict=True):
        bound += rounded(old, 40 / 2)  # it takes part in the additions of all rows
        assert_within(result.to_numpy(), old + truth, bound, "added", "float32")
    for one in launches[2:]:
        one.run(here.stream)
    given_here = case.dy, case.x, case.gamma, stats.ravel()[:40]
    _, exact = reference.rmsnorm_backward(*given_here)
    _, bound = bounds.rmsnorm_backward(*given_here)
    assert_within(before[1].to_numpy(), exact, bound, "overwritten", "float32")


# ------------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("n", [48, 50])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_constant_row_becomes_beta_and_a_row_of_zeros_zero(device, storage, n, rng):
    case = Case(device, rng, storage, 3, n, with_residual=False)
    case.set(x=np.array([[7.0], [-8192.0], [0.0]]).repeat(n, axis=1))  # sums are exact, and so are the means
    (y, _), (dx, *_) = case.layernorm()
    np.testing.assert_array_equal(y, np.stack([case.beta] * 3))
    assert np.isfinite(dx).all()
    np.testing.assert_array_equal(case.rmsnorm()[0][0][2], np.zeros(n))


@pytest.mark.parametrize("storage", STORAGES)
def test_large_and_small_rows_keep_to_the_bounds(device, storage, rng):
    """A mean much larger than the deviations is where Σ x² − n mean² would lose all digits."""
    case = Case(device, rng, storage, 4, 28, with_residual=True)
    x = case.x * np.array([[1e4], [1e-4], [1.0], [1.0]])
    x[2] += 1e4
    x[3, 5] = -1e4
    case.set(x=x)
    assert_layernorm(case)
    assert_rmsnorm(case)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("storage", "n"), [("float32", 20), ("float32", 19), ("float64", 19), ("bfloat16", 20)]
)
def test_what_is_not_finite_stays_in_its_row(device, storage, n, bad, rng):
    case = Case(device, rng, storage, 4, n, with_residual=False)
    good = case.layernorm()[0][0]
    x = case.x.copy()
    x[1, 7] = bad
    case.set(x=x)
    forward, (dx, *_) = case.layernorm()
    truth = reference.layernorm(x, case.gamma, case.beta)[0]
    np.testing.assert_array_equal(np.isnan(forward[0]), np.isnan(truth))
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(truth))
    np.testing.assert_array_equal(np.delete(forward[0], 1, axis=0), np.delete(good, 1, axis=0))
    (y, stats), (dx, _) = case.rmsnorm()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(reference.rmsnorm(x, case.gamma)[0]))
    exact = reference.rmsnorm_backward(case.dy, x, case.gamma, stats)[0]
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(exact))


# ------------------------------------------------------------------------------------------------- memory and bits


@pytest.mark.parametrize("n", [20, 19])
def test_results_may_take_the_place_of_inputs(device, n, rng):
    from gdkernels.cuda import norm

    case = Case(device, rng, "float32", 7, n, with_residual=True)
    (y, stats), back = case.layernorm()
    given = case.x.astype("f4"), case.residual.astype("f4"), case.dy.astype("f4")
    for which in (0, 1):
        x, residual, _ = map(device.put, given)
        moments = device.empty((7, 2), "float32")
        norm.layernorm(x, residual, case._gamma, case._beta, (x, residual)[which], moments, 1e-5)
        np.testing.assert_array_equal((x, residual)[which].to_numpy(), y)
    for which in (0, 1, 2):
        x, residual, dy = map(device.put, given)
        dx, dgamma, dbeta = (x, residual, dy)[which], case.new(n), case.new(n)
        norm.layernorm_backward(dy, x, residual, case._gamma, device.put(stats), dx, dgamma, dbeta)
        for result, truth in zip((dx, dgamma, dbeta), back, strict=True):
            np.testing.assert_array_equal(result.to_numpy(), truth)


@pytest.mark.parametrize("n", [12, 13, 1028])
def test_the_same_bits_wherever_a_row_stands(device, n, rng):
    whole = Case(device, rng, "float32", 21, n, with_residual=True)
    forward, backward = whole.layernorm()
    again = whole.layernorm()
    for first, second in zip((*forward, *backward), (*again[0], *again[1]), strict=True):
        assert first.tobytes() == second.tobytes()
    part = Case(device, rng, "float32", 2, n, with_residual=True)
    part.set(x=whole.x[18:20], residual=whole.residual[18:20], dy=whole.dy[18:20])
    part.set(gamma=whole.gamma, beta=whole.beta)
    (y, stats), (dx, *_) = part.layernorm()
    np.testing.assert_array_equal(y, forward[0][18:20])
    np.testing.assert_array_equal(stats, forward[1][18:20])
    np.testing.assert_array_equal(dx, backward[0][18:20])


# ------------------------------------------------------------------------------------------------- mutations


@pytest.mark.parametrize(
    ("module", "kernel", "old", "new"),
    [
        pytest.param("norm_rows", "forward4", "(row, c * step) if c < mine", "(row, c * step) if c < mine - 1", id="tail"),
        pytest.param("rows", "add_strips", "range(warp, strips,", "range(warp, strips - 1,", id="reduction"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_caught(device, module, kernel, old, new, rng, monkeypatch):
    right = importlib.import_module(f"gdkernels.cuda.{module}")
    user = importlib.import_module("gdkernels.cuda.norm") if module == "norm_rows" else right
    case = Case(device, rng, "float32", 40, 12, with_residual=False)
    assert_layernorm(case)
    monkeypatch.setattr(user, kernel, getattr(mutant(right, old, new), kernel))
    with pytest.raises(AssertionError):
        assert_layernorm(case)


@pytest.mark.parametrize("missing", [False, True])
def test_a_missing_barrier_is_caught(missing):
    """By the race detector, in whatever order the warps run."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda import rows

    barrier = "    cuda.syncthreads()\n    if warp == 0"
    module = mutant(rows, barrier, "    if warp == 0") if missing else rows
    kernel = module.add_strips
    emulated = ptxemu.PtxModule(kernel.ptx("float32", (8, 0)), race=True)
    partial, dgamma = np.ones((9, 5), np.float32), np.zeros(5, np.float32)
    ranges = [(array.ctypes.data, array.nbytes, "array") for array in (partial, dgamma)]
    operands = [partial.ctypes.data, dgamma.ctypes.data, 0, 9, 5, 0]
    for order in ("forward", "reverse"):
        if missing:
            with pytest.raises(ptxemu.PtxError, match="race"):
                emulated.run(f"{kernel.name}_float32", 1, 256, operands, order=order, ranges=ranges)
        else:
            emulated.run(f"{kernel.name}_float32", 1, 256, operands, order=order, ranges=ranges)
            np.testing.assert_array_equal(dgamma, np.full(5, 9))
