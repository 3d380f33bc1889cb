"""Results that are given cost no memory, results that are made are let go, and so are copies, also where a call fails."""

import numpy as np
import pytest
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

import gdkernels as gd
from tests.njit.both import compiled


@njit
def given(times, x, w, b, out, z, da, dx, dw, db, m, v, labels, column, stats):
    loss = 0.0
    for _ in range(times):
        gd.linear(x, w, b, "gelu", out, z)
        gd.matmul(x, w, out=out, accumulate=True)
        loss += gd.mse(out, z, grad=da) + gd.softmax_cross_entropy(out, labels, grad=da)
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
    """A function that calls another one, again and again: how many arrays a call allocates, and how many it keeps.

    Each argument is one of those that are allocated.
    """

    def of(function, *arguments, times=50):
        function(*arguments)
        before = rtsys.get_allocation_stats()
        for _ in range(times):
            function(*arguments)
        now = rtsys.get_allocation_stats()
        made, freed = now.alloc - before.alloc, now.free - before.free
        return made / times, (made - freed) / times

    _nrt_python.memsys_enable_stats()
    yield of
    _nrt_python.memsys_disable_stats()


def test_nothing_is_allocated_where_results_are_given(balance):
    x, w, b = arrays()
    z, column = np.ones((6, 3), "f4"), np.ones(4, "f4")
    arguments = (
        x, w, b, z.copy(), z.copy(), z.copy(), x.copy(), w.copy(), b.copy(), (w.copy(), b.copy()), (w.copy(), b.copy()),
        np.zeros(6, "i8"), column, np.ones((6, 2), "f4"),
    )  # fmt: skip
    for times in (0, 1, 20):
        assert balance(given, times, *arguments) == (16, 0)


def test_what_is_made_is_let_go(balance):
    assert balance(made, *arrays()) == (3 + 5, 0), "a, dx, dw, db and the losses"


def refused(x, out):
    with pytest.raises(ValueError, match="softmax: out"):
        compiled(strided)(x, out)


def test_copies_of_what_has_strides_are_let_go_whether_or_not_the_call_is_right(balance):
    right, wrong = np.ones((6, 4), "f4"), np.ones((6, 5), "f4")
    assert balance(compiled(strided), right, right.copy()) == (2, 0)
    assert balance(compiled(strided), right.T, right.copy().T) == (4, 0)
    # Numba itself keeps the arguments of a function that raises.
    assert balance(refused, right, wrong) == (2, 2)
    assert balance(refused, right.T, wrong.T) == (4, 2)
    assert balance(refused, wrong.T[1:], wrong.T[:-1]) == (4, 2)
