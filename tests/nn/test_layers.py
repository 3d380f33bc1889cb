"""Layers are data that is checked when it is made."""

import re

import numpy as np
import pytest

from gdkernels.nn.layers import INITS, Activation, Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from reference import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_he_for_relu_like_and_xavier_for_the_others(kind):
    xavier = dict.fromkeys(("identity", "sigmoid", "tanh"), "xavier_uniform") | {"selu": "xavier_normal"}
    assert Linear(3, 2, kind).initializer == xavier.get(kind, "he_normal")
    assert Linear(3, 2, kind, init="xavier_normal").initializer == "xavier_normal"


def test_layers_are_equal_by_value_hashable_and_frozen():
    assert Linear(3, 2, "relu") == Linear(np.int64(3), 2, "relu")
    assert Residual(Linear(3, 3)) == Residual(Linear(3, 3)) != Residual(LayerNorm(3))
    assert len({Dropout(0.5), Dropout(0.5), RMSNorm(4)}) == 2
    with pytest.raises(AttributeError):
        Linear(3, 2).n_in = 4


@pytest.mark.parametrize(
    "layer",
    [
        Linear(3, 2, "relu", bias=False),
        LayerNorm(4, 1e-3),
        Scale(4),
        Residual(Activation("elu"), Dropout(0.1)),
    ],
)
def test_repr_makes_the_layer_again(layer):
    assert eval(repr(layer)) == layer


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Linear(0, 2), ValueError, "Linear: n_in is 0, expected a positive integer"),
        (lambda: Linear(3, -1), ValueError, "Linear: n_out is -1, expected a positive integer"),
        (lambda: Linear(3.0, 2), TypeError, "Linear: n_in is 3.0, expected a positive integer"),
        (lambda: Linear(True, 2), TypeError, "Linear: n_in is True, expected a positive integer"),
        (lambda: Linear(3, 2, "rleu"), ValueError, "activation is 'rleu', expected one of identity, sigmoid"),
        (lambda: Linear(3, 2, init="he"), ValueError, f"init is 'he', expected one of {', '.join(INITS)}"),
        (lambda: Linear(3, 2, bias=1), TypeError, "Linear: bias is 1, expected True or False"),
        (lambda: LayerNorm("4"), TypeError, "LayerNorm: n is '4', expected a positive integer"),
        (
            lambda: LayerNorm(4, eps=-1e-5),
            ValueError,
            "LayerNorm: eps is -1e-05, expected a finite number ≥ 0",
        ),
        (
            lambda: RMSNorm(4, eps=float("nan")),
            ValueError,
            "RMSNorm: eps is nan, expected a finite number ≥ 0",
        ),
        (lambda: Scale(0), ValueError, "Scale: n is 0, expected a positive integer"),
        (lambda: Activation("swish"), ValueError, "Activation: kind is 'swish', expected one of"),
        (lambda: Dropout(1.5), ValueError, "Dropout: p is 1.5, expected a probability in [0, 1]"),
        (lambda: Dropout("half"), TypeError, "Dropout: p is 'half', expected a probability in [0, 1]"),
        (lambda: Residual(), ValueError, "Residual: layers is empty, expected at least one layer"),
        (lambda: Residual(Linear(3, 3), "relu"), TypeError, "Residual: layer 1 is 'relu', expected one of"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
