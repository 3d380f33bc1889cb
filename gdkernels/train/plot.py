"""A training run as a picture: loss, quality and learning rate over the steps."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import replacing
from .loss import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VALIDATION, RATE = "#2a6fbb", "#d1582f", "#4d7c41"


class Recorded(Protocol):
    """What is drawn of a `History`."""

    loss: Any
    lr: Any
    epochs: Sequence[Mapping[str, Any]]


def check_plotting() -> None:
    """Raise ModuleNotFoundError, with the line that helps, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plot: matplotlib is not installed; get it with python -m pip install matplotlib",
            name="matplotlib",
        ) from error


def plot_history(history: Recorded, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the curves of a run into one PNG.

    Parameters
    ----------
    history : with the lists `loss` and `lr` of every step and `epochs`, the records of every epoch
    path : the file; it is replaced as a whole or not at all
    title : a line above the curves

    Raises
    ------
    ValueError : the history holds no step
    ModuleNotFoundError : matplotlib is not installed
    OSError : the file cannot be written
    """
    check_plotting()
    if len(history.loss) == 0:
        raise ValueError("plot_history: history has no steps, expected at least one")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of our own with its own canvas: no global state, no window system, whatever the user has set.
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, quality_axes, rate_axes = figure.subplots(1, 3)
    ends = _ends_of_epochs(len(history.loss), len(history.epochs))
    _draw_loss(loss_axes, history, ends)
    _draw_quality(quality_axes, history.epochs)
    _draw_rate(rate_axes, history.lr)
    for axes in (loss_axes, quality_axes, rate_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, parse_math=False)  # a file name may hold a $
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _ends_of_epochs(steps: int, epochs: int) -> NDArray[np.float64]:
    """The step at which each epoch ends; all epochs of a run have the same number of steps."""
    return np.linspace(0, steps, epochs + 1)[1:]


def _draw_loss(axes: "Axes", history: Recorded, ends: NDArray[np.float64]) -> None:
    loss = np.asarray(history.loss, dtype=np.float64)
    axes.plot(np.arange(1, len(loss) + 1), loss, color=TRAIN, alpha=0.3, linewidth=0.8, label="each step")
    edges = np.concatenate([[0], ends]).round().astype(int)
    if len(ends):
        means = [loss[start:stop].mean() for start, stop in pairwise(edges)]
        axes.plot(ends, means, color=TRAIN, marker=_marker(ends), markersize=3, label="training")
    validation = _series(history.epochs, "validation_loss")
    if validation is not None:
        axes.plot(ends, validation, color=VALIDATION, marker=_marker(ends), markersize=3, label="validation")
    if np.all(loss > 0):
        axes.set_yscale("log")
    axes.set(title="loss", xlabel="step")
    axes.legend(frameon=False)


def _draw_quality(axes: "Axes", epochs: Sequence[Mapping[str, Any]]) -> None:
    for measure, label in MEASURES.items():
        values = _series(epochs, f"validation_{measure}")
        if values is None:
            continue
        numbers = np.arange(1, len(values) + 1)
        axes.plot(numbers, values, color=VALIDATION, marker=_marker(values), markersize=3)
        axes.annotate(
            f"{values[-1]:.3f}", (numbers[-1], values[-1]), (-4, -14), textcoords="offset points", ha="right"
        )
        axes.set(title=f"validation {label}", xlabel="epoch")
        # The first epochs of a regression may lie far below zero and would flatten all that follows.
        axes.set_ylim(bottom=max(float(np.min(values)), -1.0) - 0.02)
        return
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no validation data", ha="center", va="center", transform=axes.transAxes)


def _draw_rate(axes: "Axes", rates: ArrayLike) -> None:
    rate = np.asarray(rates, dtype=np.float64)
    axes.plot(np.arange(1, len(rate) + 1), rate, color=RATE)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set(title="learning rate", xlabel="step")


def _series(epochs: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64] | None:
    """One number of every epoch, or None where an epoch has none."""
    values = [record.get(key) for record in epochs]
    if not values or any(value is None for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _marker(values: NDArray[np.float64]) -> str:
    """Points where there are few; a single one would not be seen as a line."""
    return "o" if len(values) <= 60 else ""
