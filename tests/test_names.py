"""Whatever has a name is found wherever such names are listed: a list that lags behind its table fails here."""

import ast
import compileall
import importlib
import inspect
import os
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

import pytest

import gdkernels as gd
import reference
from gdkernels.cli import options, recipes
from gdkernels.cli.main import parser
from gdkernels.nn import layers
from gdkernels.nn.network import DTYPES, NORMS
from gdkernels.ops.activation import KINDS
from gdkernels.scalar.activation import ACTIVATIONS
from gdkernels.scalar.init import AUTO, INITIALIZERS, INITS
from gdkernels.scalar.loss import ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY
from gdkernels.scalar.optim import OPTIMIZERS, RULES
from gdkernels.scalar.schedules import SCHEDULES
from gdkernels.train import data, optim, schedules
from gdkernels.train.loss import LOSSES
from tools import parameter_hashes

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def words(text):
    """The words of a text, without what stands around them."""
    return {word.strip("`.,;:()|") for word in text.split()}


def defaults(function, *left_out):
    """The names and defaults of a function's parameters; None where there is none."""
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: None if one.default is one.empty else one.default
        for one in parameters
        if one.name not in left_out
    }


def field_defaults(kind):
    return {field.name: None if field.default is MISSING else field.default for field in fields(kind)}


def functions_of(module):
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def help_of(flag):
    """What `gdkernels train --help` says about an option, and every name that it takes."""
    (train,) = [action.choices["train"] for action in parser()._actions if action.choices]
    (action,) = [action for action in train._actions if flag in action.option_strings]
    return words(action.help)


# ---------------------------------------------------------------------------------------------- activations


def test_activations_are_those_of_their_table_everywhere():
    assert tuple(ACTIVATIONS) == KINDS
    assert set(reference.KINDS) == set(ACTIVATIONS)
    assert set(ACTIVATIONS) <= words(gd.activation.__doc__) & words(README) & help_of("--activation")


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_row_of_an_activation_holds_what_belongs_together(kind):
    row = ACTIVATIONS[kind]
    assert (row.act.__name__, row.slope.__name__) == (kind, f"{kind}_grad")
    assert row.saved == reference.saved_for(kind)
    assert row.init in INITIALIZERS
    assert gd.Linear(3, 2, kind).initializer == row.init
    assert gd.Activation(kind).kind == kind


# ---------------------------------------------------------------------------------------------- initialisers


def test_initialisers_are_those_of_their_table_everywhere():
    assert functions_of(gd.init) == functions_of(reference.init) == set(INITIALIZERS)
    assert (AUTO, *INITIALIZERS) == INITS
    assert set(INITS) <= help_of("--init")
    assert set(INITIALIZERS) <= words(README)


# ---------------------------------------------------------------------------------------------- losses


def test_losses_are_those_of_their_table_everywhere():
    from gdkernels.cpu import loss as cpu_loss

    names = {*ELEMENT_LOSSES, SOFTMAX_CROSS_ENTROPY}
    assert set(LOSSES) == names
    assert set(cpu_loss.KERNELS) == set(ELEMENT_LOSSES)
    assert names <= help_of("--loss")
    assert {f"gd.{name}" for name in names} <= words(README)
    assert {kind.__name__ for kind in LOSSES.values()} <= words(README.replace("gd.", ""))


def test_losses_have_kernels_on_the_device():
    cuda_loss = pytest.importorskip("gdkernels.cuda.loss")
    assert set(cuda_loss.ELEMENTS) == set(ELEMENT_LOSSES)


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_a_loss_has_the_same_options_and_defaults_everywhere(name):
    row, op, kind = ELEMENT_LOSSES[name], getattr(gd, name), LOSSES[name]
    wanted = {option: default for option, (default, _) in row.options.items()}
    assert row.loss.__name__ == name
    assert [*inspect.signature(row.loss).parameters][2:] == [*wanted]
    first = next(iter(inspect.signature(op).parameters))
    assert first == row.prediction
    assert defaults(op, first, "target", "grad", "reduction") == wanted
    assert defaults(getattr(reference, name), first, "target", "reduction") == wanted
    assert field_defaults(kind) == wanted
    assert kind().name == name
    assert getattr(gd, kind.__name__) is kind
    assert all(default in among for default, among in row.options.values())


def test_the_cross_entropy_of_rows_has_the_same_defaults_everywhere():
    wanted = {"label_smoothing": 0.0, "class_weight": None, "ignore_index": -100}
    assert defaults(gd.softmax_cross_entropy, "logits", "target", "grad", "reduction") == wanted
    assert defaults(reference.softmax_cross_entropy, "logits", "target", "reduction") == wanted
    assert field_defaults(gd.SoftmaxCrossEntropy) == wanted


# ---------------------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_the_same_options_and_defaults_everywhere(name):
    rule, op, kind = RULES[name], getattr(gd, f"{name}_step"), optim.BY_NAME[name]
    options = {option: default for option, (default, _) in rule.options.items()}
    exact = getattr(reference, f"{name}_step")
    given = ("p", "g", *rule.states, "step", "lr")
    assert [*inspect.signature(rule.update).parameters] == ["p", "g", *rule.states, "numbers"]
    assert [*inspect.signature(rule.numbers).parameters] == ["step", "lr", *options]
    wanted = options | {"weight_decay": rule.weight_decay}
    assert defaults(op, *given) == defaults(exact, *given) == wanted
    assert field_defaults(kind) == wanted | {"lr": rule.lr}
    assert {kind.__name__, f"{name}_step"} <= words(README.replace("gd.", ""))


# ---------------------------------------------------------------------------------------------- schedules


def test_schedules_are_those_of_their_table_everywhere():
    assert set(schedules.FORMULAS) == set(SCHEDULES)
    assert functions_of(reference.schedules) == set(SCHEDULES)
    assert set(SCHEDULES) <= help_of("--schedule") & words(README)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_the_same_parameters_and_defaults_everywhere(name):
    row, kind = SCHEDULES[name], schedules.FORMULAS[name]
    wanted = defaults(row.rate, "step")
    assert row.rate.__name__ == name
    assert {*row.numbers, *row.counts} == set(wanted)
    assert not row.numbers.keys() & row.counts.keys()
    assert [*field_defaults(kind).items()] == [*wanted.items()]
    assert defaults(getattr(reference.schedules, name), "step") == wanted
    assert getattr(gd.schedules, kind.__name__) is kind
    assert getattr(gd.schedules, name) is row.rate
    assert {name, kind.__name__} <= set(gd.schedules.__all__)


def test_networks_whose_bits_are_watched_have_every_layer_activation_loss_and_optimizer():
    """tools/parameter_hashes.py says so."""
    used, found = [], [parts for _, parts in parameter_hashes.networks()]
    waiting = [layer for layer_list, *_ in found for layer in layer_list]
    while waiting:
        used.append(waiting.pop())
        waiting += getattr(used[-1], "layers", ())
    kinds = {getattr(layer, "activation", getattr(layer, "kind", None)) for layer in used}
    of_losses = {loss if isinstance(loss, str) else loss.name for _, loss, _, _ in found} - {"probabilities"}
    assert {type(layer) for layer in used} == set(layers.LAYERS.values())
    assert kinds >= set(ACTIVATIONS)
    assert of_losses == set(LOSSES)
    assert {optimizer.name for _, _, optimizer, _ in found} == set(OPTIMIZERS)


# ---------------------------------------------------------------------------------------------- the command line


def test_every_bundled_set_has_a_recipe_and_every_optimizer_can_be_asked_for():
    assert list(recipes.RECIPES) == list(data.BUNDLED)
    assert set(recipes.USUAL) <= set(OPTIMIZERS) == set(optim.BY_NAME)
    assert set(OPTIMIZERS) <= help_of("--optimizer")


def test_type_checkers_see_the_names_that_everybody_gets():
    text = Path(gd.__file__).read_text(encoding="utf-8")
    block = next(node for node in ast.parse(text).body if isinstance(node, ast.If))
    imports = [(node.module, name) for node in block.body for name in node.names]
    assert [module for module, name in imports if name.name == "*"] == [*gd._LISTING]
    named = {
        name.asname: ".".join(filter(None, (module, name.name))) for module, name in imports if name.asname
    }
    assert named == gd._MODULES
    for module in gd._LISTING:
        assert gd._listed(module) == importlib.import_module(f"gdkernels.{module}").__all__


def test_names_are_found_where_modules_come_without_their_sources(tmp_path):
    folder = tmp_path / "gdkernels"
    shutil.copytree(Path(gd.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, legacy=True, quiet=1)
    for source in folder.rglob("*.py"):
        source.unlink()
    code = "import gdkernels as gd; print(gd.linear.__name__, gd.NAdam().lr, gd.schedules.__name__, len(gd.__all__))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["linear", "0.002", "gdkernels.train.schedules", str(len(gd.__all__))], (
        done.stderr
    )


def test_every_optimizer_and_layer_is_public():
    for kind in (*optim.BY_NAME.values(), *layers.LAYERS.values()):
        assert getattr(gd, kind.__name__) is kind
        assert kind.__name__ in words(README.replace("gd.", ""))


def test_lists_of_the_command_line_are_those_of_the_modules():
    assert ("none", *NORMS) == options.NORMS
    assert get_args(data.Task) == options.TASKS
    assert options.STORAGES == DTYPES


def test_every_recipe_is_one_that_could_be_asked_for():
    for recipe in (recipes.FILE, *recipes.RECIPES.values()):
        assert recipe.activation in ACTIVATIONS
        assert recipe.norm in options.NORMS
        assert recipe.init in INITS
        assert recipe.loss in options.LOSSES
        assert recipe.optimizer in OPTIMIZERS
        assert recipe.schedule in SCHEDULES
