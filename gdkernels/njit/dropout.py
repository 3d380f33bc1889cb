"""Dropout inside ``@njit``."""

from ..ops import dropout as ops
from .arrays import place
from .call import Call, inside


@inside(ops.dropout)
def dropout(x, p, seed, offset=0, out=None):
    run = Call("dropout", x=x, p=p, seed=seed, offset=offset, out=out).run

    def call(x, p, seed, offset=0, out=None):
        y = place(out, x.shape, x)
        run((x, p, seed, offset, y))
        return y

    return call


@inside(ops.dropout_backward)
def dropout_backward(dy, p, seed, offset=0, out=None):
    run = Call("dropout_backward", dy=dy, p=p, seed=seed, offset=offset, out=out).run

    def call(dy, p, seed, offset=0, out=None):
        dx = place(out, dy.shape, dy)
        run((dy, p, seed, offset, dx))
        return dx

    return call
