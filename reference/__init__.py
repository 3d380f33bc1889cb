"""gdkernels in pure NumPy: every operation in a few lines of float64, with its derivation.

The lecture, and the judge: kernels are tested against these functions, and these against finite differences
(`gradcheck`). Names and argument order are the package's; what a kernel writes into an argument (z, stats,
grad, the state of an optimizer) is returned here instead, and nothing is modified.

In reading order: matmul, activation, linear, loss, softmax, cross_entropy, gradcheck; then dropout, norm, init, optim,
schedules, clip. As in the package, schedules and initialisers are called `schedules.cosine`, `init.he_normal`.
"""

from . import init, schedules
from .activation import KINDS, activation, activation_backward, activation_slope, saved_for
from .clip import clip_by_global_norm, global_norm
from .cross_entropy import softmax_cross_entropy
from .dropout import dropout, dropout_backward, dropout_mask, philox4x32, uniform_words
from .gradcheck import numerical_gradient
from .linear import linear, linear_backward
from .loss import binary_cross_entropy, huber, mse
from .matmul import matmul
from .norm import layernorm, layernorm_backward, rmsnorm, rmsnorm_backward
from .optim import adagrad_step, adam_step, adamw_step, amsgrad_step, lion_step, rmsprop_step, sgd_step
from .softmax import log_softmax, softmax

__all__ = [
    "KINDS",
    "activation",
    "activation_backward",
    "activation_slope",
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "amsgrad_step",
    "binary_cross_entropy",
    "clip_by_global_norm",
    "dropout",
    "dropout_backward",
    "dropout_mask",
    "global_norm",
    "huber",
    "init",
    "layernorm",
    "layernorm_backward",
    "linear",
    "linear_backward",
    "lion_step",
    "log_softmax",
    "matmul",
    "mse",
    "numerical_gradient",
    "philox4x32",
    "rmsnorm",
    "rmsnorm_backward",
    "rmsprop_step",
    "saved_for",
    "schedules",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "uniform_words",
]
