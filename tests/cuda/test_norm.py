"""The norms and the sum of arrays on the device, against the reference: forward, dx, gradients of the parameters."""

import numpy as np
import pytest

import reference

STORAGES = ("float32", "float64", "bfloat16")
# One number; narrow rows side by side in a warp; several turns of a warp; a block a row; longer than what registers hold.
# By fours: 64 (strips of rows too), 1000, 5000. One by one: the others.
SHAPES = ((1, 1), (5, 3), (33, 10), (70, 64), (3, 127), (3, 1000), (2, 5000), (2, 5001), (2, 8196))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


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
        from gdkernels.cuda.arrays import Array

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


# ------------------------------------------------------------------------------------------------- bounds
#
# u bounds the relative error of one rounding of the computed type, v that of storing a result. Errors of sums are those
# of Higham, section 4.2: n u Σ|terms|. Divisions of float32 are good to 2 ulp (4 u), roots to 1 ulp (2 u).
# `reach` is |x| + |residual| + |mean|, of which the deviations d = x + residual − mean are made.


def roundings(storage):
    u = np.finfo("f8" if storage == "float64" else "f4").eps / 2
    return u, 2.0**-8 if storage == "bfloat16" else 0.0


def reach_of(case, mean):
    return np.abs(case.x) + (0 if case.residual is None else np.abs(case.residual)) + np.abs(mean)


def assert_within(result, exact, bound, what):
    assert result.shape == exact.shape
    assert (np.abs(result - exact) <= bound).all(), what


def assert_forward(case, found, exact, mean, rstd):
    """y and statistics.

    mean: n additions, the sum with the residual, a division. d: the error of the mean and two roundings. rstd: half the
    relative error of the variance, that is Σ|d δd| / Σd² ≤ δd rstd, n + 2 roundings, a root and two divisions.
    y: gamma · (d with its error) · (rstd with its error), then 4 roundings and the store.
    """
    n, (u, v) = case.shape[1], roundings(case.storage)
    y, stats = found
    reach = reach_of(case, mean)
    of_mean = (n + 6) * u * reach.mean(axis=1, keepdims=True)
    of_d = of_mean + 3 * u * reach
    relative = of_d.max(axis=1, keepdims=True, initial=0) * rstd + (n + 12) * u
    beta = case.beta if stats.ndim == 2 else 0.0
    h = np.abs(exact - beta)  # |gamma h|
    of_y = np.abs(case.gamma) * of_d * rstd + h * relative + 4 * u * (h + np.abs(beta)) + v * np.abs(exact)
    assert_within(y, exact, of_y, "y")
    if stats.ndim == 2:
        assert_within(stats[:, :1], mean, of_mean, "mean")
    assert_within(stats.reshape(len(stats), -1)[:, -1:], rstd, relative * rstd, "rstd")


def assert_backward(case, found, exact, mean, rstd):
    """dx, dgamma and dbeta, from the statistics that the device has.

    dx = rstd (g − mean(g) − h mean(g h)) consists of terms of size rstd (|g| + mean|g| + H mean|g H|), H = reach rstd
    ≥ |h|, with n additions and 12 roundings; the parameters' gradients of sums over the batch with 4 roundings a term.
    """
    (batch, n), (u, v) = case.shape, roundings(case.storage)
    g, h = np.abs(case.dy * case.gamma), reach_of(case, mean) * rstd
    size = rstd * (g + g.mean(axis=1, keepdims=True) + h * (g * h).mean(axis=1, keepdims=True))
    assert_within(found[0], exact[0], 2 * (n + 12) * u * size + v * np.abs(exact[0]), "dx")
    weight = np.abs(case.dy)
    bounds = 2 * (batch + 4) * u * (weight * h).sum(0), 2 * batch * u * weight.sum(0)
    for name, result, truth, bound in zip(("dgamma", "dbeta"), found[1:], exact[1:], bounds, strict=False):
        assert_within(result, truth, bound + v * np.abs(truth), name)


def assert_layernorm(case):
    forward, backward = case.layernorm()
    exact, true = reference.layernorm(case.x, case.gamma, case.beta, residual=case.residual)
    assert_forward(case, forward, exact, true[:, :1], true[:, 1:])
    stats = forward[1].astype("f8")
    truths = reference.layernorm_backward(case.dy, case.x, case.gamma, stats, case.residual)
    assert_backward(case, backward, truths, stats[:, :1], stats[:, 1:])
    return forward, backward


def assert_rmsnorm(case):
    """RMS norm is layer norm with the mean left at 0, and keeps to the same bounds."""
    forward, backward = case.rmsnorm()
    exact, true = reference.rmsnorm(case.x, case.gamma, residual=case.residual)
    zero = np.zeros((len(true), 1))
    assert_forward(case, forward, exact, zero, true[:, None])
    stats = forward[1].astype("f8")
    truths = reference.rmsnorm_backward(case.dy, case.x, case.gamma, stats, case.residual)
    assert_backward(case, backward, truths, zero, stats[:, None])
    return forward, backward


# ------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_norms_match_the_reference(device, shape, storage, with_residual, rng):
    case = Case(device, rng, storage, *shape, with_residual)
    assert_layernorm(case)
    assert_rmsnorm(case)
