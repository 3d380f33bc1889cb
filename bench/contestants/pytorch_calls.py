"""The array operations in PyTorch, eager: under ``torch.no_grad``, with `out` where there is one; backward passes call what
autograd calls, or are written out.

Optimizers are the fused functions behind ``torch.optim.…(fused=True).step()``, called directly on lists, without what an
optimizer object does besides: sgd, adagrad, adam, adamw, amsgrad. RMSprop, NAdam and Lion have none, and are written out in
place. The count of the steps stands still, as ours does. Losses stay tensors.
"""

from math import log
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ..array_operations import DECAY, LR, MANY, MAX_NORM, MOMENTUM, RMS_EPS, STEP
from ..cases import BETA1, BETA2
from ..cases import EPS as ADAM_EPS
from ..operations import DROPOUT, EPS
from .array_calls import Call, Writer, fastest, writers
from .numpy_calls import ADAGRAD_EPS, ALPHA, DELTA, LION_BETA2, nadam_rates

aten = torch.ops.aten
MEAN = 1  # of the reductions


def matmul(a, b, out):
    return lambda: torch.mm(a, b), lambda: torch.mm(a, b, out=out)


def linear(x, w, b, out):
    def given():
        torch.addmm(b, x, w, out=out)
        torch.relu_(out)

    return lambda: torch.relu_(torch.addmm(b, x, w)), given


def linear_backward(da, x, w, saved, dx, dw, db):
    wt, xt = w.t(), x.t()

    def allocated():
        dz = aten.threshold_backward(da, saved, 0)
        return torch.mm(dz, wt), torch.mm(xt, dz), torch.sum(dz, 0)

    def given():
        dz = aten.threshold_backward(da, saved, 0)
        torch.mm(dz, wt, out=dx)
        torch.mm(xt, dz, out=dw)
        torch.sum(dz, 0, out=db)

    return allocated, given


def relu(z, out):
    return lambda: torch.relu(z), lambda: torch.clamp_min(z, 0, out=out)


def relu_backward(da, saved, out):
    return (
        fastest(lambda: aten.threshold_backward(da, saved, 0), lambda: da * (saved > 0)),
        fastest(
            lambda: aten.threshold_backward.grad_input(da, saved, 0, grad_input=out),
            lambda: torch.mul(da, saved > 0, out=out),
        ),
    )


def tanh(z, out):
    return lambda: torch.tanh(z), lambda: torch.tanh(z, out=out)


def tanh_backward(da, saved, out):
    return (
        fastest(
            lambda: aten.tanh_backward(da, saved), lambda: torch.addcmul(da, da * saved, saved, value=-1)
        ),
        lambda: aten.tanh_backward.grad_input(da, saved, grad_input=out),
    )


# ---------------------------------------------------------------------------------------------- rows


def layernorm(x, gamma, beta, out):
    return lambda: torch.native_layer_norm(x, gamma.shape, gamma, beta, EPS)


def layernorm_backward(dy, x, gamma, stats, dx, dgamma, dbeta):
    mean, rstd, beta = stats[:, :1].contiguous(), stats[:, 1:].contiguous(), torch.zeros_like(gamma)
    return lambda: aten.native_layer_norm_backward(
        dy, x, gamma.shape, mean, rstd, gamma, beta, [True, True, True]
    )


def rmsnorm(x, gamma, out):
    """PyTorch's own is composed of such operations on a CPU, and so is its backward pass."""
    n = x.shape[1]

    def squares():
        rstd = torch.mean(x * x, 1, True).add_(RMS_EPS).rsqrt_()
        return (x * rstd).mul_(gamma), rstd

    def norms():
        rstd = torch.linalg.vector_norm(x, 2, 1, True).square_().div_(n).add_(RMS_EPS).rsqrt_()
        return (x * rstd).mul_(gamma), rstd

    def given():
        rstd = torch.linalg.vector_norm(x, 2, 1, True).square_().div_(n).add_(RMS_EPS).rsqrt_()
        torch.mul(x, rstd, out=out).mul_(gamma)
        return rstd

    return fastest(squares, norms, lambda: torch.rms_norm(x, gamma.shape, gamma, RMS_EPS)), given


def rmsnorm_backward(dy, x, gamma, stats, dx, dgamma):
    rstd = stats[:, None].contiguous()

    def allocated():
        h, g = x * rstd, dy * gamma
        dgamma = torch.sum(dy * h, 0)
        h *= torch.mean(g * h, 1, True)
        return g.sub_(h).mul_(rstd), dgamma

    def given():
        h, g = x * rstd, torch.mul(dy, gamma, out=dx)
        torch.sum(dy * h, 0, out=dgamma)
        h *= torch.mean(g * h, 1, True)
        g.sub_(h).mul_(rstd)

    return allocated, given


def scale(x, gamma, out):
    return lambda: x * gamma, lambda: torch.mul(x, gamma, out=out)


def scale_backward(dy, x, gamma, dx, dgamma):
    def given():
        torch.mul(dy, gamma, out=dx)
        torch.sum(dy * x, 0, out=dgamma)

    return lambda: (dy * gamma, torch.sum(dy * x, 0)), given


def softmax(x, out):
    return lambda: torch.softmax(x, 1), lambda: torch.softmax(x, 1, out=out)


def log_softmax(x, out):
    return lambda: torch.log_softmax(x, 1), lambda: torch.log_softmax(x, 1, out=out)


# ---------------------------------------------------------------------------------------------- losses


def mse(pred, target, grad):
    """PyTorch's function, or the squares of the differences that the gradient needs, whichever is faster."""
    n = pred.numel()
    flat = grad.view(-1)

    def whole():
        return torch._C._nn.mse_loss(pred, target, MEAN), (pred - target).mul_(2 / n)

    def shared():
        e = pred - target
        line = e.view(-1)
        return torch.dot(line, line).div_(n), e.mul_(2 / n)

    def whole_given():
        loss = torch._C._nn.mse_loss(pred, target, MEAN)
        torch.sub(pred, target, out=grad).mul_(2 / n)
        return loss

    def shared_given():
        torch.sub(pred, target, out=grad)
        loss = torch.dot(flat, flat).div_(n)
        grad.mul_(2 / n)
        return loss

    return fastest(whole, shared), fastest(whole_given, shared_given)


def huber(pred, target, grad):
    n = pred.numel()

    def given():
        loss = torch._C._nn.huber_loss(pred, target, MEAN, DELTA)
        torch.sub(pred, target, out=grad).clamp_(-DELTA, DELTA).div_(n)
        return loss

    return (
        lambda: (
            torch._C._nn.huber_loss(pred, target, MEAN, DELTA),
            (pred - target).clamp_(-DELTA, DELTA).div_(n),
        ),
        given,
    )


def log_cosh(pred, target, grad):
    """log cosh e = log(e^e + e^(−e)) − log 2."""
    n, log2 = pred.numel(), log(2.0)

    def allocated():
        e = pred - target
        return torch.logaddexp(e, -e).mean().sub_(log2), e.tanh_().div_(n)

    def given():
        torch.sub(pred, target, out=grad)
        loss = torch.logaddexp(grad, -grad).mean().sub_(log2)
        grad.tanh_().div_(n)
        return loss

    return allocated, given


def binary_cross_entropy(pred, target, grad):
    """PyTorch's function, or max(z, 0) − z t + log(1 + e^(−|z|)) in steps, whichever is faster."""
    n = pred.numel()

    def whole():
        return torch.binary_cross_entropy_with_logits(pred, target, None, None, MEAN)

    def steps():
        return torch.clamp_min(pred, 0).addcmul_(pred, target, value=-1).add_(
            pred.abs().neg_().exp_().log1p_()
        ).mean()  # fmt: skip

    value = fastest(whole, steps)

    def given():
        torch.sigmoid(pred, out=grad).sub_(target).div_(n)
        return value()

    return lambda: (value(), torch.sigmoid(pred).sub_(target).div_(n)), given


def softmax_cross_entropy(logits, target, grad):
    """With autograd, or the functions that it calls and the gradient p − y written out, whichever is faster."""
    n = len(logits)
    leaf, labels, ones = logits.clone().requires_grad_(True), target[:, None], torch.full((n, 1), -1.0)

    def autograd():
        with torch.enable_grad():
            loss = cross_entropy(leaf, target)
            return loss, *torch.autograd.grad(loss, leaf)

    def steps():
        logs = torch.log_softmax(logits, 1)
        loss = torch._C._nn.nll_loss(logs, target, None, MEAN)
        return loss, logs.exp_().scatter_add_(1, labels, ones).div_(n)

    def given():
        torch.log_softmax(logits, 1, out=grad)
        loss = torch._C._nn.nll_loss(grad, target, None, MEAN)
        grad.exp_().scatter_add_(1, labels, ones).div_(n)
        return loss

    return fastest(autograd, steps), given


def dropout(x, out):
    """PyTorch's function, or a mask from its generator and a product, whichever is faster."""
    return fastest(
        lambda: torch.dropout(x, DROPOUT, True),
        lambda: torch.where(torch.rand_like(x) >= DROPOUT, x, 0.0).div_(1 - DROPOUT),
        lambda: torch.empty_like(x).bernoulli_(1 - DROPOUT).div_(1 - DROPOUT).mul_(x),
    )


# ---------------------------------------------------------------------------------------------- parameters


def listed(values: Any) -> list[torch.Tensor]:
    return values if isinstance(values, list) else [values]


def sgd(p, g, velocity):
    lists = [p], [g], [velocity]
    return lambda: torch._fused_sgd_(
        *lists, weight_decay=0.0, momentum=MOMENTUM, lr=LR, dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False,
    )  # fmt: skip


def rmsprop(p, g, v):
    def call():
        v.mul_(ALPHA).addcmul_(g, g, value=1 - ALPHA)
        p.addcdiv_(g, v.sqrt().add_(ADAM_EPS), value=-LR)

    return call


def adagrad(p, g, v):
    lists = [p], [g], [v], [torch.tensor(float(STEP))]
    return lambda: torch._fused_adagrad_(
        *lists, lr=LR, lr_decay=0.0, weight_decay=0.0, eps=ADAGRAD_EPS, maximize=False
    )


def adam(p, g, m, v, vmax=None):
    """Of arrays or of lists of them; AMSGrad with `vmax`."""
    lists = [listed(each) for each in (p, g, m, v)]
    most, counts = [] if vmax is None else [vmax], [torch.tensor(float(STEP)) for _ in lists[0]]
    return lambda: torch._fused_adam_(
        *lists, most, counts, lr=LR, beta1=BETA1, beta2=BETA2, weight_decay=0.0, eps=ADAM_EPS,
        amsgrad=bool(most), maximize=False,
    )  # fmt: skip


def adamw(p, g, m, v):
    lists = [p], [g], [m], [v], [], [torch.tensor(float(STEP))]
    return lambda: torch._fused_adamw_(
        *lists, lr=LR, beta1=BETA1, beta2=BETA2, weight_decay=DECAY, eps=ADAM_EPS, amsgrad=False,
        maximize=False,
    )  # fmt: skip


def nadam(p, g, m, v):
    """As its optimizer's loop over parameters does it."""
    of_g, of_m = nadam_rates()
    correction = 1 - BETA2**STEP

    def call():
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        divisor = v.div(correction).sqrt_().add_(ADAM_EPS)
        p.addcdiv_(g, divisor, value=-LR * of_g)
        p.addcdiv_(m, divisor, value=-LR * of_m)

    return call


def lion(p, g, m):
    def call():
        p.add_(torch.lerp(m, g, 1 - BETA1).sign_(), alpha=-LR)
        m.lerp_(g, 1 - LION_BETA2)

    return call


def norm_of(g: list[torch.Tensor]) -> Call:
    """A norm of all arrays."""
    if len(g) == 1:
        (one,) = g
        return lambda: torch.linalg.vector_norm(one)
    return fastest(
        lambda: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(g))),
        lambda: torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in g])),
    )


def global_norm(g):
    return norm_of(listed(g))


def clip(g):
    """As ``torch.nn.utils.clip_grad_norm_`` with foreach."""
    arrays = listed(g)
    norm_now = norm_of(arrays)

    def call():
        norm = norm_now()
        torch._foreach_mul_(arrays, (MAX_NORM / (norm + 1e-6)).clamp_(max=1.0))
        return norm

    return call


def prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


WRITTEN: dict[str, Writer] = {
    "matmul": matmul,
    "linear": linear,
    "linear_backward": linear_backward,
    "activation relu": relu,
    "activation tanh": tanh,
    "activation_backward relu": relu_backward,
    "activation_backward tanh": tanh_backward,
    "layernorm": layernorm,
    "layernorm_backward": layernorm_backward,
    "rmsnorm": rmsnorm,
    "rmsnorm_backward": rmsnorm_backward,
    "scale": scale,
    "scale_backward": scale_backward,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "mse": mse,
    "huber": huber,
    "log_cosh": log_cosh,
    "binary_cross_entropy": binary_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
    "dropout": dropout,
    "sgd_step": sgd,
    "rmsprop_step": rmsprop,
    "adagrad_step": adagrad,
    "adam_step": adam,
    "adamw_step": adamw,
    "amsgrad_step": adam,
    "nadam_step": nadam,
    "lion_step": lion,
    f"adam_step {MANY}": adam,
    "global_norm": global_norm,
    f"global_norm {MANY}": global_norm,
    "clip_by_global_norm": clip,
    f"clip_by_global_norm {MANY}": clip,
}

CALLS = {"torch": writers(WRITTEN, torch.from_numpy, prepare)}
