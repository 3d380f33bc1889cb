"""The picture of a run holds its three curves and is written as a whole or not at all."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gdkernels.train.plot import RATE, TRAIN, VALIDATION, plot_history


def history(epochs=5, steps=20, **last):
    records = [{"train_loss": 1 / (i + 1), **last} for i in range(epochs)]
    total = epochs * steps
    return SimpleNamespace(loss=np.linspace(2, 0.1, total), lr=np.linspace(1e-3, 0, total), epochs=records)


def pixels(path, colour):
    """How many pixels of the PNG have nearly this colour (the curves are drawn with smooth edges)."""
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int(np.sum(np.all(np.abs(image - wanted) < 0.02, axis=-1)))


@pytest.fixture
def png(tmp_path):
    pytest.importorskip("matplotlib")
    return tmp_path / "run.png"


def test_loss_quality_and_rate_are_drawn(png):
    plot_history(history(validation_loss=0.5, validation_accuracy=0.9), png, title="digits")
    assert png.read_bytes().startswith(b"\x89PNG")
    for colour in (TRAIN, VALIDATION, RATE):
        assert pixels(png, colour) > 100


def test_without_validation_only_training_is_drawn(png):
    plot_history(history(), png)
    assert pixels(png, VALIDATION) == 0
    assert pixels(png, TRAIN) > 100


@pytest.mark.parametrize("r2", [0.5, -40.0])
def test_a_regression_is_drawn(png, r2):
    plot_history(history(validation_loss=0.5, validation_r2=r2), png)
    assert pixels(png, VALIDATION) > 100


def test_one_epoch_of_one_step_is_drawn(png):
    plot_history(history(epochs=1, steps=1, validation_loss=0.5, validation_accuracy=0.9), png)
    assert pixels(png, VALIDATION) > 10


def test_a_run_without_steps_is_refused(png):
    with pytest.raises(ValueError, match="history has no steps"):
        plot_history(history(epochs=0), png)
    assert not png.exists()


def test_a_failure_leaves_the_old_picture(png, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")

    def fail(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    png.write_bytes(b"old")
    monkeypatch.setattr(figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_history(history(), png)
    assert png.read_bytes() == b"old"
    assert list(png.parent.iterdir()) == [png]


def test_missing_matplotlib_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install matplotlib"):
        plot_history(history(), tmp_path / "run.png")
