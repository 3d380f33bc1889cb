"""scikit-learn: MLPClassifier or MLPRegressor with its Adam, `partial_fit` over whole epochs."""

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from .. import correctness
from ..cases import BETA1, BETA2, EPS, LR, Case


class PartialFit:
    """No penalty, no shuffling.

    Its loss is half of the MSE, which Adam does not see, or the logarithm of clipped probabilities, which has no influence
    on the gradient: the outcome's losses are computed from its weights.
    """

    facts: ClassVar = {"eps hat": True}

    def __init__(self, case: Case, threads: int):
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.case = case
        self.x, y = case.data()
        self.y = self.targets(y)
        self.classes: dict[str, Any] = {"classes": np.arange(case.sizes[-1])} if case.loss == "ce" else {}
        self.net = (MLPClassifier if case.loss == "ce" else MLPRegressor)(
            hidden_layer_sizes=case.sizes[1:-1], activation=case.activation, solver="adam", alpha=0.0, batch_size=case.batch,
            learning_rate_init=LR, beta_1=BETA1, beta_2=BETA2, epsilon=EPS, shuffle=False,
        )  # fmt: skip
        self.net.partial_fit(self.x[: case.batch], self.y[: case.batch], **self.classes)  # allocates
        for w, b, start in zip(self.net.coefs_, self.net.intercepts_, case.weights(), strict=True):
            w[...], b[...] = start, 0
        del self.net._optimizer  # made anew, with empty states

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            self.net.partial_fit(self.x, self.y)

    def outcome(self, steps: int) -> dict[str, np.ndarray]:
        losses = []
        for x, y in zip(*self.case.batched(steps), strict=True):
            losses.append(correctness.forward(self.case, self.weights(), x, y)[0])
            self.net.partial_fit(x, self.targets(y))
        return {"losses": np.array(losses), **self.weights()}

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Labels as they are; one value a row without a second dimension."""
        return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y

    def weights(self) -> dict[str, np.ndarray]:
        found = {f"{layer}.w": w for layer, w in enumerate(self.net.coefs_)}
        return found | {f"{layer}.b": b for layer, b in enumerate(self.net.intercepts_)}


TRAINING = {"scikit-learn": PartialFit}
