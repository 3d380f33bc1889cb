"""Our kernels, called natively in a loop as an epoch calls them, and through the public operations from Python."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

import gdkernels as gd
from gdkernels.cpu import activation, cross_entropy, dropout, matmul, norm, optim
from gdkernels.cpu.runtime import team
from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.memory import aligned_zeros
from gdkernels.cpu.runtime.simd import int64_at, invoke, offset, unpack
from gdkernels.cpu.runtime.team import address, share, wait
from gdkernels.scalar.hyper import hyper

from ..operations import ADAM, ADAM_STEP, DROPOUT, EPS, OPERATIONS, Arrays, line_up
from .calls import Calls

PHASE = 4  # words of a phase: entry, address of the operands, range, quantum
SEED = 1


@kernel
def repeat(record, start, stop, worker):
    """Worker `start` of `stop` does its part of each phase, and all meet after each; `times` times."""
    _, members, phases, count, times = unpack(record, "i8, i8, i8*, i8, i8")
    for _ in range(times):
        for phase in range(count):
            words = offset(phases, 4 * phase)
            first = share(words[2], words[3], start, stop)
            last = share(words[2], words[3], start + 1, stop)
            if first < last:
                invoke(words[0], words[1], first, last, worker)
            wait(int64_at(members), stop)


@contextmanager
def recorded() -> Iterator[list[tuple]]:
    """What the host functions launch inside is noted instead: (entry, operands, range, quantum, variables).

    So the choice of kernels and their operands stays the library's. The operands are addresses; the variables of the
    functions that launch hold the arrays, also those that are theirs alone, and whoever records keeps them.
    """
    found: list[tuple] = []

    def note(kernel, dtype, operands, total, quantum=1, work=0.0):
        variables, frame = [], sys._getframe(1)
        while frame is not None and frame.f_globals["__name__"].startswith("gdkernels"):
            variables.append(dict(frame.f_locals))
            frame = frame.f_back
        found.append((kernel.address(dtype), operands, total, quantum, variables))

    modules = (activation, cross_entropy, dropout, matmul, norm, optim)
    launches = [module.launch for module in modules]
    try:
        for module in modules:
            module.launch = note
        yield found
    finally:
        for module, launch in zip(modules, launches, strict=True):
            module.launch = launch


class Native(Calls):
    """`threads` workers run what `host` launches, without coming back to Python."""

    def __init__(self, inputs: Arrays, host: Callable[[], object], outputs: Arrays, threads: int):
        super().__init__(inputs, host, lambda: outputs)
        members = team.team()
        with members.lock:
            scratch = members.scratch(threads)
        with recorded() as phases:
            self._kept = host(), phases  # what it allocated, and returned: its kernels write there
        self._operands = [np.array([scratch, *operands], np.int64) for _, operands, *_ in phases]
        self._phases = np.array(
            [
                (entry, address(operands), total, quantum)
                for (entry, _, total, quantum, _), operands in zip(phases, self._operands, strict=True)
            ],
            np.int64,
        )
        self._threads = threads
        self._record = np.array([scratch, members.address, address(self._phases), len(phases), 1], np.int64)

    def run(self, times: int) -> None:
        members = team.team()
        self._record[-1] = times
        with members.lock:
            members.run(repeat.address(), address(self._record), self._threads)


def empty(like: np.ndarray, number: int) -> np.ndarray:
    return aligned_zeros(like.size, like.dtype, 12 * number).reshape(like.shape)


def _gemm(inputs: Arrays, op: str):
    a, b = inputs["a"], inputs["b"]
    out = aligned_zeros(a.shape[0] * b.shape[1], np.float32, 24).reshape(a.shape[0], b.shape[1])
    return partial(matmul.matmul, a, b, out), partial(gd.matmul, a, b, out=out), {"out": out}


def _adam(inputs: Arrays, op: str):
    p, g, m, v = (line_up(inputs[name], number) for number, name in enumerate(("p", "g", "m", "v")))
    step = hyper(
        "adam", ADAM["lr"], step=ADAM_STEP, **{name: ADAM[name] for name in ("beta1", "beta2", "eps")}
    )
    return (
        partial(optim.step, "adam", (p, g, m, v), step),
        partial(gd.adam_step, p, g, m, v, ADAM_STEP, **ADAM),
        {"p": p, "m": m, "v": v},
    )


def _forward(inputs: Arrays, op: str):
    z = inputs["z"]
    out = empty(z, 1)
    return partial(activation.forward, z, op, out), partial(gd.activation, z, op, out=out), {"a": out}


def _backward(inputs: Arrays, op: str):
    da, saved = inputs["da"], inputs["saved"]
    kind = op.removesuffix(" backward")
    dz, db = empty(da, 2), empty(da[0], 3)
    return (
        partial(activation.backward, da, saved, kind, dz, db),
        partial(gd.activation_backward, da, saved, kind, out=dz, db=db),
        {"dz": dz, "db": db},
    )


def _layernorm(inputs: Arrays, op: str):
    x, gamma, beta = inputs["x"], inputs["gamma"], inputs["beta"]
    y, stats = empty(x, 3), np.zeros((len(x), 2), np.float32)
    return (
        partial(norm.layernorm, x, None, gamma, beta, y, stats, EPS),
        partial(gd.layernorm, x, gamma, beta, EPS, out=y, stats=stats),
        {"y": y},
    )


def _layernorm_backward(inputs: Arrays, op: str):
    dy, x, gamma, stats = (inputs[name] for name in ("dy", "x", "gamma", "stats"))
    dx, dgamma, dbeta = empty(x, 4), empty(gamma, 5), empty(gamma, 6)
    return (
        partial(norm.layernorm_backward, dy, x, None, gamma, stats, dx, dgamma, dbeta),
        partial(gd.layernorm_backward, dy, x, gamma, stats, dx=dx, dgamma=dgamma, dbeta=dbeta),
        {"dx": dx, "dgamma": dgamma, "dbeta": dbeta},
    )


def _dropout(inputs: Arrays, op: str):
    x = inputs["x"]
    out = empty(x, 1)
    return (
        partial(dropout.forward, x, DROPOUT, SEED, 0, out),
        partial(gd.dropout, x, DROPOUT, SEED, out=out),
        {"out": out},
    )


PREPARE = {
    "gemm": _gemm,
    "adam": _adam,
    "relu": _forward,
    "gelu": _forward,
    "tanh": _forward,
    "relu backward": _backward,
    "gelu backward": _backward,
    "tanh backward": _backward,
    "layernorm": _layernorm,
    "layernorm backward": _layernorm_backward,
    "dropout": _dropout,
}


def native(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """The kernels alone."""
    team.set_threads(threads)
    inputs = OPERATIONS[op].inputs(shape, form)
    if op == "cross-entropy":
        return _native_cross_entropy(inputs, threads)
    host, _, outputs = PREPARE[op](inputs, op)
    return Native(inputs, host, outputs, threads)


def _native_cross_entropy(inputs: Arrays, threads: int) -> Calls:
    """The kernel writes the unscaled losses of the rows; the mean is the host's."""
    logits, target = inputs["logits"], inputs["target"]
    grad = empty(logits, 1)
    losses = {}

    def host():
        losses["rows"] = cross_entropy.of_rows(logits, target, grad, 1 / len(logits), 0.0, None, -100)
        return losses["rows"]

    calls = Native(inputs, host, {"grad": grad}, threads)
    calls.results = lambda: {"grad": grad, "loss": losses["rows"].mean()}
    return calls


def from_python(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """The public operation with its results' memory given: checks, dispatch and kernels."""
    team.set_threads(threads)
    inputs = OPERATIONS[op].inputs(shape, form)
    if op == "cross-entropy":
        logits, target = inputs["logits"], inputs["target"]
        grad, value = empty(logits, 1), {}

        def call():
            value["loss"] = gd.softmax_cross_entropy(logits, target, grad=grad)

        return Calls(inputs, call, lambda: {"grad": grad, **value})
    _, call, outputs = PREPARE[op](inputs, op)
    return Calls(inputs, call, lambda: outputs)


KERNELS = {
    "gdkernels": {op: partial(native, op) for op in OPERATIONS},
    "gdkernels from Python": {op: partial(from_python, op) for op in OPERATIONS},
}
