"""What a launch costs: from Python, and in a graph that is replayed.

The kernel does nothing: a copy of no elements. On the wall: how long one launch, or replay, takes until the GPU is through
with it, with many on their way. On the GPU: how long one keeps it busy.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from gdkernels.cuda.activation import FORWARD
from gdkernels.cuda.norm import add_launches
from gdkernels.cuda.runtime import driver
from gdkernels.cuda.runtime.jit import Launch

from . import rows
from .lab import Lab, deviation

KERNELS = (1, 10, 50)  # in a graph


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """A graph that counts, launches from Python, and replays."""
    return [
        ("a graph does what was captured", partial(counting, lab)),
        ("launch from Python", partial(from_python, lab)),
        *((f"graph of {count}", partial(replays, lab, count)) for count in KERNELS),
    ]


def capture(launches: list[Launch]) -> driver.Graph:
    """A graph of launches, as the engine makes it."""
    for one in launches:
        one.load()
    stream = driver.Stream()
    return driver.Graph(stream.handle, lambda: [one.run(stream.handle) for one in launches])


def nothing(lab: Lab) -> Launch:
    """A kernel that finds nothing to do."""
    place = lab.empty((4,), "float32").address
    return FORWARD["identity"].by_one.on("float32", (1, 1, 1), z=place, a=place, groups=0)


def counting(lab: Lab) -> Iterator[rows.Row]:
    """x += 1, ten times in a graph that is replayed three times."""
    x, one = lab.put(np.zeros(64), "float32"), lab.put(np.ones(64), "float32")
    graph = capture(add_launches("float32", x.address, one.address, x.address, 64) * 10)
    for _ in range(3):
        graph.replay(lab.stream)
    yield rows.check(
        "10 kernels, replayed 3 times", "float32", "64", deviation(x.to_numpy(), np.full(64, 30.0)), 0.0
    )


def from_python(lab: Lab) -> Iterator[rows.Row]:
    """Our launch; beside it the smallest operation of PyTorch."""
    launch = nothing(lab)
    contestants = {"gdkernels": _repeated(lab, lambda: launch.run(lab.stream))}
    if lab.torch:
        tensor = lab.torch.torch.zeros(1, device="cuda")
        contestants["torch"] = _repeated(lab, lambda: tensor.add_(1.0))
    samples = lab.clock.compare_on_the_wall(contestants, 4 * lab.seconds)
    if samples:
        yield rows.measurement("launch from Python", "", "wall", samples, "µs")


def replays(lab: Lab, count: int) -> Iterator[rows.Row]:
    """A graph of this many kernels: Python's time, and the GPU's."""
    graph = capture([nothing(lab)] * count)
    replay = partial(graph.replay, lab.stream)
    what = f"graph of {count} empty kernels"
    for place, samples in (
        ("wall", lab.clock.compare_on_the_wall({"gdkernels": _repeated(lab, replay)}, 4 * lab.seconds)),
        ("GPU", lab.clock.compare({"gdkernels": replay}, lab.seconds)),
    ):
        if samples:
            yield rows.measurement(what, "", place, samples, "µs")


def _repeated(lab: Lab, run: Callable[[], object]) -> Callable[[int], None]:
    def times(count: int) -> None:
        for _ in range(count):
            run()
        lab.wait()

    return times
