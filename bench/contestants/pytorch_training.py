"""PyTorch: eager with the fused Adam, and the whole step compiled into one graph."""

import numpy as np
import torch
from torch.nn import functional

from ..cases import BETA1, BETA2, EPS, LR, Case

Batches = list[tuple[torch.Tensor, torch.Tensor]]


class Torch:
    """What both have in common: batches, a loop over them, and an outcome. `step` takes a step and gives its loss."""

    def __init__(self, case: Case, threads: int, device: str = "cpu"):
        torch.set_num_threads(threads)
        self.case, self.device = case, device
        self.loss = functional.cross_entropy if case.loss == "ce" else functional.mse_loss
        self.batches = self.tensors(*case.batched())
        self.params = [
            torch.from_numpy(array)
            for w in case.weights()
            for array in (np.ascontiguousarray(w.T), np.zeros(w.shape[1], np.float32))
        ]

    def tensors(self, x: np.ndarray, y: np.ndarray) -> Batches:
        pairs = zip(x, y, strict=True)
        return [(torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)) for x, y in pairs]

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def run(self, epochs: int) -> float:
        """The last loss, by which it waits for all that was launched."""
        for _ in range(epochs):
            for x, y in self.batches:
                value = self.step(x, y)
        return value.item()

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        losses = [self.step(x, y).item() for x, y in self.tensors(*self.case.batched(steps))]
        found = {"losses": np.array(losses)}
        for layer in range(len(self.params) // 2):
            w, b = self.params[2 * layer : 2 * layer + 2]
            found |= {f"{layer}.w": w.detach().numpy().T, f"{layer}.b": b.detach().numpy()}
        return found


class Eager(Torch):
    """Modules, autograd, and `torch.optim.Adam(fused=True)`, which takes further options."""

    def __init__(self, case: Case, threads: int, device: str = "cpu", **adam: bool):
        super().__init__(case, threads, device)
        layers: list[torch.nn.Module] = []
        for n_in, n_out in case.layers:
            layers += [
                torch.nn.Linear(n_in, n_out),
                torch.nn.ReLU() if case.activation == "relu" else torch.nn.Tanh(),
            ]
        self.net = torch.nn.Sequential(*layers[:-1]).to(device)
        with torch.no_grad():
            for ours, theirs in zip(self.params, self.net.parameters(), strict=True):
                theirs.copy_(ours)
        self.params = list(self.net.parameters())
        self.optimizer = torch.optim.Adam(
            self.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True, **adam
        )

    def value(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return self.loss(self.net(x), y)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        value = self.value(x, y)
        value.backward()
        self.optimizer.step()
        return value


class Compiled(Torch):
    """One graph for forward, backward and Adam, which is written out over states that are changed in place.

    No module, no autograd and no optimizer is called from Python in a step; Inductor fuses Adam into one loop a parameter.
    """

    def __init__(self, case: Case, threads: int):
        super().__init__(case, threads)
        self.m, self.v = ([torch.zeros_like(p) for p in self.params] for _ in range(2))
        self.count = torch.zeros(())
        activation = torch.relu if case.activation == "relu" else torch.tanh

        def value(params: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            for layer in range(0, len(params), 2):
                x = functional.linear(x, params[layer], params[layer + 1])
                x = activation(x) if layer < len(params) - 2 else x
            return self.loss(x, y)

        def step(
            params: list[torch.Tensor], m: list[torch.Tensor], v: list[torch.Tensor], count: torch.Tensor,
            x: torch.Tensor, y: torch.Tensor,
        ) -> torch.Tensor:  # fmt: skip
            gradients, loss = torch.func.grad_and_value(value)(params, x, y)
            count.add_(1)
            rate, root = LR / (1 - BETA1**count), torch.sqrt(1 - BETA2**count)
            for p, m_p, v_p, g in zip(params, m, v, gradients, strict=True):
                m_p.lerp_(g, 1 - BETA1)
                v_p.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                p.sub_(rate * m_p / (v_p.sqrt() / root + EPS))
            return loss

        self.compiled = torch.compile(step, fullgraph=True)
        # Compile now, on states of which nothing remains.
        kept = [tensor.clone() for tensor in (*self.params, *self.m, *self.v, self.count)]
        self.step(*self.batches[0])
        for tensor, old in zip((*self.params, *self.m, *self.v, self.count), kept, strict=True):
            tensor.copy_(old)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.compiled(self.params, self.m, self.v, self.count, x, y)


TRAINING = {"torch eager": Eager, "torch compile": Compiled}
LOOPS = NJIT = {"torch eager": Eager}
