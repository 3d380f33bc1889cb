"""Forward and backward kernels for dense neural networks, written in Numba.

>>> import gdkernels as gd

Array functions (`gd.linear`, `gd.adam_step`, …) work on NumPy arrays; `gd.mlp` builds a network and `gd.Trainer` trains
it. Everything is imported when it is first used, so that the import of the package costs next to nothing.
"""

import importlib

TYPE_CHECKING = (
    False  # type checkers take it for true; importing it from typing would double the time of the import
)
if TYPE_CHECKING:
    from typing import Any

    from . import cuda as cuda
    from . import testing as testing
    from .cpu.runtime.team import get_threads as get_threads
    from .cpu.runtime.team import set_threads as set_threads
    from .nn import init as init
    from .nn.layers import Activation as Activation
    from .nn.layers import Dropout as Dropout
    from .nn.layers import LayerNorm as LayerNorm
    from .nn.layers import Linear as Linear
    from .nn.layers import Residual as Residual
    from .nn.layers import RMSNorm as RMSNorm
    from .nn.network import Network as Network
    from .nn.network import load as load
    from .nn.network import mlp as mlp
    from .ops.activation import activation as activation
    from .ops.activation import activation_backward as activation_backward
    from .ops.activation import saved_for as saved_for
    from .ops.clip import clip_by_global_norm as clip_by_global_norm
    from .ops.clip import global_norm as global_norm
    from .ops.cross_entropy import softmax_cross_entropy as softmax_cross_entropy
    from .ops.dropout import dropout as dropout
    from .ops.dropout import dropout_backward as dropout_backward
    from .ops.linear import linear as linear
    from .ops.linear import linear_backward as linear_backward
    from .ops.loss import binary_cross_entropy as binary_cross_entropy
    from .ops.loss import huber as huber
    from .ops.loss import mse as mse
    from .ops.matmul import matmul as matmul
    from .ops.norm import layernorm as layernorm
    from .ops.norm import layernorm_backward as layernorm_backward
    from .ops.norm import rmsnorm as rmsnorm
    from .ops.norm import rmsnorm_backward as rmsnorm_backward
    from .ops.optim import adagrad_step as adagrad_step
    from .ops.optim import adam_step as adam_step
    from .ops.optim import adamw_step as adamw_step
    from .ops.optim import amsgrad_step as amsgrad_step
    from .ops.optim import lion_step as lion_step
    from .ops.optim import rmsprop_step as rmsprop_step
    from .ops.optim import sgd_step as sgd_step
    from .ops.softmax import log_softmax as log_softmax
    from .ops.softmax import softmax as softmax
    from .train import schedules as schedules
    from .train.loss import MSE as MSE
    from .train.loss import BinaryCrossEntropy as BinaryCrossEntropy
    from .train.loss import Huber as Huber
    from .train.loss import SoftmaxCrossEntropy as SoftmaxCrossEntropy
    from .train.optim import SGD as SGD
    from .train.optim import AdaGrad as AdaGrad
    from .train.optim import Adam as Adam
    from .train.optim import AdamW as AdamW
    from .train.optim import AMSGrad as AMSGrad
    from .train.optim import Lion as Lion
    from .train.optim import RMSProp as RMSProp
    from .train.trainer import History as History
    from .train.trainer import Trainer as Trainer

__version__ = "0.1.0"

# Where the names above live; a test holds the two lists together.
_SUBMODULES = {"cuda": ".cuda", "init": ".nn.init", "schedules": ".train.schedules", "testing": ".testing"}
_NAMES = {
    ".cpu.runtime.team": ("get_threads", "set_threads"),
    ".nn.layers": ("Activation", "Dropout", "LayerNorm", "Linear", "RMSNorm", "Residual"),
    ".nn.network": ("Network", "load", "mlp"),
    ".ops.activation": ("activation", "activation_backward", "saved_for"),
    ".ops.clip": ("clip_by_global_norm", "global_norm"),
    ".ops.cross_entropy": ("softmax_cross_entropy",),
    ".ops.dropout": ("dropout", "dropout_backward"),
    ".ops.linear": ("linear", "linear_backward"),
    ".ops.loss": ("binary_cross_entropy", "huber", "mse"),
    ".ops.matmul": ("matmul",),
    ".ops.norm": ("layernorm", "layernorm_backward", "rmsnorm", "rmsnorm_backward"),
    ".ops.optim": (
        "adagrad_step",
        "adam_step",
        "adamw_step",
        "amsgrad_step",
        "lion_step",
        "rmsprop_step",
        "sgd_step",
    ),
    ".ops.softmax": ("log_softmax", "softmax"),
    ".train.loss": ("BinaryCrossEntropy", "Huber", "MSE", "SoftmaxCrossEntropy"),
    ".train.optim": ("AMSGrad", "AdaGrad", "Adam", "AdamW", "Lion", "RMSProp", "SGD"),
    ".train.trainer": ("History", "Trainer"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted({*_SUBMODULES, *_HOME})


def __getattr__(name: str) -> "Any":
    if name in _SUBMODULES:
        value: Any = importlib.import_module(_SUBMODULES[name], __name__)
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
