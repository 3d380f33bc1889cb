"""Our array operations in a loop of one's own, as in the README."""

import numpy as np

import gdkernels as gd

from ..cases import LR, Case
from .loop import Loop


class Ours(Loop):
    """Results are allocated, and one call takes Adam's step for all parameters."""

    def __init__(self, case: Case, threads: int):
        gd.set_threads(threads)
        self.loss = gd.softmax_cross_entropy if case.loss == "ce" else gd.mse
        super().__init__(case, threads)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        self.count += 1
        params, kinds, passed = self.params, self.kinds, [x]
        for layer, kind in enumerate(kinds):
            passed.append(gd.linear(passed[layer], params[2 * layer], params[2 * layer + 1], kind))
        out = passed[-1]
        da = np.empty_like(out)
        loss = self.loss(out, y, grad=da)
        gradients = [da] * len(params)
        for layer in reversed(range(len(kinds))):
            da, dw, db = gd.linear_backward(
                da, passed[layer], params[2 * layer], passed[layer + 1], kinds[layer], need_dx=layer > 0
            )
            gradients[2 * layer], gradients[2 * layer + 1] = dw, db
        gd.adam_step(params, gradients, self.m, self.v, self.count, LR)
        return float(loss)


LOOPS = {"gdkernels": Ours}
