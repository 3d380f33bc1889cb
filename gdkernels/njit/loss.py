"""The losses of elements inside ``@njit``. A reduction is a name that stands in the call: "none" gives an array."""

from ..ops import loss as ops
from .arrays import place
from .call import Call, inside
from .kinds import Refused, constant, told

REDUCTIONS = ("mean", "sum", "none")


def reduced(op, reduction):
    """Whether a loss is one number; it is not for "none"."""
    if constant(reduction) not in REDUCTIONS:
        raise Refused(f"{op}: reduction {told(reduction)}, expected one of {', '.join(REDUCTIONS)}")
    return constant(reduction) != "none"


@inside(ops.mse)
def mse(pred, target, grad=None, reduction="mean"):
    return _without_option("mse", pred, target, grad, reduction)


@inside(ops.log_cosh)
def log_cosh(pred, target, grad=None, reduction="mean"):
    return _without_option("log_cosh", pred, target, grad, reduction)


def _without_option(op, pred, target, grad, reduction):
    given = {"pred": pred, "target": target, "grad": grad}
    if not reduced(op, reduction):
        run = Call(f"{op}.terms", **given, out=None).run

        def terms(pred, target, grad=None, reduction="mean"):
            out = place(None, pred.shape, pred)
            run((pred, target, grad, out))
            return out

        return terms
    run = Call(op, **given, reduction=reduction).run

    def call(pred, target, grad=None, reduction="mean"):
        return run((pred, target, grad, 0))

    return call


@inside(ops.huber)
def huber(pred, target, delta=1.0, grad=None, reduction="mean"):
    given = {"pred": pred, "target": target, "delta": delta, "grad": grad}
    if not reduced("huber", reduction):
        run = Call("huber.terms", **given, out=None).run

        def terms(pred, target, delta=1.0, grad=None, reduction="mean"):
            out = place(None, pred.shape, pred)
            run((pred, target, delta, grad, out))
            return out

        return terms
    run = Call("huber", **given, reduction=reduction).run

    def call(pred, target, delta=1.0, grad=None, reduction="mean"):
        return run((pred, target, delta, grad, 0))

    return call


@inside(ops.binary_cross_entropy)
def binary_cross_entropy(logits, target, grad=None, reduction="mean", pos_weight=1.0):
    given = {"logits": logits, "target": target, "grad": grad}
    if not reduced("binary_cross_entropy", reduction):
        run = Call("binary_cross_entropy.terms", **given, out=None, pos_weight=pos_weight).run

        def terms(logits, target, grad=None, reduction="mean", pos_weight=1.0):
            out = place(None, logits.shape, logits)
            run((logits, target, grad, out, pos_weight))
            return out

        return terms
    run = Call("binary_cross_entropy", **given, reduction=reduction, pos_weight=pos_weight).run

    def call(logits, target, grad=None, reduction="mean", pos_weight=1.0):
        return run((logits, target, grad, 0, pos_weight))

    return call
