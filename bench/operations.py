"""The operations that are measured by themselves: their inputs, what is right, and what they cost at least.

Bytes are the MINIMUM: each input read once and each output written once, as if nothing were read twice, and as if a
line could be written without being read. Every contestant and the limit are counted like that. Floating-point
operations are those of the formula, where exp, tanh, erf, a root and a division are one each: they serve to place a
kernel in the roofline, not to rank it.

Batches repeat a small tile of rows. So the float64 reference needs to know the tile only, and every element of the
result can be held against it, however large the batch; what a kernel does does not depend on the values.

A result is judged by its worst error, relative to the sum of the magnitudes that were added to make an element, and by
a stated bound: products and sums by those of the reference (`reference.bounds`), a formula of one element, which every
library writes in its own way, by some dozens of roundings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

import reference
from gdkernels.cpu.runtime.memory import aligned_zeros
from reference import bounds
from reference.rounding import column_sums

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]
Verdict = tuple[str, float, float]  # what was compared, error, bound

EPS32 = float(np.finfo(np.float32).eps)
ELEMENT = 16 * EPS32  # the formula of one element, in any order and with any library's functions
TILE = 32  # rows (or, of flat arrays, pieces) whose repetition is the batch
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
ADAM_STEP = 10  # the step that is checked: the states are not empty
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid", "silu", "softplus", "mish")
DROPOUT = 0.5
EPS = 1e-5  # of LayerNorm


@dataclass(frozen=True)
class Operation:
    """Inputs and verdicts for a shape, and its costs. `limit` names what bounds it from above."""

    inputs: Callable[[Shape, str], Arrays]
    verdicts: Callable[[Arrays, Arrays], list[Verdict]]  # of inputs and results
    bytes: Callable[[Shape], int]
    flops: Callable[[Shape], int]
    limit: str = "copy"  # "fma", "copy" or "update"

    @property
    def unit(self) -> str:
        return "GFLOP/s" if self.limit == "fma" else "GB/s"

    def work(self, shape: Shape) -> float:
        """What one call does, in units of 10⁹, as `unit` counts it."""
        return 1e-9 * (self.flops(shape) if self.limit == "fma" else self.bytes(shape))


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict that is furthest beyond its bound, or nearest to it; a NaN is beyond every bound."""
    return max(verdicts, key=lambda verdict: np.inf if np.isnan(verdict[1]) else verdict[1] / verdict[2])


# ---------------------------------------------------------------------------------------------- data


def line_up(values: np.ndarray, number: int) -> np.ndarray:
    """A copy that begins on a cache line, as in a network, and not at the place of its page where others begin."""
    out = aligned_zeros(values.size, values.dtype, 12 * number).reshape(values.shape)
    out[...] = values
    return out


def random(shape: Shape, number: int) -> np.ndarray:
    """Standard normal numbers, always the same for the same `number`."""
    return line_up(np.random.default_rng(number).standard_normal(shape, dtype=np.float32), number)


def repeated(tile: np.ndarray, rows: int, number: int) -> np.ndarray:
    """A tile of rows, one copy below the other."""
    return line_up(np.broadcast_to(tile, (rows // len(tile), *tile.shape)), number).reshape(
        rows, *tile.shape[1:]
    )


def batch(rows: int, n: int, number: int) -> np.ndarray:
    if rows % TILE:
        raise ValueError(f"the batch has {rows} rows, expected a multiple of the tile's {TILE}")
    return repeated(random((TILE, n), number), rows, number)


def compare(what: str, got: np.ndarray, want: np.ndarray, size: np.ndarray | float, bound: float) -> Verdict:
    """The worst of |got − want| / size, where `want` and `size` are of one tile that `got` repeats."""
    tiles = got.reshape(-1, *want.shape)
    scale = 1.0 / np.maximum(size, np.finfo(np.float32).tiny)
    step = max(1, (1 << 20) // want.size)
    error = max(
        float((np.abs(tiles[i : i + step] - want) * scale).max(initial=0.0))
        for i in range(0, max(1, len(tiles)), step)
    )
    return what, error, bound


def column_sum(what: str, got: np.ndarray, tile: np.ndarray, rows: int) -> Verdict:
    """Σ over the rows of a batch of which `tile` (float64) is one."""
    times, bound = rows / len(tile), column_sums(tile, ELEMENT / EPS32, additions=rows)
    return compare(what, got, times * tile.sum(0), times * bound.size, bound.ulps * EPS32)


# ---------------------------------------------------------------------------------------------- GEMM


def gemm_inputs(shape: Shape, form: str) -> Arrays:
    """a (m, k) and b (k, n); the second letter of NT, the first of TN say that it is stored transposed."""
    m, n, k = shape
    a = random((k, m), 0).T if form[0] == "T" else random((m, k), 0)
    b = random((n, k), 1).T if form[1] == "T" else random((k, n), 1)
    return {"a": a, "b": b}


def gemm_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    a, b = inputs["a"], inputs["b"]
    bound = bounds.matmul(a, b)
    return [compare("out", results["out"], reference.matmul(a, b), bound.size, bound.ulps * EPS32)]


def gemm_bytes(shape: Shape) -> int:
    m, n, k = shape
    return 4 * (m * k + k * n + m * n)


# ---------------------------------------------------------------------------------------------- Adam


def adam_inputs(shape: Shape, form: str) -> Arrays:
    """p, its gradient, and states as after some steps (the mean of squares is positive)."""
    (count,) = shape
    if count % TILE:
        raise ValueError(
            f"there are {count} parameters, expected a multiple of {TILE}, the number of pieces that repeat"
        )
    names = ("p", "g", "m", "v")
    tiles = {name: random((min(count, 4096),), number) for number, name in enumerate(names)}
    tiles["v"] = np.square(tiles["v"]) + np.float32(1e-4)
    return {name: repeated(tile, count, number) for number, (name, tile) in enumerate(tiles.items())}


def adam_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    """1 − beta2^step is about 1e-2 and a user's float32: its error, and that of p, is a hundred roundings at most."""
    tile = min(4096, inputs["p"].size)
    p, g, m, v = (inputs[name][:tile].astype(np.float64) for name in ("p", "g", "m", "v"))
    new_p, new_m, new_v = reference.adam_step(p, g, m, v, ADAM_STEP, **ADAM)
    size = ADAM["beta1"] * np.abs(m) + (1 - ADAM["beta1"]) * np.abs(g)
    return [
        compare("p", results["p"], new_p, np.abs(p) + np.abs(new_p - p), 64 * EPS32),
        compare("m", results["m"], new_m, size, ELEMENT),
        compare("v", results["v"], new_v, new_v, ELEMENT),
    ]


# ---------------------------------------------------------------------------------------------- activations


def forward_operation(kind: str, flops: int) -> Operation:
    """a = act(z), element by element."""

    def verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
        z = inputs["z"][:TILE]
        a = reference.activation(z, kind)
        return [compare("a", results["a"], a, np.maximum(np.abs(z), np.abs(a)), ELEMENT)]

    return Operation(
        lambda shape, form: {"z": batch(*shape, 0)}, verdicts, lambda shape: 8 * prod(shape),
        lambda shape: flops * prod(shape),
    )  # fmt: skip


def backward_operation(kind: str, flops: int) -> Operation:
    """dz = da ⊙ act′(saved), db = Σ_rows dz."""

    def inputs(shape: Shape, form: str) -> Arrays:
        saved = random((TILE, shape[1]), 1)
        if reference.saved_for(kind) == "output":
            saved = reference.activation(saved, kind).astype(np.float32)
        return {"da": batch(*shape, 0), "saved": repeated(saved, shape[0], 1)}

    def verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
        da, rows = inputs["da"][:TILE], len(inputs["da"])
        dz = reference.activation_backward(da, inputs["saved"][:TILE], kind)
        return [
            compare("dz", results["dz"], dz, np.abs(da), ELEMENT),
            column_sum("db", results["db"], dz, rows),
        ]

    return Operation(
        inputs, verdicts, lambda shape: 12 * prod(shape) + 4 * shape[1],
        lambda shape: (flops + 2) * prod(shape),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- LayerNorm, RMSNorm


def layernorm_inputs(shape: Shape, form: str) -> Arrays:
    rows, n = shape
    return {"x": batch(rows, n, 0), "gamma": random((n,), 1), "beta": random((n,), 2)}


def layernorm_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    x = inputs["x"][:TILE]
    y, stats = reference.layernorm(x, inputs["gamma"], inputs["beta"], EPS)
    mean, rstd = stats[:, :1], stats[:, 1:]
    size = np.abs(inputs["gamma"]) * (np.abs(x) + np.abs(mean)) * rstd + np.abs(inputs["beta"])
    return [compare("y", results["y"], y, size, ELEMENT)]


def norm_backward_inputs(
    shape: Shape, norm: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> Arrays:
    """Of a norm's backward pass; `norm` gives (y, stats) for x and gamma."""
    rows, n = shape
    x, gamma = random((TILE, n), 1), random((n,), 2)
    _, stats = norm(x, gamma)
    return {
        "dy": batch(rows, n, 0), "x": repeated(x, rows, 1), "gamma": gamma,
        "stats": repeated(stats.astype(np.float32), rows, 3),
    }  # fmt: skip


def layernorm_backward_inputs(shape: Shape, form: str) -> Arrays:
    return norm_backward_inputs(
        shape, lambda x, gamma: reference.layernorm(x, gamma, np.zeros(len(gamma)), EPS)
    )


def layernorm_backward_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    rows = len(inputs["x"])
    dy, x, stats = (inputs[name][:TILE].astype(np.float64) for name in ("dy", "x", "stats"))
    dx, _, _ = reference.layernorm_backward(dy, x, inputs["gamma"], stats)
    h = (x - stats[:, :1]) * stats[:, 1:]
    g = np.abs(dy * inputs["gamma"])
    size = stats[:, 1:] * (g + g.mean(1, keepdims=True) + np.abs(h) * (g * np.abs(h)).mean(1, keepdims=True))
    return [
        compare("dx", results["dx"], dx, size, ELEMENT),
        column_sum("dgamma", results["dgamma"], dy * h, rows),
        column_sum("dbeta", results["dbeta"], dy, rows),
    ]


def rmsnorm_inputs(shape: Shape, form: str) -> Arrays:
    rows, n = shape
    return {"x": batch(rows, n, 0), "gamma": random((n,), 1)}


def rmsnorm_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    y, _ = reference.rmsnorm(inputs["x"][:TILE], inputs["gamma"], EPS)
    return [compare("y", results["y"], y, np.abs(y), ELEMENT)]


def rmsnorm_backward_inputs(shape: Shape, form: str) -> Arrays:
    return norm_backward_inputs(shape, lambda x, gamma: reference.rmsnorm(x, gamma, EPS))


def rmsnorm_backward_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    rows = len(inputs["x"])
    dy, x, stats = (inputs[name][:TILE].astype(np.float64) for name in ("dy", "x", "stats"))
    dx, _ = reference.rmsnorm_backward(dy, x, inputs["gamma"], stats)
    rstd = stats.reshape(TILE, 1)
    h, g = x * rstd, np.abs(dy * inputs["gamma"])
    size = rstd * (g + np.abs(h) * (g * np.abs(h)).mean(1, keepdims=True))
    return [
        compare("dx", results["dx"], dx, size, ELEMENT),
        column_sum("dgamma", results["dgamma"], dy * h, rows),
    ]


# ---------------------------------------------------------------------------------------- softmax, cross-entropy, dropout


def softmax_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    p = reference.softmax(inputs["x"][:TILE])
    return [compare("p", results["p"], p, p, 2 * ELEMENT)]


def cross_entropy_inputs(shape: Shape, form: str) -> Arrays:
    rows, classes = shape
    labels = np.random.default_rng(1).integers(0, classes, TILE)
    return {"logits": batch(rows, classes, 0), "target": repeated(labels, rows, 1)}


def cross_entropy_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    """The loss is a mean, and rows may be added in float32: a tree of them is wrong by log₂ rows roundings."""
    rows, tile, label = len(inputs["logits"]), inputs["logits"][:TILE], inputs["target"][:TILE]
    value, grad = reference.softmax_cross_entropy(tile, label)
    size = reference.softmax(tile)
    size[np.arange(TILE), label] += 1
    times = rows / TILE
    return [
        compare("grad", results["grad"], grad / times, size / rows, 2 * ELEMENT),
        compare("loss", np.float64(results["loss"]), np.float64(value), float(value), 2 * ELEMENT),
    ]


def dropout_verdicts(inputs: Arrays, results: Arrays) -> list[Verdict]:
    """Every element is 0 or x / (1 − p), and as many are kept as six standard deviations allow."""
    x, out = inputs["x"].reshape(-1), results["out"].reshape(-1)
    kept = np.flatnonzero(out)
    want = x[kept] / np.float32(1 - DROPOUT)
    share = abs(len(kept) / x.size - (1 - DROPOUT))
    return [
        compare("out", out[kept], want, np.abs(want), EPS32),
        ("kept", share, 6 * sqrt(DROPOUT * (1 - DROPOUT) / x.size)),
    ]


OPERATIONS: dict[str, Operation] = {
    "gemm": Operation(gemm_inputs, gemm_verdicts, gemm_bytes, lambda shape: 2 * prod(shape), "fma"),
    # p, m and v are read and written, g is read. m: 3, v: 4, root, division, eps, scaling and p: 5.
    "adam": Operation(adam_inputs, adam_verdicts, lambda shape: 28 * shape[0], lambda shape: 12 * shape[0], "update"),
    "relu": forward_operation("relu", 1),
    "gelu": forward_operation("gelu", 5),
    "tanh": forward_operation("tanh", 1),
    "sigmoid": forward_operation("sigmoid", 3),
    "silu": forward_operation("silu", 4),
    "softplus": forward_operation("softplus", 3),
    "mish": forward_operation("mish", 7),
    "relu backward": backward_operation("relu", 0),
    "gelu backward": backward_operation("gelu", 9),
    "tanh backward": backward_operation("tanh", 2),
    "sigmoid backward": backward_operation("sigmoid", 2),
    "silu backward": backward_operation("silu", 7),
    "softplus backward": backward_operation("softplus", 3),
    "mish backward": backward_operation("mish", 12),
    # Twice 2 operations an element for mean and variance, 4 to normalise.
    "layernorm": Operation(layernorm_inputs, layernorm_verdicts,
                           lambda shape: 8 * prod(shape) + 8 * shape[0] + 8 * shape[1], lambda shape: 8 * prod(shape)),
    "layernorm backward": Operation(layernorm_backward_inputs, layernorm_backward_verdicts,
                                    lambda shape: 12 * prod(shape) + 8 * shape[0] + 12 * shape[1],
                                    lambda shape: 14 * prod(shape)),
    # A square and its sum, 2 to normalise.
    "rmsnorm": Operation(rmsnorm_inputs, rmsnorm_verdicts,
                         lambda shape: 8 * prod(shape) + 4 * shape[0] + 4 * shape[1], lambda shape: 4 * prod(shape)),
    "rmsnorm backward": Operation(rmsnorm_backward_inputs, rmsnorm_backward_verdicts,
                                  lambda shape: 12 * prod(shape) + 4 * shape[0] + 8 * shape[1],
                                  lambda shape: 10 * prod(shape)),
    # Maximum, difference, exp, sum, product.
    "softmax": Operation(lambda shape, form: {"x": batch(*shape, 0)}, softmax_verdicts,
                         lambda shape: 8 * prod(shape), lambda shape: 5 * prod(shape)),
    "cross-entropy": Operation(cross_entropy_inputs, cross_entropy_verdicts,
                               lambda shape: 8 * prod(shape) + 8 * shape[0], lambda shape: 5 * prod(shape)),
    # The product and the choice; what the random numbers cost is each library's own affair.
    "dropout": Operation(lambda shape, form: {"x": batch(*shape, 0)}, dropout_verdicts,
                         lambda shape: 8 * prod(shape), lambda shape: 2 * prod(shape)),
}  # fmt: skip
