"""Results that are given cost no memory, results that are made are let go, and so are copies, also where a call fails."""

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import rtsys

import gdkernels as gd
from tests.njit.both import compiled


@njit
def given(x, w, b, out, z, da, dx, dw, db, m, v, labels, column, stats):
    gd.linear(x, w, b, "gelu", out, z)
    gd.matmul(x, w, out=out, accumulate=True)
    loss = gd.mse(out, z, grad=da) + gd.softmax_cross_entropy(out, labels, grad=da)
    gd.linear_backward(da, x, w, z, "gelu", dx, dw, db)
    gd.layernorm(x, column, column, out=dx, stats=stats)
    gd.activation(z, "tanh", out=z)
    gd.dropout(x, 0.5, 1, out=dx)
    gd.softmax(out, out)
    gd.clip_by_global_norm(1.0, dw, db)
    gd.adam_step((w, b), (dw, db), (m[0], m[1]), (v[0], v[1]), 1, 0.1)
    return loss


@njit
def made(x, w, b):
    a = gd.linear(x, w, b, "relu")
    dx, dw, db = gd.linear_backward(a, x, w, a, "relu")
    return gd.mse(dx, x, reduction="none"), gd.global_norm(dw, db)


def strided(x, out):
    return gd.softmax(x, out)


def arrays():
    x, w, b = np.ones((6, 4), "f4"), np.ones((4, 3), "f4"), np.ones(3, "f4")
    return x, w, b


@pytest.fixture
def balance():
    """A function: (allocations, what is still held) since the test began."""
    before = rtsys.get_allocation_stats()

    def since():
        now = rtsys.get_allocation_stats()
        return now.alloc - before.alloc, (now.alloc - now.free) - (before.alloc - before.free)

    return since


def test_nothing_is_allocated_where_results_are_given():
    x, w, b = arrays()
    z, column = np.ones((6, 3), "f4"), np.ones(4, "f4")
    arguments = (
        x, w, b, z.copy(), z.copy(), z.copy(), x.copy(), w.copy(), b.copy(), (w.copy(), b.copy()), (w.copy(), b.copy()),
        np.zeros(6, "i8"), column, np.ones((6, 2), "f4"),
    )  # fmt: skip
    given(*arguments)
    before = rtsys.get_allocation_stats()
    given(*arguments)
    after = rtsys.get_allocation_stats()
    assert after.alloc == before.alloc


def test_what_is_made_is_let_go(balance):
    for _ in range(50):
        made(*arrays())
    allocations, held = balance()
    assert allocations == 50 * 5, "a, dx, dw, db and the losses"
    assert held == 0


def test_copies_of_what_has_strides_are_let_go_whether_or_not_the_call_is_right(balance):
    x, wrong = np.ones((6, 4), "f4").T, np.ones((6, 5), "f4").T
    for _ in range(50):
        compiled(strided)(x, np.empty_like(x))
        with pytest.raises(ValueError, match="softmax: out has a shape that does not fit"):
            compiled(strided)(x, wrong)
        with pytest.raises(ValueError, match="softmax: out overlaps"):
            compiled(strided)(x[:, 1:], x[:, :-1])
    allocations, held = balance()
    assert allocations >= 50 * 6
    assert held == 0
