"""Softmax and its logarithm inside ``@njit``."""

from ..ops import softmax as ops
from .arrays import place
from .call import Call, inside


@inside(ops.softmax)
def softmax(x, out=None):
    run = Call("softmax", x=x, out=out).run

    def call(x, out=None):
        p = place(out, x.shape, x)
        run((x, p))
        return p

    return call


@inside(ops.log_softmax)
def log_softmax(x, out=None):
    run = Call("log_softmax", x=x, out=out).run

    def call(x, out=None):
        log_p = place(out, x.shape, x)
        run((x, log_p))
        return log_p

    return call
