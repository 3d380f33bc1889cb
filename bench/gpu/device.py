"""The device functions inside kernels: every thread evaluates a network, and each block trains one of its own.

The kernels are those that the static gate reads (`gdkernels.cuda.device.specimens`). Beside them stands what a PyTorch user
would do: the same network over all rows, eagerly and compiled; networks of one shape as batched products with autograd and
the fused Adam, eagerly and as a captured graph. A copy of the rows' bytes is the limit of the first: a thread reads its row
and writes its output, and whatever the arithmetic adds to that shows. Before, both are held against the library's networks.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import gdkernels as gd
from gdkernels.cuda.device import specimens
from gdkernels.cuda.device.elements import FUNCTIONS
from gdkernels.cuda.runtime.arrays import Array
from gdkernels.cuda.runtime.jit import Kernel

from . import rows
from .lab import Lab, bound, deviation, willing
from .peers import Work

EVALUATED = {"4-16-2": ([4, 16, 2], specimens.SMALL), "8-32-32-1": ([8, 32, 32, 1], specimens.LARGE)}
TRAINED = {
    "13-32-3 tanh": ([13, 32, 3], "tanh", specimens.TRAINED[0]),
    "8-32-32-1 relu": ([8, 32, 32, 1], "relu", specimens.TRAINED[1]),
}
ROWS, NETWORKS, STEPS = 1 << 22, 1056, 32
TINY_ROWS, TINY_NETWORKS, TINY_STEPS = 300, 2, 2
BATCH, LR = 64, 1e-3
WARM_UPS = 3  # steps before a capture


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """Networks by thread, networks by block."""
    evaluated = [
        (f"every thread, {name}", partial(by_thread, lab, name, *row)) for name, row in EVALUATED.items()
    ]
    trained = [(f"every block, {name}", partial(by_block, lab, name, *row)) for name, row in TRAINED.items()]
    return evaluated + (trained[:1] if lab.tiny else trained)


def flops(sizes: list[int]) -> int:
    """Multiplications and additions of a sample, forward."""
    return 2 * sum(n_in * n_out for n_in, n_out in itertools.pairwise(sizes))


# ---------------------------------------------------------------------------------------------- by thread


def by_thread(lab: Lab, name: str, sizes: list[int], kernels: specimens.ByThread) -> Iterator[rows.Row]:
    """y of many rows, a thread each; the gradients of some."""
    count = TINY_ROWS if lab.tiny else ROWS
    net = gd.mlp(sizes, "tanh", seed=1)
    exact = gd.Network(net.layers, dtype="float64")
    exact.flat[:] = net.flat
    params, x = lab.put(net.flat, "float32"), lab.normal((count, sizes[0]), "float32")
    y = lab.empty((count, sizes[-1]), "float32")
    predict = kernels.predict
    launch = predict.on(
        "float32", predict.grid(count), params=params.address, x=x.address, y=y.address, rows=count
    )
    lab.run([launch])
    some = slice(0, TINY_ROWS)
    given = x[some].to_numpy()
    right = exact.forward(given.astype("f8"), train=True)
    allowed = bound("float32", 4 * len(sizes) * (8 + max(sizes) ** 0.5))
    yield rows.check(
        f"predict by thread, {name}", "float32", str(count), deviation(y[some].to_numpy(), right), allowed
    )
    yield from _gradients(lab, name, net, exact, kernels.vjp, given, right, params, allowed)

    moved = 4 * count * (sizes[0] + sizes[-1])
    source, target = lab.empty((moved // 8,), "float32"), lab.empty((moved // 8,), "float32")
    copies = lab.copies(source.address, target.address, source.nbytes)
    contestants: dict[str, Work] = {"gdkernels": lambda: lab.run([launch]), "copy": lambda: lab.run(copies)}
    peers, failures = willing(_evaluating(lab, net, x)) if lab.torch else ({}, [])
    yield from failures
    samples = lab.clock.compare(contestants | peers, lab.seconds)
    if samples:
        work = flops(sizes) * count
        yield rows.measurement(f"predict by thread, {name}", "float32", str(count), samples, "TFLOP/s", work)


def _gradients(
    lab: Lab, name: str, net: gd.Network, exact: gd.Network, vjp: Kernel, given: np.ndarray, right: np.ndarray,
    params: Array, allowed: float,
) -> Iterator[rows.Row]:  # fmt: skip
    """dx and the sum of the gradients, for dy = y."""
    size, count = net.flat.size, len(given)
    x, dy = lab.put(given, "float32"), lab.put(right, "float32")
    dx, grads = lab.empty(given.shape, "float32"), lab.put(np.zeros((count, size)), "float32")
    lab.run([
        vjp.on("float32", vjp.grid(count), params=params.address, x=x.address, dy=dy.address, dx=dx.address,
               grads=grads.address, rows=count)
    ])  # fmt: skip
    right_dx = exact.backward(right)
    of_all = np.concatenate([values.ravel() for values in exact.grads.values()])
    found = grads.to_numpy().sum(axis=0, dtype="f8")
    net.flat[:] = found
    ours = np.concatenate([values.ravel() for values in net.params.values()])
    shape = str(count)
    yield rows.check(f"dx by thread, {name}", "float32", shape, deviation(dx.to_numpy(), right_dx), allowed)
    yield rows.check(f"gradients by thread, {name}", "float32", shape, deviation(ours, of_all), allowed)
    net.flat[:] = params.to_numpy()


def _evaluating(lab: Lab, net: gd.Network, x: Array) -> dict[str, Callable[[], Work]]:
    """PyTorch's network of the same parameters over the same rows."""
    torch = lab.torch.torch if lab.torch else None

    def eager() -> Work:
        layers: list[Any] = []
        for number in range(len(net.layers)):
            w, b = net.params[f"{number}.w"], net.params[f"{number}.b"]
            layers += [torch.nn.Linear(*w.shape), torch.nn.Tanh()]
            layers[-2].weight.data, layers[-2].bias.data = torch.tensor(w.T.copy()), torch.tensor(b)
        model = torch.nn.Sequential(*layers[:-1]).cuda()

        def work() -> Any:
            with torch.no_grad():
                return model(x.owner)

        return work

    return {"torch": eager, "torch compiled": lambda: torch.compile(eager())}


# ---------------------------------------------------------------------------------------------- by block


def by_block(lab: Lab, name: str, sizes: list[int], kind: str, train: Kernel) -> Iterator[rows.Row]:
    """Many networks, each trained by its block: first one against a Trainer, then all against the clock."""
    networks, steps = (TINY_NETWORKS, TINY_STEPS) if lab.tiny else (NETWORKS, STEPS)
    rng = np.random.default_rng(2)
    x, target = (rng.standard_normal((BATCH, n), np.float32) for n in (sizes[0], sizes[-1]))
    nets = [gd.mlp(sizes, kind, seed=seed) for seed in range(2)]
    flat = lab.put(np.stack([nets[number % 2].flat for number in range(networks)]), "float32")
    table = lab.put(np.array([FUNCTIONS["adam_row"](step, LR) for step in range(1, steps + 1)]), "float32")
    given, wanted = lab.put(x, "float32"), lab.put(target, "float32")
    launch = train.on(
        "float32", (networks, 1, 1), flat=flat.address, x=given.address, target=wanted.address,
        rows_of_steps=table.address, rows=BATCH, steps=steps,
    )  # fmt: skip
    lab.run([launch])
    found = flat.to_numpy()
    for net, mine in zip(nets, found[:2], strict=True):
        trainer = gd.Trainer(net, "mse", gd.Adam(lr=LR))
        for _ in range(steps):
            trainer.step(x, target)
        # Adam makes its first steps of the size of the rate, whatever the size of the gradient
        error = float(np.abs(mine - net.flat).max()) / (LR * steps)
        yield rows.check(f"train by block, {name}", "float32", f"{BATCH} rows", error, 0.02)
    peers, failures = willing(_training(lab, nets[0], networks, steps, x, target)) if lab.torch else ({}, [])
    yield from failures
    samples = lab.clock.compare({"gdkernels": lambda: lab.run([launch])} | peers, lab.seconds)
    if samples:
        shape = f"{networks} networks"
        yield rows.measurement(
            f"train by block, {name}", "float32", shape, samples, "steps/s", networks * steps
        )


def _training(
    lab: Lab, net: gd.Network, networks: int, steps: int, x: np.ndarray, target: np.ndarray
) -> dict[str, Callable[[], Work]]:
    """PyTorch's batched products: all networks in one step."""
    torch = lab.torch.torch if lab.torch else None
    act = {"tanh": "tanh", "relu": "relu"}[net.layers[0].activation]

    def eager(capturable: bool = False) -> Work:
        params = [
            torch.tensor(np.tile(values, (networks, 1, 1)), device="cuda", requires_grad=True)
            for values in net.params.values()
        ]
        optimizer = torch.optim.Adam(params, lr=LR, fused=True, capturable=capturable)
        h0 = torch.tensor(x, device="cuda").expand(networks, *x.shape)
        wanted = torch.tensor(target, device="cuda")

        def step() -> None:
            h = h0
            for number in range(0, len(params), 2):
                h = torch.baddbmm(params[number + 1], h, params[number])
                if number + 2 < len(params):
                    h = getattr(torch, act)(h)
            loss = ((h - wanted) ** 2).mean(dim=(1, 2)).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def work() -> None:
            for _ in range(steps):
                step()

        work.step = step  # type: ignore[attr-defined]
        return work

    def graph() -> Work:
        step = eager(capturable=True).step  # type: ignore[attr-defined]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        return lambda: [captured.replay() for _ in range(steps)]

    return {"torch": eager, "torch graph": graph}
