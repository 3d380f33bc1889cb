"""Every operation inside @njit gives the bits that it gives from Python, whichever way its arguments are written."""

import inspect

import numpy as np
import pytest
from numba import njit

import gdkernels as gd
from gdkernels.cpu import doors
from gdkernels.ops.activation import KINDS
from gdkernels.scalar.schedules import SCHEDULES
from tests.njit.both import assert_same_in_both

ROWS, COLUMNS = 7, 5


@pytest.fixture
def array(dtype, rng):
    """A function that makes an array of these dimensions, with random elements."""
    return lambda *shape: rng.standard_normal(shape or (ROWS, COLUMNS)).astype(dtype)


def test_every_operation_is_taught_with_its_own_signature():
    """Names, order and defaults are those of the function that Python calls."""
    from numba.core.registry import cpu_target

    from gdkernels.njit import call

    gd.linear  # noqa: B018
    known = cpu_target.typing_context
    known.refresh()
    for name in (*doors.NAMES, "saved_for"):
        op = getattr(gd, name)
        kind = known.resolve_value_type(op)
        assert isinstance(kind, call._Operation), name
        (template,) = kind.templates
        taught = inspect.signature(template._overload_func)
        own = inspect.signature(op)
        assert [(one.name, one.kind, one.default) for one in taught.parameters.values()] == [
            (one.name, one.kind, one.default) for one in own.parameters.values()
        ], name


# ---------------------------------------------------------------------------------------------- products and layers


def products(a, b, out, turned):
    plain = gd.matmul(a, b)
    given = gd.matmul(a, b, False, False, out)
    first = gd.matmul(a, plain, trans_a=True)
    second = gd.matmul(plain, b, trans_b=True)
    both = gd.matmul(b, a, True, trans_b=turned)
    added = gd.matmul(a, b, out=out, accumulate=True)
    return plain, given, first, second, both, added


def test_products(array):
    results = assert_same_in_both(products, array(ROWS, COLUMNS), array(COLUMNS, 3), array(ROWS, 3), True)
    assert results[1].tobytes() == results[5].tobytes(), "both are out"


def layers(x, w, b, out, z):
    everything = gd.linear(x, w, b, "gelu", out, z)
    by_name = gd.linear(x=x, w=w, activation="tanh", b=b)
    return everything, by_name, gd.linear(x, w), gd.linear(x, w, None, z=z)


def gradients(da, x, w, saved, dx, dw, db, added):
    new = gd.linear_backward(da, x, w, saved, "silu")
    plain = gd.linear_backward(da, x, w, None)
    given = gd.linear_backward(da, x, w, saved, "relu", dx, dw, db)
    first = gd.linear_backward(
        da, x, w, saved, activation="elu", need_dx=False, dw=dw, db=db, accumulate=added
    )
    return new, plain, given, first[0], first[1], first[2]


def test_layers(array):
    x, w, b = array(), array(COLUMNS, 3), array(3)
    assert_same_in_both(layers, x, w, b, array(ROWS, 3), array(ROWS, 3))
    for added in (False, True):
        assert_same_in_both(
            gradients, array(ROWS, 3), x, w, array(ROWS, 3), array(), array(COLUMNS, 3), array(3), added
        )


@pytest.mark.parametrize("kind", KINDS)
def test_activations(kind, rng):
    """A name may also be a constant that the function finds outside of itself."""

    def of_kind(z, da, db):
        out = gd.activation(z, kind)
        saved = out if gd.saved_for(kind) == "output" else z
        dz = gd.activation_backward(da, saved, kind, db=db)
        return out, dz, gd.activation_backward(da, saved, kind), gd.activation(z, kind=kind, out=z)

    z, da = rng.standard_normal((2, ROWS, COLUMNS)).astype("f4")
    assert_same_in_both(of_kind, z, da, np.zeros(COLUMNS, "f4"))


def activations(z, da, out, cube):
    gd.activation_backward(da, z, "mish", out)
    return (
        gd.activation(z, "selu"),
        gd.activation(cube, "sigmoid"),
        gd.activation_backward(da, None, "identity"),
    )


def test_activations_of_any_shape_and_type(array):
    assert_same_in_both(activations, array(), array(), array(), array(2, 3, 4))


# ---------------------------------------------------------------------------------------------- norms, softmax, dropout


def norms(x, gamma, beta, residual, out, stats, dx, dgamma, dbeta):
    plain = gd.layernorm(x, gamma, beta)
    gd.layernorm(x, gamma, beta, 1e-3, residual, out, stats)
    new = gd.layernorm_backward(x, x, gamma, stats)
    gd.layernorm_backward(out, x, gamma, stats, residual=residual, dx=dx, dgamma=dgamma, dbeta=dbeta)
    return plain, new


def root_mean_squares(x, gamma, residual, out, stats, dx, dgamma):
    plain = gd.rmsnorm(x, gamma)
    gd.rmsnorm(x, gamma, eps=1e-3, residual=residual, out=out, stats=stats)
    new = gd.rmsnorm_backward(x, x, gamma, stats)
    gd.rmsnorm_backward(out, x, gamma, stats, residual, dx, dgamma)
    return plain, new


def scales(x, gamma, out, dx, dgamma):
    plain = gd.scale(x, gamma), gd.scale_backward(x, x, gamma)
    gd.scale(x, gamma, out)
    gd.scale_backward(out, x, gamma, dx=dx, dgamma=dgamma)
    return plain


def test_norms(array):
    x, residual, out, dx = array(), array(), array(), array()
    column = COLUMNS
    stats, dgamma = array(ROWS, 2), array(column)
    assert_same_in_both(
        norms, x, array(column), array(column), residual, out, stats, dx, dgamma, array(column)
    )
    assert_same_in_both(root_mean_squares, x, array(column), residual, out, array(ROWS), dx, dgamma)
    assert_same_in_both(scales, x, array(column), out, dx, dgamma)


def distributions(x, cube, out):
    gd.softmax(x, out)
    return gd.softmax(cube), gd.log_softmax(x), gd.log_softmax(x, out=x)


def masks(x, out, p, seed):
    gd.dropout(x, 0.5, 7, 3, out)
    gd.dropout_backward(out, p, seed, out=out)
    return gd.dropout(x, p, seed), gd.dropout(x, p=0, seed=-1), gd.dropout_backward(x, 1, seed, offset=2**40)


def test_softmax_and_dropout(array):
    assert_same_in_both(distributions, array(), array(2, 3, 4), array())
    assert_same_in_both(masks, array(), array(), 0.25, 2**63 - 1)


# ---------------------------------------------------------------------------------------------- losses


def squares(pred, target, grad):
    mean = gd.mse(pred, target), gd.log_cosh(pred, target)
    total = gd.mse(pred, target, grad, "sum"), gd.log_cosh(pred, target, reduction="sum")
    terms = gd.mse(pred, target, reduction="none"), gd.log_cosh(pred, target, grad, "none")
    return mean, total, terms


def hubers(pred, target, grad):
    mean = gd.huber(pred, target), gd.huber(pred, target, 0.3, grad)
    return mean, gd.huber(pred, target, reduction="sum", delta=2), gd.huber(pred, target, 0.5, grad, "none")


def logistic(logits, target, grad):
    mean = (
        gd.binary_cross_entropy(logits, target),
        gd.binary_cross_entropy(logits, target, grad, pos_weight=2),
    )
    total = gd.binary_cross_entropy(logits, target, reduction="sum")
    return mean, total, gd.binary_cross_entropy(logits, target, None, "none", 3.0)


def test_losses_of_elements(array, dtype, rng):
    # 3 × 700 elements are more than one row of the loop (1,024) and no whole number of them.
    for shape in ((ROWS, COLUMNS), (3, 700)):
        assert_same_in_both(squares, array(*shape), array(*shape), array(*shape))
    assert_same_in_both(hubers, array(), array(), array())
    assert_same_in_both(logistic, array(), rng.random((ROWS, COLUMNS)).astype(dtype), array())


def of_labels(logits, labels, classes, grad, weight):
    mean = gd.softmax_cross_entropy(logits, labels), gd.softmax_cross_entropy(logits, labels, grad)
    total = gd.softmax_cross_entropy(logits, classes, grad, "sum", 0.1, weight, ignore_index=1)
    return mean, total, gd.softmax_cross_entropy(logits, labels, reduction="none", class_weight=weight)


def of_probabilities(logits, target, grad, weight):
    mean = (
        gd.softmax_cross_entropy(logits, target),
        gd.softmax_cross_entropy(logits, target, grad, "mean", 0.1),
    )
    total = gd.softmax_cross_entropy(logits, target, reduction="sum", class_weight=weight)
    return mean, total, gd.softmax_cross_entropy(logits, target, grad, "none")


@pytest.mark.parametrize("labels", ["int32", "int64"])
def test_cross_entropy_of_labels(labels, array, rng):
    classes = rng.permutation(ROWS).astype(labels) % COLUMNS
    some = np.where(classes == 3, -100, classes).astype(labels)
    assert_same_in_both(of_labels, array(), some, classes, array(), np.abs(array(COLUMNS)))


def test_cross_entropy_of_probabilities(array, dtype, rng):
    target = rng.random((ROWS, COLUMNS)).astype(dtype)
    assert_same_in_both(of_probabilities, array(), target, array(), np.abs(array(COLUMNS)))


# ---------------------------------------------------------------------------------------------- optimizers, norms of all


def descents(p, g, v):
    gd.sgd_step(p, g, None, 0.1)
    gd.sgd_step(p, g, v, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    gd.sgd_step(p, g, v, 1, 0.5, False)
    gd.rmsprop_step(p, g, v, 0.1, 0.9, eps=1e-6)
    gd.adagrad_step(p, g, v, 0.1, weight_decay=0.1)
    gd.lion_step(p, g, v, 0.01, beta2=0.5)


def moments(p, g, m, v, most, step):
    gd.adam_step(p, g, m, v, step, 0.1)
    gd.adamw_step(p, g, m, v, step, lr=0.1)
    gd.nadam_step(p, g, m, v, step=3, lr=0.1, momentum_decay=0.01)
    gd.amsgrad_step(p, g, m, v, most, 2, 0.1, 0.8, 0.9, 1e-6, 0.1)


def test_steps_of_an_array_and_of_all_parameters(array):
    one, several = array, lambda: (array(), array(COLUMNS), array(COLUMNS, 1))
    for made, squared in ((one, np.abs), (several, lambda arrays: tuple(map(np.abs, arrays)))):
        assert_same_in_both(descents, made(), made(), squared(made()))
        assert_same_in_both(moments, made(), made(), made(), squared(made()), squared(made()), 4)


def lengths(arrays, x, y):
    whole = gd.global_norm(arrays), gd.global_norm(x, y), gd.global_norm(x), gd.global_norm()
    clipped = gd.clip_by_global_norm(1.5, arrays), gd.clip_by_global_norm(1, x, y)
    return whole, clipped, gd.clip_by_global_norm(0.1, x), gd.clip_by_global_norm(1)


def test_norms_of_all_arrays(array):
    assert_same_in_both(lengths, (array(), array(COLUMNS)), array(), array(ROWS))


def test_no_parameter_is_no_step():
    @njit
    def step():
        gd.adam_step((), (), (), (), 1, 0.1)
        return gd.global_norm(()), gd.clip_by_global_norm(1.0, ())

    assert step() == (0.0, 0.0)


# ---------------------------------------------------------------------------------------------- what is no array


def test_what_an_activation_keeps():
    @njit
    def kept():
        return gd.saved_for("tanh"), gd.saved_for("gelu"), gd.saved_for(kind="identity")

    assert kept() == tuple(map(gd.saved_for, ("tanh", "gelu", "identity")))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    rate = getattr(gd.schedules, name)
    counts = {count: 5 + 3 * place for place, count in enumerate(SCHEDULES[name].counts)}
    numbers = tuple((counts | dict.fromkeys(SCHEDULES[name].numbers, 0.3)).values())
    names = ", ".join(f"{one}={{}}" for one in (*counts, *SCHEDULES[name].numbers)).format(*numbers)
    compiled = njit(eval(f"lambda step: rate(step, {names})", {"rate": rate}))
    ours, theirs = ([one(step) for step in range(60)] for one in (compiled, compiled.py_func))
    # Powers and cosines are those of another library: a few ulp.
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
