"""tinygrad: the whole step under TinyJit, on its CPU device."""

import os
import sys

import numpy as np

from ..cases import BETA1, BETA2, EPS, LR, Case
from . import Missing


class TinyStep:
    """`tinygrad` reads its settings when it is loaded: they are set here, before."""

    def __init__(self, case: Case, threads: int):
        assert "tinygrad" not in sys.modules
        os.environ |= {"DEV": "CPU", "NUM_CPU_THREADS": str(threads), "CPU_COUNT": str(threads)}
        from tinygrad import Context, Tensor, TinyJit
        from tinygrad.nn.optim import Adam

        self.case, self.tensor, self.context = case, Tensor, Context
        self.params = [
            Tensor(array, requires_grad=True).realize()
            for w in case.weights()
            for array in (w, np.zeros(w.shape[1], np.float32))
        ]
        optimizer = Adam(self.params, lr=LR, b1=BETA1, b2=BETA2, eps=EPS)
        self.batches = self.tensors(*case.batched())

        @TinyJit
        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            for layer in range(0, len(self.params), 2):
                x = x @ self.params[layer] + self.params[layer + 1]
                if layer < len(self.params) - 2:
                    x = x.relu() if case.activation == "relu" else x.tanh()
            loss = x.sparse_categorical_crossentropy(y) if case.loss == "ce" else ((x - y) ** 2).mean()
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

        self.step = step
        kept = [tensor.numpy() for tensor in (*self.params, *optimizer.m, *optimizer.v, optimizer.b1_t, optimizer.b2_t)]
