"""The command as a process, and what it does with mistakes: one line, an exit code, no traceback."""

import os
import subprocess
import sys

import pytest

import gdkernels
from gdkernels.cli import train
from gdkernels.cli.main import COMMANDS, main


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "gdkernels", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def test_help_names_every_command():
    shown = command("--help")
    assert shown.returncode == 0
    for name in COMMANDS:
        assert f"\n    {name} " in shown.stdout


def test_it_tells_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gdkernels {gdkernels.__version__}\n"


def test_a_reader_that_leaves_is_no_error_to_shout_about():
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "gdkernels", "info"], stdout=writer, stderr=subprocess.PIPE, timeout=300
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert COMMANDS[name][0].__doc__.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: DATA"),
        (["train", "digits", "--epoch-count", "3"], "unrecognized arguments"),
        (
            ["train", "digits", "--activation", "swish"],
            "is 'swish', expected one of identity, sigmoid, tanh, relu",
        ),
        (
            ["train", "digits", "--optimizer", "adamax"],
            "is 'adamax', expected one of sgd, rmsprop, adagrad, adam",
        ),
        (
            ["train", "digits", "--loss", "l1"],
            "is 'l1', expected one of auto, mse, huber, log_cosh, binary_cross_entropy",
        ),
        (
            ["train", "digits", "--schedule", "step"],
            "is 'step', expected one of constant, linear_warmup, cosine",
        ),
        (["train", "digits", "--norm", "batch"], "is 'batch', expected one of none, layer, rms"),
        (["train", "digits", "--init", "zeros"], "is 'zeros', expected one of auto, xavier_uniform"),
        (["train", "digits", "--dtype", "float16"], "is 'float16', expected one of float32, float64"),
        (["train", "digits", "--device", "tpu"], "is 'tpu', expected one of cpu, cuda"),
        (["train", "digits", "--layers", "64,0"], "is '64,0', expected widths such as 64,32, or none"),
        (["train", "digits", "--layers", ""], "is '', expected widths such as 64,32, or none"),
        (["train", "digits", "--batch", "half"], "is 'half', expected a positive integer, or full"),
        (["train", "digits", "--epochs", "0"], "is '0', expected a positive integer"),
        (["train", "digits", "--epochs", "1.5"], "is '1.5', expected a positive integer"),
        (["train", "digits", "--lr", "0"], "is '0', expected a finite number > 0"),
        (["train", "digits", "--lr", "nan"], "is 'nan', expected a finite number > 0"),
        (["train", "digits", "--clip", "inf"], "is 'inf', expected a finite number > 0"),
        (["train", "digits", "--weight-decay", "-1"], "is '-1', expected a finite number ≥ 0"),
        (["train", "digits", "--dropout", "1"], "is '1', expected a number in [0, 1)"),
        (
            ["train", "digits", "--warmup", "1.0"],
            "is '1.0', expected a number of steps (100) or a fraction (0.1)",
        ),
        (["train", "digits", "--warmup", "-5"], "is '-5', expected a number of steps"),
        (["train", "digits", "--seed", "-1"], "is '-1', expected an integer ≥ 0"),
        (["train", "digits", "--threads", "0"], "is '0', expected a positive integer"),
    ],
)
def test_a_wrong_option_is_explained_in_one_line(arguments, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["digit"],
            "data is 'digit', expected one of digits, wine, breast_cancer, diabetes, mnist5k, or a .npz",
        ),
        (["none.csv"], "there is no file none.csv"),
        (["digits", "--device", "cuda"], "--device is cuda, but no GPU is seen: "),
        (["digits", "--target", "y"], "digits comes with its own target"),
        (
            ["diabetes", "--loss", "softmax_cross_entropy"],
            "expected mse or huber or log_cosh because diabetes is a regression",
        ),
        (
            ["digits", "--schedule", "cosine", "--warmup", "10"],
            "--warmup is given, but the schedule is cosine",
        ),
        (["digits", "--json", "none/result.json"], "there is no folder none for the file result.json"),
        (["digits", "--plot", "."], "is a folder, expected the name of a file"),
        (["digits", "--save", os.devnull], "is not a regular file"),
        (["digits", "--json", "one", "--plot", "one"], "'one', which is already --plot"),
    ],
)
def test_a_wrong_request_is_explained_before_anything_is_written(
    arguments, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("gdkernels train: ")
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_output_does_not_overwrite_the_data(capsys, tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("a,y\n1,2\n")
    assert main(["train", str(data), "--target", "y", "--json", str(data)]) == 1
    assert "which is already DATA" in capsys.readouterr().err
    assert data.read_text() == "a,y\n1,2\n"


@pytest.mark.parametrize(
    "error", [FloatingPointError("step 7: the loss is nan"), OSError("disk full"), MemoryError("no room")]
)
def test_an_expected_error_is_one_line(error, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(train, "run", fail)
    assert main(["train", "digits"]) == 1
    assert capsys.readouterr().err == f"gdkernels train: {error}\n"


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def fail(options):
        raise TypeError("a bug")

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(TypeError, match="a bug"):
        main(["train", "digits"])
