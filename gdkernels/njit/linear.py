"""The dense layer inside ``@njit``."""

from ..ops import linear as ops
from .arrays import deliver, in_order, landing, place, placed
from .call import UNKNOWN, Call, Refused, constant, inside, told


@inside(ops.linear)
def linear(x, w, b=None, activation="identity", out=None, z=None):
    run = Call("linear", x=x, w=w, b=b, activation=activation, out=out, z=z).run

    def call(x, w, b=None, activation="identity", out=None, z=None):
        a, before = place(out, (x.shape[0], w.shape[1]), x), landing(z)
        run((x, w, in_order(b), 0, a, before))
        deliver(z, before)
        return placed(out, a)

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
    if wanted is UNKNOWN:
        raise Refused(f"linear_backward: need_dx {told(need_dx)}, expected True or False in the call itself")

    def call(
        da, x, w, saved, activation="identity", dx=None, dw=None, db=None, need_dx=True, accumulate=False
    ):
        to_dx, to_dw, to_db = place(dx, x.shape, x), place(dw, w.shape, x), place(db, (w.shape[1],), x)
        run((in_order(da), x, w, in_order(saved), 0, to_dx, to_dw, to_db, True, accumulate))
        return placed(dx, to_dx), placed(dw, to_dw), placed(db, to_db)

    def call_without_dx(
        da, x, w, saved, activation="identity", dx=None, dw=None, db=None, need_dx=True, accumulate=False
    ):
        to_dw, to_db = place(dw, w.shape, x), place(db, (w.shape[1],), x)
        run((in_order(da), x, w, in_order(saved), 0, None, to_dw, to_db, False, accumulate))
        return None, placed(dw, to_dw), placed(db, to_db)

    return call if wanted else call_without_dx
