"""What PyTorch needs for the same work as our kernels, where it is installed and sees the GPU.

Arrays come as `gdkernels.cuda.runtime.arrays.Array`, whose owners are tensors then. Each method returns a function without
arguments that launches the work on PyTorch's current stream; results come from PyTorch's caching allocator, as for users.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]


class Torch:
    """PyTorch's operations by our names."""

    optimizers = ("sgd", "adam", "adamw")

    def __init__(self, torch: Any):
        self.torch, self._f, self._aten = torch, torch.nn.functional, torch.ops.aten

    @classmethod
    def find(cls) -> "Torch | None":
        """None where PyTorch is not installed or has no CUDA."""
        if importlib.util.find_spec("torch") is None:
            return None
        import torch

        return cls(torch) if torch.cuda.is_available() else None

    # ------------------------------------------------------------------------------------------ products

    def matmul(self, a: Any, b: Any, out: Any, tf32: bool) -> Work:
        """out = a @ b by cuBLAS; a and b may be transposed views."""

        def work() -> None:
            self.torch.backends.cuda.matmul.allow_tf32 = tf32
            self.torch.matmul(a, b, out=out)

        return work

    # ------------------------------------------------------------------------------------------ elements

    def forward(self, kind: str, z: Any) -> Work:
        act = {"relu": self.torch.relu, "gelu": self._f.gelu, "tanh": self.torch.tanh}[kind]
        return lambda: act(z.owner)

    def backward(self, kind: str, da: Any, saved: Any) -> Work:
        """dz, and db as its sum over the rows."""
        slope = {
            "relu": lambda: self._aten.threshold_backward(da.owner, saved.owner, 0.0),
            "gelu": lambda: self._aten.gelu_backward(da.owner, saved.owner),
            "tanh": lambda: self._aten.tanh_backward(da.owner, saved.owner),
        }[kind]
        return lambda: slope().sum(0)

    def dropout(self, x: Any, p: float) -> Work:
        return lambda: self._f.dropout(x.owner, p)

    # ------------------------------------------------------------------------------------------ rows

    def layernorm(self, x: Any, gamma: Any, beta: Any, eps: float) -> Work:
        return lambda: self._aten.native_layer_norm(x.owner, [x.shape[1]], gamma.owner, beta.owner, eps)

    def layernorm_backward(
        self, dy: Any, x: Any, gamma: Any, beta: Any, eps: float, wanted: list[bool]
    ) -> Work:
        """Of dx, dgamma and dbeta those that are wanted."""
        _, mean, rstd = self.layernorm(x, gamma, beta, eps)()
        operands = dy.owner, x.owner, [x.shape[1]], mean, rstd, gamma.owner, beta.owner, wanted
        return lambda: self._aten.native_layer_norm_backward(*operands)

    def softmax(self, x: Any) -> Work:
        return lambda: self.torch.softmax(x.owner, -1)

    def cross_entropy(self, logits: Any, labels: Any) -> Work:
        """The loss and its gradient."""
        leaf = logits.owner.detach().requires_grad_()
        return lambda: self.torch.autograd.grad(self._f.cross_entropy(leaf, labels.owner), leaf)

    def mse(self, pred: Any, target: Any) -> Work:
        """The loss and its gradient."""
        leaf, goal = pred.owner.detach().requires_grad_(), target.owner.to(pred.owner.dtype)
        return lambda: self.torch.autograd.grad(self._f.mse_loss(leaf, goal), leaf)

    # ------------------------------------------------------------------------------------------ parameters

    def optimizer(self, name: str, p: Any, g: Any, lr: float) -> Work:
        """A fused step of one of `optimizers`."""
        parameter = self.torch.nn.Parameter(p.owner.clone())
        parameter.grad = g.owner.clone()
        optim = self.torch.optim
        make = {
            "sgd": lambda: optim.SGD([parameter], lr=lr, momentum=0.9, weight_decay=0.01, fused=True),
            "adam": lambda: optim.Adam([parameter], lr=lr, weight_decay=0.01, fused=True),
            "adamw": lambda: optim.AdamW([parameter], lr=lr, weight_decay=0.01, fused=True),
        }[name]
        return make().step

    def norm(self, g: Any) -> Work:
        return lambda: self.torch.linalg.vector_norm(g.owner)
