"""Two phases in which each worker reads what the other one wrote in the phase before."""

import numpy as np

from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.layout import Int, Ints
from gdkernels.cpu.runtime.simd import atomic_load, atomic_store, offset
from gdkernels.cpu.runtime.team import run_job, team, wait


@kernel
def exchange(members: Ints, numbers: Ints, errors: Ints, rounds: Int, barrier: Int, worker, workers):
    """Write the round's number, meet the others, count how often a neighbour's number is an older one, meet again."""
    neighbour = (worker + 1) % workers
    for number in range(1, rounds + 1):
        if worker == number % 2:  # one of the two is late, by turns
            for _ in range(2000):
                atomic_load(offset(numbers, 8 * worker))
        atomic_store(offset(numbers, 8 * worker), number)
        if barrier:
            wait(members, workers)
        if atomic_load(offset(numbers, 8 * neighbour)) < number:
            errors[8 * worker] += 1
        if barrier:
            wait(members, workers)


def errors(with_barrier: bool) -> int:
    numbers, wrong = np.zeros(16, np.int64), np.zeros(16, np.int64)
    record = exchange.record(
        np.dtype(np.float32),
        members=team().memory,
        numbers=numbers,
        errors=wrong,
        rounds=2000,
        barrier=with_barrier,
    )
    run_job(exchange.address("float32"), address(np.frombuffer(record, np.int64)), 2)
    return int(wrong.sum())
