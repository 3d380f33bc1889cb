"""scikit-learn: MLPClassifier or MLPRegressor with its Adam, `partial_fit` over whole epochs."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..cases import BETA1, BETA2, EPS, LR, Case


class PartialFit:
    """No penalty, no shuffling. Its MSE is half of everybody else's; Adam does not see a factor.

    Its Adam adds eps to √v without the correction of v, so that its steps are shorter where gradients are near eps.
    """

    def __init__(self, case: Case, threads: int):
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.case = case
        self.x, y = case.data()
        self.y = y if case.loss == "ce" or y.shape[1] > 1 else y[:, 0]
        self.classes: dict[str, Any] = {"classes": np.arange(case.sizes[-1])} if case.loss == "ce" else {}
        self.net = (MLPClassifier if case.loss == "ce" else MLPRegressor)(
            case.sizes[1:-1], activation=case.activation, solver="adam", alpha=0.0, batch_size=case.batch,
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
        losses, batch = [], self.case.batch
        for step in range(steps):
            start = step % self.case.batches * batch
            self.net.partial_fit(self.x[start : start + batch], self.y[start : start + batch])
            losses.append(self.net.loss_ if self.case.loss == "ce" else 2 * self.net.loss_)
        found = {"losses": np.array(losses)}
        for layer, (w, b) in enumerate(zip(self.net.coefs_, self.net.intercepts_, strict=True)):
            found |= {f"{layer}.w": w, f"{layer}.b": b}
        return found


TRAINING = {"scikit-learn": PartialFit}
