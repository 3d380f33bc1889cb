"""What `gdkernels verify` holds against the reference: every operation, with the bound of its rounding errors.

An error is counted in units of eps · size, where eps is that of the element type and size is, for each element, the sum
of the absolute values that the formula adds up. A bound then is the number of roundings that one element can see
(N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.5); it does not depend on the data.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gdkernels as gd
from gdkernels.scalar.loss import ELEMENT_LOSSES

Array = NDArray[Any]

# Roundings of one elementary function and what stands around it (the activations promise no more than that).
ELEMENTARY = 8
# The largest slope of an activation (gelu; those of mish and silu are below): what it makes of an error of z.
STEEPEST = 1.13
# (batch, n_in, n_out): single elements, tails of every vector width, more than one block of the products.
SHAPES = ((1, 1, 1), (3, 7, 5), (17, 33, 65), (130, 600, 70))
# (rows, columns) of the operations on rows.
ROWS = ((1, 1), (5, 3), (33, 17), (64, 257))
# Lengths of the arrays that are measured together.
NORMED = ((1,), (7, 33), (10_000, 3, 257))


class Case(NamedTuple):
    """One comparison: what was compared, its largest error and the bound, both in the same unit."""

    name: str
    error: float
    bound: float


def error(result: Any, exact: Any, size: Any, eps: float) -> float:
    """max |result − exact| / (eps · size); infinite where one of them is NaN, or where an exact zero is missed."""
    wrong = np.abs(np.asarray(result, np.float64) - exact)
    ratio = np.where(wrong == 0, 0.0, wrong / np.maximum(eps * np.asarray(size, np.float64), 1e-300))
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


def ratio(case: Case) -> float:
    """The error in units of the bound; above 1 it is too large. Where nothing is allowed, any error is."""
    if case.bound == 0:
        return np.inf if case.error > 0 else 0.0
    return case.error / case.bound


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
        self.ref, self.dtype, self.eps = reference, dtype, float(np.finfo(dtype).eps)
        self.rng = np.random.default_rng(0)

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def case(self, name: str, result: Any, exact: Any, size: Any, bound: float) -> Case:
        return Case(name, error(result, exact, size, self.eps), bound)

    def matmul(self) -> Iterator[Case]:
        """k products and k sums; one more sum where it accumulates."""
        for m, k, n in SHAPES:
            for trans_a, trans_b in ((False, False), (False, True), (True, False), (True, True)):
                a = self.normal(k, m) if trans_a else self.normal(m, k)
                b = self.normal(n, k) if trans_b else self.normal(k, n)
                size = self.ref.matmul(abs(a), abs(b), trans_a, trans_b)
                exact = self.ref.matmul(a, b, trans_a, trans_b)
                name = f"{m}x{k}x{n} {'NT'[trans_a]}{'NT'[trans_b]}"
                yield self.case(name, self.gd.matmul(a, b, trans_a, trans_b), exact, size, k + 1)
                start = self.normal(m, n)
                out = self.gd.matmul(a, b, trans_a, trans_b, out=start.copy(), accumulate=True)
                yield self.case(f"{name} accumulated", out, exact + start, size + abs(start), k + 2)

    def linear(self) -> Iterator[Case]:
        """The product and the bias, made larger by the activation's slope, and the activation itself."""
        for kind in self.ref.KINDS:
            for batch, n_in, n_out in SHAPES:
                x, w, b = self.normal(batch, n_in), self.normal(n_in, n_out), self.normal(n_out)
                exact, _ = self.ref.linear(x, w, b, kind)
                size = self.ref.matmul(abs(x), abs(w)) + abs(b) + np.maximum(1.0, abs(exact))
                bound = STEEPEST * (n_in + 2) + ELEMENTARY
                yield self.case(
                    f"{kind} {x.shape} @ {w.shape}", self.gd.linear(x, w, b, kind), exact, size, bound
                )

    def linear_backward(self) -> Iterator[Case]:
        """dz = da ⊙ act′ has the errors of act′, of which all sums are made."""
        for kind in self.ref.KINDS:
            for batch, n_in, n_out in SHAPES:
                x, w, da = self.normal(batch, n_in), self.normal(n_in, n_out), self.normal(batch, n_out)
                saved = self.saved(kind, (batch, n_out))
                results = self.gd.linear_backward(da, x, w, saved, kind)
                exact = self.ref.linear_backward(da, x, w, saved, kind)
                most = STEEPEST * abs(da)
                sizes = (most @ abs(w).T, abs(x).T @ most, most.sum(axis=0))
                terms = (n_out, batch, batch)
                for part, result, true, size, count in zip(
                    ("dx", "dw", "db"), results, exact, sizes, terms, strict=True
                ):
                    yield self.case(f"{part} {kind} {x.shape}", result, true, size, count + 2 + ELEMENTARY)

    def activation(self) -> Iterator[Case]:
        """Roundings of the result, and of an argument on the way: z act′(z) each. Infinities must be met."""
        tiny = np.finfo(self.dtype).tiny  # below it floats are spaced evenly
        for kind in self.ref.KINDS:
            z = self.arguments()
            result, exact = self.gd.activation(z, kind), self.ref.activation(z, kind)
            met = np.array_equal(result[~np.isfinite(exact)], exact[~np.isfinite(exact)])
            yield Case(f"{kind} at infinity", 0.0 if met else np.inf, ELEMENTARY)
            finite = np.isfinite(z)
            z, result, exact = z[finite], result[finite], exact[finite]
            moved = self.ref.activation_backward(z, self.kept(kind, z), kind)
            size = np.maximum(abs(exact) + abs(moved), tiny * (1 + abs(z)))
            yield self.case(kind, result, exact, size, ELEMENTARY)

    def activation_backward(self) -> Iterator[Case]:
        """The slope, once rounded, times da; and its sum over the batch."""
        for kind in self.ref.KINDS:
            for batch, n in ROWS:
                da, saved, db = self.normal(batch, n), self.saved(kind, (batch, n)), np.empty(n, self.dtype)
                result = self.gd.activation_backward(da, saved, kind, db=db)
                exact = self.ref.activation_backward(da, saved, kind)
                exact = exact[0] if isinstance(exact, tuple) else exact
                most = STEEPEST * abs(da)
                yield self.case(f"{kind} {da.shape}", result, exact, most, ELEMENTARY + 1)
                yield self.case(
                    f"db {kind} {da.shape}", db, exact.sum(axis=0), most.sum(axis=0), batch + ELEMENTARY + 1
                )

    def dropout(self) -> Iterator[Case]:
        """The same mask, and one product with a rounded 1 / (1 − p)."""
        for p in (0.0, 0.3, 1.0):
            for shape, offset in (((5, 3), 0), ((64, 257), 2**33 + 5)):
                x = self.normal(*shape)
                exact = self.ref.dropout(x, p, 7, offset)
                yield self.case(f"p = {p} {shape}", self.gd.dropout(x, p, 7, offset), exact, abs(exact), 2)
                back = self.gd.dropout_backward(x, p, 7, offset)
                yield self.case(f"backward, p = {p} {shape}", back, exact, abs(exact), 2)

    def layernorm(self) -> Iterator[Case]:
        """Sums over n elements for the mean and the variance; x − mean cancels, hence |x| + |mean|."""
        for rows, n in ROWS:
            x, gamma, beta = self.normal(rows, n) + 3, self.normal(n), self.normal(n)
            for residual in (None, self.normal(rows, n)):
                stats = np.empty((rows, 2), self.dtype)
                y = self.gd.layernorm(x, gamma, beta, residual=residual, stats=stats)
                exact, true = self.ref.layernorm(x, gamma, beta, residual=residual)
                mean, rstd = true[:, :1], true[:, 1:]
                reach = abs(x) + (0 if residual is None else abs(residual)) + abs(mean)
                spread = reach.max(axis=1, keepdims=True) * rstd
                # The relative error of rstd is that of the variance, halved: (n + 4) spread of the deviations.
                size = abs(gamma) * (
                    reach * rstd + abs(exact - beta) / np.maximum(abs(gamma), 1e-30) * spread
                )
                size = size + abs(gamma) * reach * rstd + abs(beta)
                name = f"{x.shape}{'' if residual is None else ' with residual'}"
                yield self.case(name, y, exact, size, n + 8)
                yield self.case(f"mean {name}", stats[:, :1], mean, reach.mean(axis=1, keepdims=True), n + 2)
                yield self.case(f"rstd {name}", stats[:, 1:], rstd, rstd * (1 + spread), n + 8)

    def layernorm_backward(self) -> Iterator[Case]:
        """Means over n elements of g and of g ⊙ h, with h = (x − mean) rstd; sums over the batch."""
        for rows, n in ROWS:
            x, gamma, dy = self.normal(rows, n) + 3, self.normal(n), self.normal(rows, n)
            for residual in (None, self.normal(rows, n)):
                stats = self.ref.layernorm(x, gamma, gamma, residual=residual)[1].astype(self.dtype)
                results = self.gd.layernorm_backward(dy, x, gamma, stats, residual=residual)
                exact = self.ref.layernorm_backward(dy, x, gamma, stats, residual=residual)
                reach = abs(x) + (0 if residual is None else abs(residual)) + abs(stats[:, :1])
                h, g = reach * stats[:, 1:], abs(dy * gamma)
                means = g.mean(axis=1, keepdims=True) + h * (g * h).mean(axis=1, keepdims=True)
                sizes = (stats[:, 1:] * (g + means), (abs(dy) * h).sum(axis=0), abs(dy).sum(axis=0))
                yield from self.parts(("dx", "dgamma", "dbeta"), results, exact, sizes, n, rows, str(x.shape))

    def rmsnorm(self) -> Iterator[Case]:
        """A sum of n squares, all positive: nothing cancels but x + residual."""
        for rows, n in ROWS:
            x, gamma = self.normal(rows, n), self.normal(n)
            for residual in (None, self.normal(rows, n)):
                stats = np.empty(rows, self.dtype)
                y = self.gd.rmsnorm(x, gamma, residual=residual, stats=stats)
                exact, rstd = self.ref.rmsnorm(x, gamma, residual=residual)
                reach = abs(x) + (0 if residual is None else abs(residual))
                spread = 1 + reach.max(axis=1) * rstd
                yield self.case(str(x.shape), y, exact, abs(gamma) * reach * (rstd * spread)[:, None], n + 8)
                yield self.case(f"rstd {x.shape}", stats, rstd, rstd * spread, n + 8)

    def rmsnorm_backward(self) -> Iterator[Case]:
        """A mean over n elements of g ⊙ h, with h = x rstd; a sum over the batch."""
        for rows, n in ROWS:
            x, gamma, dy = self.normal(rows, n), self.normal(n), self.normal(rows, n)
            for residual in (None, self.normal(rows, n)):
                stats = self.ref.rmsnorm(x, gamma, residual=residual)[1].astype(self.dtype)
                results = self.gd.rmsnorm_backward(dy, x, gamma, stats, residual=residual)
                exact = self.ref.rmsnorm_backward(dy, x, gamma, stats, residual=residual)
                h = (abs(x) + (0 if residual is None else abs(residual))) * stats[:, None]
                g = abs(dy * gamma)
                dx = stats[:, None] * (g + h * (g * h).mean(axis=1, keepdims=True))
                sizes = (dx, (abs(dy) * h).sum(axis=0))
                yield from self.parts(("dx", "dgamma"), results, exact, sizes, n, rows, str(x.shape))

    def softmax(self) -> Iterator[Case]:
        """x − max is rounded, which moves e^(x − max) by |x − max| roundings; then a sum of n."""
        for rows, n in ROWS:
            x = 10 * self.normal(rows, n)
            exact, below = self.ref.softmax(x), x.max(axis=1, keepdims=True) - x.astype(np.float64)
            size = exact * (1 + below)
            tiny = np.finfo(self.dtype).tiny  # below it floats are spaced evenly
            yield self.case(str(x.shape), self.gd.softmax(x), exact, np.maximum(size, tiny), n + ELEMENTARY)

    def log_softmax(self) -> Iterator[Case]:
        """x − max and the logarithm of a sum of n, which is in [0, log n]."""
        for rows, n in ROWS:
            x = 10 * self.normal(rows, n)
            exact, below = self.ref.log_softmax(x), x.max(axis=1, keepdims=True) - x.astype(np.float64)
            yield self.case(
                str(x.shape), self.gd.log_softmax(x), exact, 1 + below + abs(exact), n + ELEMENTARY
            )

    @for_each(ELEMENT_LOSSES)
    def element_loss(self, name: str) -> Iterator[Case]:
        """Targets in their range, options that are not the defaults. Terms are made of errors, or of numbers of size 1."""
        row = ELEMENT_LOSSES[name]
        options: dict[str, Any] = {option: 0.7 * default for option, (default, _) in row.options.items()}
        bounded = row.targets is not None
        for rows, n in ROWS:
            pred, target = 3 * self.normal(rows, n), self.normal(rows, n)
            if bounded:
                target = abs(np.tanh(target))
            size = np.full((rows, n), 4.0) if bounded else abs(pred) + abs(target)
            yield from self.loss(name, (pred, target), size, **options)

    def softmax_cross_entropy(self) -> Iterator[Case]:
        """Those of log_softmax, and a sum over the classes; the gradient is p Σ w q − w q."""
        for rows, n in ROWS:
            logits = 3 * self.normal(rows, n)
            labels = self.rng.integers(0, n, rows)
            labels[::4] = -100
            labels[0] = n - 1
            weight = (0.5 + self.rng.random(n)).astype(self.dtype)
            soft = self.ref.softmax(self.normal(rows, n)).astype(self.dtype)
            size = 1.5 * (2 + np.ptp(logits, axis=1, keepdims=True)) * np.ones((rows, n))
            for target in (labels, soft):
                yield from self.loss("softmax_cross_entropy", (logits, target), size, extra=2 * n)
                yield from self.loss(
                    "softmax_cross_entropy",
                    (logits, target),
                    size,
                    extra=2 * n,
                    label_smoothing=0.1,
                    class_weight=weight,
                )

    def global_norm(self) -> Iterator[Case]:
        """Squares are summed in float64, which float32 does not see."""
        for sizes in NORMED:
            arrays = [self.normal(n) for n in sizes]
            exact = self.ref.global_norm(*arrays)
            yield self.case(str(sizes), self.gd.global_norm(*arrays), exact, exact, 4)

    def clip_by_global_norm(self) -> Iterator[Case]:
        """The factor is rounded, and each product."""
        for sizes in NORMED:
            arrays = [self.normal(n) for n in sizes]
            _, exact = self.ref.clip_by_global_norm(0.5, *arrays)
            self.gd.clip_by_global_norm(0.5, *arrays)
            for result, true in zip(arrays, exact, strict=True):
                yield self.case(str(true.shape), result, true, abs(true), 4)

    def sgd_step(self) -> Iterator[Case]:
        yield from self.optimizer("sgd_step", 1, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)

    def rmsprop_step(self) -> Iterator[Case]:
        yield from self.optimizer("rmsprop_step", 1, lr=0.01, weight_decay=0.01)

    def adagrad_step(self) -> Iterator[Case]:
        yield from self.optimizer("adagrad_step", 1, lr=0.01, weight_decay=0.01)

    def adam_step(self) -> Iterator[Case]:
        yield from self.optimizer("adam_step", 2, step=3, lr=0.01, weight_decay=0.01)

    def adamw_step(self) -> Iterator[Case]:
        yield from self.optimizer("adamw_step", 2, step=3, lr=0.01)

    def amsgrad_step(self) -> Iterator[Case]:
        yield from self.optimizer("amsgrad_step", 3, step=3, lr=0.01)

    def lion_step(self) -> Iterator[Case]:
        yield from self.optimizer("lion_step", 1, lr=0.01, weight_decay=0.01)

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

    def optimizer(self, name: str, states: int, **options: Any) -> Iterator[Case]:
        """Sums of a few terms of one sign (p, g and m are drawn with common signs): nothing cancels but p − step."""
        for n in (1, 33, 5000):
            sign = np.sign(self.normal(n))
            p, g = (sign * abs(self.normal(n)) for _ in range(2))
            state = [abs(self.normal(n)) for _ in range(states)]
            if name not in ("rmsprop_step", "adagrad_step"):
                state[0] *= sign  # a mean of gradients, not of squares
            exact = getattr(self.ref, name)(p, g, *state, **options)
            before = p.copy()
            getattr(self.gd, name)(p, g, *state, **options)
            sizes = [abs(before) + abs(exact[0] - before), *map(abs, exact[1:])]
            for part, (result, true, size) in enumerate(zip((p, *state), exact, sizes, strict=True)):
                where = f"{f'state {part}' if part else 'p'}, {n} elements"
                yield self.case(where, result, true, size, 16)

    def parts(
        self,
        names: tuple[str, ...],
        results: tuple[Array, ...],
        exact: tuple[Array, ...],
        sizes: tuple[Array, ...],
        n: int,
        batch: int,
        where: str,
    ) -> Iterator[Case]:
        """The gradients of a normalisation: dx sums over a row, the others over the batch."""
        for name, result, true, size in zip(names, results, exact, sizes, strict=True):
            yield self.case(f"{name} {where}", result, true, size, 2 * n + 8 if name == "dx" else batch + 6)

    def loss(
        self, name: str, arguments: tuple[Array, Array], size: Array, extra: int = 0, **options: Any
    ) -> Iterator[Case]:
        """Value and gradient under each reduction; `size` bounds what a term and its slope are made of."""
        shape = arguments[0].shape
        for reduction in ("mean", "sum", "none"):
            grad = np.empty(shape, self.dtype)
            value = getattr(self.gd, name)(*arguments, grad=grad, reduction=reduction, **options)
            exact, slope = getattr(self.ref, name)(*arguments, reduction=reduction, **options)
            where = f"{reduction} {shape}"
            count = np.size(grad) if reduction != "none" else 1
            # Terms are bounded by their size squared; as all are positive, their sum has the same relative error.
            yield self.case(
                f"value, {where}", value, exact, abs(exact) + np.max(size), count + extra + ELEMENTARY
            )
            scale = 1.0 / slope.size if reduction == "mean" and name != "softmax_cross_entropy" else 1.0
            yield self.case(f"grad, {where}", grad, slope, 4 * size * scale, extra + ELEMENTARY)
