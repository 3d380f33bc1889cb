"""Small networks that together hold every layer in every neighbourhood that lowers in its own way."""

from gdkernels.nn.layers import Activation, Dropout, LayerNorm, Linear, Residual, RMSNorm, Scale
from reference import KINDS

NETWORKS = {
    "linear": [Linear(4, 3)],
    "no_bias": [Linear(4, 3, bias=False), Linear(3, 2, "tanh", bias=False)],
    "two_layers": [Linear(4, 5, "tanh"), Linear(5, 2)],
    "activation_last": [Linear(4, 5, "silu"), Linear(5, 2, "sigmoid")],
    "separate_activations": [
        Activation("tanh"), Linear(4, 5), Activation("gelu"), Activation("sigmoid"), Linear(5, 2),
    ],
    "activation_behind_norm": [Linear(4, 5), LayerNorm(5), Activation("elu"), Linear(5, 2)],
    "dropout": [Dropout(0.3), Linear(4, 6, "tanh"), Dropout(0.5), Linear(6, 3), Dropout(0.2)],
    "layernorm_first": [LayerNorm(4), Linear(4, 3)],
    "layernorm_last": [Linear(4, 3), LayerNorm(3)],
    "rmsnorm": [RMSNorm(4), Linear(4, 5, "mish"), RMSNorm(5)],
    "two_norms": [LayerNorm(4), RMSNorm(4), Linear(4, 2)],
    "scale": [Scale(4), Linear(4, 5, "tanh"), Scale(5), Linear(5, 2), Scale(2)],
    "scaled_residual": [Linear(4, 5), Residual(LayerNorm(5), Linear(5, 5, "gelu"), Scale(5)), Linear(5, 2)],
    "residual_then_scale": [Residual(Linear(4, 4, "tanh")), Scale(4), Residual(Scale(4)), Linear(4, 2)],
    "residual": [Residual(Linear(4, 4, "tanh")), Linear(4, 2)],
    "residual_two_layers": [
        Linear(4, 5), Residual(Linear(5, 7, "softplus"), Linear(7, 5, "tanh")), Linear(5, 2),
    ],
    "residual_last": [Linear(4, 3, "tanh"), Residual(Linear(3, 3, "sigmoid"))],
    "residual_last_identity": [Linear(4, 3, "tanh"), Residual(Linear(3, 3))],
    "residual_chain": [Residual(Linear(4, 4, "tanh")), Residual(Linear(4, 4, "silu"))],
    "residual_activation": [Linear(4, 3), Residual(Activation("tanh")), Linear(3, 2)],
    "residual_then_activation": [Residual(Linear(4, 4)), Activation("tanh"), Linear(4, 2)],
    "residual_dropout": [Linear(4, 3), Residual(Dropout(0.4)), Linear(3, 2)],
    "residual_of_nothing": [Linear(4, 3), Residual(Dropout(0.0), Activation("identity")), Linear(3, 2)],
    "pre_norm": [
        Linear(4, 5),
        Residual(LayerNorm(5), Linear(5, 5, "gelu_tanh"), Dropout(0.3)),
        Residual(RMSNorm(5), Linear(5, 5, "gelu")),
        Linear(5, 2),
    ],
    "post_norm": [
        Residual(Linear(4, 4, "tanh")),
        LayerNorm(4),
        Residual(Linear(4, 4, "silu"), Dropout(0.2)),
        RMSNorm(4),
    ],
    "nested": [
        Residual(
            Residual(Linear(4, 4, "tanh"), LayerNorm(4)), Linear(4, 4, "sigmoid"), Residual(Activation("elu"))
        ),
        Linear(4, 2),
    ],
    "nested_post_norm": [
        Linear(4, 4), Residual(Residual(Residual(Linear(4, 4, "tanh"))), RMSNorm(4)), LayerNorm(4),
    ],
    "nested_first": [Residual(Residual(Residual(Activation("tanh"), Linear(4, 4))))],
    **{f"activation_{kind}": [Linear(4, 5, kind), Linear(5, 2)] for kind in KINDS},
}  # fmt: skip
