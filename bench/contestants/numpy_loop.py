"""NumPy in a loop of one's own: its expressions in place of our operations."""

from math import sqrt

import numpy as np

from ..cases import BETA1, BETA2, EPS, LR, Case
from .loop import Loop


class NumPy(Loop):
    """Results are allocated, what can be is computed in place, and Adam's steps work in memory of their own."""

    def __init__(self, case: Case, threads: int):
        super().__init__(case, threads)
        self.scratch = [np.empty_like(p) for p in self.params]
        self.rows = np.arange(case.batch)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        self.count += 1
        params, passed, last = self.params, [x], len(self.kinds) - 1
        for layer, kind in enumerate(self.kinds):
            z = passed[layer] @ params[2 * layer]
            z += params[2 * layer + 1]
            if kind == "relu":
                np.maximum(z, 0, out=z)
            elif kind == "tanh":
                np.tanh(z, out=z)
            passed.append(z)
        loss, dz = self.loss(passed[-1], y)
        gradients = [dz] * len(params)
        for layer in range(last, -1, -1):
            gradients[2 * layer], gradients[2 * layer + 1] = passed[layer].T @ dz, dz.sum(0)
            if layer:
                a, dz = passed[layer], dz @ params[2 * layer].T
                if self.kinds[layer - 1] == "relu":
                    dz *= a > 0
                else:
                    dz *= 1 - a * a
        self.adam(gradients)
        return float(loss)

    def loss(self, out: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and its gradient written over the outputs."""
        if self.case.loss == "mse":
            out -= y
            loss = np.vdot(out, out) / out.size
            out *= 2 / out.size
            return loss, out
        out -= out.max(1, keepdims=True)
        label = out[self.rows, y]
        np.exp(out, out=out)
        total = out.sum(1, keepdims=True)
        loss = (np.log(total[:, 0]) - label).mean()
        out /= total
        out[self.rows, y] -= 1
        out /= len(out)
        return loss, out

    def adam(self, gradients: list[np.ndarray]) -> None:
        """A step for each parameter. Gradients are used up."""
        rate, root = LR / (1 - BETA1**self.count), sqrt(1 - BETA2**self.count)
        for p, g, m, v, s in zip(self.params, gradients, self.m, self.v, self.scratch, strict=True):
            np.multiply(g, g, out=s)
            s *= 1 - BETA2
            v *= BETA2
            v += s
            g *= 1 - BETA1
            m *= BETA1
            m += g
            np.sqrt(v, out=s)
            s /= root
            s += EPS
            np.divide(m, s, out=s)
            s *= rate
            p -= s


LOOPS = NJIT = {"numpy": NumPy}
