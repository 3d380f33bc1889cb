"""A network in place of the right-hand side: the solver's states stay close to the true ones."""

import numpy as np
from numba import get_num_threads

from examples.surrogate_ode import main, solve, train


def test_the_learned_pendulums_end_where_the_true_ones_do():
    median, largest = main(conditions=500)
    assert median < 5e-3
    assert largest < 2e-2


def test_the_number_of_workers_does_not_matter():
    net, start = train(samples=10_000, epochs=1), np.linspace(-1, 1, 400, dtype=np.float32).reshape(200, 2)
    alone = solve(net.jitted(copies=1), start)
    np.testing.assert_array_equal(solve(net.jitted(copies=get_num_threads() + 1), start), alone)
