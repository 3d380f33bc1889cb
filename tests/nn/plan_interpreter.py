"""A plan carried out with the reference, in float64: the oracle of the engines, with their interface."""

import math

import numpy as np

import reference as ref
from gdkernels.nn.plan import Buffer, Call, Gradient, Parameter, Plan


class Interpreter:
    """Does what `gdkernels.cpu.engine.engine.Engine` does, slowly and obviously.

    A call that reads a matrix before it is written, or changes one that is not its result, is an error of the plan.
    """

    def __init__(self, plan: Plan, params: np.ndarray, grads: np.ndarray, threads: int | None = None):
        self.plan, self.params, self.grads = plan, params, grads
        self._matrices: dict[Buffer, np.ndarray] = {}
        self._written: set[Buffer] = set()
        self._samples = 0

    def forward(self, x: np.ndarray, train: bool = False, samples: int = 0) -> np.ndarray:
        self._matrices = {b: np.full((len(x), b.columns), np.nan) for b in self.plan.buffers}
        self._matrices[self.plan.input][...] = x
        self._written = {self.plan.input}
        self._samples = samples
        self._walk(self.plan.forward if train else self.plan.evaluation)
        return self._matrices[self.plan.output].copy()

    def backward(self, dy: np.ndarray, accumulate: bool = False) -> np.ndarray | None:
        self._matrices[self.plan.output_gradient][...] = dy
        self._written.add(self.plan.output_gradient)
        if not accumulate:
            self.grads[...] = 0.0
        self._walk(self.plan.backward)
        self._walk(self.plan.gradients)
        dx = self.plan.input_gradient
        return None if dx is None else self._matrices[dx].copy()

    def prepare(self, loss, update, clip_norm: float | None) -> None:
        self._loss, self._update, self._clip = loss, update, clip_norm

    def train(self, x, y, order, batch_size, rates, scales, samples, losses, norms=None) -> int:
        for step, start in enumerate(range(0, len(order), batch_size)):
            rows = order[start : start + batch_size]
            pred = self.forward(x[rows], train=True, samples=samples + start)
            value, grad = self._loss_and_gradient(pred, y[rows])
            loss = value * scales[step]
            if not math.isfinite(loss):
                return step
            self.backward(grad * scales[step])
            if not np.isfinite(self.grads).all():
                return step
            losses[step] = loss
            if norms is not None:
                norms[step] = [np.sqrt((self._array(Gradient(p)) ** 2).sum()) for p in self.plan.parameters]
            self._descend(rates[step])
        return step + 1

    def step(self, x, y, rate: float, scale: float, samples: int) -> float | None:
        if y.ndim == 1 and not ((y >= 0) & (y < self.plan.output.columns)).all():
            return None
        loss = np.full(1, np.nan)
        self.train(x, y, np.arange(len(x)), len(x), [rate], [scale], samples, loss)
        return float(loss[0])

    # ------------------------------------------------------------------------------------------ calls

    def _array(self, operand):
        """The array that an operand names; sizes and options stand for themselves."""
        if isinstance(operand, Buffer):
            return self._matrices[operand]
        place = operand.parameter if isinstance(operand, Gradient) else operand
        if isinstance(place, Parameter):
            flat = self.grads if isinstance(operand, Gradient) else self.params
            return flat[place.offset : place.offset + math.prod(place.shape)].reshape(place.shape)
        return operand

    def _walk(self, calls: list[Call]) -> None:
        for call in calls:
            arrays = [self._array(operand) for operand in call.operands]
            before = [np.copy(a) if isinstance(a, np.ndarray) else a for a in arrays]
            results = getattr(self, "_" + call.kernel)(*arrays)
            places = [operand for operand in call.operands if isinstance(operand, Buffer)]
            for operand, array, old in zip(call.operands, arrays, before, strict=True):
                is_result = any(array is result for result in results)
                if isinstance(operand, Buffer | Parameter) and not is_result:
                    np.testing.assert_array_equal(array, old, err_msg=f"{call.kernel} changed {operand}")
                if isinstance(operand, Buffer) and (not is_result or places.count(operand) > 1):
                    assert operand in self._written, f"{call.kernel} reads {operand}, which nobody wrote"
            self._written.update(place for place in places if any(self._array(place) is r for r in results))

    def _linear(self, x, w, b, z, a, kind, n_in, n_out):
        assert w.shape == (n_in, n_out) and x.shape[1] == n_in and a.shape[1] == n_out
        a[...], before = ref.linear(x, w, b, kind)
        if z is None:
            return (a,)
        z[...] = before
        return z, a

    def _activation(self, z, a, kind, n):
        assert z.shape[1] == a.shape[1] == n
        a[...] = ref.activation(z, kind)
        return (a,)

    def _activation_backward(self, da, saved, dz, kind, n):
        assert da.shape[1] == saved.shape[1] == dz.shape[1] == n
        dz[...] = ref.activation_backward(da, saved, kind)
        return (dz,)

    def _linear_dx(self, dz, w, dx, add, n_in, n_out):
        assert w.shape == (n_in, n_out) and dz.shape[1] == n_out and dx.shape[1] == n_in
        assert dx is not add and dx is not dz
        dx[...] = dz @ w.T + (0.0 if add is None else add)
        return (dx,)

    def _layernorm(self, x, residual, gamma, beta, out, stats, n, eps):
        assert x.shape[1] == out.shape[1] == n and gamma.shape == beta.shape == (n,)
        out[...], stats[...] = ref.layernorm(x, gamma, beta, eps, residual)
        return out, stats

    def _layernorm_dx(self, dy, x, residual, gamma, stats, dx, n):
        assert dy.shape[1] == x.shape[1] == dx.shape[1] == n and dx is not dy
        dx[...] = ref.layernorm_backward(dy, x, gamma, stats, residual)[0]
        return (dx,)

    def _rmsnorm(self, x, residual, gamma, out, stats, n, eps):
        assert x.shape[1] == out.shape[1] == n and gamma.shape == (n,)
        out[...], stats[:, 0] = ref.rmsnorm(x, gamma, eps, residual)
        return out, stats

    def _rmsnorm_dx(self, dy, x, residual, gamma, stats, dx, n):
        assert dy.shape[1] == x.shape[1] == dx.shape[1] == n and dx is not dy
        dx[...] = ref.rmsnorm_backward(dy, x, gamma, stats[:, 0], residual)[0]
        return (dx,)

    def _dropout(self, x, out, n, p, seed):
        assert x.shape[1] == out.shape[1] == n
        out[...] = ref.dropout(x, p, seed, self._samples * n)
        return (out,)

    def _add(self, a, b, out, n):
        assert a.shape[1] == b.shape[1] == out.shape[1] == n
        out[...] = a + b
        return (out,)

    def _linear_dw(self, x, dz, dw, n_in, n_out):
        assert x.shape[1] == n_in and dz.shape[1] == n_out
        dw += x.T @ dz
        return (dw,)

    def _bias_gradient(self, dz, db, n):
        assert dz.shape[1] == n
        db += dz.sum(axis=0)
        return (db,)

    def _layernorm_gradients(self, dy, x, residual, stats, dgamma, dbeta, n):
        _, of_gamma, of_beta = ref.layernorm_backward(dy, x, np.ones(n), stats, residual)
        dgamma += of_gamma
        dbeta += of_beta
        return dgamma, dbeta

    def _rmsnorm_gradients(self, dy, x, residual, stats, dgamma, n):
        dgamma += ref.rmsnorm_backward(dy, x, np.ones(n), stats[:, 0], residual)[1]
        return (dgamma,)

    # ------------------------------------------------------------------------------------------ a step

    def _loss_and_gradient(self, pred, target):
        kernel, options = self._loss.kernel, self._loss.options
        if kernel == "softmax_cross_entropy_indices":
            smoothing, weight, ignored = options
            return ref.softmax_cross_entropy(pred, target, "sum", smoothing, weight, ignored)
        if kernel == "softmax_cross_entropy_probabilities":
            return ref.softmax_cross_entropy(pred, target, "sum", *options)
        functions = {"mse": ref.mse, "huber": ref.huber, "binary_cross_entropy": ref.binary_cross_entropy}
        names = {"huber": ("delta",), "binary_cross_entropy": ("pos_weight",), "mse": ()}[kernel]
        return functions[kernel](
            pred, target, reduction="sum", **dict(zip(names, map(float, options), strict=True))
        )

    def _descend(self, rate: float) -> None:
        """One step of the optimizer on every segment of the flat buffer."""
        update, p, g = self._update, self.params, self.grads
        update.step += 1
        if self._clip is not None:
            g = ref.clip_by_global_norm(self._clip, g)[1][0]
        specific = [float(value) for value in update.hyper[4:]]
        for start, stop, decay in update.decay:
            part = slice(start, stop)
            states = [state[part] for state in update.states]
            if update.name in ("adam", "adamw", "amsgrad"):
                options = (update.step, rate, *specific[:3], decay)
            else:
                options = (
                    rate,
                    *specific[: {"sgd": 2, "rmsprop": 2, "adagrad": 1, "lion": 2}[update.name]],
                    decay,
                )
            if update.name == "sgd" and not states:
                states = [None]
            p[part], *new = getattr(ref, f"{update.name}_step")(p[part], g[part], *states, *options)
            for state, value in zip(states, new, strict=True):
                if state is not None and value is not None:
                    state[...] = value
