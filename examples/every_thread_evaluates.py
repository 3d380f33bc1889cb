"""A network inside a Monte-Carlo kernel: how much water flows through a borehole, if nobody knows the ground well?

The borehole function is a usual test of surrogates (Harper and Gupta 1983; surjanovic.org). A network of 8-16-16-1 learns
it from some thousand evaluations. Then every thread of a kernel draws inputs by Philox and evaluates the network itself, and
blocks add up what their threads have found: no input and no output ever lies in memory.

Run ``python examples/every_thread_evaluates.py`` where there is a GPU; without one, put ``tools/ptxemu/run`` before it.
"""

import sys
import warnings

import numpy as np
from numba import cuda, float32

import gdkernels as gd
from gdkernels.cuda import device

# Radius of the hole and of influence [m], transmissivity [m²/a] and head [m] of the upper and of the lower aquifer, length
# [m] and conductivity [m/a] of the hole: all uniform.
LOW = np.array([0.05, 100, 63070, 990, 63.1, 700, 1120, 9855])
HIGH = np.array([0.15, 50000, 115600, 1110, 116, 820, 1680, 12045])
SIZES, THREADS, SEED = [8, 16, 16, 1], 128, 7
ALARM = 150.0  # m³/a
mlp = device.Mlp(SIZES, "tanh")


def flow(u: np.ndarray) -> np.ndarray:
    """The flow [m³/a] for inputs (n, 8) in [0, 1]."""
    hole, reach, above, head, below, low_head, length, conductivity = (LOW + (HIGH - LOW) * u).T
    log = np.log(reach / hole)
    resistance = log * (1 + 2 * length * above / (log * hole**2 * conductivity) + above / below)
    return 2 * np.pi * above * (head - low_head) / resistance


def surrogate(samples: int = 4096, epochs: int = 60) -> tuple[gd.Network, float, float]:
    """A network that gives (flow − mean) / scale, and both numbers."""
    u = np.random.default_rng(0).random((samples, 8))
    y = flow(u)
    mean, scale = float(y.mean()), float(y.std())
    net = gd.mlp(SIZES, "tanh")
    steps = epochs * -(-samples // 64)
    schedule = gd.schedules.WarmupCosine(peak=1e-2, warmup=steps // 20, total=steps)
    trainer = gd.Trainer(net, "mse", gd.Adam(lr=1e-2), schedule)
    trainer.fit(u.astype("f4"), ((y - mean) / scale).astype("f4")[:, None], epochs, 64, progress=False)
    return net, mean, scale


@cuda.jit(device=True)
def draw(number, x):
    """Sample number `number`: eight uniform numbers, of two blocks of Philox."""
    for half in range(2):
        words = device.philox_words(SEED, 8 * number + 4 * half)
        for j in range(4):
            x[4 * half + j] = float32(words[j] >> 8) * float32(2.0**-24)


@cuda.jit
def simulate(params, mean, scale, draws, sums):
    """sums[block] = Σ flow, and how often it is above ALARM, over the samples of its threads."""
    x, y = cuda.local.array(8, float32), cuda.local.array(1, float32)
    total, alarms = float32(0), float32(0)
    for turn in range(draws):
        draw(cuda.grid(1) * draws + turn, x)
        mlp.predict(params, x, y)
        water = mean + scale * y[0]
        total += water
        alarms += float32(water > ALARM)
    total, alarms = device.block_sum(total), device.block_sum(alarms)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x, 0], sums[cuda.blockIdx.x, 1] = total, alarms


@cuda.jit
def drawn(out):
    """The samples themselves, to check what the kernel has found."""
    i = cuda.grid(1)
    if i < len(out):
        draw(i, out[i])


def main(blocks: int = 64, draws: int = 8, epochs: int = 60) -> dict[str, float]:
    """Train, simulate, and compare with the same samples on the host, through the network and by the formula."""
    warnings.filterwarnings("ignore", message="Grid size")
    net, mean, scale = surrogate(epochs=epochs)
    params, sums = cuda.to_device(net.flat), cuda.device_array((blocks, 2), np.float32)
    simulate[blocks, THREADS](params, np.float32(mean), np.float32(scale), draws, sums)
    samples = blocks * THREADS * draws
    average, risk = sums.copy_to_host().sum(axis=0, dtype=np.float64) / samples

    u = cuda.device_array((samples, 8), np.float32)
    drawn[-(-samples // THREADS), THREADS](u)
    u = u.copy_to_host()
    by_network, by_formula = mean + scale * net.predict(u)[:, 0], flow(u.astype("f8"))
    print(f"{samples:,} samples, each drawn and evaluated by a thread:")
    print(f"{'':24}{'mean flow, m³/a':>16}{f'P(flow > {ALARM:.0f})':>16}")
    for name, one, other in (
        ("kernel", average, risk),
        ("net.predict", by_network.mean(dtype="f8"), (by_network > ALARM).mean()),
        ("formula", by_formula.mean(), (by_formula > ALARM).mean()),
    ):
        print(f"{name:24}{one:16.4f}{other:16.4f}")
    error = float(np.sqrt(np.mean((by_network - by_formula) ** 2)) / by_formula.std())
    print(f"The network's error is {100 * error:.2f} % of the spread.")
    return {
        "kernel": float(average), "network": float(by_network.mean(dtype="f8")), "formula": float(by_formula.mean()),
        "risk": float(risk), "risk by network": float((by_network > ALARM).mean()), "error": error,
    }  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
