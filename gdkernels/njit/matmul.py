"""The matrix product inside ``@njit``."""

from ..ops import matmul as ops
from .arrays import place
from .call import Call, inside


@inside(ops.matmul)
def matmul(a, b, trans_a=False, trans_b=False, out=None, accumulate=False):
    run = Call("matmul", a=a, b=b, trans_a=trans_a, trans_b=trans_b, out=out, accumulate=accumulate).run

    def call(a, b, trans_a=False, trans_b=False, out=None, accumulate=False):
        m = a.shape[1] if trans_a else a.shape[0]
        n = b.shape[0] if trans_b else b.shape[1]
        product = place(out, (m, n), a)
        run((a, b, trans_a, trans_b, product, accumulate))
        return product

    return call
