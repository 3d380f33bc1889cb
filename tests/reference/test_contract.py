"""What holds for the folder as a whole: NumPy alone, float64 out, inputs untouched."""

import ast
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import reference as ref

HOME = Path(ref.__file__).parent
ALLOWED = {"numpy", "collections", "dataclasses", "functools", "inspect", "math", "types", "typing"}

# One call of every operation on (4, 3) arrays, as f(x): x stands wherever an array of that shape fits.
W, GAMMA, LABELS = np.ones((3, 2)), np.ones(3), np.array([0, 2, 1, 1])
CALLS = {
    "activation": lambda x: ref.activation(x, "mish"),
    "activation_backward": lambda x: ref.activation_backward(x, x, "elu"),
    "activation_slope": lambda x: ref.activation_slope(x, "gelu"),
    "adagrad_step": lambda x: ref.adagrad_step(x, x, x * x, 0.1),
    "adam_step": lambda x: ref.adam_step(x, x, x, x * x, 1, 0.1),
    "adamw_step": lambda x: ref.adamw_step(x, x, x, x * x, 1, 0.1),
    "amsgrad_step": lambda x: ref.amsgrad_step(x, x, x, x * x, x * x, 1, 0.1),
    "binary_cross_entropy": lambda x: ref.binary_cross_entropy(x, x, "none"),
    "clip_by_global_norm": lambda x: ref.clip_by_global_norm(0.5, x, x)[1],
    "dropout": lambda x: ref.dropout(x, 0.5, 1),
    "dropout_backward": lambda x: ref.dropout_backward(x, 0.5, 1),
    "huber": lambda x: ref.huber(x, 1 - x, reduction="none"),
    "log_cosh": lambda x: ref.log_cosh(x, 1 - x, "none"),
    "layernorm": lambda x: ref.layernorm(x, GAMMA, GAMMA, residual=x),
    "layernorm_backward": lambda x: ref.layernorm_backward(x, x, GAMMA, np.ones((4, 2)), x),
    "linear": lambda x: ref.linear(x, W, None, "identity"),
    "linear_backward": lambda x: ref.linear_backward(x @ W, x, W, x @ W),
    "lion_step": lambda x: ref.lion_step(x, x, x, 0.1),
    "log_softmax": lambda x: ref.log_softmax(x),
    "matmul": lambda x: ref.matmul(x, x, trans_b=True),
    "mse": lambda x: ref.mse(x, 1 - x, "none"),
    "nadam_step": lambda x: ref.nadam_step(x, x, x, x * x, 1, 0.1),
    "numerical_gradient": lambda x: ref.numerical_gradient(lambda v: float(v.sum()), x),
    "rmsnorm": lambda x: ref.rmsnorm(x, GAMMA, residual=x),
    "rmsnorm_backward": lambda x: ref.rmsnorm_backward(x, x, GAMMA, np.ones(4), x),
    "rmsprop_step": lambda x: ref.rmsprop_step(x, x, x * x, 0.1),
    "scale": lambda x: ref.scale(x, GAMMA),
    "scale_backward": lambda x: ref.scale_backward(x, x, GAMMA),
    "sgd_step": lambda x: ref.sgd_step(x, x, x, 0.1, 0.9),
    "softmax": lambda x: ref.softmax(x),
    "softmax_cross_entropy": lambda x: ref.softmax_cross_entropy(x, LABELS, "none"),
}
NO_ARRAY_IN_FLOAT_ARRAY_OUT = {
    "KINDS",
    "dropout_mask",
    "global_norm",
    "init",
    "philox4x32",
    "saved_for",
    "schedules",
    "uniform_words",
}

FILES = [path for path in sorted(HOME.glob("*.py")) if path.stem != "__init__"]
# Their names are told with the module's: schedules.cosine, bounds.softmax.
TOLD_BY_MODULE = {"bounds", "init", "precision", "rounding", "schedules"}
HELPERS = {"loss": {"same_shape", "reduced"}}  # of the cross-entropy, too


def results(name, x):
    returned = CALLS[name](x)
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def test_every_public_name_is_called_here_or_takes_no_array():
    assert set(ref.__all__) == CALLS.keys() | NO_ARRAY_IN_FLOAT_ARRAY_OUT
    assert all(hasattr(ref, name) for name in ref.__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_lists_what_it_shows(path):
    """All functions and classes without an underscore, but what other files of the reference take from it."""
    module = importlib.import_module(f"reference.{path.stem}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), name
        assert name in ref.__all__ or path.stem in TOLD_BY_MODULE, f"reference lacks {name} of {path.name}"
    defined = {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert defined - set(module.__all__) == HELPERS.get(path.stem, set())


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_not_modified_and_results_are_new_float64_arrays(name, rng):
    x = rng.random((4, 3))
    before = x.copy()
    x.flags.writeable = False
    for result in results(name, x):
        assert result.dtype == np.float64
        assert not np.shares_memory(result, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", CALLS)
def test_layout_and_width_do_not_matter(name):
    x = (np.arange(12.0).reshape(4, 3) % 5) / 4  # 0 … 1 in quarters: exact in every float type
    expected = results(name, x)
    strided = np.zeros((8, 9), np.float32)[::-2, 1::3]
    strided[:] = x
    for other in (x.astype(np.float16), np.asfortranarray(x), strided):
        # Squares formed by the call in float16 are sixteenths: exact too. Sums may run in another order.
        for ours, same in zip(results(name, other), expected, strict=True):
            np.testing.assert_allclose(ours, same, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("path", sorted(HOME.glob("*.py")), ids=lambda path: path.name)
def test_the_reference_imports_numpy_alone(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in ALLOWED
    assert ALLOWED - {"numpy"} <= set(sys.stdlib_module_names)
