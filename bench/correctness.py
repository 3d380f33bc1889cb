"""Whether a contestant trains as it should: its first steps against the same steps in float64.

The judge is pure NumPy, `reference`. Compared are the losses of the steps, and how far each parameter array has gone, array
by array: biases would not show in a norm over all. All errors are relative: of losses to the larger of the loss and 1, of
displacements w(10) − w(0) to the displacement in float64.

Rounding. A sum of k terms of random signs is of the size √k, and so are its partial sums; their k rounding errors of u each,
of random signs too, add up to √k · √k u, which is √k u of the sum. An entry of a gradient is a sum over the batch, of sums
over the inputs of each layer on the way forward and back: it is wrong by δ = (√batch + 2 Σ √n_in) u of a typical entry.

ReLU. Of the batch · n pre-activations of a layer some are within their rounding of zero, and float32 may find them on the
other side; in many runs it does. That switches one sample's share in one unit: a part √(2 / batch) of the gradient of the
unit's own column, one of n, and where there are layers below, a part ε = √(2 / batch) · √(2 / n) of all their gradients.

Adam divides by the root of the mean square: a step is about lr · sign(g) for each parameter alone, however small its
gradient. If entries of g are wrong by ε of a typical one, then the step of a parameter whose |g| is x times the typical one
is wrong by about min(2, ε / x) of itself. The median parameter has x ≈ 2/3; ten steps of independent errors halve that:
the median error is ε. But with a density of about 1 at x = 0 the mean of the squares is ∫ min(4, ε²/x²) dx = 4 ε, and the
2-norm of the error √(4 ε). So there are two comparisons: the median, which sees that all is a little wrong (a learning rate
that is wrong by a tenth), and the 2-norm, which sees that a little is all wrong (a column that is left out).
The rounding of 1 − β₂ᵗ in float32, u / (1 − β₂), is added to δ, and to the norm the switched columns; `SAFETY` covers the
constants, and more than one switch.

The first loss is of the forward pass alone and is held to δ; it shows what Adam hides, which does not see the scale of a
gradient, and so would not tell a sum from a mean. The others follow the displacements and are held to their 2-norm.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

import reference

from .cases import BETA1, BETA2, EPS, LR, Case

STEPS = 10
U = 2.0**-24
SAFETY = 3.0

Outcome = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Verdict:
    """The worst error of an outcome as a multiple of what is allowed, and where it is.

    Attributes
    ----------
    what : "losses", or the name of a parameter
    error, tolerance : relative
    """

    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the outcome is right; NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Tolerances:
    """What is allowed, relative: of the first loss, of the median displacement, and of the 2-norm of displacements."""

    forward: float
    median: float
    norm: float

    @classmethod
    def of(cls, case: Case) -> Self:
        """As derived above."""
        delta = (np.sqrt(case.batch) + 2 * sum(np.sqrt(n_in) for n_in, _ in case.layers)) * U
        column = below = 0.0
        if case.activation == "relu" and len(case.layers) > 1:
            column = np.sqrt(2 / case.batch) / min(case.sizes[1:-1])
            below = max((2 / np.sqrt(case.batch * n) for n in case.sizes[2:-1]), default=0.0)
        median = SAFETY * (delta + U / (1 - BETA2) + below)
        return cls(float(SAFETY * delta), float(median), float(np.sqrt(4 * (median + SAFETY * column))))


@lru_cache(maxsize=4)  # as large as the networks
def right(case: Case, eps_hat: bool = False) -> Outcome:
    """The outcome in float64: forward, backward by the chain rule, Adam.

    With `eps_hat`, Adam in the form of Kingma and Ba's last lines of section 2, which scikit-learn has: ε is added to √v
    before v is corrected, and so is ε / √(1 − β₂ᵗ) of the usual form.
    """
    params = {}
    for layer, w in enumerate(case.weights()):
        params |= {f"{layer}.w": w.astype(np.float64), f"{layer}.b": np.zeros(w.shape[1])}
    m, v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    losses = []
    for step, (x, y) in enumerate(zip(*case.batched(STEPS), strict=True), start=1):
        eps = EPS / np.sqrt(1 - BETA2**step) if eps_hat else EPS
        loss, found = gradients(case, params, x, y)
        losses.append(loss)
        for name, g in found.items():
            params[name], m[name], v[name] = reference.adam_step(
                params[name], g, m[name], v[name], step, LR, BETA1, BETA2, eps
            )
    return {"losses": np.array(losses), **params}


def forward(
    case: Case, params: Outcome, x: NDArray, y: NDArray
) -> tuple[float, NDArray, list[tuple[NDArray, NDArray]]]:
    """(loss, its gradient with respect to the outputs, input and output of each layer)."""
    passed = []
    for layer, kind in enumerate(kinds(case)):
        out, _ = reference.linear(x, params[f"{layer}.w"], params[f"{layer}.b"], kind)
        passed.append((x, out))
        x = out
    loss, gradient = (reference.softmax_cross_entropy if case.loss == "ce" else reference.mse)(x, y)
    return float(loss), gradient, passed


def gradients(case: Case, params: Outcome, x: NDArray, y: NDArray) -> tuple[float, Outcome]:
    """(loss, its gradients), by the chain rule from the last layer to the first."""
    loss, da, passed = forward(case, params, x, y)
    found = {}
    for layer in reversed(range(len(passed))):
        x, out = passed[layer]
        da, dw, db = reference.linear_backward(da, x, params[f"{layer}.w"], out, kinds(case)[layer])
        found |= {f"{layer}.w": dw, f"{layer}.b": db}
    return loss, found


def kinds(case: Case) -> list[str]:
    """The activation of each layer."""
    return [case.activation] * (len(case.layers) - 1) + ["identity"]


def judge(case: Case, outcome: Outcome, eps_hat: bool = False) -> Verdict:
    """The worst of the comparisons."""
    want = right(case, eps_hat)
    allowed = Tolerances.of(case)
    errors = np.abs(outcome["losses"] - want["losses"]) / np.maximum(want["losses"], 1.0)
    found = [
        Verdict("first loss", float(errors[0]), allowed.forward),
        Verdict("losses", float(errors.max()), allowed.norm),
    ]
    for layer, w in enumerate(case.weights()):
        for name, start in ((f"{layer}.w", w), (f"{layer}.b", np.zeros(w.shape[1], np.float32))):
            error, typical = np.abs(outcome[name] - want[name]), _rms(want[name] - start)
            found.append(Verdict(f"median of {name}", float(np.median(error)) / typical, allowed.median))
            found.append(Verdict(name, _rms(error) / typical, allowed.norm))
    return max(found, key=lambda one: np.inf if np.isnan(one.error) else one.error / one.tolerance)


def _rms(array: NDArray[np.floating]) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.square(array))))
