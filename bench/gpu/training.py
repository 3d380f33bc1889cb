"""Steps of training per second, of cases a to e (`bench.cases`), by our Trainer and by PyTorch.

Ours is `Trainer.fit`: each step is a replayed graph, and the host waits once an epoch; where CuPy is installed, once more
with the products of cuBLAS, whose steps are launched anew each time. PyTorch does the same steps eagerly, as a captured
graph of the whole step, and with forward and loss compiled; in bfloat16 under autocast. All with Adam, over the same batches
in the same order. Times are those of a wall clock, since the host's work counts here.

Before, a small network of each kind is held against the reference: the losses of its first steps, in float64 NumPy.
"""

from collections.abc import Callable, Iterator
from functools import partial

import gdkernels as gd
from gdkernels.cuda.gemm import choice as gemm_engine

from .. import correctness
from ..cases import CASES, Case
from ..contestants.ours_training import trainer_of
from . import rows
from .gemm import multiplied_by
from .lab import Lab, bound, deviation, willing

SMALL = {
    "labels": Case((12, 16, 5), 8, "relu", "ce", 4),
    "values": Case((6, 8, 1), 8, "tanh", "mse", 4),
}
STORAGES = ("float32", "bfloat16")
COMPILING = 45.0  # seconds that PyTorch may need to compile a network


def items(lab: Lab) -> list[tuple[str, Callable[[], Iterator[rows.Row]]]]:
    """Small networks against the reference; the cases against PyTorch; the cases against compiled PyTorch."""
    found = [
        (f"first losses, {name}, {storage}", partial(first_losses, name, case, storage))
        for name, case in SMALL.items()
        for storage in STORAGES
        if storage in lab.kinds and (not lab.tiny or name == "labels")
    ]
    cases = {"labels": SMALL["labels"]} if lab.tiny else CASES
    storages = [name for name in (STORAGES[:1] if lab.tiny else STORAGES) if name in lab.kinds]
    for compiled in (False, True):
        if not compiled or lab.torch:
            found += [
                (
                    f"case {letter} {storage}{' compiled' if compiled else ''}",
                    partial(race, lab, letter, case, storage, compiled),
                )
                for storage in storages
                for letter, case in cases.items()
            ]
    return found


# ---------------------------------------------------------------------------------------------- ours


def ours(case: Case, storage: str, engine: str = "own") -> Callable[[int], float]:
    """Train for this many epochs; the last loss. `engine` multiplies the matrices."""
    trainer = trainer_of(case, storage, "cuda")
    x, y = case.data()
    on_device = gd.cuda.to_device(x)

    def run(epochs: int) -> float:
        options = {"batch_size": case.batch, "shuffle": False, "progress": False}
        with multiplied_by(engine):  # each step asks who multiplies
            return float(trainer.fit(on_device, y, epochs=epochs, **options).loss[-1])

    return run


# ---------------------------------------------------------------------------------------------- right?


def first_losses(name: str, case: Case, storage: str) -> Iterator[rows.Row]:
    """The losses of two epochs, against the same training in float64."""
    x, y = case.data()
    fit = trainer_of(case, storage, "cuda").fit
    found = fit(x, y, epochs=2, batch_size=case.batch, shuffle=False, progress=False).loss
    right = correctness.right(case)["losses"][: len(found)]
    shape = f"{'-'.join(map(str, case.sizes))}, batch {case.batch}"
    # A weight moves by lr, whatever the gradient's error is, so errors stay small from step to step.
    allowed = 4 * bound(storage, 64)
    yield rows.check(
        f"losses of {len(found)} steps, {name}", storage, shape, deviation(found, right), allowed
    )


# ---------------------------------------------------------------------------------------------- fast?


def race(lab: Lab, letter: str, case: Case, storage: str, compiled: bool) -> Iterator[rows.Row]:
    """Ours against PyTorch as it is, or compiled."""
    if compiled and lab.left() < COMPILING:
        yield rows.note(f"cut: no time is left to compile case {letter} in {storage}")
        return
    makers: dict[str, Callable[[], Callable[[int], float]]] = {}
    if lab.torch:
        from .torch_training import CONTESTANTS

        names = ("compiled",) if compiled else ("eager", "graph")
        makers = {f"torch {name}": partial(CONTESTANTS[name], case, storage) for name in names}
    if gemm_engine.vendor_is_available() and not compiled:
        makers["gdkernels with cuBLAS"] = partial(ours, case, storage, "vendor")
    peers, failures = willing(makers, lambda run: run(1))
    yield from failures
    contestants = {"gdkernels": ours(case, storage), **peers}
    losses = {name: run(1) for name, run in contestants.items()}  # are not far from each other
    samples = lab.clock.compare_on_the_wall(contestants, 4 * lab.seconds)
    if samples:
        shape = f"{'-'.join(map(str, case.sizes))}, batch {case.batch}"
        row = rows.measurement(f"case {letter}", storage, shape, samples, "steps/s", case.batches)
        yield row | {"losses": losses}
