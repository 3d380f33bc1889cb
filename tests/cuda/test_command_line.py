"""The command line on the GPU: training ends where the CPU's ends, and verify holds what it should and nothing wrong."""

import json

import numpy as np
import pytest

import gdkernels as gd
import reference
from gdkernels.cli import checks, verify
from gdkernels.cli.checks import Checks
from gdkernels.cli.main import main
from gdkernels.cli.on_device import OnDevice
from gdkernels.cli.verify import summarise


@pytest.mark.slow
def test_training_on_digits_ends_as_on_the_cpu(device, tmp_path, monkeypatch):
    curves, reports = [], []
    fit = gd.Trainer.fit

    def remembered(*arguments, **options):
        history = fit(*arguments, **options)
        curves.append(history.loss)
        return history

    monkeypatch.setattr(gd.Trainer, "fit", remembered)
    for place in ("cpu", "cuda"):
        path = tmp_path / f"{place}.json"
        options = ["--epochs", "2", "--device", place, "--quiet", "--json", str(path)]
        assert main(["train", "digits", *options]) == 0
        reports.append(json.loads(path.read_text()))
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    on_cpu, on_gpu = reports
    assert (on_cpu["device"], on_gpu["device"]) == ("cpu", "cuda")
    assert on_gpu["validation_loss"] == pytest.approx(on_cpu["validation_loss"], rel=1e-4)
    assert on_gpu["test_accuracy"] == pytest.approx(on_cpu["test_accuracy"], abs=0.01)


@pytest.fixture
def small(monkeypatch):
    """Few elements: the emulator is a thousand times slower than a GPU."""
    monkeypatch.setattr(checks, "SHAPES", ((1, 1, 1), (3, 7, 5), (17, 33, 65)))
    monkeypatch.setattr(checks, "ROWS", ((1, 1), (5, 3), (33, 17)))
    monkeypatch.setattr(checks, "NORMED", ((1,), (7, 33), (50, 3, 33)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_holds_every_operation_on_the_gpu(device, small, dtype):
    checked = Checks(reference, dtype, OnDevice())
    rows = [make() for _, make in verify._rows(checked, dtype, "cuda", "reference")]
    assert len(rows) > 20
    assert not [str(row) for row in rows if not row.passed]


def test_verify_finds_a_wrong_kernel(device, small, monkeypatch):
    from gdkernels.cuda import activation

    kernels = {**activation.FORWARD, "relu": activation.FORWARD["leaky_relu"]}
    monkeypatch.setattr(activation, "FORWARD", kernels)
    row = summarise(
        "activation", "float32", "cuda", "reference", Checks(reference, "float32", OnDevice()).activation()
    )
    assert not row.passed and "relu" in row.case
