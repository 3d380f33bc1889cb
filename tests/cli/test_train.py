"""`gdkernels train` learns real data, says how well, and writes what was asked for."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import gdkernels as gd
from gdkernels.cli import options as known
from gdkernels.cli import recipes, train
from gdkernels.cli.main import main, parser
from gdkernels.scalar.optim import OPTIMIZERS

KEYS = {
    "data", "task", "epochs", "train_loss", "validation_loss", "seconds", "steps_per_second", "threads", "seed", "version",
}  # fmt: skip


def run(tmp_path, *arguments):
    """The result of a silent run, as --json gives it."""
    path = tmp_path / "result.json"
    assert main(["train", *arguments, "--quiet", "--json", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def houses(tmp_path):
    """A table that a straight line explains to 1 part in 100: R² is at most about 0.99."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, (300, 2))
    price = 3 * x[:, 0] - 2 * x[:, 1] + rng.normal(0, 1, 300)
    path = tmp_path / "houses.csv"
    rows = [f"{a},{b},{y}" for (a, b), y in zip(x, price, strict=True)]
    path.write_text("\n".join(["area,age,price", *rows]) + "\n")
    return path


# Quality


@pytest.mark.parametrize(
    ("data", "least"), [("digits", 0.97), ("wine", 0.92), ("breast_cancer", 0.94), ("diabetes", 0.4)]
)
def test_the_recipe_learns_the_data_set(data, least, tmp_path):
    result = run(tmp_path, data)
    assert result["test_r2" if data == "diabetes" else "test_accuracy"] >= least


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_usual_rates_learn_the_recipe_that_diverges_first(optimizer, tmp_path):
    assert run(tmp_path, "diabetes", "--optimizer", optimizer)["test_r2"] > 0.4


def test_the_regression_of_the_readme_learns(tmp_path):
    given = ["diabetes", "--optimizer", "sgd", "--schedule", "cosine", "--batch", "full"]
    assert run(tmp_path, *given)["test_r2"] > 0.4


@pytest.mark.slow
def test_the_recipe_learns_mnist(tmp_path):
    assert run(tmp_path, "mnist5k")["test_accuracy"] >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize(("data", "least"), [("digits", 0.97), ("diabetes", 0.4)])
def test_the_recipe_is_no_luck_of_one_seed(data, least, tmp_path):
    """The mean over ten splits and networks: a single small test part scatters more than the recipe does."""
    results = [run(tmp_path, data, "--seed", str(seed)) for seed in range(10)]
    assert np.mean([result.get("test_r2", result.get("test_accuracy")) for result in results]) >= least


def test_a_table_is_learned(tmp_path, houses):
    result = run(tmp_path, str(houses), "--target", "price")
    assert result["task"] == "regression"
    assert result["test_r2"] > 0.95


# What is written and printed


def test_json_holds_the_result_and_the_request(tmp_path):
    result = run(tmp_path, "wine", "--epochs", "3", "--seed", "5", "--threads", "1", "--dtype", "float64")
    assert set(result) >= KEYS | {"test_accuracy"}
    assert "test_r2" not in result
    asked = {
        "data": "wine",
        "task": "classification",
        "epochs": 3,
        "seed": 5,
        "threads": 1,
        "dtype": "float64",
    }
    assert {name: result[name] for name in asked} == asked
    assert result["version"] == gd.__version__
    assert result["steps"] == 3 * -(-124 // 16)
    assert result["steps_per_second"] == pytest.approx(result["steps"] / result["seconds"])


def test_the_last_line_states_the_accuracy(capsys, tmp_path):
    accuracy = run(tmp_path, "wine", "--epochs", "3")["test_accuracy"]
    assert capsys.readouterr().out == f"test accuracy {accuracy:.4f} ({round(27 * accuracy)} of 27)\n"


def test_the_last_line_states_r2(capsys, tmp_path):
    r2 = run(tmp_path, "diabetes", "--epochs", "3")["test_r2"]
    assert capsys.readouterr().out == f"test R² {r2:.4f} (66 samples)\n"


def test_r2_of_a_constant_is_undefined(capsys, tmp_path):
    path = tmp_path / "constant.npz"
    np.savez(path, x=np.arange(40.0).reshape(20, 2), y=np.full(20, 0.5))
    assert run(tmp_path, str(path), "--epochs", "1")["test_r2"] is None
    assert capsys.readouterr().out == "test R² undefined (3 samples without any spread)\n"


def test_plain_lines_show_the_epochs(capsys):
    assert main(["train", "wine", "--epochs", "4"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].startswith("wine: 13 features, 3 classes (class_0, class_1, class_2)")
    assert [line.split(" · ")[0] for line in shown.err.splitlines()] == [f"epoch {n}/4" for n in (1, 2, 3, 4)]


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    assert main(["train", "wine", "--epochs", "3", "--quiet", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_file_name_is_no_formula(tmp_path, houses):
    pytest.importorskip("matplotlib")
    data, picture = houses.rename(tmp_path / r"$\frac$.csv"), tmp_path / "curves.png"
    assert main(["train", str(data), "--target", "price", "--epochs", "1", "--plot", str(picture)]) == 0
    assert picture.exists()


def test_the_saved_network_gives_the_stated_accuracy(tmp_path):
    """With the scaling that --json holds, on the split of the same seed."""
    path = tmp_path / "net.safetensors"
    result = run(tmp_path, "wine", "--seed", "2", "--save", str(path))
    from gdkernels.train.data import load, split

    test = split(load("wine"), 2).test
    x = (test.x - np.array(result["input_mean"])) / np.array(result["input_scale"])
    guess = gd.load(path).predict(x.astype(np.float32)).argmax(axis=1)
    assert np.mean(guess == test.y) == result["test_accuracy"]


def test_the_scaling_is_that_of_the_training_part_alone(tmp_path):
    from gdkernels.train.data import load, split

    result = run(tmp_path, "diabetes", "--epochs", "1")
    train_part = split(load("diabetes"), 0).train
    np.testing.assert_allclose(result["input_mean"], train_part.x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result["output_scale"], train_part.y.std(axis=0), rtol=1e-12)


def test_a_run_can_be_repeated(tmp_path):
    first, second, other = (run(tmp_path, "wine", "--epochs", "5", "--seed", seed) for seed in "112")
    assert first["train_loss"] == second["train_loss"]
    assert first["validation_loss"] == second["validation_loss"]
    assert first["train_loss"] != other["train_loss"]


# Options reach what they name


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--activation", name] for name in known.ACTIVATIONS),
        *(["--norm", name] for name in known.NORMS),
        *(["--init", name] for name in known.INITS),
        *(["--loss", name] for name in known.LOSSES),
        *(["--optimizer", name] for name in OPTIMIZERS),
        *(["--schedule", name] for name in known.SCHEDULES),
        ["--layers", "none"],
        ["--layers", "32,32,32", "--residual", "--norm", "rms"],
        ["--batch", "1"],
        ["--batch", "full"],
        ["--batch", "100000"],
        ["--clip", "0.5"],
        ["--warmup", "7"],
        ["--warmup", "100000"],
        ["--warmup", "0"],
        ["--dtype", "float64"],
    ],
    ids=" ".join,
)
def test_an_option_is_known_and_trains(arguments, tmp_path):
    result = run(tmp_path, "wine", "--epochs", "12", *arguments)
    assert np.isfinite(result["train_loss"])
    # Better than always naming the largest class (71 of 178), even where few steps are taken.
    if arguments not in (["--batch", "full"], ["--batch", "100000"], ["--warmup", "100000"]):
        assert result["test_accuracy"] > 0.5


def test_two_classes_with_one_output(tmp_path):
    result = run(tmp_path, "breast_cancer", "--loss", "binary_cross_entropy")
    assert result["test_accuracy"] > 0.9


@pytest.mark.parametrize("loss", ["mse", "huber", "log_cosh"])
def test_a_regression_takes_its_losses(loss, tmp_path):
    assert run(tmp_path, "diabetes", "--loss", loss)["test_r2"] > 0.3


def choose(*arguments):
    return train.choose(parser().parse_args(["train", *arguments]))


def test_options_replace_their_part_of_the_recipe():
    chosen, recipe = choose("digits", "--epochs", "7", "--layers", "none"), recipes.RECIPES["digits"]
    assert (chosen.epochs, chosen.layers) == (7, ())
    assert chosen.lr == recipe.lr


def test_another_optimizer_brings_its_usual_rates():
    assert (choose("diabetes", "--optimizer", "lion").lr, choose("diabetes").optimizer) == (
        recipes.USUAL["lion"][0],
        "adamw",
    )
    assert choose("diabetes", "--optimizer", "adam").weight_decay == recipes.USUAL["adam"][1]
    assert choose("diabetes", "--optimizer", "adam", "--lr", "0.5").lr == 0.5
    assert choose("diabetes", "--optimizer", "adamw") == choose("diabetes")


@pytest.mark.parametrize(("warmup", "steps"), [("0.25", 25), ("10", 10)])
def test_warmup_is_a_fraction_or_a_number_of_steps(warmup, steps):
    rates = train.schedule(choose("digits", "--warmup", warmup, "--lr", "1"), steps=100)
    assert rates(steps - 2) < rates(steps - 1) == 1.0


# Accidents


def test_a_loss_that_is_not_finite_ends_with_its_step_and_writes_nothing(tmp_path, capsys):
    outputs = [
        "--json",
        str(tmp_path / "a.json"),
        "--plot",
        str(tmp_path / "a.png"),
        "--save",
        str(tmp_path / "a"),
    ]
    diverging = ["--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant", "--loss", "mse"]
    assert main(["train", "diabetes", *diverging, "--quiet", *outputs]) == 1
    said = capsys.readouterr()
    assert "is not finite" in said.err
    assert "step" in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_interrupting_leaves_no_file_and_no_traceback(tmp_path):
    arguments = ["train", "wine", "--epochs", "1000000", "--json", "result.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gdkernels", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        first = process.stderr.readline()
        if first.startswith("compiling"):  # nothing is in the cache yet
            first = process.stderr.readline()
        assert first.startswith("epoch")  # it trains
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "gdkernels train: interrupted"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
