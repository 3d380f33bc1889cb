"""A plan carried out with the reference, in float64: the oracle of the engines, with their interface."""

import math
from types import SimpleNamespace
from typing import assert_never

import numpy as np

import reference as ref
from gdkernels import plan
from gdkernels.engine import Outcome
from gdkernels.plan import AnyCall, Buffer, Gradient, Parameter, Plan
from gdkernels.scalar.loss import ELEMENT_LOSSES
from gdkernels.scalar.optim import PLAIN, RULES
from tests.rules import exact_step


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

    def training(self, loss, update, clip_norm: float | None) -> "Interpreter":
        self._loss, self._update, self._clip = loss, update, clip_norm
        return self

    def train(self, x, y, order, batch_size, rates, scales, samples, losses, norms=None, epochs=1) -> int:
        count = len(order) // epochs
        starts = [(first, at) for first in range(0, len(order), count) for at in range(0, count, batch_size)]
        for step, (first, at) in enumerate(starts):
            start = first + at
            rows = order[start : first + min(count, at + batch_size)]
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

    def step(self, x, y, rate: float, scale: float, samples: int) -> Outcome:
        if y.ndim == 1 and not ((y >= 0) & (y < self.plan.output.columns)).all():
            return math.nan, "label"
        loss = np.full(1, np.nan)
        done = self.train(x, y, np.arange(len(x)), len(x), [rate], [scale], samples, loss)
        return float(loss[0]), "" if done else "not finite"

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

    def _walk(self, calls: list[AnyCall]) -> None:
        for call in calls:
            operands = call.operands()
            given = {name: self._array(operand) for name, operand in operands.items()}
            before = {name: np.copy(a) if isinstance(a, np.ndarray) else a for name, a in given.items()}
            results = self._run(call, **given)
            places = [operand for operand in operands.values() if isinstance(operand, Buffer)]
            for name, operand in operands.items():
                is_result = any(given[name] is result for result in results)
                if isinstance(operand, Buffer | Parameter) and not is_result:
                    np.testing.assert_array_equal(given[name], before[name], err_msg=f"{call} changed {name}")
                if isinstance(operand, Buffer) and (not is_result or places.count(operand) > 1):
                    assert operand in self._written, f"{call} reads {name}, which nobody wrote"
            self._written.update(place for place in places if any(self._array(place) is r for r in results))

    def _run(self, call: AnyCall, **given) -> tuple[np.ndarray, ...]:
        """Do what a call says; the arrays that are its results."""
        at = SimpleNamespace(**given)
        match call:
            case plan.LinearForward():
                assert at.w.shape == (at.x.shape[1], at.a.shape[1])
                at.a[...], before = ref.linear(at.x, at.w, at.b, at.kind)
                if at.z is None:
                    return (at.a,)
                at.z[...] = before
                return at.z, at.a
            case plan.LinearDx():
                assert at.dx is not at.add and at.dx is not at.dz
                at.dx[...] = at.dz @ at.w.T + (0.0 if at.add is None else at.add)
                return (at.dx,)
            case plan.LinearDw():
                at.dw += at.x.T @ at.dz
                return (at.dw,)
            case plan.BiasGradient():
                at.db += at.dz.sum(axis=0)
                return (at.db,)
            case plan.ActivationForward():
                at.a[...] = ref.activation(at.z, at.kind)
                return (at.a,)
            case plan.ActivationBackward():
                at.dz[...] = ref.activation_backward(at.da, at.saved, at.kind)
                return (at.dz,)
            case plan.Dropout():
                at.out[...] = ref.dropout(at.x, at.p, at.seed, self._samples * at.x.shape[1])
                return (at.out,)
            case plan.Add():
                at.out[...] = at.a + at.b
                return (at.out,)
            case plan.Scale():
                at.out[...] = ref.scale(at.x, at.gamma)
                return (at.out,)
            case plan.ScaleGradient():
                at.dgamma += ref.scale_backward(at.dy, at.x, np.ones(at.x.shape[1]))[1]
                return (at.dgamma,)
            case plan.LayerNormForward():
                at.out[...], at.stats[...] = ref.layernorm(at.x, at.gamma, at.beta, at.eps, at.residual)
                return at.out, at.stats
            case plan.LayerNormDx():
                assert at.dx is not at.dy
                at.dx[...] = ref.layernorm_backward(at.dy, at.x, at.gamma, at.stats, at.residual)[0]
                return (at.dx,)
            case plan.LayerNormGradients():
                ones = np.ones(at.x.shape[1])
                _, of_gamma, of_beta = ref.layernorm_backward(at.dy, at.x, ones, at.stats, at.residual)
                at.dgamma += of_gamma
                at.dbeta += of_beta
                return at.dgamma, at.dbeta
            case plan.RMSNormForward():
                at.out[...], at.stats[:, 0] = ref.rmsnorm(at.x, at.gamma, at.eps, at.residual)
                return at.out, at.stats
            case plan.RMSNormDx():
                assert at.dx is not at.dy
                at.dx[...] = ref.rmsnorm_backward(at.dy, at.x, at.gamma, at.stats[:, 0], at.residual)[0]
                return (at.dx,)
            case plan.RMSNormGradients():
                ones = np.ones(at.x.shape[1])
                at.dgamma += ref.rmsnorm_backward(at.dy, at.x, ones, at.stats[:, 0], at.residual)[1]
                return (at.dgamma,)
            case _:
                assert_never(call)

    # ------------------------------------------------------------------------------------------ a step

    def _loss_and_gradient(self, pred, target):
        call = self._loss
        if isinstance(call, plan.CrossEntropy):
            weight = None if call.class_weight is None else call.class_weight.astype(np.float64)
            ignored = {"ignore_index": call.ignore_index} if call.labels else {}
            return ref.softmax_cross_entropy(pred, target, "sum", call.label_smoothing, weight, **ignored)
        options = dict(zip(ELEMENT_LOSSES[call.name].options, map(float, call.options), strict=True))
        return getattr(ref, call.name)(pred, target, reduction="sum", **options)

    def _descend(self, rate: float) -> None:
        """One step of the optimizer on every segment of the flat buffer."""
        update, p, g = self._update, self.params, self.grads
        update.step += 1
        if self._clip is not None:
            g = ref.clip_by_global_norm(self._clip, g)[1][0]
        name = "sgd" if update.name == PLAIN else update.name
        options = dict(zip(RULES[update.name].options, update.options, strict=True))
        for start, stop, decay in update.decay:
            part = slice(start, stop)
            states = [state[part] for state in update.states]
            states = states or [None]
            new_p, *new = exact_step(
                name, p[part], g[part], states, rate, update.step, weight_decay=decay, **options
            )
            p[part] = new_p
            for state, value in zip(states, new, strict=True):
                if state is not None and value is not None:
                    state[...] = value
