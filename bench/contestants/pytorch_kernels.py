"""PyTorch's kernels, eager: what its modules, autograd and optimizers call, with results given where they can be."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import cross_entropy, rms_norm

from ..operations import ADAM, ADAM_STEP, DROPOUT, EPS, OPERATIONS, Arrays
from .calls import Calls, keep_memory

aten = torch.ops.aten
Prepared = tuple[Callable[[], object], Callable[[], Arrays]]


def _gemm(a, b) -> Prepared:
    out = torch.empty(a.shape[0], b.shape[1])
    return lambda: torch.mm(a, b, out=out), lambda: {"out": out}


def _adam(p, g, m, v) -> Prepared:
    """The fused optimizer, in the state after some steps."""
    p = torch.nn.Parameter(p.clone())
    p.grad = g
    optimizer = torch.optim.Adam(
        [p], lr=ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"], fused=True
    )
    m, v = m.clone(), v.clone()
    optimizer.state[p] = {"step": torch.tensor(float(ADAM_STEP - 1)), "exp_avg": m, "exp_avg_sq": v}
    return optimizer.step, lambda: {"p": p.detach(), "m": m, "v": v}


FORWARD = {
    "relu": lambda z, a: torch.clamp_min(z, 0, out=a),
    "gelu": lambda z, a: torch._C._nn.gelu(z, out=a),
    "tanh": lambda z, a: torch.tanh(z, out=a),
    "sigmoid": lambda z, a: torch.sigmoid(z, out=a),
    "silu": lambda z, a: aten.silu.out(z, out=a),
    "softplus": lambda z, a: torch._C._nn.softplus(z, out=a),
    "mish": lambda z, a: aten.mish.out(z, out=a),
}
BACKWARD = {
    "relu": lambda da, a, dz: aten.threshold_backward.grad_input(da, a, 0, grad_input=dz),
    "gelu": lambda da, z, dz: aten.gelu_backward.grad_input(da, z, grad_input=dz),
    "tanh": lambda da, a, dz: aten.tanh_backward.grad_input(da, a, grad_input=dz),
    "sigmoid": lambda da, a, dz: aten.sigmoid_backward.grad_input(da, a, grad_input=dz),
    "silu": lambda da, z, dz: aten.silu_backward.grad_input(da, z, grad_input=dz),
    "softplus": lambda da, z, dz: aten.softplus_backward.grad_input(da, z, 1, 20, grad_input=dz),
}


def _forward(kind: str, z) -> Prepared:
    a = torch.empty_like(z)
    return partial(FORWARD[kind], z, a), lambda: {"a": a}


def _backward(kind: str, da, saved) -> Prepared:
    dz, db = torch.empty_like(da), torch.empty(da.shape[1])

    def call():
        BACKWARD[kind](da, saved, dz)
        torch.sum(dz, 0, out=db)

    return call, lambda: {"dz": dz, "db": db}


def _mish_backward(da, saved) -> Prepared:
    """Has no variant that writes into memory that is given."""

    def call():
        dz = aten.mish_backward(da, saved)
        return dz, dz.sum(0)

    return _keeping(call, "dz", "db")


def _keeping(call: Callable[[], object], *names: str) -> Prepared:
    """For functions that allocate their results: the last ones are kept, and freed when the next are there."""
    last: dict[str, torch.Tensor] = {}

    def run():
        last.update(zip(names, call(), strict=False))

    return run, lambda: dict(last)


def _layernorm(x, gamma, beta) -> Prepared:
    return _keeping(lambda: torch.native_layer_norm(x, gamma.shape, gamma, beta, EPS), "y")


def _layernorm_backward(dy, x, gamma, stats) -> Prepared:
    mean, rstd, beta = stats[:, :1].contiguous(), stats[:, 1:].contiguous(), torch.zeros_like(gamma)
    return _keeping(
        lambda: aten.native_layer_norm_backward(
            dy, x, gamma.shape, mean, rstd, gamma, beta, [True, True, True]
        ),
        "dx", "dgamma", "dbeta",
    )  # fmt: skip


def _rmsnorm(x, gamma) -> Prepared:
    return _keeping(lambda: aten._fused_rms_norm(x, gamma.shape, gamma, EPS), "y")


def _rmsnorm_backward(dy, x, gamma, stats) -> Prepared:
    """What autograd calls; there is no kernel of its own for CPUs."""
    inputs = x.requires_grad_(True), gamma.requires_grad_(True)
    y = rms_norm(x, gamma.shape, gamma, EPS)
    return _keeping(lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True), "dx", "dgamma")


def _softmax(x) -> Prepared:
    out = torch.empty_like(x)
    return lambda: torch.softmax(x, 1, out=out), lambda: {"p": out}


def _cross_entropy(logits, target) -> Prepared:
    logits.requires_grad_(True)

    def call():
        loss = cross_entropy(logits, target)
        return *torch.autograd.grad(loss, logits), loss.detach()

    return _keeping(call, "grad", "loss")


def _dropout(x) -> Prepared:
    return _keeping(lambda: torch.native_dropout(x, DROPOUT, True), "out")


PREPARE = {
    "gemm": _gemm,
    "adam": _adam,
    **{kind: partial(_forward, kind) for kind in FORWARD},
    **{f"{kind} backward": partial(_backward, kind) for kind in BACKWARD},
    "mish backward": _mish_backward,
    "layernorm": _layernorm,
    "layernorm backward": _layernorm_backward,
    "rmsnorm": _rmsnorm,
    "rmsnorm backward": _rmsnorm_backward,
    "softmax": _softmax,
    "cross-entropy": _cross_entropy,
    "dropout": _dropout,
}


def make(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
    keep_memory()
    torch.set_num_threads(threads)
    inputs = OPERATIONS[op].inputs(shape, form)
    call, results = PREPARE[op](**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return Calls(inputs, call, results)


KERNELS = {"torch": {op: partial(make, op) for op in PREPARE}}
