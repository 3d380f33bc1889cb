"""What views cost in compiled code, on one thread.

    python tools/views.py

First a 4-64-64-2 network in float32 at batch 1 and more, in microseconds: `predict`; of that the kernels of its layers, run
by themselves; `vjp`; `vjp` and `gd.adam_step`; `step` with Adam. Then `step` against the
engine's own steps, an epoch of them in one call, for cases a and d of the benchmark: the ratio of times, measured in turns.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

import gdkernels as gd
from gdkernels.cpu.engine.calls import PREDICT, predict, section
from gdkernels.cpu.engine.typing import words_of
from gdkernels.cpu.runtime.simd import int64_at

ROUNDS, LOOP = 15, 20_000
PROGRAM, TEAM, SCRATCH = (list(predict.words).index(name) for name in ("program", "team", "scratch_at"))


@njit
def predicts(view, x, out, times):
    for _ in range(times):
        view.predict(x, out)


@njit
def kernels(view, times):
    """What a call of `predict` runs, for the rows of the last one."""
    record = int64_at(words_of(view)[PREDICT + 1])
    for _ in range(times):
        section(int64_at(record[PROGRAM]), 0, int64_at(record[TEAM]), record[SCRATCH])


@njit
def goes_back(view, x, dy, dx, times):
    for _ in range(times):
        view.vjp(x, dy, dx)


@njit
def goes_back_and_updates(view, x, dy, dx, m, v, times):
    for step in range(1, times + 1):
        view.vjp(x, dy, dx)
        gd.adam_step(view.flat_params, view.flat_grads, m, v, step, 1e-6)


@njit
def steps(view, x, y, times):
    for _ in range(times):
        view.step(x, y)


@njit
def epochs(view, x, y, batch, times):
    for _ in range(times):
        for start in range(0, len(x), batch):
            view.step(x[start : start + batch], y[start : start + batch])


@njit
def nothing(view):
    """Only gets a view into compiled code."""


def microseconds(run: Callable[..., Any], *given: Any, times: int = LOOP) -> float:
    """Of one of `times` runs in a loop, the fastest of some rounds."""
    run(*given, 2)
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run(*given, times)
        seconds.append(time.perf_counter() - begin)
    return 1e6 * min(seconds) / times


def small() -> None:
    """The first table."""
    print("rows  predict  of that kernels    vjp  vjp, adam_step   step")
    for rows in (1, 2, 8, 32):
        net = gd.mlp([4, 64, 64, 2], activation="tanh")
        view, training = net.jitted(), gd.Trainer(net, "mse", gd.Adam(lr=1e-6)).jitted()
        x = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
        out, dx = np.empty((rows, 2), np.float32), np.empty_like(x)
        states = [np.zeros_like(view.flat_params) for _ in range(2)]
        found = [
            microseconds(predicts, view, x, out),
            microseconds(kernels, view),
            microseconds(goes_back, view, x, out, dx),
            microseconds(goes_back_and_updates, view, x, out, dx, *states),
            microseconds(steps, training, x, out),
        ]
        print(f"{rows:4d} {found[0]:8.2f} {found[1]:16.2f} {found[2]:6.2f} {found[3]:15.2f} {found[4]:6.2f}")


def calls() -> None:
    """What it costs to get a view into compiled code."""

    def repeat(call: Callable[..., Any], *given: Any) -> float:
        def run(times: int) -> None:
            for _ in range(times):
                call(*given)

        return microseconds(run)

    net = gd.mlp([4, 64, 64, 2])
    view, x, out = net.jitted(), np.ones((1, 4), np.float32), np.empty((1, 2), np.float32)
    print(f"a call from Python with a view: {repeat(nothing, view):.2f} µs", end="; ")
    print(f"that predicts one row: {repeat(predicts, view, x, out, 1):.2f} µs", end="; ")
    print(f"net.predict: {repeat(net.predict, x):.2f} µs")


def against_the_engine(name: str, sizes: list[int], activation: str, batch: int, loss: str) -> None:
    """A line of the second table."""
    count, times = 64, 8
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count * batch, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], len(x)) if loss == "softmax_cross_entropy" else x[:, : sizes[-1]].copy()
    alone, viewed = (
        gd.Trainer(gd.mlp(sizes, activation=activation), loss, gd.Adam(lr=1e-4), threads=1) for _ in range(2)
    )
    view, training = viewed.jitted(), alone._training(y)
    order, width = np.tile(np.arange(len(x)), times), 1 if y.ndim == 1 else sizes[-1]
    rates, scales = np.full(count * times, 1e-4), np.full(count * times, 1 / (batch * width))
    losses, ratios, seconds = np.empty(count * times), [], []
    for _ in range(4 * ROUNDS):
        begin = time.perf_counter()
        training.train(x, y, order, batch, rates, scales, 0, losses)
        between = time.perf_counter()
        epochs(view, x, y, batch, times)
        seconds.append(time.perf_counter() - between)
        ratios.append(seconds[-1] / (between - begin))
    ratio, each = statistics.median(ratios[1:]), 1e6 * statistics.median(seconds[1:]) / (count * times)
    print(f"{name}: step of a view {each:.1f} µs, {ratio:.3f} of the engine's")


if __name__ == "__main__":
    small()
    calls()
    against_the_engine("a: 64-128-10 relu, batch 32", [64, 128, 10], "relu", 32, "softmax_cross_entropy")
    against_the_engine("d: 20-64-64-1 tanh, batch 64", [20, 64, 64, 1], "tanh", 64, "mse")
