"""PyTorch's contestants in training: eager, as a captured graph, and compiled.

Each is made of (torch, case, storage, lr) and gives a function that trains for so many epochs and returns the last loss, by
which it waits for the GPU. bfloat16 is autocast over float32 parameters, as ours has float32 masters.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ..cases import Case

Run = Callable[[int], float]
WARM_UPS = 3  # steps before a capture


class Problem:
    """A network, its optimizer and its batches on the GPU."""

    def __init__(
        self, torch: Any, case: Case, storage: str, lr: float, device: str = "cuda", capturable: bool = False
    ):
        self.torch, self.storage, self.device = torch, storage, device
        self.net = _network(torch, case).to(device)
        self.loss = torch.nn.functional.cross_entropy if case.loss == "ce" else torch.nn.functional.mse_loss
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr, fused=True, capturable=capturable)
        x, y = (torch.from_numpy(each).to(device) for each in case.data())
        self.batches = list(zip(x.split(case.batch), y.split(case.batch), strict=True))

    def forward(self, x: Any, y: Any) -> Any:
        """The loss of a batch."""
        with self.torch.autocast(
            self.device, self.torch.bfloat16, enabled=self.storage == "bfloat16", cache_enabled=False
        ):
            output = self.net(x)
        return self.loss(output.float(), y)

    def step(self, x: Any, y: Any, forward: Callable[[Any, Any], Any]) -> Any:
        """One step; the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        value = forward(x, y)
        value.backward()
        self.optimizer.step()
        return value

    def each(self, epochs: int) -> Iterator[tuple[Any, Any]]:
        """The batches, so many times."""
        for _ in range(epochs):
            yield from self.batches


def _network(torch: Any, case: Case) -> Any:
    layers: list[Any] = []
    for w in case.weights():
        layer = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w.T.copy()))
            layer.bias.zero_()
        layers += [layer, torch.nn.ReLU() if case.activation == "relu" else torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def eager(torch: Any, case: Case, storage: str, lr: float, device: str = "cuda") -> Run:
    """A Python loop with the fused Adam."""
    problem = Problem(torch, case, storage, lr, device)

    def run(epochs: int) -> float:
        for x, y in problem.each(epochs):
            value = problem.step(x, y, problem.forward)
        return float(value.detach())

    return run


def compiled(torch: Any, case: Case, storage: str, lr: float, device: str = "cuda") -> Run:
    """As `eager`, with forward, loss and their gradient compiled by torch.compile."""
    problem = Problem(torch, case, storage, lr, device)
    forward = torch.compile(problem.forward)

    def run(epochs: int) -> float:
        for x, y in problem.each(epochs):
            value = problem.step(x, y, forward)
        return float(value.detach())

    return run


def graph(torch: Any, case: Case, storage: str, lr: float) -> Run:
    """The whole step as a graph, replayed for each batch after it was copied to where the graph reads it.

    As "Whole-network capture" in PyTorch's notes on CUDA semantics: some steps on a side stream first, then capture with
    gradients that are None, so that they are allocated in the graph's own memory.
    """
    problem = Problem(torch, case, storage, lr, capturable=True)
    x, y = (each.clone() for each in problem.batches[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            problem.step(x, y, problem.forward)
    torch.cuda.current_stream().wait_stream(side)
    problem.optimizer.zero_grad(set_to_none=True)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        value = problem.step(x, y, problem.forward)

    def run(epochs: int) -> float:
        for batch_x, batch_y in problem.each(epochs):
            x.copy_(batch_x)
            y.copy_(batch_y)
            captured.replay()
        return float(value.detach())

    return run


CONTESTANTS = {"eager": eager, "graph": graph, "compiled": compiled}
