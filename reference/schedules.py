"""Learning-rate schedules: pure functions of the step. Step 0 is the first update.

Why warm up: at first the running means of Adam rest on few gradients, and the curvature is largest; a
full rate may throw the parameters far away before anything is known. Why decay: near a minimum the noise
of mini-batches keeps the parameters at a distance that grows with the rate; a falling rate lets them
settle.
"""

import math

__all__ = [
    "constant",
    "cosine",
    "cosine_restarts",
    "linear_warmup",
    "step_decay",
    "warmup_cosine",
    "warmup_linear",
]


def constant(step: int, lr: float) -> float:
    """lr, at every step."""
    return lr


def linear_warmup(step: int, peak: float, warmup: int) -> float:
    """peak min(1, (step + 1) / warmup): peak / warmup at step 0, peak from step warmup - 1 on.

    step + 1, because a first update with rate 0 would be wasted. warmup = 0: no warm-up.
    """
    return peak * (step + 1) / warmup if step + 1 < warmup else peak


def _half_wave(done: float) -> float:
    """(1 + cos(π done)) / 2: from 1 to 0, flat at both ends."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def cosine(step: int, peak: float, total: int, floor: float = 0.0) -> float:
    """floor + (peak - floor) (1 + cos(π step / total)) / 2; floor for step ≥ total."""
    return floor + (peak - floor) * _half_wave(step / total) if step < total else floor


def warmup_cosine(step: int, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """linear_warmup for `warmup` steps, then cosine over the other total - warmup; floor for step ≥ total."""
    if step < min(warmup, total):
        return linear_warmup(step, peak, warmup)
    return cosine(step - warmup, peak, total - warmup, floor)


def warmup_linear(step: int, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """linear_warmup for `warmup` steps, then a line from peak down to floor at `total`, and floor."""
    if step < min(warmup, total):
        return linear_warmup(step, peak, warmup)
    return floor + (peak - floor) * (total - step) / (total - warmup) if step < total else floor


def step_decay(step: int, peak: float, every: int, factor: float = 0.1) -> float:
    """peak factor^⌊step / every⌋: the rate falls by `factor` after every `every` steps."""
    return peak * factor ** (step // every)


def cosine_restarts(step: int, peak: float, period: int, factor: int = 1, floor: float = 0.0) -> float:
    """cosine over `period` steps, again and again, each `factor` times the last (SGDR, 1608.03983).

    A restart lifts the rate back to peak, so that the parameters may leave a narrow minimum; the last
    steps of each period, near floor, are the ones to evaluate.
    """
    if period < 1 or factor < 1:
        raise ValueError(f"cosine_restarts: period is {period} and factor {factor}, expected both >= 1")
    if factor == 1:
        step %= period
    while step >= period:
        step -= period
        period *= factor
    return cosine(step, peak, period, floor)
