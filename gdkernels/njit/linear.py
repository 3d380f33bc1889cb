"""The dense layer inside ``@njit``."""

from ..ops import linear as ops
from .arrays import place
from .call import Call, inside
from .kinds import Refused, constant, told


@inside(ops.linear)
def linear(x, w, b=None, activation="identity", out=None, z=None):
    run = Call("linear", x=x, w=w, b=b, activation=activation, out=out, z=z).run

    def call(x, w, b=None, activation="identity", out=None, z=None):
        a = place(out, (x.shape[0], w.shape[1]), x)
        run((x, w, b, 0, a, z))
        return a

    return call


@inside(ops.linear_backward)
def linear_backward(
    da, x, w, saved, activation="identity", dx=None, dw=None, db=None, need_dx=True, accumulate=False
):
    run = Call(
        "linear_backward", da=da, x=x, w=w, saved=saved, activation=activation, dx=dx, dw=dw, db=db, need_dx=need_dx,
        accumulate=accumulate,
    ).run  # fmt: skip
    wanted = constant(need_dx)
    if not isinstance(wanted, bool):
        raise Refused(f"linear_backward: need_dx {told(need_dx)}, expected True or False in the call itself")

    def call(
        da, x, w, saved, activation="identity", dx=None, dw=None, db=None, need_dx=True, accumulate=False
    ):
        to_dx, to_dw, to_db = place(dx, x.shape, x), place(dw, w.shape, x), place(db, (w.shape[1],), x)
        run((da, x, w, saved, 0, to_dx, to_dw, to_db, True, accumulate))
        return to_dx, to_dw, to_db

    def call_without_dx(
        da, x, w, saved, activation="identity", dx=None, dw=None, db=None, need_dx=True, accumulate=False
    ):
        to_dw, to_db = place(dw, w.shape, x), place(db, (w.shape[1],), x)
        run((da, x, w, saved, 0, None, to_dw, to_db, False, accumulate))
        return None, to_dw, to_db

    return call if wanted else call_without_dx
