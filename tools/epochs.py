"""What `Trainer.fit` costs around an epoch: `python tools/epochs.py` (half a minute, one core).

With batch_size = n an epoch is one step. Told is how many microseconds an epoch takes beyond a step, whose own time is that
of one among 4096 in an epoch.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gdkernels as gd

ROWS, STEPS, EPOCHS, REPEATS = 32, 4096, 2000, 5
NETWORKS = {"4-16-1": "mse", "64-128-10": "softmax_cross_entropy"}
# Options of the trainer and of `fit`. A callback is something to be done after each epoch.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "in order": ({}, {"shuffle": False}),
    "shuffled": ({}, {}),
    "schedule": ({"schedule": gd.schedules.Cosine(1e-4, 10**9)}, {}),
    "norms": ({}, {"grad_norms": True}),
    "callback, in order": ({}, {"shuffle": False, "callbacks": [lambda trainer, record: None]}),
    "callback": ({}, {"callbacks": [lambda trainer, record: None]}),
}


def microseconds(run: Callable[[], object], units: int) -> float:
    """Of a unit, in the fastest of some runs, after one that warms up."""
    seconds = []
    for _ in range(1 + REPEATS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return 1e6 * min(seconds[1:]) / units


def main() -> None:
    rng = np.random.default_rng(0)
    for name, loss in NETWORKS.items():
        sizes = [int(size) for size in name.split("-")]
        x = rng.standard_normal((ROWS, sizes[0]), dtype=np.float32)
        y = rng.integers(0, sizes[-1], ROWS) if sizes[-1] > 1 else x[:, :1].copy()
        long = x.repeat(STEPS, 0), y.repeat(STEPS, 0)

        def trainer(loss: str = loss, sizes: list[int] = sizes, **options: Any) -> gd.Trainer:
            return gd.Trainer(gd.mlp(sizes), loss, gd.Adam(lr=1e-4), **options)

        one = trainer(threads=1)
        step = microseconds(lambda: one.fit(*long, 1, ROWS, shuffle=False, progress=False), STEPS)  # noqa: B023
        print(f"{name}, batch {ROWS}: a step takes {step:.2f} µs, an epoch of one step longer by")
        for way, (options, of_fit) in WAYS.items():
            each = trainer(**options)
            epoch = microseconds(lambda: each.fit(x, y, EPOCHS, ROWS, progress=False, **of_fit), EPOCHS)  # noqa: B023
            print(f"    {way:20}{epoch - step:7.1f} µs")


if __name__ == "__main__":
    main()
