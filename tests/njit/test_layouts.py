"""Inside @njit as from Python: arrays of every layout are read and filled, and only what may be the same memory is."""

import numpy as np
import pytest

import gdkernels as gd
from tests.layouts import LAYOUTS, laid_out
from tests.njit.both import bits, compiled

ROWS, COLUMNS = 7, 5
GIVEN = [layout for layout in LAYOUTS if layout != "read-only"]


def reads(x, w, column, labels, square):
    product = gd.matmul(x, w), gd.matmul(w, x, True, True), gd.linear(x, w, None, "tanh")
    kept = gd.linear_backward(product[0], x, w, product[0], "tanh")
    rows = gd.layernorm(x, column, column, residual=square), gd.softmax(x), gd.dropout(x, 0.5, 1)
    losses = gd.mse(x, square), gd.softmax_cross_entropy(x, labels, class_weight=column)
    return product, kept, rows, losses, gd.huber(x, square, reduction="none"), gd.global_norm(x, w)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout, rng):
    x, square = np.abs(rng.standard_normal((2, ROWS, COLUMNS))).astype("f4")
    w, column = (
        rng.standard_normal((COLUMNS, 3)).astype("f4"),
        np.abs(rng.standard_normal(COLUMNS)).astype("f4"),
    )
    labels = rng.integers(0, COLUMNS, ROWS)
    given = tuple(laid_out(one, layout) for one in (x, w, column, labels, square))
    before = [one.tobytes() for one in given]
    assert bits(compiled(reads)(*given)) == bits(reads(*given))
    assert [one.tobytes() for one in given] == before


def fills(x, w, column, out, z, product, dx, dw, db, grad, stats):
    gd.linear(x, w, None, "gelu", out, z)
    gd.matmul(x, w, out=product, accumulate=True)
    gd.linear_backward(out, x, w, z, "gelu", dx, dw, db, accumulate=True)
    gd.layernorm(x, column, column, out=grad, stats=stats)
    gd.mse(x, grad, grad=dx)
    gd.adam_step((dw, db), (w, db.copy()), (product[:5], db.copy()), (w.copy(), db.copy()), 1, 0.1)
    gd.clip_by_global_norm(0.1, dw, db)
    return gd.activation(x, "elu", out=grad)


@pytest.mark.parametrize("layout", GIVEN)
def test_results_go_to_every_layout_and_nothing_else_is_touched(layout, rng):
    x, w, column = (
        np.abs(rng.standard_normal(shape)).astype("f4") for shape in ((ROWS, COLUMNS), (COLUMNS, 3), COLUMNS)
    )
    shapes = (
        (ROWS, 3),
        (ROWS, 3),
        (ROWS, 3),
        (ROWS, COLUMNS),
        (COLUMNS, 3),
        (3,),
        (ROWS, COLUMNS),
        (ROWS, 2),
    )
    results = [rng.standard_normal(shape).astype("f4") for shape in shapes]
    given = [laid_out(one, layout) for one in results]
    memory = [one.base if one.base is not None else one for one in given]
    outside = [np.copy(one) for one in memory]
    returned = compiled(fills)(x, w, column, *given)
    fills(x, w, column, *results)
    assert np.shares_memory(returned, given[6])
    for found, expected in zip(given, results, strict=True):
        np.testing.assert_array_equal(found, expected)
    for whole, before, view in zip(memory, outside, given, strict=True):
        if layout == "strided":
            inside = np.zeros(whole.shape, bool)
            inside[tuple(slice(None, None, 2) for _ in view.shape)] = True
            np.testing.assert_array_equal(whole[~inside], before[~inside])


# ---------------------------------------------------------------------------------------------- the same memory


def in_place(z, da, x, dy, s, gamma, beta):
    gd.activation(z, "relu", out=z)
    gd.activation_backward(da, z, "relu", out=da)
    gd.softmax(x, x)
    gd.layernorm(x, gamma, beta, residual=x, out=x)
    gd.dropout(dy, 0.5, 1, out=dy)
    gd.scale_backward(dy, s, gamma, dx=dy)
    gd.scale(s, gamma, out=s)


@pytest.mark.parametrize("layout", ["C", "Fortran", "strided"])
def test_what_may_be_the_same_array_is(layout, rng):
    arrays = [rng.standard_normal((ROWS, COLUMNS)).astype("f4") for _ in range(5)]
    columns = [rng.standard_normal(COLUMNS).astype("f4") for _ in range(2)]
    given = [laid_out(one, layout) for one in arrays]
    compiled(in_place)(*given, *columns)
    in_place(*arrays, *columns)
    for found, expected in zip(given, arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


def layer(x, w, out, z):
    return gd.linear(x, w, None, "relu", out, z)


def squash(x, out):
    return gd.activation(x, "tanh", out=out)


def slope(pred, target, grad):
    return gd.mse(pred, target, grad)


def adam(p, g, m, v):
    gd.adam_step(p, g, m, v, 1, 0.1)


def clip(a, b):
    return gd.clip_by_global_norm(1.0, a, b)


def memory(rng):
    return rng.standard_normal((20, 20)).astype("f4")


OVERLAPS = {
    "the result and an input of a layer": (layer, lambda a: (a[:4, :4], a[8:12, :4].copy(), a[1:5, :4], None)),
    "two results of a layer": (layer, lambda a: (a[:4, :4], a[8:12, :4].copy(), a[4:8, 4:8], a[4:8, 7:11])),
    "two results in order": (layer, lambda a: (a[:4], a[:, :20].copy(), a[8:12], a[11:15])),
    "a part of the input": (squash, lambda a: (a[:4], a[1:5])),
    "columns of the input": (squash, lambda a: (a[:, :4], a[:, 3:7])),
    "the transpose of the input": (squash, lambda a: (a[:4, :4], a[:4, :4].T)),
    "the input backwards": (squash, lambda a: (a[:4], a[3::-1])),
    "a gradient and a target": (slope, lambda a: (a[:4], a[4:8], a[4:8])),
    "a parameter and its gradient": (adam, lambda a: (a[0], a[0], a[1], a[2])),
    "states that are the same": (adam, lambda a: (a[:4, :4], a[4:8, :4], a[8:12, :4], a[8:12, :4])),
    "parameters of a tuple": (adam, lambda a: ((a[0], a[0]), (a[1], a[2]), (a[3], a[4]), (a[5], a[6]))),
    "clipped arrays": (clip, lambda a: (a[:3], a[2:5])),
    "clipped arrays with strides": (clip, lambda a: (a[:3].T, a[2:5].T)),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlaps_are_refused_and_nothing_is_changed(case, rng):
    function, views = OVERLAPS[case]
    whole = memory(rng)
    before, arguments = whole.copy(), views(whole)
    for call in (function, compiled(function)):
        with pytest.raises(ValueError, match=r"(overlaps (another|\w+)|partly overlaps)"):
            call(*arguments)
        assert whole.tobytes() == before.tobytes()


APART = {
    "columns beside each other": (squash, lambda a: (a[:, :4], a[:, 4:8])),
    "every second column": (squash, lambda a: (a[:, ::2], a[:, 1::2])),
    "every second row, backwards": (squash, lambda a: (a[::-2], a[::2])),
    "columns and rows": (squash, lambda a: (a[4:, :4], a[4:, 4:8][::-1])),
    "columns of a layer": (layer, lambda a: (a[:, :4], a[:4, 8:12].copy(), a[:, 4:8], a[:, 8:12])),
    "what is not read twice": (slope, lambda a: (a[:4], a[:4], a[4:8])),
    "nothing at all": (squash, lambda a: (a[:0], a[:0])),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_arrays_that_share_a_buffer_but_no_element_are_taken(case, rng):
    function, views = APART[case]
    here, there = memory(rng), None
    there = here.copy()
    function(*views(here))
    compiled(function)(*views(there))
    assert there.tobytes() == here.tobytes()


def test_windows_that_slide_are_judged_by_their_addresses():
    """Their elements are not told apart: a result between them is refused."""
    values = np.arange(40, dtype="f4")
    windows = np.lib.stride_tricks.as_strided(values, (3, 4), (32, 12))
    assert bits(compiled(squash)(windows, np.empty((3, 4), "f4"))) == bits(
        squash(windows, np.empty((3, 4), "f4"))
    )
    with pytest.raises(ValueError, match="overlaps"):
        compiled(squash)(windows, values[4:][:24].reshape(3, 8)[:, 1:5])
