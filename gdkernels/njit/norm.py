"""Norms and the scale of columns inside ``@njit``."""

from ..ops import norm as ops
from .arrays import place
from .call import Call, inside


@inside(ops.layernorm)
def layernorm(x, gamma, beta, eps=1e-5, residual=None, out=None, stats=None):
    run = Call("layernorm", x=x, gamma=gamma, beta=beta, eps=eps, residual=residual, out=out, stats=stats).run

    def call(x, gamma, beta, eps=1e-5, residual=None, out=None, stats=None):
        y = place(out, x.shape, x)
        run((x, gamma, beta, eps, residual, y, stats))
        return y

    return call


@inside(ops.layernorm_backward)
def layernorm_backward(dy, x, gamma, stats, residual=None, dx=None, dgamma=None, dbeta=None):
    run = Call(
        "layernorm_backward", dy=dy, x=x, gamma=gamma, stats=stats, residual=residual, dx=dx, dgamma=dgamma, dbeta=dbeta
    ).run  # fmt: skip

    def call(dy, x, gamma, stats, residual=None, dx=None, dgamma=None, dbeta=None):
        to_dx, to_dgamma, to_dbeta = (
            place(dx, x.shape, x),
            place(dgamma, (x.shape[1],), x),
            place(dbeta, (x.shape[1],), x),
        )
        run((dy, x, gamma, stats, residual, to_dx, to_dgamma, to_dbeta))
        return to_dx, to_dgamma, to_dbeta

    return call


@inside(ops.rmsnorm)
def rmsnorm(x, gamma, eps=1e-6, residual=None, out=None, stats=None):
    run = Call("rmsnorm", x=x, gamma=gamma, eps=eps, residual=residual, out=out, stats=stats).run

    def call(x, gamma, eps=1e-6, residual=None, out=None, stats=None):
        y = place(out, x.shape, x)
        run((x, gamma, eps, residual, y, stats))
        return y

    return call


@inside(ops.rmsnorm_backward)
def rmsnorm_backward(dy, x, gamma, stats, residual=None, dx=None, dgamma=None):
    run = Call(
        "rmsnorm_backward", dy=dy, x=x, gamma=gamma, stats=stats, residual=residual, dx=dx, dgamma=dgamma
    ).run

    def call(dy, x, gamma, stats, residual=None, dx=None, dgamma=None):
        to_dx, to_dgamma = place(dx, x.shape, x), place(dgamma, (x.shape[1],), x)
        run((dy, x, gamma, stats, residual, to_dx, to_dgamma))
        return to_dx, to_dgamma

    return call


@inside(ops.scale)
def scale(x, gamma, out=None):
    run = Call("scale", x=x, gamma=gamma, out=out).run

    def call(x, gamma, out=None):
        y = place(out, x.shape, x)
        run((x, gamma, y))
        return y

    return call


@inside(ops.scale_backward)
def scale_backward(dy, x, gamma, dx=None, dgamma=None):
    run = Call("scale_backward", dy=dy, x=x, gamma=gamma, dx=dx, dgamma=dgamma).run

    def call(dy, x, gamma, dx=None, dgamma=None):
        to_dx, to_dgamma = place(dx, x.shape, x), place(dgamma, (x.shape[1],), x)
        run((dy, x, gamma, to_dx, to_dgamma))
        return to_dx, to_dgamma

    return call
