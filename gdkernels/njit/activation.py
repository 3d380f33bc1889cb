"""The activations inside ``@njit``."""

from ..ops import activation as ops
from ..scalar.activation import SAVED
from .arrays import deliver, in_order, landing, place, placed
from .call import Call, Refused, constant, inside, told


@inside(ops.activation)
def activation(z, kind, out=None):
    run = Call("activation", z=z, kind=kind, out=out).run

    def call(z, kind, out=None):
        a = place(out, z.shape, z)
        run((in_order(z), 0, a))
        return placed(out, a)

    return call


@inside(ops.activation_backward)
def activation_backward(da, saved, kind, out=None, db=None):
    run = Call("activation_backward", da=da, saved=saved, kind=kind, out=out, db=db).run

    def call(da, saved, kind, out=None, db=None):
        dz, sums = place(out, da.shape, da), landing(db)
        run((in_order(da), in_order(saved), 0, dz, sums))
        deliver(db, sums)
        return placed(out, dz)

    return call


@inside(ops.saved_for)
def saved_for(kind):
    value = constant(kind)
    if value not in SAVED:
        raise Refused(f"saved_for: kind {told(kind)}, expected one of {', '.join(SAVED)}")
    saved = SAVED[value]
    return lambda kind: saved
