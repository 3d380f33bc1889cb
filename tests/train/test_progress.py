"""A terminal gets a bar, a file or a pipe gets a handful of lines, both with the same numbers."""

import io

import pytest

from gdkernels.train.progress import MOST_LINES, progress, summary


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, epochs, shown=True):
    display = progress(shown, stream)
    display.start(epochs)
    for epoch in range(epochs):
        display.epoch({"train_loss": 1 / (epoch + 1), "validation_accuracy": 0.5, "seconds": 0.1})
    display.close()
    return stream.getvalue()


def test_lines_hold_the_first_and_the_last_epoch():
    lines = run(io.StringIO(), 200).splitlines()
    assert lines[0] == "epoch   1/200 · loss 1 · accuracy 0.5"
    assert lines[-1] == "epoch 200/200 · loss 0.005 · accuracy 0.5"


@pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 1000])
def test_lines_stay_few(epochs):
    lines = run(io.StringIO(), epochs).splitlines()
    assert min(epochs, MOST_LINES // 2) <= len(lines) <= MOST_LINES + 2


def test_a_terminal_gets_a_bar():
    shown = run(Terminal(), 7)
    assert "\r" in shown
    assert "7/7" in shown
    assert "accuracy 0.5" in shown


def test_silence_on_demand():
    assert run(Terminal(), 3, shown=False) == ""


def test_a_process_without_standard_error_is_silent(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    display = progress()
    display.start(1)
    display.epoch({"train_loss": 1.0})
    display.close()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_closing_before_the_end_is_allowed(stream):
    display = progress(True, stream())
    display.start(5)
    display.epoch({"train_loss": 1.0})
    display.close()


def test_summary_shows_what_there_is():
    record = {"train_loss": 0.25, "validation_loss": 0.5, "validation_r2": -0.125, "seconds": 3.0}
    assert summary(record) == "loss 0.25 · validation loss 0.5 · R² -0.125"
