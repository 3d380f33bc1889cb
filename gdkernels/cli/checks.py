"""What `gdkernels verify` holds against the reference: every operation, with the bound of its rounding errors.

An error is counted in units of eps · size, where eps is that of the element type and size is, for each element, the sum
of the absolute values that the formula adds up. A bound then is the number of roundings that one element can see; the
reference's `bounds` derives both.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gdkernels as gd
from gdkernels.ops.norm import __all__ as NORMS
from gdkernels.scalar.loss import ELEMENT_LOSSES
from gdkernels.scalar.optim import OPTIMIZERS, RULES

Array = NDArray[Any]

# (batch, n_in, n_out): single elements, tails of every vector width, more than one block of the products.
SHAPES = ((1, 1, 1), (3, 7, 5), (17, 33, 65), (130, 600, 70))
# (rows, columns) of the operations on rows.
ROWS = ((1, 1), (5, 3), (33, 17), (64, 257))
# Lengths of the arrays that are measured together.
NORMED = ((1,), (7, 33), (10_000, 3, 257))
ADDITIONS = 8  # of one square to others: there are many sums at a time, and float32's are added in float64


class Case(NamedTuple):
    """One comparison: what was compared, its largest error and the bound, both in the same unit."""

    name: str
    error: float
    bound: float


def excess(result: Any, exact: Any, allowed: Any) -> float:
    """max |result − exact| / allowed; infinite where one of them is NaN, or where nothing is allowed and missed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wrong = np.abs(np.asarray(result, np.float64) - exact)
        ratio = np.where(wrong == 0, 0.0, wrong / allowed)
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


def ratio(case: Case) -> float:
    """The error in units of the bound; above 1 it is too large. Where nothing is allowed, any error is."""
    if case.bound == 0:
        return np.inf if case.error > 0 else 0.0
    return case.error / case.bound


def as_tuple(results: Any) -> tuple[Any, ...]:
    """The results of a call, also where it is one."""
    return results if isinstance(results, tuple) else (results,)


def columns(*stats: Array) -> list[Array]:
    """What is kept of rows, one number of each: as a column of a matrix, or as it is."""
    return [part for one in stats for part in (np.split(one, one.shape[1], 1) if one.ndim == 2 else [one])]


def for_each(names: Iterable[str]) -> Callable[[Any], Any]:
    """Mark a check that takes one of these names: each is a row of the table."""

    def mark(check: Any) -> Any:
        check.names = tuple(names)
        return check

    return mark


class Checks:
    """The checks of one element type; each method is a row of the table, or one for each name, and gives its cases."""

    def __init__(self, reference: Any, dtype: str, ops: Any = gd) -> None:
        self.gd = ops  # the package, or what computes elsewhere
        self.ref, self.dtype = reference, dtype
        self.bounds = importlib.import_module(f"{reference.__name__}.bounds")
        rounding = importlib.import_module(f"{reference.__name__}.rounding")
        self.on = rounding.CPU if ops is gd else rounding.GPU
        self.rng = np.random.default_rng(0)

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def case(self, name: str, result: Any, exact: Any, bound: Any) -> Case:
        """A result within a bound of the reference; where that allows no rounding, it is the reference's."""
        worst = excess(result, exact, bound.allowed(self.dtype))
        return Case(name, worst * (bound.ulps or 1.0), bound.ulps)

    def matmul(self) -> Iterator[Case]:
        """Every form, also added to what is there."""
        for m, k, n in SHAPES:
            for trans_a, trans_b in ((False, False), (False, True), (True, False), (True, True)):
                a = self.normal(k, m) if trans_a else self.normal(m, k)
                b = self.normal(n, k) if trans_b else self.normal(k, n)
                factors = a.T if trans_a else a, b.T if trans_b else b
                exact = self.ref.matmul(a, b, trans_a, trans_b)
                name = f"{m}x{k}x{n} {'NT'[trans_a]}{'NT'[trans_b]}"
                found = self.gd.matmul(a, b, trans_a, trans_b)
                yield self.case(name, found, exact, self.bounds.matmul(*factors))
                start = self.normal(m, n)
                out = self.gd.matmul(a, b, trans_a, trans_b, out=start.copy(), accumulate=True)
                bound = self.bounds.matmul(*factors, start)
                yield self.case(f"{name} accumulated", out, exact + start, bound)

    def linear(self) -> Iterator[Case]:
        """A layer with every activation."""
        for kind in self.ref.KINDS:
            for batch, n_in, n_out in SHAPES:
                x, w, b = self.normal(batch, n_in), self.normal(n_in, n_out), self.normal(n_out)
                exact, _ = self.ref.linear(x, w, b, kind)
                bound, _ = self.bounds.linear(x, w, b, kind, self.on)
                yield self.case(f"{kind} {x.shape} @ {w.shape}", self.gd.linear(x, w, b, kind), exact, bound)

    def linear_backward(self) -> Iterator[Case]:
        """All three gradients."""
        for kind in self.ref.KINDS:
            for batch, n_in, n_out in SHAPES:
                x, w, da = self.normal(batch, n_in), self.normal(n_in, n_out), self.normal(batch, n_out)
                here = da, x, w, self.saved(kind, (batch, n_out)), kind
                bounds = self.bounds.linear_backward(*here, self.on)
                results, exact = self.gd.linear_backward(*here), self.ref.linear_backward(*here)
                yield from self.parts(("dx", "dw", "db"), results, exact, bounds, f"{kind} {x.shape}")

    def activation(self) -> Iterator[Case]:
        """Over all sizes of arguments. Infinities must be met."""
        for kind in self.ref.KINDS:
            z = self.arguments()
            result, exact = self.gd.activation(z, kind), self.ref.activation(z, kind)
            met = np.array_equal(result[~np.isfinite(exact)], exact[~np.isfinite(exact)])
            yield Case(f"{kind} at infinity", 0.0 if met else np.inf, 1.0)
            finite = np.isfinite(z)
            bound = self.bounds.activation(z[finite], kind, self.on)
            yield self.case(kind, result[finite], exact[finite], bound)

    def activation_backward(self) -> Iterator[Case]:
        """dz, and its sum over the batch."""
        for kind in self.ref.KINDS:
            for batch, n in ROWS:
                da, saved, db = self.normal(batch, n), self.saved(kind, (batch, n)), np.empty(n, self.dtype)
                result = self.gd.activation_backward(da, saved, kind, db=db)
                exact = self.ref.activation_backward(da, saved, kind)
                bound = self.bounds.activation_backward(da, saved, kind, self.on)
                yield self.case(f"{kind} {da.shape}", result, exact, bound)
                bound = bound.through(lambda e: e.sum(axis=0)) + self.bounds.column_sums(exact, 0.0)
                yield self.case(f"db {kind} {da.shape}", db, exact.sum(axis=0), bound)

    def dropout(self) -> Iterator[Case]:
        """The same mask, forward and backward."""
        for p in (0.0, 0.3, 1.0):
            for shape, offset in (((5, 3), 0), ((64, 257), 2**33 + 5)):
                x = self.normal(*shape)
                exact, bound = self.ref.dropout(x, p, 7, offset), self.bounds.dropout(x, p, 7, offset)
                yield self.case(f"p = {p} {shape}", self.gd.dropout(x, p, 7, offset), exact, bound)
                back = self.gd.dropout_backward(x, p, 7, offset)
                yield self.case(f"backward, p = {p} {shape}", back, exact, bound)

    @for_each(name for name in NORMS if not name.endswith("_backward"))
    def norm(self, name: str) -> Iterator[Case]:
        """y, and the statistics of rows with a mean of 3, with a residual and without."""
        for rows, n in ROWS:
            for given in self.arrays_of_rows(name, rows, n):
                exact, keeps = self.ref_norm(name, given)
                kept = {name: np.empty(true.shape, self.dtype) for name, true in keeps.items()}
                y = getattr(self.gd, name)(**given, **kept)
                bounds = as_tuple(getattr(self.bounds, name)(**given, on=self.on))
                results = (y, *columns(*kept.values())), (exact, *columns(*keeps.values()))
                names = ("y", "mean", "rstd") if len(bounds) == 3 else ("y", "rstd")
                yield from self.parts(
                    names[: len(bounds)], *results, bounds, f"{y.shape} {len(given)} arrays"
                )

    @for_each(name for name in NORMS if name.endswith("_backward"))
    def norm_backward(self, name: str) -> Iterator[Case]:
        """All gradients, from the reference's statistics."""
        forward = name.removesuffix("_backward")
        for rows, n in ROWS:
            for before in self.arrays_of_rows(forward, rows, n):
                _, keeps = self.ref_norm(forward, before)
                kept = {name: true.astype(self.dtype) for name, true in keeps.items()}
                given = {key: array for key, array in before.items() if key != "beta"} | kept
                given["dy"] = self.normal(rows, n)
                results, exact = (as_tuple(getattr(one, name)(**given)) for one in (self.gd, self.ref))
                bounds = as_tuple(getattr(self.bounds, name)(**given, on=self.on))
                yield from self.parts(
                    ("dx", "dgamma", "dbeta")[: len(bounds)], results, exact, bounds, str((rows, n))
                )

    def softmax(self) -> Iterator[Case]:
        yield from self.of_rows("softmax")

    def log_softmax(self) -> Iterator[Case]:
        yield from self.of_rows("log_softmax")

    @for_each(ELEMENT_LOSSES)
    def element_loss(self, name: str) -> Iterator[Case]:
        """Targets in their range, options that are not the defaults."""
        row = ELEMENT_LOSSES[name]
        options: dict[str, Any] = {option: 0.7 * default for option, (default, _) in row.options.items()}
        for rows, n in ROWS:
            pred, target = 3 * self.normal(rows, n), self.normal(rows, n)
            if row.targets is not None:
                target = abs(np.tanh(target))
            yield from self.loss(name, pred, target, **options)

    def softmax_cross_entropy(self) -> Iterator[Case]:
        """Labels, some of them ignored, and probabilities; with every option and without."""
        for rows, n in ROWS:
            logits = 3 * self.normal(rows, n)
            labels = self.rng.integers(0, n, rows)
            labels[::4] = -100
            labels[0] = n - 1
            weight = (0.5 + self.rng.random(n)).astype(self.dtype)
            soft = self.ref.softmax(self.normal(rows, n)).astype(self.dtype)
            for target in (labels, soft):
                yield from self.loss("softmax_cross_entropy", logits, target)
                yield from self.loss(
                    "softmax_cross_entropy", logits, target, label_smoothing=0.1, class_weight=weight
                )

    def global_norm(self) -> Iterator[Case]:
        """Of one array and of many."""
        for sizes in NORMED:
            arrays = [self.normal(n) for n in sizes]
            exact = self.ref.global_norm(*arrays)
            bound = self.bounds.global_norm(*arrays, additions=ADDITIONS, on=self.on)
            yield self.case(str(sizes), self.gd.global_norm(*arrays), exact, bound)

    def clip_by_global_norm(self) -> Iterator[Case]:
        """Arrays that are too long."""
        for sizes in NORMED:
            arrays = [self.normal(n) for n in sizes]
            _, exact = self.ref.clip_by_global_norm(0.5, *arrays)
            bounds = self.bounds.clip_by_global_norm(0.5, *arrays, of_norm=1.0, on=self.on)
            self.gd.clip_by_global_norm(0.5, *arrays)
            for result, true, bound in zip(arrays, exact, bounds, strict=True):
                yield self.case(str(true.shape), result, true, bound)

    @for_each(f"{name}_step" for name in OPTIMIZERS)
    def optimizer(self, name: str) -> Iterator[Case]:
        """A step by options that are not the defaults. Nothing cancels but p − step: p, g and m are of one sign."""
        rule = RULES[name.removesuffix("_step")]
        options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.01}
        options |= {option: 0.9 * default or 0.9 for option, (default, _) in rule.options.items()}
        step = {"step": 3} if "step" in inspect.signature(getattr(self.gd, name)).parameters else {}
        for n in (1, 33, 5000):
            sign = np.sign(self.normal(n))
            p, g = (sign * abs(self.normal(n)) for _ in range(2))
            states = [abs(self.normal(n)) * (1 if state in ("v", "vmax") else sign) for state in rule.states]
            exact = getattr(self.ref, name)(p, g, *states, **step, **options)
            bounds = self.bounds.step(name.removesuffix("_step"), p, g, states, count=3, **options)
            getattr(self.gd, name)(p, g, *states, **step, **options)
            yield from self.parts(("p", *rule.states), (p, *states), exact, bounds, f"{n} elements")

    def threads(self) -> Iterator[Case]:
        """A training run with two threads and with three gives the bits of one: not one element may differ."""
        x, labels = self.normal(300, 40), self.rng.integers(0, 10, 300)
        trained = []
        for count in (1, 2, 3):
            net = self.gd.mlp([40, 64, 64, 10], norm="layer", residual=True, dropout=0.1, dtype=self.dtype)
            trainer = self.gd.Trainer(net, optimizer=self.gd.AdamW(lr=0.01), clip_norm=1.0, threads=count)
            trainer.fit(x, labels, epochs=2, batch_size=64, progress=False)
            trained.append(np.concatenate([values.ravel() for values in net.params.values()]))
        for count, other in zip((2, 3), trained[1:], strict=True):
            yield Case(f"{count} threads", float(np.sum(trained[0] != other)), 0)

    # ------------------------------------------------------------------------------------------ parts of checks

    def arguments(self) -> Array:
        """Arguments of an activation: dense around 0, far out, and the infinities."""
        far = np.concatenate([np.geomspace(1e-30, 1e4, 500), [0.0, np.inf]])
        return np.concatenate([np.linspace(-30, 30, 4001), far, -far]).astype(self.dtype)

    def saved(self, kind: str, shape: tuple[int, int]) -> Array:
        """What the backward pass of an activation reads, of the element type."""
        return self.kept(kind, 2 * self.normal(*shape)).astype(self.dtype)

    def kept(self, kind: str, z: Array) -> Array:
        kept: Array = z if self.ref.saved_for(kind) == "preactivation" else self.ref.activation(z, kind)
        return kept

    def of_rows(self, name: str) -> Iterator[Case]:
        for rows, n in ROWS:
            x = 10 * self.normal(rows, n)
            bound = getattr(self.bounds, name)(x, self.on)
            yield self.case(str(x.shape), getattr(self.gd, name)(x), getattr(self.ref, name)(x), bound)

    def arrays_of_rows(self, name: str, rows: int, n: int) -> Iterator[dict[str, Array]]:
        """What an operation on rows is given, by name: with a residual and without, where it takes one."""
        takes = inspect.signature(getattr(self.ref, name)).parameters
        given = {"x": self.normal(rows, n) + 3}
        given |= {scale: self.normal(n) for scale in ("gamma", "beta") if scale in takes}
        yield given
        if "residual" in takes:
            yield given | {"residual": self.normal(rows, n)}

    def ref_norm(self, name: str, given: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """The exact result, and the statistics by their name, where it has any."""
        y, *stats = as_tuple(getattr(self.ref, name)(**given))
        return y, dict(zip(("stats",), stats, strict=False))

    def parts(self, names: Any, results: Any, exact: Any, bounds: Any, where: str) -> Iterator[Case]:
        """The results of one call."""
        for name, result, true, bound in zip(names, results, exact, bounds, strict=True):
            yield self.case(f"{name} {where}", result, true, bound)

    def loss(self, name: str, pred: Array, target: Array, **options: Any) -> Iterator[Case]:
        """Value and gradient under each reduction."""
        for reduction in ("mean", "sum", "none"):
            grad, here = np.empty(pred.shape, self.dtype), (pred, target)
            value = getattr(self.gd, name)(*here, grad=grad, reduction=reduction, **options)
            exact = getattr(self.ref, name)(*here, reduction=reduction, **options)
            bounds = getattr(self.bounds, name)(*here, reduction, on=self.on, **options)
            yield from self.parts(
                ("value", "grad"), (value, grad), exact, bounds, f"{reduction} {pred.shape}"
            )
