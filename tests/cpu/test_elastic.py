"""A program that is stretched to a number of rows is, word for word, the one that is bound for it."""

import numpy as np
import pytest
from numba import njit

from gdkernels.cpu.engine.elastic import CHANGES, COUNT, HEAD, ROWS, _image, resize, stretch
from gdkernels.cpu.engine.engine import Engine
from gdkernels.cpu.runtime.dispatch import address
from gdkernels.cpu.runtime.simd import int64_at
from gdkernels.nn.plan import lower
from gdkernels.plan import CrossEntropy
from tests.cpu.test_engine import LOSSES, flat, update_of
from tests.nn.networks import NETWORKS

MOST = 70


@njit
def resized(place, rows):
    resize(int64_at(place), rows)


def sections_of(layers, loss="mse", dtype="float32"):
    """The three sections of a step for a number of rows, up to MOST."""
    plan = lower(layers, input_gradient=False, seed=3)
    engine = Engine(plan, *flat(plan, dtype), 1)
    engine.reserve(MOST)
    training = engine.training(LOSSES[loss], update_of("adamw", plan, dtype), 0.5)
    return lambda rows: [list(ops) for ops in training._sections(rows, False)]


def differences(sections, rows: int) -> np.ndarray:
    """Where the words of the program that is stretched to these rows are not those of the one bound for them."""
    program = stretch(sections, MOST)
    resized(address(program.words), 37)
    resized(address(program.words), rows)
    bound = _image(sections(rows), address(program.words), len(program.words))
    bound[[ROWS, CHANGES, COUNT]] = rows, *program.words[[CHANGES, COUNT]]
    return np.flatnonzero(program.words != bound)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stretched_program_is_the_one_that_is_bound(name):
    sections = sections_of(NETWORKS[name])
    for rows in (1, 2, 3, 16, MOST):
        assert differences(sections, rows).size == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_stretched(loss, dtype):
    several = isinstance(LOSSES[loss], CrossEntropy)
    sections = sections_of(NETWORKS["linear" if several else "two_norms"], loss, dtype)
    assert differences(sections, 5).size == 0


def test_a_change_that_is_left_out_would_be_caught(monkeypatch):
    """The rows that a bias gradient sums over: without its change there is one difference, at its operand."""
    sections = sections_of(NETWORKS["linear"])

    def careless(rows, count, name):
        ops = sections(rows)
        for section in ops:
            for place, op in enumerate(section):
                if op.kernel.name.endswith(name):
                    record = np.frombuffer(op.record, np.int64).copy()
                    record[list(op.kernel.words).index("batch")] = count
                    section[place] = op._replace(record=record.tobytes())
        return ops

    program = stretch(lambda rows: careless(rows, 1, "column_sums"), MOST)
    resized(address(program.words), 5)
    bound = _image(sections(5), address(program.words), len(program.words))
    assert np.count_nonzero(program.words[HEAD:] != bound[HEAD:]) == 1


def test_an_op_that_depends_on_the_rows_in_another_way_is_refused():
    sections = sections_of(NETWORKS["linear"])

    def in_blocks(rows):
        ops = sections(rows)
        ops[0][0] = ops[0][0]._replace(total=-(-rows // 8))
        return ops

    with pytest.raises(RuntimeError, match=r"stretch: an op depends on the number of rows in another way"):
        stretch(in_blocks, MOST)
