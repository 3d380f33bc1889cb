"""Our kernels, called natively in a loop as an epoch calls them, and through the public operations from Python."""

from collections.abc import Sequence
from functools import partial

import numpy as np

import gdkernels as gd
from gdkernels.cpu import activation, cross_entropy, dropout, matmul, norm, optim, softmax
from gdkernels.cpu.runtime import team
from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.jit import Op, kernel
from gdkernels.cpu.runtime.layout import Int, Ints
from gdkernels.cpu.runtime.memory import aligned_zeros
from gdkernels.cpu.runtime.scratch import SCRATCH_BYTES
from gdkernels.cpu.runtime.simd import invoke, offset
from gdkernels.cpu.runtime.team import run_all, share, wait
from gdkernels.scalar.optim import ROWS, RULES

from ..operations import ACTIVATIONS, ADAM, ADAM_STEP, DROPOUT, EPS, OPERATIONS, Arrays, line_up
from .calls import Calls

PHASE = 4  # words of a phase: entry, address of the operands, range, quantum
SEED = 1


@kernel
def repeat(members: Ints, phases: Ints, count: Int, times: Int, scratches: Int, worker, workers):
    """Each worker does its part of each phase, and all meet after each; `times` times."""
    scratch = scratches + worker * SCRATCH_BYTES
    for _ in range(times):
        for phase in range(count):
            words = offset(phases, PHASE * phase)
            first = share(words[2], words[3], worker, workers)
            last = share(words[2], words[3], worker + 1, workers)
            if first < last:
                invoke(words[0], words[1], first, last, scratch)
            wait(members, workers)


class Native(Calls):
    """`threads` workers run the ops of an operation, without coming back to Python."""

    def __init__(self, inputs: Arrays, ops: Sequence[Op], outputs: Arrays, threads: int):
        super().__init__(inputs, lambda: run_all(ops), lambda: outputs)
        members = team.team()
        with members.lock:
            scratches = members.scratch(threads)
        self._kept = ops, [np.frombuffer(op.record, np.int64) for op in ops]
        self._phases = np.array(
            [
                (op.kernel.address(op.dtype), address(record), op.total, op.quantum)
                for op, record in zip(*self._kept, strict=True)
            ],
            np.int64,
        ).reshape(-1)
        self._threads = threads
        self._operands = {
            "members": members.memory, "phases": self._phases, "count": len(ops), "scratches": scratches
        }  # fmt: skip

    def run(self, times: int) -> None:
        record = repeat.record(np.dtype(np.float32), times=times, **self._operands)
        members = team.team()
        with members.lock:
            members.run(repeat.address(), address(np.frombuffer(record, np.int64)), self._threads)


def empty(like: np.ndarray, number: int) -> np.ndarray:
    return aligned_zeros(like.size, like.dtype, 12 * number).reshape(like.shape)


def _gemm(inputs: Arrays, op: str):
    a, b = inputs["a"], inputs["b"]
    out = aligned_zeros(a.shape[0] * b.shape[1], np.float32, 24).reshape(a.shape[0], b.shape[1])
    return [matmul.product_op(a, b, out)], partial(gd.matmul, a, b, out=out), {"out": out}


def _adam(inputs: Arrays, op: str):
    p, g, m, v = (line_up(inputs[name], number) for number, name in enumerate(("p", "g", "m", "v")))
    options = [ADAM[name] for name in RULES["adam"].options]
    row = np.array((*ROWS["adam"](float(ADAM_STEP), ADAM["lr"], 0.0, options), 1.0))
    return (
        [optim.step_op("adam", p, g, (m, v), row)],
        partial(gd.adam_step, p, g, m, v, ADAM_STEP, **ADAM),
        {"p": p, "m": m, "v": v},
    )


def _forward(inputs: Arrays, op: str):
    z = inputs["z"]
    out = empty(z, 1)
    return [activation.forward_op(z, op, out)], partial(gd.activation, z, op, out=out), {"a": out}


def _backward(inputs: Arrays, op: str):
    da, saved = inputs["da"], inputs["saved"]
    kind = op.removesuffix(" backward")
    dz, db = empty(da, 2), empty(da[0], 3)
    return (
        activation.backward_ops(da, saved, kind, dz, db),
        partial(gd.activation_backward, da, saved, kind, out=dz, db=db),
        {"dz": dz, "db": db},
    )


def _layernorm(inputs: Arrays, op: str):
    x, gamma, beta = inputs["x"], inputs["gamma"], inputs["beta"]
    y, stats = empty(x, 3), np.zeros((len(x), 2), np.float32)
    return (
        [norm.layernorm_op(x, None, gamma, beta, y, stats, EPS)],
        partial(gd.layernorm, x, gamma, beta, EPS, out=y, stats=stats),
        {"y": y},
    )


def _layernorm_backward(inputs: Arrays, op: str):
    dy, x, gamma, stats = (inputs[name] for name in ("dy", "x", "gamma", "stats"))
    dx, dgamma, dbeta = empty(x, 4), empty(gamma, 5), empty(gamma, 6)
    return (
        norm.layernorm_backward_ops(dy, x, None, gamma, stats, dx, dgamma, dbeta),
        partial(gd.layernorm_backward, dy, x, gamma, stats, dx=dx, dgamma=dgamma, dbeta=dbeta),
        {"dx": dx, "dgamma": dgamma, "dbeta": dbeta},
    )


def _rmsnorm(inputs: Arrays, op: str):
    x, gamma = inputs["x"], inputs["gamma"]
    y, stats = empty(x, 3), np.zeros(len(x), np.float32)
    return (
        [norm.rmsnorm_op(x, None, gamma, y, stats, EPS)],
        partial(gd.rmsnorm, x, gamma, EPS, out=y, stats=stats),
        {"y": y},
    )


def _rmsnorm_backward(inputs: Arrays, op: str):
    dy, x, gamma, stats = (inputs[name] for name in ("dy", "x", "gamma", "stats"))
    dx, dgamma = empty(x, 4), empty(gamma, 5)
    return (
        norm.rmsnorm_backward_ops(dy, x, None, gamma, stats, dx, dgamma),
        partial(gd.rmsnorm_backward, dy, x, gamma, stats, dx=dx, dgamma=dgamma),
        {"dx": dx, "dgamma": dgamma},
    )


def _softmax(inputs: Arrays, op: str):
    x = inputs["x"]
    out = empty(x, 1)
    return [softmax.softmax_op(x, out)], partial(gd.softmax, x, out=out), {"p": out}


def _dropout(inputs: Arrays, op: str):
    x = inputs["x"]
    out = empty(x, 1)
    return (
        [dropout.forward_op(x, DROPOUT, SEED, 0, out)],
        partial(gd.dropout, x, DROPOUT, SEED, out=out),
        {"out": out},
    )


PREPARE = {
    "gemm": _gemm,
    "adam": _adam,
    **dict.fromkeys(ACTIVATIONS, _forward),
    **{f"{kind} backward": _backward for kind in ACTIVATIONS},
    "layernorm": _layernorm,
    "layernorm backward": _layernorm_backward,
    "rmsnorm": _rmsnorm,
    "rmsnorm backward": _rmsnorm_backward,
    "softmax": _softmax,
    "dropout": _dropout,
}


def native(op: str, shape: tuple[int, ...], form: str, threads: int) -> Calls:
    """The kernels alone."""
    team.set_threads(threads)
    inputs = OPERATIONS[op].inputs(shape, form)
    if op == "cross-entropy":
        return _native_cross_entropy(inputs, threads)
    ops, _, outputs = PREPARE[op](inputs, op)
    return Native(inputs, ops, outputs, threads)


def _native_cross_entropy(inputs: Arrays, threads: int) -> Calls:
    """The kernel writes the unscaled losses of the rows; the mean is the host's."""
    logits, target = inputs["logits"], inputs["target"]
    grad, losses, scale = empty(logits, 1), np.empty(len(logits)), np.full(1, 1 / len(logits))
    ops = [cross_entropy.row_op(logits, target, grad, losses, scale, 0.0, None, -100)]
    calls = Native(inputs, ops, {"grad": grad}, threads)
    calls.results = lambda: {"grad": grad, "loss": losses.mean()}
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
