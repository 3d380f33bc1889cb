"""Two phases in which each worker reads what the other one wrote in the phase before."""

import numpy as np

from gdkernels.cpu.runtime.jit import kernel
from gdkernels.cpu.runtime.simd import atomic_load, atomic_store, offset, unpack
from gdkernels.cpu.runtime.team import address, team, wait


@kernel
def exchange(record, start, stop, worker):
    """Write the round's number, meet the others, count how often a neighbour's number is an older one, meet again."""
    _, team_memory, numbers, errors, rounds, barrier = unpack(record, "i8, i8*, i8*, i8*, i8, i8")
    neighbour = (start + 1) % stop
    for number in range(1, rounds + 1):
        if start == number % 2:  # one of the two is late, by turns
            for _ in range(2000):
                atomic_load(offset(numbers, 8 * start))
        atomic_store(offset(numbers, 8 * start), number)
        if barrier:
            wait(team_memory, stop)
        if atomic_load(offset(numbers, 8 * neighbour)) < number:
            errors[8 * start] += 1
        if barrier:
            wait(team_memory, stop)


def errors(with_barrier: bool) -> int:
    numbers, wrong = np.zeros(16, np.int64), np.zeros(16, np.int64)
    crew = team()
    record = np.array([0, crew.address, address(numbers), address(wrong), 2000, with_barrier], np.int64)
    with crew.lock:
        crew.run(exchange.address("float32"), address(record), 2)
    return int(wrong.sum())
