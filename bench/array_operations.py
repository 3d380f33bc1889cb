"""The array operations that people call from a loop of their own: sizes of every day, inputs, and what is right.

Right is the reference in float64. A library may be wrong by as much as rounding in float32 can do (`reference.bounds`), or
by as many roundings as `operations.ELEMENT` leaves to the formula of one element, which every library writes in its own
way. Of sums over many terms the roundings are of either sign and come to the root of their number.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple

import numpy as np

import reference
from gdkernels.scalar.loss import ELEMENT_LOSSES
from gdkernels.scalar.optim import OPTIMIZERS, RULES
from reference import bounds
from reference.rounding import Bound, rounded

from .operations import DROPOUT, ELEMENT, EPS, EPS32, Shape, Verdict, compare, dropout_verdicts, random

Values = dict[str, Any]  # arrays, or lists of arrays

# How results come to be; a number alone has no memory that could be given.
ALLOCATED, GIVEN, IN_PLACE, NUMBER = "allocated", "given", "in place", "number"
LAYERS = 5  # whose weights and biases are the lists of arrays
MANY = f"of {2 * LAYERS}"
KINDS = ("relu", "tanh")  # of activations: one that costs its memory alone, and one that computes
RMS_EPS = 1e-6
MAX_NORM = 1e-6  # is never reached, since 1e-6 is added to the norm that divides it: every call scales
STEP = 10  # of an optimizer: the states are not empty
LR, MOMENTUM, DECAY = 1e-3, 0.9, 0.01  # the decay is AdamW's alone

# Tiny, small, medium, large: (rows, n_in, n_out), (rows, columns), (rows, classes), parameters, width of a list's layers.
PRODUCTS: tuple[Shape, ...] = ((1, 4, 64), (64, 20, 64), (128, 256, 128), (512, 784, 256))
ELEMENTS: tuple[Shape, ...] = ((32, 10), (64, 64), (128, 256), (512, 784))
ROWS: tuple[Shape, ...] = ((1, 64), (64, 64), (128, 256), (512, 784))
CLASSES: tuple[Shape, ...] = ((1, 10), (32, 10), (128, 10), (512, 1000))
PARAMETERS: tuple[Shape, ...] = ((64,), (1280,), (32768,), (200704,))
WIDTHS: tuple[Shape, ...] = ((8,), (32,), (128,), (256,))


class Right(NamedTuple):
    """A result as it should be, and how wrong it may be: `bound`, relative to `size`."""

    name: str
    exact: np.ndarray
    size: np.ndarray
    bound: float


@dataclass(frozen=True)
class ArrayOperation:
    """What is measured of an operation.

    Attributes
    ----------
    sizes : four shapes, from tiny to large
    inputs : by the names of their arguments
    right : the results, in the order in which they are returned
    forms : the ways in which its results come to be
    verdicts : of inputs and results, in place of `right`, where the results are random
    """

    sizes: tuple[Shape, ...]
    inputs: Callable[[Shape], Values]
    right: Callable[[Values], list[Right]]
    forms: tuple[str, ...] = (ALLOCATED, GIVEN)
    verdicts: Callable[[Values, Values], list[Verdict]] | None = None

    def judge(self, inputs: Values, rights: list[Right], results: Values) -> list[Verdict]:
        """How wrong each of the results is, beside what is right of these inputs.

        Raises KeyError where one is missing, ValueError where its shape is another.
        """
        found = {name: flat(values) for name, values in results.items()}
        for name, exact, _, _ in rights:
            if found[name].shape != exact.shape:
                raise ValueError(f"{name} has shape {found[name].shape}, expected {exact.shape}")
        if self.verdicts:
            return self.verdicts(inputs, found)
        return [compare(name, found[name], exact, size, bound) for name, exact, size, bound in rights]


def flat(values: Any) -> np.ndarray:
    """An array as it is, and the arrays of a list one behind the other."""
    if isinstance(values, list):
        return np.concatenate([np.asarray(one).reshape(-1) for one in values])
    return np.asarray(values)


def right(name: str, exact: Any, bound: Bound) -> Right:
    """A result with the reference's bound. One that no rounding touches is held to its own size."""
    size = bound.size if bound.ulps else np.abs(exact)
    return Right(name, np.asarray(exact), np.asarray(size), max(bound.ulps * EPS32, ELEMENT))


def rights(names: tuple[str, ...], exact: Any, limits: Any) -> list[Right]:
    """Several results, or one."""
    exact, limits = (one if isinstance(one, tuple) else (one,) for one in (exact, limits))
    return [right(*each) for each in zip(names, exact, limits, strict=False)]


# ---------------------------------------------------------------------------------------------- products


def product(shape: Shape) -> Values:
    rows, n_in, n_out = shape
    return {"a": random((rows, n_in), 0), "b": random((n_in, n_out), 1)}


def layer(shape: Shape) -> Values:
    """x, and weights for which outputs are of the size of inputs."""
    rows, n_in, n_out = shape
    w = random((n_in, n_out), 1)
    w /= np.float32(np.sqrt(n_in))
    return {"x": random((rows, n_in), 0), "w": w, "b": random((n_out,), 2)}


def layer_backward(shape: Shape) -> Values:
    """What a layer keeps for its backward pass, and the gradient that reaches it."""
    given = layer(shape)
    saved, da = random((shape[0], shape[2]), 3), random((shape[0], shape[2]), 4)
    return {"da": da, "x": given["x"], "w": given["w"], "saved": np.maximum(saved, 0, out=saved)}


def activation(kind: str) -> ArrayOperation:
    return ArrayOperation(
        ELEMENTS, lambda shape: {"z": random(shape, 0)},
        lambda i: [right("out", reference.activation(i["z"], kind), bounds.activation(i["z"], kind))],
    )  # fmt: skip


def activation_backward(kind: str) -> ArrayOperation:
    """From the output, which both kinds save."""

    def inputs(shape: Shape) -> Values:
        saved = random(shape, 1)
        saved[...] = reference.activation(saved, kind)
        return {"da": random(shape, 0), "saved": saved}

    def of(i: Values) -> list[Right]:
        """Where the slope is nearly 0 its error is that of 1 − a², of the size 1."""
        exact = reference.activation_backward(**i, kind=kind)
        return [Right("out", exact, np.abs(i["da"].astype(np.float64)), ELEMENT)]

    return ArrayOperation(ELEMENTS, inputs, of)


# ---------------------------------------------------------------------------------------------- rows


def norm(centred: bool, backward: bool) -> Callable[[Shape], Values]:
    """Inputs of layer norm (`centred`), RMS norm and scaling, or of their backward passes."""

    def inputs(shape: Shape) -> Values:
        x, gamma = random(shape, 0), random(shape[1:], 1)
        if backward:
            return {"dy": random(shape, 2), "x": x, "gamma": gamma}
        return {"x": x, "gamma": gamma} | ({"beta": random(shape[1:], 2)} if centred else {})

    return inputs


def with_stats(centred: bool) -> Callable[[Shape], Values]:
    """Inputs of a backward pass that reads the statistics of the forward pass."""

    def inputs(shape: Shape) -> Values:
        given = norm(centred, backward=True)(shape)
        if centred:
            _, stats = reference.layernorm(given["x"], given["gamma"], 0.0 * given["gamma"], EPS)
        else:
            _, stats = reference.rmsnorm(given["x"], given["gamma"], RMS_EPS)
        return given | {"stats": stats.astype(np.float32)}

    return inputs


def layernorm_right(i: Values) -> list[Right]:
    exact, _ = reference.layernorm(**i, eps=EPS)
    return rights(("out",), exact, bounds.layernorm(**i, eps=EPS)[0])


def rmsnorm_right(i: Values) -> list[Right]:
    exact, _ = reference.rmsnorm(**i, eps=RMS_EPS)
    return rights(("out",), exact, bounds.rmsnorm(**i, eps=RMS_EPS)[0])


def cross_entropy(shape: Shape) -> Values:
    rows, classes = shape
    return {"logits": random(shape, 0), "target": np.random.default_rng(1).integers(0, classes, rows)}


def cross_entropy_right(i: Values) -> list[Right]:
    limits = bounds.softmax_cross_entropy(**i, additions=isqrt(len(i["logits"])))
    return rights(("loss", "grad"), reference.softmax_cross_entropy(**i), limits)


# ---------------------------------------------------------------------------------------------- losses


def element_loss(name: str) -> ArrayOperation:
    """A loss with its gradient. Targets are numbers, or classes 0 and 1 where they have to be probabilities."""
    binary = ELEMENT_LOSSES[name].targets is not None

    def inputs(shape: Shape) -> Values:
        target = random(shape, 1)
        if binary:
            target[...] = target > 0
        return {"pred": random(shape, 0), "target": target}

    def of(i: Values) -> list[Right]:
        pred, target = i["pred"], i["target"]
        value, grad = getattr(reference, name)(pred, target)
        of_value, of_grad = getattr(bounds, name)(pred, target, additions=isqrt(pred.size))
        if binary:  # p − t, as everybody writes it
            of_grad = rounded((reference.activation(pred, "sigmoid") + target) / pred.size, of_grad.ulps)
        return rights(("loss", "grad"), (value, grad), (of_value, of_grad))

    return ArrayOperation(ELEMENTS, inputs, of)


# ---------------------------------------------------------------------------------------------- parameters


def network(shape: Shape, number: int) -> list[np.ndarray]:
    """Weights and biases of layers of this width, or what belongs to each of them."""
    (width,) = shape
    return [random(of, number + 8 * place) for place, of in enumerate([(width, width), (width,)] * LAYERS)]


def optimizer(name: str, sizes: tuple[Shape, ...] = PARAMETERS, arrays: Any = random) -> ArrayOperation:
    """A step with the options of every day. Means and sums of squares are positive."""
    rule = RULES[name]
    options = {"momentum": MOMENTUM} if "momentum" in rule.options else {}
    options |= {"weight_decay": DECAY} if name == "adamw" else {}
    exact = getattr(reference, f"{name}_step")
    counted = {"step": STEP} if "step" in inspect.signature(exact).parameters else {}
    names = ("p", *rule.states)

    def inputs(shape: Shape) -> Values:
        given = {each: arrays(shape, number) for number, each in enumerate(("p", "g", *rule.states))}
        for each in bounds.SQUARES:
            for one in as_list(given.get(each, [])):
                one[...] = np.square(one) + np.float32(1e-4)
        return given

    def of(i: Values) -> list[Right]:
        p, g, *states = (flat(values) for values in i.values())
        limits = bounds.step(name, p, g, states, lr=LR, count=STEP, **options)
        return rights(names, exact(p, g, *states, **counted, lr=LR, **options), tuple(limits))

    return ArrayOperation(sizes, inputs, of, (IN_PLACE,))


def as_list(values: Any) -> list[np.ndarray]:
    """The arrays of a list, or the one there is."""
    return values if isinstance(values, list) else [values]


def gradients(arrays: Any) -> Callable[[Shape], Values]:
    return lambda shape: {"g": arrays(shape, 0)}


def norm_right(i: Values) -> list[Right]:
    g = flat(i["g"])
    return [right("norm", reference.global_norm(g), bounds.global_norm(g, additions=isqrt(g.size)))]


def clip_right(i: Values) -> list[Right]:
    """The norm before, and the clipped gradients."""
    (of_norm,), g = norm_right(i), flat(i["g"])
    _, (exact,) = reference.clip_by_global_norm(MAX_NORM, g)
    (bound,) = bounds.clip_by_global_norm(MAX_NORM, g, of_norm=of_norm.bound / EPS32)
    return [right("g", exact, bound), of_norm]


def linear_right(i: Values) -> list[Right]:
    given = (*i.values(), "relu")
    return rights(("out",), reference.linear(*given)[0], bounds.linear(*given)[0])


def linear_backward_right(i: Values) -> list[Right]:
    names, given = ("dx", "dw", "db"), (*i.values(), "relu")
    return rights(names, reference.linear_backward(*given), bounds.linear_backward(*given))


def of_both(names: tuple[str, ...], name: str, **options: Any) -> Callable[[Values], list[Right]]:
    """The results of the operation that the reference and its bounds call `name`."""
    return lambda i: rights(
        names, getattr(reference, name)(**i, **options), getattr(bounds, name)(**i, **options)
    )


ARRAY_OPERATIONS: dict[str, ArrayOperation] = {
    "matmul": ArrayOperation(PRODUCTS, product, of_both(("out",), "matmul")),
    "linear": ArrayOperation(PRODUCTS, layer, linear_right),
    "linear_backward": ArrayOperation(PRODUCTS, layer_backward, linear_backward_right),
    **{f"activation {kind}": activation(kind) for kind in KINDS},
    **{f"activation_backward {kind}": activation_backward(kind) for kind in KINDS},
    "layernorm": ArrayOperation(ROWS, norm(True, backward=False), layernorm_right),
    "layernorm_backward": ArrayOperation(
        ROWS, with_stats(True), of_both(("dx", "dgamma", "dbeta"), "layernorm_backward")
    ),
    "rmsnorm": ArrayOperation(ROWS, norm(False, backward=False), rmsnorm_right),
    "rmsnorm_backward": ArrayOperation(ROWS, with_stats(False), of_both(("dx", "dgamma"), "rmsnorm_backward")),
    "scale": ArrayOperation(ROWS, norm(False, backward=False), of_both(("out",), "scale")),
    "scale_backward": ArrayOperation(
        ROWS, norm(False, backward=True), of_both(("dx", "dgamma"), "scale_backward")
    ),
    "softmax": ArrayOperation(CLASSES, lambda shape: {"x": random(shape, 0)}, of_both(("out",), "softmax")),
    "log_softmax": ArrayOperation(
        CLASSES, lambda shape: {"x": random(shape, 0)}, of_both(("out",), "log_softmax")
    ),
    **{name: element_loss(name) for name in ELEMENT_LOSSES},
    "softmax_cross_entropy": ArrayOperation(CLASSES, cross_entropy, cross_entropy_right),
    "dropout": ArrayOperation(
        ROWS, lambda shape: {"x": random(shape, 0)},
        lambda i: [right("out", i["x"], rounded(i["x"] / (1 - DROPOUT), 1.0))], verdicts=dropout_verdicts,
    ),
    **{f"{name}_step": optimizer(name) for name in OPTIMIZERS},
    f"adam_step {MANY}": optimizer("adam", WIDTHS, network),
    "global_norm": ArrayOperation(PARAMETERS, gradients(random), norm_right, (NUMBER,)),
    f"global_norm {MANY}": ArrayOperation(WIDTHS, gradients(network), norm_right, (NUMBER,)),
    "clip_by_global_norm": ArrayOperation(PARAMETERS, gradients(random), clip_right, (IN_PLACE,)),
    f"clip_by_global_norm {MANY}": ArrayOperation(WIDTHS, gradients(network), clip_right, (IN_PLACE,)),
}  # fmt: skip
