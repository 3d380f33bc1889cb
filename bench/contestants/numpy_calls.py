"""The array operations as expressions of NumPy, written by somebody who knows it: few passes, `out` where it has one.

Where results are given, what is computed on the way is given, too. Steps of optimizers work in scratch memory of their own.
"""

from math import sqrt

import numpy as np

from ..array_operations import DECAY, LR, MANY, MAX_NORM, MOMENTUM, RMS_EPS, STEP
from ..cases import BETA1, BETA2
from ..cases import EPS as ADAM_EPS
from ..operations import DROPOUT, EPS
from .array_calls import Call, Writer, fastest, writers

ALPHA, ADAGRAD_EPS = 0.99, 1e-10
LION_BETA2 = 0.99
MOMENTUM_DECAY = 4e-3  # of NAdam
DELTA = 1.0  # of Huber's loss


def matmul(a, b, out):
    return lambda: a @ b, lambda: np.matmul(a, b, out=out)


def linear(x, w, b, out):
    def allocated():
        z = x @ w
        z += b
        return np.maximum(z, 0, out=z)

    def given():
        np.matmul(x, w, out=out)
        np.add(out, b, out=out)
        np.maximum(out, 0, out=out)

    return allocated, given


def linear_backward(da, x, w, saved, dx, dw, db):
    dz = np.empty_like(da)

    def allocated():
        dz = da * (saved > 0)
        return dz @ w.T, x.T @ dz, dz.sum(0)

    def given():
        np.multiply(da, saved > 0, out=dz)
        np.matmul(dz, w.T, out=dx)
        np.matmul(x.T, dz, out=dw)
        np.sum(dz, 0, out=db)

    return allocated, given


def relu(z, out):
    return lambda: np.maximum(z, 0), lambda: np.maximum(z, 0, out=out)


def relu_backward(da, saved, out):
    return lambda: da * (saved > 0), lambda: np.multiply(da, saved > 0, out=out)


def tanh(z, out):
    return lambda: np.tanh(z), lambda: np.tanh(z, out=out)


def tanh_backward(da, saved, out):
    def given():
        np.multiply(saved, saved, out=out)
        np.subtract(1, out, out=out)
        np.multiply(da, out, out=out)

    return lambda: da * (1 - saved * saved), given


# ---------------------------------------------------------------------------------------------- rows


def normalised(d: np.ndarray, eps: float, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """d / √(mean(d²) + eps) of each row, and what it is multiplied by. Written over d, or where it is said."""
    rstd = 1 / np.sqrt(np.einsum("ij,ij->i", d, d)[:, None] / d.shape[1] + np.float32(eps))
    return np.multiply(d, rstd, out=d if out is None else out), rstd


def layernorm(x, gamma, beta, out):
    def allocated():
        mean = x.mean(1, keepdims=True)
        y, rstd = normalised(x - mean, EPS)
        y *= gamma
        y += beta
        return y, mean, rstd

    def given():
        mean = x.mean(1, keepdims=True)
        _, rstd = normalised(np.subtract(x, mean, out=out), EPS)
        np.multiply(out, gamma, out=out)
        np.add(out, beta, out=out)
        return mean, rstd

    return allocated, given


def layernorm_backward(dy, x, gamma, stats, dx, dgamma, dbeta):
    """dx = rstd (g − mean(g) − h mean(g h)), g = gamma dy, h = (x − mean) rstd."""
    mean, rstd = stats[:, :1].copy(), stats[:, 1:].copy()
    n = x.shape[1]
    h, g = np.empty_like(x), np.empty_like(x)

    def allocated():
        h = x - mean
        h *= rstd
        g = dy * gamma
        dgamma, dbeta = np.einsum("ij,ij->j", dy, h), dy.sum(0)
        h *= np.einsum("ij,ij->i", g, h)[:, None] / n
        g -= g.mean(1, keepdims=True)
        g -= h
        g *= rstd
        return g, dgamma, dbeta

    def given():
        np.subtract(x, mean, out=h)
        np.multiply(h, rstd, out=h)
        np.multiply(dy, gamma, out=g)
        np.einsum("ij,ij->j", dy, h, out=dgamma)
        np.sum(dy, 0, out=dbeta)
        np.multiply(h, np.einsum("ij,ij->i", g, h)[:, None] / n, out=h)
        np.subtract(g, g.mean(1, keepdims=True), out=g)
        np.subtract(g, h, out=g)
        np.multiply(g, rstd, out=dx)

    return allocated, given


def rmsnorm(x, gamma, out):
    def allocated():
        y, rstd = normalised(x, RMS_EPS, np.empty_like(x))
        y *= gamma
        return y, rstd

    def given():
        _, rstd = normalised(x, RMS_EPS, out)
        np.multiply(out, gamma, out=out)
        return rstd

    return allocated, given


def rmsnorm_backward(dy, x, gamma, stats, dx, dgamma):
    rstd, n = stats[:, None].copy(), x.shape[1]
    h, g = np.empty_like(x), np.empty_like(x)

    def allocated():
        h = x * rstd
        g = dy * gamma
        dgamma = np.einsum("ij,ij->j", dy, h)
        h *= np.einsum("ij,ij->i", g, h)[:, None] / n
        g -= h
        g *= rstd
        return g, dgamma

    def given():
        np.multiply(x, rstd, out=h)
        np.multiply(dy, gamma, out=g)
        np.einsum("ij,ij->j", dy, h, out=dgamma)
        np.multiply(h, np.einsum("ij,ij->i", g, h)[:, None] / n, out=h)
        np.subtract(g, h, out=g)
        np.multiply(g, rstd, out=dx)

    return allocated, given


def scale(x, gamma, out):
    return lambda: x * gamma, lambda: np.multiply(x, gamma, out=out)


def scale_backward(dy, x, gamma, dx, dgamma):
    def given():
        np.multiply(dy, gamma, out=dx)
        np.einsum("ij,ij->j", dy, x, out=dgamma)

    return lambda: (dy * gamma, np.einsum("ij,ij->j", dy, x)), given


def softmax(x, out):
    def allocated():
        e = x - x.max(1, keepdims=True)
        np.exp(e, out=e)
        e /= e.sum(1, keepdims=True)
        return e

    def given():
        np.subtract(x, x.max(1, keepdims=True), out=out)
        np.exp(out, out=out)
        np.divide(out, out.sum(1, keepdims=True), out=out)

    return allocated, given


def log_softmax(x, out):
    def allocated():
        z = x - x.max(1, keepdims=True)
        z -= np.log(np.exp(z).sum(1, keepdims=True))
        return z

    def given():
        np.subtract(x, x.max(1, keepdims=True), out=out)
        np.subtract(out, np.log(np.exp(out).sum(1, keepdims=True)), out=out)

    return allocated, given


# ---------------------------------------------------------------------------------------------- losses


def mse(pred, target, grad):
    n = pred.size

    def allocated():
        e = pred - target
        loss = np.vdot(e, e) / n
        e *= 2 / n
        return loss, e

    def given():
        np.subtract(pred, target, out=grad)
        loss = np.vdot(grad, grad) / n
        np.multiply(grad, 2 / n, out=grad)
        return loss

    return allocated, given


def huber(pred, target, grad):
    """Where e is held in [−delta, delta] as c, the loss is c (e − c / 2)."""
    n = pred.size

    def allocated():
        e = pred - target
        c = np.clip(e, -DELTA, DELTA)
        e -= 0.5 * c
        loss = np.vdot(c, e) / n
        c /= n
        return loss, c

    def given():
        e = pred - target
        np.clip(e, -DELTA, DELTA, out=grad)
        e -= 0.5 * grad
        loss = np.vdot(grad, e) / n
        np.divide(grad, n, out=grad)
        return loss

    return allocated, given


def log_cosh(pred, target, grad):
    """log cosh e = |e| + log(1 + e^(−2|e|)) − log 2."""
    n, log2 = pred.size, np.log(2.0)

    def value(e):
        e = np.abs(e)
        return (e + np.log1p(np.exp(-2 * e))).mean() - log2

    def allocated():
        e = pred - target
        loss = value(e)
        np.tanh(e, out=e)
        e /= n
        return loss, e

    def given():
        np.subtract(pred, target, out=grad)
        loss = value(grad)
        np.tanh(grad, out=grad)
        np.divide(grad, n, out=grad)
        return loss

    return allocated, given


def binary_cross_entropy(pred, target, grad):
    """max(z, 0) − z t + log(1 + e^(−|z|)), and the sigmoid from the same exponential."""
    n = pred.size

    def allocated():
        e = np.exp(-np.abs(pred))
        loss = (np.maximum(pred, 0) - pred * target + np.log1p(e)).mean()
        grad = np.where(pred < 0, e, 1) / (1 + e)
        grad -= target
        grad /= n
        return loss, grad

    def given():
        e = np.exp(-np.abs(pred))
        loss = (np.maximum(pred, 0) - pred * target + np.log1p(e)).mean()
        np.divide(np.where(pred < 0, e, 1), 1 + e, out=grad)
        np.subtract(grad, target, out=grad)
        np.divide(grad, n, out=grad)
        return loss

    return allocated, given


def softmax_cross_entropy(logits, target, grad):
    rows = np.arange(len(logits))

    def of(out):
        z = np.subtract(logits, logits.max(1, keepdims=True), out=out)
        label = z[rows, target]
        np.exp(z, out=z)
        total = z.sum(1, keepdims=True)
        loss = (np.log(total[:, 0]) - label).mean()
        z /= total
        z[rows, target] -= 1
        z /= len(rows)
        return loss, z

    return lambda: of(None), lambda: of(grad)[0]


def dropout(x, out):
    """A mask of random numbers, and one product."""
    rng, factor = np.random.default_rng(1), np.float32(1 / (1 - DROPOUT))
    drawn = np.empty_like(x)

    def given():
        rng.random(out=drawn, dtype=np.float32)
        np.multiply(x, drawn >= DROPOUT, out=out)
        np.multiply(out, factor, out=out)

    return lambda: x * (rng.random(x.shape, dtype=np.float32) >= DROPOUT) * factor, given


# ---------------------------------------------------------------------------------------------- parameters


def sgd(p, g, velocity):
    s = np.empty_like(p)

    def call():
        np.multiply(velocity, MOMENTUM, out=velocity)
        np.add(velocity, g, out=velocity)
        np.multiply(velocity, LR, out=s)
        np.subtract(p, s, out=p)

    return call


def move(p, numerator, v, s, rate: float, correction: float, eps: float) -> None:
    """p −= rate numerator / (√v / correction + eps), in the scratch array s."""
    np.sqrt(v, out=s)
    if correction != 1:
        np.divide(s, correction, out=s)
    np.add(s, eps, out=s)
    np.divide(numerator, s, out=s)
    np.multiply(s, rate, out=s)
    np.subtract(p, s, out=p)


def mean(m, g, beta: float, s) -> None:
    """m = beta m + (1 − beta) g."""
    np.multiply(m, beta, out=m)
    np.multiply(g, 1 - beta, out=s)
    np.add(m, s, out=m)


def mean_square(v, g, beta: float, s) -> None:
    """v = beta v + (1 − beta) g²."""
    np.multiply(v, beta, out=v)
    np.multiply(g, g, out=s)
    np.multiply(s, 1 - beta, out=s)
    np.add(v, s, out=v)


def rmsprop(p, g, v):
    s = np.empty_like(p)

    def call():
        mean_square(v, g, ALPHA, s)
        move(p, g, v, s, LR, 1, ADAM_EPS)

    return call


def adagrad(p, g, v):
    s = np.empty_like(p)

    def call():
        np.multiply(g, g, out=s)
        np.add(v, s, out=v)
        move(p, g, v, s, LR, 1, ADAGRAD_EPS)

    return call


def adam(p, g, m, v):
    s = np.empty_like(p)

    def call():
        mean(m, g, BETA1, s)
        mean_square(v, g, BETA2, s)
        move(p, m, v, s, LR / (1 - BETA1**STEP), sqrt(1 - BETA2**STEP), ADAM_EPS)

    return call


def adamw(p, g, m, v):
    step = adam(p, g, m, v)

    def call():
        np.multiply(p, 1 - LR * DECAY, out=p)
        step()

    return call


def amsgrad(p, g, m, v, vmax):
    s = np.empty_like(p)

    def call():
        mean(m, g, BETA1, s)
        mean_square(v, g, BETA2, s)
        np.maximum(vmax, v, out=vmax)
        move(p, m, vmax, s, LR / (1 - BETA1**STEP), sqrt(1 - BETA2**STEP), ADAM_EPS)

    return call


def nadam_rates() -> tuple[float, float]:
    """Factors of g and of m in a step of NAdam. A user keeps the product of the momenta from step to step."""
    momenta = [BETA1 * (1 - 0.5 * 0.96 ** (t * MOMENTUM_DECAY)) for t in range(1, STEP + 2)]
    product = float(np.prod(momenta[:-1]))
    return (1 - momenta[-2]) / (1 - product), momenta[-1] / (1 - product * momenta[-1])


def nadam(p, g, m, v):
    s, look = np.empty_like(p), np.empty_like(p)
    of_g, of_m = nadam_rates()

    def call():
        mean(m, g, BETA1, s)
        mean_square(v, g, BETA2, s)
        np.multiply(m, of_m, out=look)
        np.multiply(g, of_g, out=s)
        np.add(look, s, out=look)
        move(p, look, v, s, LR, sqrt(1 - BETA2**STEP), ADAM_EPS)

    return call


def lion(p, g, m):
    s, look = np.empty_like(p), np.empty_like(p)

    def call():
        np.multiply(m, BETA1, out=look)
        np.multiply(g, 1 - BETA1, out=s)
        np.add(look, s, out=look)
        np.sign(look, out=look)
        np.multiply(look, LR, out=look)
        np.subtract(p, look, out=p)
        mean(m, g, LION_BETA2, s)

    return call


def adam_of_many(p, g, m, v):
    """A loop over the parameters."""
    steps = [adam(*each) for each in zip(p, g, m, v, strict=True)]

    def call():
        for step in steps:
            step()

    return call


def norm_of(arrays: list[np.ndarray]) -> float:
    return sqrt(sum(np.vdot(g, g) for g in arrays))


def global_norm(g):
    return fastest(lambda: sqrt(np.vdot(g, g)), lambda: np.linalg.norm(g))


def global_norm_of_many(g):
    return lambda: norm_of(g)


def clip(g: list[np.ndarray]) -> Call:
    def call():
        norm = norm_of(g)
        scale = MAX_NORM / (norm + 1e-6)
        if scale < 1:
            for one in g:
                np.multiply(one, scale, out=one)
        return norm

    return call


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
    "amsgrad_step": amsgrad,
    "nadam_step": nadam,
    "lion_step": lion,
    f"adam_step {MANY}": adam_of_many,
    "global_norm": global_norm,
    f"global_norm {MANY}": global_norm_of_many,
    "clip_by_global_norm": lambda g: clip([g]),
    f"clip_by_global_norm {MANY}": clip,
}

CALLS = {"numpy": writers(WRITTEN, np.asarray, lambda threads: None)}
