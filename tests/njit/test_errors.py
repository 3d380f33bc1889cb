"""What is wrong with a call inside @njit is said in our words: of types when it is compiled, of all else when it runs."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

import gdkernels as gd
from tests.layouts import laid_out
from tests.njit.both import compiled, copies

F4 = {
    "x": np.ones((6, 4), "f4"),
    "w": np.ones((4, 3), "f4"),
    "b": np.ones(3, "f4"),
    "y": np.ones((6, 3), "f4"),
}
LABELS = np.array([0, 1, 2, 0, 1, 2])
READ_ONLY = laid_out(np.ones((6, 3), "f4"), "read-only")

# By what is wrong: the call, further arguments, and the sentence.
WRONG_TYPES = {
    "element type": (
        "gd.linear(x, other)",
        np.ones((4, 3)),
        "linear: w has dtype float64, expected float32 because x has float32",
    ),
    "no element type of ours": (
        "gd.softmax(other)",
        np.ones(3, "i8"),
        "softmax: x has dtype int64, expected an array of float32 or float64",
    ),
    "no array": ("gd.linear(x, other)", 3.0, "linear: w is of type float64, expected an array"),
    "not an array at all": (
        "gd.matmul(3, x)",
        None,
        "matmul: a is 3, expected an array of float32 or float64",
    ),
    "None": ("gd.linear(x, None)", None, "linear: w is None, expected an array"),
    "a variable that may be None": (
        "gd.linear(x, w, b if other else None)",
        True,
        "linear: b is of type OptionalType(array(float32, 1d, C)), expected an array",
    ),
    "dimensions": ("gd.linear(b, w)", None, "linear: x has 1 dimensions, expected 2: (m, k)"),
    "read-only": (
        "gd.linear(x, w, out=other)",
        READ_ONLY,
        "linear: out is read-only, expected a writable array",
    ),
    "activation": (
        "gd.linear(x, w, b, 'swish')",
        None,
        "linear: activation is 'swish', expected one of identity, sigmoid, tanh, relu",
    ),
    "activation of another kind": (
        "gd.activation(x, other)",
        3,
        "activation: kind is of type int64, expected a name that stands in the call itself",
    ),
    "a name that is known only when it runs": (
        "gd.activation(x, other)",
        "relu",
        "activation: kind is of type unicode_type, expected a name that stands in the call itself",
    ),
    "reduction": (
        "gd.mse(x, x, None, 'avg')",
        None,
        "mse: reduction is 'avg', expected one of mean, sum, none",
    ),
    "a reduction that is known only when it runs": (
        "gd.mse(x, x, reduction=other)",
        "sum",
        "mse: reduction is of type unicode_type, expected one of mean, sum, none",
    ),
    "number": ("gd.dropout(x, 'half', 1)", None, "dropout: p is 'half', expected a probability in [0, 1]"),
    "complex number": ("gd.huber(x, x, other)", 1j, "huber: delta is of type complex128, expected"),
    "integer": (
        "gd.adam_step(x, x, x, x, 1.5, 0.1)",
        None,
        "adam_step: step is of type float64, expected a positive integer",
    ),
    "seed": ("gd.dropout(x, 0.5, other)", 1.5, "dropout: seed is of type float64, expected an integer"),
    "truth": ("gd.matmul(x, x, trans_a=1)", None, "matmul: trans_a is 1, expected True or False"),
    "accumulation into nothing": (
        "gd.matmul(x, w, accumulate=True)",
        None,
        "matmul: out is None, expected an array because accumulate is True",
    ),
    "accumulation into nothing, perhaps": (
        "gd.matmul(x, w, accumulate=other)",
        True,
        "matmul: out is None, expected an array because accumulate is of type bool",
    ),
    "accumulation of a gradient": (
        "gd.linear_backward(y, x, w, None, dw=w, accumulate=True)",
        None,
        "linear_backward: db is None, expected an array because accumulate is True",
    ),
    "need_dx": (
        "gd.linear_backward(y, x, w, None, need_dx=other)",
        True,
        "linear_backward: need_dx is of type bool, expected True or False in the call itself",
    ),
    "labels": (
        "gd.softmax_cross_entropy(y, other)",
        np.zeros(6, "i2"),
        "softmax_cross_entropy: target has dtype int16, expected int32 or int64 labels",
    ),
    "labels in rows": (
        "gd.softmax_cross_entropy(y, other)",
        np.zeros((6, 1), "i8"),
        "softmax_cross_entropy: target has 2 dimensions, expected 1: (m,)",
    ),
    "no target": (
        "gd.softmax_cross_entropy(y, None)",
        None,
        "softmax_cross_entropy: target is None, expected an array of labels or of probabilities",
    ),
    "list of parameters": (
        "gd.sgd_step([x], [x], None, 0.1)",
        None,
        "sgd_step: p is of type list(array(float32, 2d, C))",
    ),
    "list of gradients": (
        "gd.sgd_step((x,), [x], None, 0.1)",
        None,
        "sgd_step: g is of type list(array(float32, 2d, C))",
    ),
    "tuple of another length": (
        "gd.sgd_step((x, w), (x,), None, 0.1)",
        None,
        "sgd_step: g has 1 arrays, expected 2 like p",
    ),
    "tuple with None": (
        "gd.sgd_step((x, w), (x, w), (x, None), 0.1, 0.9)",
        None,
        "sgd_step: velocity holds None, expected arrays",
    ),
    "tuple of two types": (
        "gd.sgd_step((x, other), (x, other), None, 0.1)",
        np.ones(2),
        "sgd_step: p[1] has dtype float64, expected float32 because p[0] has float32",
    ),
    "norm of a list": (
        "gd.global_norm([x, x])",
        None,
        "global_norm: arrays[0] is of type list(array(float32, 2d, C))",
    ),
    "norm of two types": (
        "gd.global_norm(x, other)",
        np.ones(2),
        "global_norm: arrays[1] has dtype float64, expected float32 because arrays[0] has float32",
    ),
    "bound of a norm": (
        "gd.clip_by_global_norm(x, x)",
        None,
        "clip_by_global_norm: max_norm has dtype float32, expected a number ≥ 0",
    ),
    "clipping what is read-only": (
        "gd.clip_by_global_norm(1.0, other)",
        READ_ONLY,
        "clip_by_global_norm: arrays[0] is read-only, expected a writable array",
    ),
    "what is kept": ("gd.saved_for('swish')", None, "saved_for: kind is 'swish', expected one of identity"),
}


def call_of(text):
    names = {"gd": gd}
    exec(compile(f"def call(x, w, b, y, other):\n    return {text}\n", "user.py", "exec"), names)
    return njit(names["call"])


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_types_are_refused_when_a_call_is_compiled(case):
    text, other, sentence = WRONG_TYPES[case]
    arguments = {name: value.copy() for name, value in F4.items()}
    with pytest.raises(TypingError) as caught:
        call_of(text)(*arguments.values(), other)
    said = str(caught.value)
    assert sentence in said
    assert 'File "user.py", line 2' in said
    assert len(said.splitlines()) < 12, said
    for name, value in arguments.items():
        assert value.tobytes() == F4[name].tobytes()


def test_a_wrong_argument_and_a_missing_one_are_named():
    for text, words in (
        ("gd.linear(x)", "missing a required argument: 'w'"),
        ("gd.linear(x, w, bias=b)", "bias"),
    ):
        with pytest.raises(TypingError, match=words):
            call_of(text)(*F4.values(), None)


# ---------------------------------------------------------------------------------------------- when it runs


def layer(x, w, b, out, z):
    return gd.linear(x, w, b, "relu", out, z)


def gradient(da, x, w, saved, dx, dw, db, activation_reads):
    return gd.linear_backward(da, x, w, saved, "relu", dx, dw, db)


def unsaved(da, x, w):
    return gd.linear_backward(da, x, w, None, "relu")


def product(a, b, turned):
    return gd.matmul(a, b, turned)


def entropy(logits, target, grad, smoothing, weight):
    return gd.softmax_cross_entropy(logits, target, grad, label_smoothing=smoothing, class_weight=weight)


def terms(logits, target, grad):
    return gd.softmax_cross_entropy(logits, target, grad, "none")


def squares(pred, target, grad):
    return gd.mse(pred, target, grad)


def norm(x, gamma, out, stats, eps):
    return gd.layernorm(x, gamma, gamma, eps, None, out, stats)


def mask(x, p, out):
    return gd.dropout(x, p, 1, out=out)


def kept(da, saved, db):
    return gd.activation_backward(da, saved, "relu", db=db)


def unkept(da):
    return gd.activation_backward(da, None, "relu")


def adam(p, g, m, v, step, lr):
    gd.adam_step(p, g, m, v, step, lr)


def descent(p, g, momentum):
    gd.sgd_step(p, g, None, 0.1, momentum)


def clip(limit, x):
    return gd.clip_by_global_norm(limit, x)


def ones(*shape):
    return np.ones(shape, "f4")


X, W, B, Y = F4.values()
WRONG_VALUES = {
    "shape of a weight": (
        layer,
        (X, ones(5, 3), B, Y, Y.copy()),
        "linear: w has a shape that does not fit, expected (k, n) where x is (m, k)",
    ),
    "shape of a bias": (layer, (X, W, ones(4), Y, Y.copy()), "linear: b has a shape"),
    "shape of a result": (layer, (X, W, B, ones(5, 3), Y), "linear: out has a shape"),
    "shape of another result": (layer, (X, W, B, Y, ones(6, 4)), "linear: z has a shape"),
    "shape of a product": (product, (X, W, True), "matmul: b has a shape that does not fit"),
    "shape of a gradient": (gradient, (Y, X, W, Y, ones(6, 3), W, B, 0), "linear_backward: dx has a shape"),
    "what is saved": (unsaved, (Y, X, W), "linear_backward: saved is None, expected an array"),
    "a label above the classes": (
        entropy,
        (Y, LABELS + 1, Y.copy(), 0.0, B),
        "softmax_cross_entropy: target holds a label that is not a class",
    ),
    "a negative label": (
        terms,
        (Y, LABELS - 1, Y.copy()),
        "softmax_cross_entropy: target holds a label that is not a class",
    ),
    "a narrow label": (
        terms,
        (Y, LABELS.astype("i4") + 1, Y.copy()),
        "softmax_cross_entropy: target holds a label that is not a class",
    ),
    "number of labels": (
        entropy,
        (Y, LABELS[1:], Y.copy(), 0.0, B),
        "softmax_cross_entropy: target has a shape that does not fit, expected (m,) where logits is (m, n)",
    ),
    "smoothing": (
        entropy,
        (Y, LABELS, Y.copy(), 1.5, B),
        "softmax_cross_entropy: label_smoothing is out of range, expected a number in [0, 1]",
    ),
    "weights of classes": (
        entropy,
        (Y, LABELS, Y.copy(), 0.5, ones(4)),
        "softmax_cross_entropy: class_weight has a shape",
    ),
    "shape of a target": (
        squares,
        (X, Y, X.copy()),
        "mse: target has a shape that does not fit, expected that of pred",
    ),
    "no column": (norm, (ones(3, 0), ones(0), ones(3, 0), ones(3, 2), 0.1), "layernorm: x has a shape"),
    "shape of statistics": (
        norm,
        (X, ones(4), X.copy(), ones(6, 3), 0.1),
        "layernorm: stats has a shape that does not fit, expected (m, 2) where x is (m, n)",
    ),
    "epsilon": (
        norm,
        (X, ones(4), X.copy(), ones(6, 2), -1.0),
        "layernorm: eps is out of range, expected a finite number ≥ 0",
    ),
    "epsilon that is no number": (
        norm,
        (X, ones(4), X.copy(), ones(6, 2), np.nan),
        "layernorm: eps is out of range",
    ),
    "probability": (mask, (X, 1.5, X.copy()), "dropout: p is out of range, expected a probability in [0, 1]"),
    "shape of a mask": (mask, (X, 0.5, Y), "dropout: out has a shape that does not fit, expected that of x"),
    "sums of no matrix": (kept, (ones(3), ones(3), ones(3)), "activation_backward: da has a shape"),
    "length of the sums": (kept, (X, X.copy(), ones(3)), "activation_backward: db has a shape"),
    "what is kept": (unkept, (X,), "activation_backward: saved is None, expected an array"),
    "number of a step": (
        adam,
        (X, X.copy(), X.copy(), X.copy(), 0, 0.1),
        "adam_step: step is out of range, expected a positive integer",
    ),
    "rate": (
        adam,
        (X, X.copy(), X.copy(), X.copy(), 1, -0.1),
        "adam_step: lr is out of range, expected a finite number ≥ 0",
    ),
    "shape of a state": (
        adam,
        (X, X.copy(), X.copy(), Y, 1, 0.1),
        "adam_step: v has a shape that does not fit, expected that of p",
    ),
    "shape in a tuple": (
        adam,
        ((X, Y), (X.copy(), Y.copy()), (X.copy(), W), (X.copy(), Y.copy()), 1, 0.1),
        "adam_step: m has a shape",
    ),
    "no velocity": (descent, (X, X.copy(), 0.9), "sgd_step: velocity is None, expected an array"),
    "no velocity in a tuple": (
        descent,
        ((X, Y), (X.copy(), Y.copy()), 0.9),
        "sgd_step: velocity is None, expected an array",
    ),
    "bound of a norm": (
        clip,
        (-1.0, X),
        "clip_by_global_norm: max_norm is out of range, expected a number ≥ 0",
    ),
    "bound that is no number": (clip, (np.nan, X), "clip_by_global_norm: max_norm is out of range"),
}


def bytes_of(arguments):
    return [
        bytes_of(one) if isinstance(one, tuple) else one.tobytes() if isinstance(one, np.ndarray) else one
        for one in arguments
    ]


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_values_are_refused_when_a_call_runs_and_nothing_is_changed(case):
    function, arguments, sentence = WRONG_VALUES[case]
    before = repr(bytes_of(arguments))
    with pytest.raises(ValueError) as caught:
        compiled(function)(*arguments)
    assert str(caught.value).startswith(sentence)
    assert repr(bytes_of(arguments)) == before
    with pytest.raises(ValueError):
        function(*arguments)


def test_an_error_can_be_handled_where_it_happens():
    @njit
    def careful(x, w):
        try:
            gd.linear(x, w)
        except Exception:
            return 1
        return 0

    assert careful(X, W) == 0
    assert careful(X, W.T.copy()) == 1


# ---------------------------------------------------------------------------------------------- arrays without elements


def empty_products(x, w, b):
    return gd.matmul(x, w), gd.linear(x, w, b, "gelu"), gd.linear_backward(gd.matmul(x, w), x, w, None)


def empty_elements(x, y):
    activations = gd.activation(x, "silu"), gd.dropout(x, 0.5, 1), gd.softmax(x)
    gd.lion_step(x, y, y.copy(), 0.1)
    return activations, gd.huber(x, y, reduction="none"), gd.global_norm(x), gd.mse(x, y, reduction="sum")


def empty_means(x, y):
    return gd.mse(x, y), gd.log_cosh(x, y)


def empty_rows(x, labels):
    return gd.softmax_cross_entropy(x, labels, reduction="sum"), gd.softmax_cross_entropy(x, labels)


def empty_norm(x, gamma):
    return gd.rmsnorm(x, gamma), gd.scale(x, gamma), gd.scale_backward(x, x, gamma)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(0, 4, 3), (5, 0, 3), (5, 4, 0), (0, 0, 0)])
def test_arrays_without_elements_give_what_they_give_in_python(rows, inner, columns):
    results, x = [], ones(rows, inner)
    for function, arguments in (
        (empty_products, (x, ones(inner, columns), ones(columns))),
        (empty_elements, (x, x.copy())),
        (empty_means, (x, x.copy())),
        (empty_rows, (x, np.zeros(rows, "i8"))),
        (empty_norm, (x, ones(inner))),
    ):
        for call in (function, compiled(function)):
            try:
                results.append(repr(call(*copies(arguments))))
            except ValueError as error:
                results.append(str(error).partition(" has")[0])
    assert results[0::2] == results[1::2]
