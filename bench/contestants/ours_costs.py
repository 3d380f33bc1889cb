"""Calls whose times tell what the rows of `gdkernels.cpu.cost` are: the public operations, on one core.

A call costs its units, such as elements, each what its row says, and something by itself, which all calls of a family have
in common. So each family has calls of at least two sizes. Arrays are float32 and within the second-level cache.
"""

import ctypes
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

import gdkernels as gd
from gdkernels.cpu.cost import NS
from gdkernels.cpu.norm_gradients import add_blocks
from gdkernels.nn.plan import lower
from gdkernels.scalar.activation import ACTIVATIONS
from gdkernels.scalar.loss import ELEMENT_LOSSES
from gdkernels.scalar.optim import OPTIMIZERS, RULES

from ..cases import CASES, Case, network
from .calls import Calls
from .ours_training import Fit

WORKING_SETS = 96 << 10, 384 << 10  # bytes of all arrays of a call, beyond a first and within a second cache
WIDTH = 256  # columns of arrays whose rows do not matter
ROWS = 10, 256  # classes: narrow rows are turned, wide ones are not
CHEAP = "identity", "relu", "leaky_relu"
PIECE = 4096  # elements that losses and sums of squares take at a time
BLOCKS = 64  # of rows, whose column sums are added up
# m, n, k
PRODUCTS = (64, 64, 8), (256, 128, 8), (256, 256, 8), (64, 64, 128), (128, 128, 128), (256, 128, 128)

Call = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """A call, made when it is needed, and what it does.

    Attributes
    ----------
    family : jobs that cost the same by themselves
    units : how often a call does what a row of the table tells
    make : gives the call
    """

    family: str
    units: dict[str, float]
    make: Callable[[], Call]

    def calls(self) -> Calls:
        """For a process of its own."""
        return Calls({}, self.make(), dict)


def normal(*shape: int) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def of_sizes(
    row: str, family: str, arrays: int, make: Callable[[int], Call], unit: int = WIDTH, other: str = ""
) -> list[Job]:
    """Jobs of a call on some arrays, whose elements are multiples of `unit`; `make` gets their number."""
    counts = [size // (4 * arrays) // unit * unit for size in WORKING_SETS]
    return [
        Job(family, dict.fromkeys((row, other) if other else (row,), float(count)), partial(make, count))
        for count in counts
    ]


# ---------------------------------------------------------------------------------------------- element by element


def forward(kind: str, count: int) -> Call:
    z, out = normal(count), normal(count)
    return lambda: gd.activation(z, kind, out=out)


def backward(kind: str, count: int) -> Call:
    da, saved, dz = normal(count), normal(count), normal(count)
    return lambda: gd.activation_backward(da, saved, kind, out=dz)


def column_sums(count: int) -> Call:
    """The gradient of a bias alone: what the blocks of a shared sum are to it, rows are here."""
    dz, db = normal(BLOCKS, count // BLOCKS), normal(count // BLOCKS)
    return lambda: gd.activation_backward(dz, None, "identity", out=dz, db=db)


def dropout(count: int) -> Call:
    x, out = normal(count), normal(count)
    return lambda: gd.dropout(x, 0.5, 1, out=out)


def loss(name: str, count: int) -> Call:
    operation, pred, target, grad = getattr(gd, name), normal(count), abs(normal(count)) % 1, normal(count)
    return lambda: operation(pred, target, grad=grad)


def squares(count: int) -> Call:
    g = normal(count)
    return lambda: gd.global_norm(g)


def clipping(count: int) -> Call:
    """So small a norm is never reached, since 1e-6 is added to the norm that divides it: every call scales."""
    g = normal(count)
    return lambda: gd.clip_by_global_norm(1e-6, g)


def update(name: str, count: int) -> Call:
    step, rule = getattr(gd, f"{name}_step"), RULES[name]
    p, g, *states = normal(count), normal(count), *(abs(normal(count)) for _ in rule.states)
    options = {"momentum": 0.9} if "momentum" in rule.options else {}  # without it there is no state
    options |= {"step": 10} if "step" in inspect.signature(step).parameters else {}
    return lambda: step(p, g, *states, lr=1e-3, **options)


# ---------------------------------------------------------------------------------------------- row by row


def norm(name: str, count: int) -> Call:
    centred, forward = name == "layernorm", getattr(gd, name)
    x, y = normal(count // WIDTH, WIDTH), normal(count // WIDTH, WIDTH)
    parameters = [normal(WIDTH) for _ in range(1 + centred)]  # gamma, beta
    stats = np.empty((len(x), 2) if centred else len(x), np.float32)
    return lambda: forward(x, *parameters, out=y, stats=stats)


def norm_backward(name: str, count: int) -> Call:
    centred, backward = name == "layernorm", getattr(gd, f"{name}_backward")
    dy, x, dx = (normal(count // WIDTH, WIDTH) for _ in range(3))
    gamma, *sums = (normal(WIDTH) for _ in range(2 + centred))
    stats = np.ones((len(x), 2) if centred else len(x), np.float32)
    into = dict(zip(("dgamma", "dbeta"), sums, strict=False))
    return lambda: backward(dy, x, gamma, stats, dx=dx, **into)


def blocks_of_norm(count: int) -> Call:
    """The sums of dgamma, and of dbeta beside it. No operation does it alone, so native code is called here."""
    n = count // (2 * BLOCKS)
    partial_sums, dgamma, dbeta = normal(BLOCKS, 2 * n), normal(n), normal(n)
    add = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)(add_blocks.address("float32"))
    places = [array.ctypes.data for array in (partial_sums, partial_sums[:, n:], dgamma, dbeta)]

    def call() -> tuple[np.ndarray, ...]:
        add(places[0], places[2], BLOCKS, n, 2 * n)
        add(places[1], places[3], BLOCKS, n, 2 * n)
        return partial_sums, dgamma, dbeta  # which live as long as the call

    return call


def softmax(operation: Callable[..., object], n: int, count: int) -> Call:
    x, out = normal(count // n, n), normal(count // n, n)
    return lambda: operation(x, out=out)


def cross_entropy(n: int, count: int) -> Call:
    logits, grad = normal(count // n, n), normal(count // n, n)
    target = np.random.default_rng(1).integers(0, n, count // n)
    return lambda: gd.softmax_cross_entropy(logits, target, grad=grad)


# ---------------------------------------------------------------------------------------------- products


def matmul(m: int, n: int, k: int) -> Call:
    a, b, out = normal(m, k), normal(k, n), normal(m, n)
    return lambda: gd.matmul(a, b, out=out)


def linear(kind: str, m: int, n: int, k: int) -> Call:
    """Results are of the size of the operands, as in a network."""
    x, w, b, out = normal(m, k), normal(k, n) / np.float32(np.sqrt(k)), normal(n), normal(m, n)
    return lambda: gd.linear(x, w, b, kind, out=out)


def products(row: str, family: str, make: Callable[..., Call]) -> list[Job]:
    """Jobs of all shapes, which tell what a multiply-add costs, and an element of the result besides."""
    return [
        Job(family, {"product": float(m * n * k), row: float(m * n)}, partial(make, m, n, k))
        for m, n, k in PRODUCTS
    ]


# ---------------------------------------------------------------------------------------------- steps of training

# In each of them weights, columns and parameters have other shares of the time.
NETWORKS = (
    CASES["a"], CASES["b"], CASES["d"], network(batch=1, width=32), network(batch=1, width=512),
    network(batch=1, width=128, depth=16), network(batch=8, width=16, depth=32), network(batch=16, width=256),
    network(batch=32, width=128, depth=8), network(batch=256, width=8, depth=16), network(batch=256, width=32, depth=8),
    network(batch=1024, width=8),
)  # fmt: skip


def steps(case: Case) -> Job:
    """An epoch of a network."""
    plan = lower(gd.mlp(case.sizes, activation=case.activation).layers, input_gradient=False)
    rows = case.batches * case.batch
    units = {
        "step, weight": rows * sum(n_in * n_out for n_in, n_out in case.layers),
        "step, column": rows * sum(buffer.columns for buffer in plan.buffers),
        "step, parameter": case.batches * plan.size,
    }
    return Job("step", {name: float(count) for name, count in units.items()}, lambda: epoch(case))


def epoch(case: Case) -> Call:
    return partial(Fit(case, 1).run, 1)


# ---------------------------------------------------------------------------------------------- all of them


def parts() -> Iterator[list[Job]]:
    """Jobs that are looked at together. Of a row that several of them tell, each tells it of its own kind."""
    for kind in ACTIVATIONS:
        row = "activation, cheap" if kind in CHEAP else "activation"
        yield of_sizes(row, kind, 2, partial(forward, kind))
        yield of_sizes(row, f"{kind} backward", 3, partial(backward, kind))
    yield of_sizes("column sums", "bias gradient", 1, column_sums)
    yield products("product, element", "matmul", matmul)
    for kind in ("relu", "tanh", "gelu"):
        yield products("linear, element", f"linear, {kind}", partial(linear, kind))
    yield of_sizes("dropout", "dropout", 2, dropout)
    for name in ("layernorm", "rmsnorm"):
        yield of_sizes("norm", name, 2, partial(norm, name))
        yield of_sizes("norm backward", f"{name} backward", 3, partial(norm_backward, name))
    yield of_sizes("norm, blocks", "sums of blocks", 1, blocks_of_norm)
    for n in ROWS:
        yield of_sizes("softmax", f"softmax of {n}", 2, partial(softmax, gd.softmax, n), n)
        yield of_sizes("softmax", f"log_softmax of {n}", 2, partial(softmax, gd.log_softmax, n), n)
        yield of_sizes("cross-entropy", f"cross-entropy of {n}", 2, partial(cross_entropy, n), n)
    for name in ELEMENT_LOSSES:
        yield of_sizes(name if name in NS else "loss", name, 3, partial(loss, name), PIECE)
    for name in OPTIMIZERS:
        yield of_sizes("update", name, 2 + len(RULES[name].states), partial(update, name))
    yield [
        *of_sizes("squares", "norm of a gradient", 1, squares, PIECE),
        *of_sizes("squares", "clipping", 1, clipping, PIECE, other="clip"),
    ]
    yield [steps(case) for case in NETWORKS]


PARTS = list(parts())
JOBS = [job for part in PARTS for job in part]
