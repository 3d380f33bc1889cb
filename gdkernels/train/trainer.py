"""The Trainer: gradient descent on a network, w ← w − η dL/dw, a native call for many steps.

Python chooses the order of the samples and the learning rates; forward, loss, backward, clipping and the update of
all steps of an epoch, or of several epochs, are one call of the engine (`epochs`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..check import Array, choice, number, truth, whole
from ..cpu.runtime.machine import MOST_WORKERS
from ..engine import Engine, Training
from ..nn.network import Network, in_chunks
from ..nn.plan import lower
from ..ranges import POSITIVE
from .batches import are_labels, batch_of, refuse_empty, scale_of
from .epochs import Data, Epochs, Record
from .loss import LOSSES, Loss, Weights
from .optim import AdamW, Optimizer
from .progress import progress as display

__all__ = ["History", "Trainer"]

Schedule = Callable[[int], float]
Callback = Callable[["Trainer", Record], object]

DECAYS = ("all", "weights")
DEFAULT_OPTIMIZER = AdamW()


@dataclass
class History:
    """What `Trainer.fit` did.

    Attributes
    ----------
    loss, lr : float64 arrays, of every step: the loss before the step, and its learning rate
    epochs : a dict for each epoch: epoch (from 1 over the trainer's life), train_loss (mean over its samples, each
        at the parameters of its step), seconds (of training alone; short epochs that were one native call share its
        time equally) and, with validation data, validation_loss and validation_accuracy or validation_r2
    parameters : names of the parameters, the columns of `grad_norms`
    grad_norms : None, or (steps, parameters): the norm of each parameter's gradient, before clipping
    """

    parameters: tuple[str, ...]
    loss: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    lr: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    epochs: list[Record] = field(default_factory=list)
    grad_norms: NDArray[np.float64] | None = None


class Trainer:
    """Trains a network where it lies: ``net.to("cuda")`` before, or between two calls, trains on the GPU.

    There data may be NumPy arrays, which are copied once a call, or arrays of the GPU; an epoch is one call of the engine,
    which waits for the GPU once.

    Parameters
    ----------
    net : the network, which is changed in place
    loss : the name of a loss, such as "mse" or "softmax_cross_entropy", or one with options, such as
        ``SoftmaxCrossEntropy(label_smoothing=0.1)``
    optimizer : such as ``AdamW(lr=1e-3)``
    schedule : a function of the step that gives the learning rate; step 0 is the first update of this trainer.
        None: the optimizer's lr throughout
    clip_norm : None, or the largest norm of the whole gradient; a longer one is scaled down to it
    threads : None for as many as pay (at most `gd.get_threads()`, fewer while other processes want the cores), or a number,
        which takes part in every step; of the CPU, the GPU has no use for it
    decay : which parameters the weight decay of the optimizer concerns: "all", or "weights" (no bias, no norm)

    Attributes
    ----------
    epochs : done since the trainer was made

    After a step `net.grads` holds its gradients, before clipping.

    >>> trainer = Trainer(mlp([64, 128, 10]), "softmax_cross_entropy", AdamW(lr=1e-3))
    >>> history = trainer.fit(x, labels, epochs=10, batch_size=32)
    """

    def __init__(
        self,
        net: Network,
        loss: str | Loss = "softmax_cross_entropy",
        optimizer: Optimizer = DEFAULT_OPTIMIZER,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        threads: int | None = None,
        decay: str = "all",
    ) -> None:
        if not isinstance(net, Network):
            raise TypeError(f"Trainer: net is {net!r}, expected a Network")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"Trainer: optimizer is {optimizer!r}, expected an optimizer such as AdamW(lr=1e-3)"
            )
        if schedule is not None and not callable(schedule):
            raise TypeError(f"Trainer: schedule is {schedule!r}, expected None or a function of the step")
        choice("Trainer", "decay", decay, DECAYS)
        if not isinstance(loss, Loss):
            choice("Trainer", "loss", loss, LOSSES)
            loss = LOSSES[loss]()
        loss.check_outputs(net.n_out)
        self.net, self.loss, self.optimizer, self.schedule = net, loss, optimizer, schedule
        if clip_norm is not None:
            clip_norm = number("Trainer", "clip_norm", clip_norm, POSITIVE)
        self.clip_norm = clip_norm
        if threads is not None:
            threads = whole("Trainer", "threads", threads, at_least=1)
            if threads > MOST_WORKERS:
                raise ValueError(f"Trainer: threads is {threads}, expected at most {MOST_WORKERS}")
        self.threads = threads
        self.epochs = 0
        self._decay = decay
        self._plan = lower(net.layers, input_gradient=False, seed=net.seed)
        self._place = net.place
        self._update = optimizer.update(self._plan, net.dtype, decay, net.place)
        self._settle()

    def _settle(self) -> None:
        """Make engines where the network is."""
        place = self.net.place
        # Labels that all count the same then need no look from Python before a step.
        self._engine_checks_labels = place.checks_labels and self.loss.counts_alike(self.net.n_out)
        self._engine = self.net.new_engine(self._plan, self.threads)
        self._judge: Engine | None = None  # for `evaluate`, whose batches are larger
        self._trainings: dict[int, Training] = {}  # by the dimensions of the targets: 1 labels, 2 values

    def _follow(self) -> None:
        """Go where the network went, with the optimizer's state."""
        place = self.net.place
        if self._place is not place:
            update = self.optimizer.update(self._plan, self.net.dtype, self._decay, place)
            for old, new in zip(self._update.states, update.states, strict=True):
                place.fill(new, self._place.to_numpy(old))
            update.step = self._update.step
            self._update, self._place = update, place
            self._settle()

    @property
    def steps(self) -> int:
        """Steps done since the trainer was made."""
        return self._update.step

    def warm_up(self, x: Array, y: Array) -> None:
        """Compile, or load, what training and evaluating on such samples needs: some seconds when it was never done
        on this machine, milliseconds otherwise. Without it the first step does so. Nothing is trained.

        Raises TypeError and ValueError as `step`.
        """
        # Training first: it asks for nearly everything at once, which several processes can then compile.
        self._training(self._data("Trainer.warm_up", x, y).y).warm_up()
        self.evaluate(x, y)

    # ------------------------------------------------------------------------------------------ one step

    def step(self, x: Array, y: Array) -> float:
        """One step of gradient descent on a batch; returns its loss before the step.

        Parameters
        ----------
        x : (batch, n_in) array of the network's dtype
        y : targets, as the loss wants them

        Raises TypeError and ValueError for wrong arrays, FloatingPointError where the loss or a gradient is not
        finite; the parameters then stay as they were.
        """
        net = self.net
        place = net.place
        if self._place is not place:
            self._follow()
        x = place.matrix("Trainer.step", "x", x, net.dtype, net.n_in)
        rows = len(x) or refuse_empty("Trainer.step", x)
        if self._engine_checks_labels and are_labels(y, rows):
            weights: Weights = 1.0
        else:
            y, weights = self._targets("Trainer.step", y, rows)
        training = self._trainings.get(y.ndim) or self._training(y)
        seen = net.samples
        rate = self.optimizer.lr if self.schedule is None else float(self._rates(1)[0])
        loss, reason = training.step(x, place.targets(y), rate, scale_of(weights, rows), seen)
        if reason == "label":  # which is to be ignored, or else refused by name
            y, weights = self._targets("Trainer.step", y, rows)
            loss = self._step_without_ignored(training, x, y, rate, scale_of(weights, rows))
        if math.isnan(loss):
            raise self._not_finite("Trainer.step")
        net.samples = seen + rows
        return loss

    def jitted(self) -> Any:
        """The trainer in functions of yours that ``numba.njit`` compiles; `Network.jitted` says what a view is.

        There ``view.step(x, y)`` is `step`, on one thread: with the same bits, counts and errors, whichever of the two takes
        which step. x is (n, n_in), or (n_in,) for one sample. Nothing is allocated. The schedule is asked for up to 4096
        rates ahead.

        Raises RuntimeError where the network is on the GPU.

        >>> view = trainer.jitted()
        >>> @numba.njit
        ... def train(view, x, y, batch):
        ...     for start in range(0, len(x), batch):
        ...         loss = view.step(x[start : start + batch], y[start : start + batch])
        ...     return loss
        """
        self._follow()
        net = self.net
        return net.place.trainer_view(
            "Trainer.jitted", self._plan, net.shared(), net.storage, self.loss.kinds(net.n_out, net.dtype), self._update,
            self.clip_norm, self._scheduled, lambda: (self.schedule, self.optimizer.lr),
        )  # fmt: skip

    def _step_without_ignored(
        self, training: Training, x: Array, y: Array, rate: float, scale: float
    ) -> float:
        """A step on labels that are not all in range; the loss, or NaN."""
        loss, order = np.full(1, np.nan), np.arange(len(x))
        training.train(x, y, order, len(x), np.full(1, rate), np.full(1, scale), self.net.samples, loss)
        return float(loss[0])

    # ------------------------------------------------------------------------------------------ many steps

    def fit(
        self,
        x: Array,
        y: Array,
        epochs: int,
        batch_size: int | str,
        shuffle: bool = True,
        seed: int = 0,
        validation: tuple[Array, Array] | None = None,
        progress: bool = True,
        callbacks: Iterable[Callback] = (),
        grad_norms: bool = False,
    ) -> History:
        """Train for further epochs; a second call goes on where the first one stopped.

        Parameters
        ----------
        x : (n, n_in) array of the network's dtype
        y : targets, as the loss wants them
        epochs : passes over the samples
        batch_size : samples of a step; the last batch of an epoch may be smaller. 1 is stochastic gradient descent,
            "full" is batch gradient descent
        shuffle : whether every epoch has an order of its own, drawn from (seed, number of the epoch)
        seed : of the order
        validation : (x, y) that are measured after every epoch
        progress : show a bar on a terminal, lines otherwise
        callbacks : functions of (trainer, record of the epoch), called after every epoch; training stops when one
            returns True. Without callbacks and validation, short epochs share a native call, and progress is shown after it
        grad_norms : whether `History.grad_norms` is recorded

        Raises TypeError and ValueError for wrong arguments, before anything is changed; FloatingPointError where
        the loss or a gradient is not finite, naming the step; the parameters are then those of the step before.
        """
        op = "Trainer.fit"
        epochs = whole(op, "epochs", epochs, at_least=1)
        seed = whole(op, "seed", seed, at_least=0)
        truth(op, "shuffle", shuffle)
        data = self._data(op, x, y)
        held_out = None if validation is None else self._pair(op, validation)
        batch = batch_of(op, batch_size, len(data.x))
        callbacks = tuple(callbacks)
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(
                    f"{op}: callbacks holds {callback!r}, expected functions of (trainer, record)"
                )

        run = Epochs(self, self._training(data.y), self._rates, data, batch, shuffle, seed, grad_norms)
        history = History(tuple(self.net.params))
        shown = display(progress)
        shown.start(epochs)
        left = epochs
        free = held_out is None and not callbacks  # nothing is to be done between two epochs
        try:
            while left > 0:
                for record in run.take(left if free else 1):
                    left -= 1
                    if held_out is not None:
                        measures = self._measure(held_out).items()
                        record |= {f"validation_{name}": value for name, value in measures}
                    history.epochs.append(record)
                    shown.epoch(record)
                    answers = [callback(self, record) for callback in callbacks]
                    if self._place is not self.net.place:
                        raise RuntimeError(
                            f"{op}: a callback moved the network to {self.net.device}, expected it to stay until fit returns"
                        )
                    if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
                        left = 0
                if not run.finite:
                    raise self._not_finite(op)
        finally:
            shown.close()
        history.loss, history.lr = np.concatenate(run.losses), np.concatenate(run.rates)
        if grad_norms:
            history.grad_norms = np.concatenate(run.norms)
        return history

    def evaluate(self, x: Array, y: Array) -> dict[str, float]:
        """The loss of samples without dropout, and their accuracy (classification) or R² (regression).

        Accuracy is the part of the labels that are found (of the right signs, for binary_cross_entropy); R² is
        1 − Σ (y − output)² / Σ (y − mean)², averaged over the outputs. Raises as `step`.
        """
        return self._measure(self._data("Trainer.evaluate", x, y))

    # ------------------------------------------------------------------------------------------ small things

    def _measure(self, data: Data) -> dict[str, float]:
        """The loss and the quality of checked data."""
        if self._judge is None:
            self._judge = self.net.new_engine(self._plan, self.threads)
        output = self.net.place.to_numpy(in_chunks(self._judge, data.x))
        name, quality = self.loss.quality(output, data.y)
        return {"loss": self.loss.value(output, data.y, data.weights), name: quality}

    def _pair(self, op: str, validation: object) -> Data:
        """Check validation data."""
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise TypeError(
                f"{op}: validation is of type {type(validation).__name__}, expected a pair (x, y)"
            )
        return self._data(f"{op}: validation", *validation)

    def _data(self, op: str, x: Array, y: Array) -> Data:
        """Check samples and targets."""
        net = self.net
        self._follow()
        x = net.place.matrix(op, "x", x, net.dtype, net.n_in)
        rows = len(x) or refuse_empty(op, x)
        y, weights = self._targets(op, y, rows)
        return Data(x, y, net.place.targets(y), weights)

    def _targets(self, op: str, y: Any, rows: int) -> tuple[Array, Weights]:
        """Checked targets in NumPy, and the weights of the samples."""
        net = self.net
        return self.loss.target(op, net.place.on_host(y), rows, net.n_out, net.dtype)

    def _training(self, y: Array) -> Training:
        """Training for targets of this kind."""
        training = self._trainings.get(y.ndim)
        if training is None:
            call = self.loss.call(y, self.net.n_out, self.net.dtype)
            training = self._engine.training(call, self._update, self.clip_norm)
            self._trainings[y.ndim] = training
        return training

    def _rates(self, count: int) -> NDArray[np.float64]:
        """The learning rates of the next steps."""
        rates = self._scheduled(count)
        if self.schedule is None and 0.0 <= self.optimizer.lr < math.inf:
            return rates
        wrong = ~((rates >= 0.0) & (rates < math.inf))
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"Trainer: schedule({self.steps + place}) is {rates[place]}, expected a finite number ≥ 0"
            )
        return rates

    def _scheduled(self, count: int) -> NDArray[np.float64]:
        """The same, as the schedule gives them."""
        if self.schedule is None:
            return np.full(count, self.optimizer.lr)
        steps = range(self.steps, self.steps + count)
        return np.fromiter(map(self.schedule, steps), np.float64, count)

    def _not_finite(self, op: str) -> FloatingPointError:
        return FloatingPointError(
            f"{op}: the loss or a gradient of step {self.steps + 1} is not finite; "
            f"the parameters are those after step {self.steps}"
        )
