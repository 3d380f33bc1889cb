"""A learned right-hand side inside an ODE solver, on all cores.

The true system is a damped pendulum whose force law takes some work to evaluate: here φ″ = −sin φ − c φ′|φ′|, in real life
a table, a finite-element model, a measurement. A network learns the acceleration from samples of (φ, φ′). The solver, RK4 in
compiled code, then calls the network in place of the law: each worker of ``prange`` has a copy of its view and takes a
block of initial conditions, as the rows of one batch.

Run ``python examples/surrogate_ode.py``.
"""

import math
import time

import numpy as np
from numba import get_num_threads, njit, prange

import gdkernels as gd

DRAG = 0.2
LARGEST = 2.5  # of the angles and velocities of the samples
STEP, STEPS = 0.02, 500  # ten seconds
BLOCK = 32  # initial conditions that are solved together


@njit
def law(state, rate):
    """The true right-hand side: rate = d(φ, φ′)/dt for the rows of `state`."""
    for i in range(len(state)):
        rate[i, 0] = state[i, 1]
        rate[i, 1] = -math.sin(state[i, 0]) - DRAG * state[i, 1] * abs(state[i, 1])


@njit
def learned(view, state, acceleration, rate):
    """The same from the network, which gives φ″ from (φ, φ′)."""
    view.predict(state, acceleration)
    rate[:, 0] = state[:, 1]
    rate[:, 1] = acceleration[:, 0]


@njit
def solve_truly(start):
    """The states after all steps of RK4."""
    state, rates = start.copy(), np.empty((4, *start.shape), start.dtype)
    for _ in range(STEPS):
        law(state, rates[0])
        law(state + 0.5 * STEP * rates[0], rates[1])
        law(state + 0.5 * STEP * rates[1], rates[2])
        law(state + STEP * rates[2], rates[3])
        state += STEP / 6 * (rates[0] + 2 * rates[1] + 2 * rates[2] + rates[3])
    return state


@njit(parallel=True)
def solve(views, start):
    """The same with the network, whose `views` are one for each worker."""
    workers, end = len(views), start.copy()
    for worker in prange(workers):
        view = views[worker]
        for first in range(worker * BLOCK, len(start), workers * BLOCK):
            state = end[first : first + BLOCK]
            acceleration = np.empty((len(state), 1), np.float32)
            rates = np.empty((4, len(state), 2), np.float32)
            half, whole = np.float32(0.5 * STEP), np.float32(STEP)
            for _ in range(STEPS):
                learned(view, state, acceleration, rates[0])
                learned(view, state + half * rates[0], acceleration, rates[1])
                learned(view, state + half * rates[1], acceleration, rates[2])
                learned(view, state + whole * rates[2], acceleration, rates[3])
                state += whole / 6 * (rates[0] + 2 * rates[1] + 2 * rates[2] + rates[3])
    return end


def train(samples: int = 20_000, epochs: int = 100, seed: int = 0) -> gd.Network:
    """A network that has learned the acceleration."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-LARGEST, LARGEST, (samples, 2))
    rate = np.empty_like(x)
    law(x, rate)
    net = gd.mlp([2, 64, 64, 1], activation="gelu", seed=seed)
    batch = 64
    schedule = gd.schedules.WarmupCosine(peak=3e-3, warmup=100, total=epochs * -(-samples // batch))
    trainer = gd.Trainer(net, "mse", gd.Adam(), schedule)
    trainer.fit(x.astype(np.float32), rate[:, 1:].astype(np.float32), epochs, batch, progress=False)
    return net


def main(conditions: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Train, solve, compare and print; the median and the largest distance from the true end, in radians."""
    net = train(seed=seed)
    start = np.random.default_rng(seed + 1).uniform(-1.5, 1.5, (conditions, 2))
    truth = solve_truly(start)
    views = net.jitted(copies=get_num_threads())
    solve(views, start[:1].astype(np.float32))  # compiles
    begin = time.perf_counter()
    end = solve(views, start.astype(np.float32))
    seconds = time.perf_counter() - begin
    distance = np.linalg.norm(end - truth, axis=1)
    median, largest = float(np.median(distance)), float(distance.max())
    print(f"{conditions} pendulums, {STEPS} steps of RK4 in {seconds:.2f} s on {len(views)} threads")
    print(f"that is {1e9 * seconds / (4 * STEPS * conditions):.0f} ns for an evaluation of the network")
    print(f"after {STEP * STEPS:.0f} s the states, whose size is {np.abs(truth).mean():.2f}, are off by")
    print(f"{median:.1e} in the median and {largest:.1e} at most")
    return median, largest


if __name__ == "__main__":
    main()
