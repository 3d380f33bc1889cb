"""PyTorch's contestants in training: eager, as a captured graph, and compiled.

Each is made of (case, storage) and gives a function of a number of epochs that trains and returns the last loss, by which it
waits for the GPU. bfloat16 is autocast over float32 parameters, as ours has float32 masters.
"""

from collections.abc import Callable

import torch

from ..cases import Case
from ..contestants.pytorch_training import Eager

Run = Callable[[int], float]
WARM_UPS = 3  # steps before a capture


class Autocast(Eager):
    """`Eager` with its network and batches on a device, and matrices in `storage`."""

    def __init__(self, case: Case, storage: str, device: str = "cuda", **adam: bool):
        super().__init__(case, torch.get_num_threads(), device, **adam)
        self.storage = storage

    def value(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(
            self.device, torch.bfloat16, enabled=self.storage == "bfloat16", cache_enabled=False
        ):
            output = self.net(x)
        return self.loss(output.float(), y)


class Graph(Autocast):
    """The whole step as a graph, replayed for each batch after it was copied to where the graph reads it.

    As "Whole-network capture" in PyTorch's notes on CUDA semantics: some steps on a side stream first, then capture with
    gradients that are None, so that they are allocated in the graph's own memory.
    """

    def __init__(self, case: Case, storage: str):
        super().__init__(case, storage, capturable=True)
        self.x, self.y = (each.clone() for each in self.batches[0])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                super().step(self.x, self.y)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self.captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.captured):
            self.last = super().step(self.x, self.y)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.x.copy_(x)
        self.y.copy_(y)
        self.captured.replay()
        return self.last


def eager(case: Case, storage: str, device: str = "cuda") -> Run:
    """A Python loop with the fused Adam."""
    return Autocast(case, storage, device).run


def compiled(case: Case, storage: str, device: str = "cuda") -> Run:
    """As `eager`, with forward, loss and their gradient compiled by torch.compile."""
    contestant = Autocast(case, storage, device)
    contestant.value = torch.compile(contestant.value)
    return contestant.run


def graph(case: Case, storage: str) -> Run:
    """A captured step, replayed."""
    return Graph(case, storage).run


CONTESTANTS = {"eager": eager, "graph": graph, "compiled": compiled}
