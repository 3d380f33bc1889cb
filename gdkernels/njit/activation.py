"""The activations inside ``@njit``."""

from ..ops import activation as ops
from ..scalar.activation import SAVED
from .arrays import place
from .call import Call, inside
from .kinds import Refused, constant, told


@inside(ops.activation)
def activation(z, kind, out=None):
    run = Call("activation", z=z, kind=kind, out=out).run

    def call(z, kind, out=None):
        a = place(out, z.shape, z)
        run((z, 0, a))
        return a

    return call


@inside(ops.activation_backward)
def activation_backward(da, saved, kind, out=None, db=None):
    run = Call("activation_backward", da=da, saved=saved, kind=kind, out=out, db=db).run

    def call(da, saved, kind, out=None, db=None):
        dz = place(out, da.shape, da)
        run((da, saved, 0, dz, db))
        return dz

    return call


@inside(ops.saved_for)
def saved_for(kind):
    value = constant(kind)
    if value not in SAVED:
        raise Refused(f"saved_for: kind {told(kind)}, expected one of {', '.join(SAVED)}")
    saved = SAVED[value]
    return lambda kind: saved
