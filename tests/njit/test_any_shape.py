"""A step of a small network in one compiled function: the bits of the same function in Python, for any shapes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import gdkernels as gd
from tests.njit.both import assert_same_in_both


def step(x, w, b, target, labels, m, v, count):
    z = gd.linear(x, w, b, "gelu")
    before = np.empty_like(z)
    a = gd.linear(x, w, b, "gelu", z=before)
    grad = np.empty_like(a)
    loss = gd.mse(a, target, grad), gd.softmax_cross_entropy(a, labels, reduction="sum")
    dx, dw, db = gd.linear_backward(grad, x, w, before, "gelu")
    norm = gd.clip_by_global_norm(0.5, dw, db)
    gd.adam_step((w, b), (dw, db), m, v, count, lr=gd.schedules.cosine(count, 0.1, 100))
    return loss, norm, dx, z


@settings(max_examples=20)
@given(
    batch=st.integers(0, 40), n_in=st.integers(1, 40), n_out=st.integers(1, 40), dtype=st.sampled_from(["f4", "f8"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_step_of_any_shape(batch, n_in, n_out, dtype, seed):
    rng = np.random.default_rng(seed)
    x, w, b, target = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((batch, n_in), (n_in, n_out), n_out, (batch, n_out))
    )
    m, v = (w * 0, b * 0), (w * w, b * b)
    assert_same_in_both(step, x, w, b, target, rng.integers(0, n_out, batch), m, v, 1 + seed)
