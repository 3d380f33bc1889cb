"""The dense layer: act(x @ w + b), rows shared among the workers; its backward pass is two products."""

from typing import assert_never

from ..plan import LinearCall, LinearDw, LinearDx, LinearForward
from .activation import FORWARD
from .binding import Binding
from .cost import NS
from .gemm.product import ZEROS, gemm
from .gemm.tile import ROWS
from .matmul import product_columns_op, product_op
from .runtime.jit import Op, kernel
from .runtime.layout import Floats, Int, OptionalCode
from .runtime.simd import apply, offset
from .runtime.team import run as launch


@kernel
def forward(
    x: Floats, rsx: Int, csx: Int, w: Floats, rsw: Int, csw: Int, init: Floats, csi: Int,
    z: Floats, act: OptionalCode, a: Floats, n_in: Int, n_out: Int, start, stop, scratch,
):  # fmt: skip
    """Rows [start, stop) of z = x @ w + b and, where `act` is not 0, of a = act(z), while z is still in the cache.

    `init` is b (`csi` 1) or a row of zeros (`csi` 0); `act` is a loop of `activation.FORWARD`. z and a may be one.
    """
    rows = stop - start
    z = offset(z, start * n_out)
    gemm(
        rows, n_out, n_in, offset(x, start * rsx), rsx, csx, w, rsw, csw, init, 0, csi, z, n_out, 0, scratch
    )  # fmt: skip
    if act != 0:
        apply(act, z, offset(a, start * n_out), rows * n_out)


@kernel
def forward_columns(
    x: Floats, rsx: Int, csx: Int, w: Floats, rsw: Int, csw: Int, init: Floats, csi: Int,
    z: Floats, act: OptionalCode, a: Floats, n_in: Int, n_out: Int, rows: Int, start, stop, scratch,
):  # fmt: skip
    """Columns [start, stop) of the same, for all rows."""
    z, a, width = offset(z, start), offset(a, start), stop - start
    gemm(
        rows, width, n_in, x, rsx, csx, offset(w, start * csw), rsw, csw, offset(init, start * csi), 0, csi, z, n_out, 0,
        scratch,
    )  # fmt: skip
    if act != 0:
        for row in range(rows):
            apply(act, offset(z, row * n_out), offset(a, row * n_out), width)


def forward_op(x, w, b, kind: str, out, z) -> Op:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    (batch, n_in), n_out, size = x.shape, w.shape[1], x.itemsize
    (rsx, csx), (rsw, csw) = x.strides, w.strides
    act = None if kind == "identity" and z is None else FORWARD[kind]
    init, csi = (ZEROS[x.itemsize], 0) if b is None else (b, 1)
    return forward.op(
        x.dtype, batch, quantum=ROWS, work=batch * n_out * (NS["product"] * n_in + NS["linear, element"]),
        x=x, rsx=rsx // size, csx=csx // size, w=w, rsw=rsw // size, csw=csw // size, init=init, csi=csi,
        z=out if z is None else z, act=act, a=out, n_in=n_in, n_out=n_out,
    )  # fmt: skip


def forward_columns_op(x, w, b, kind: str, out, z, quantum: int) -> Op:
    """The same, dealt out by columns; other workers may have written x, and will read out. All is C-contiguous."""
    (batch, n_in), n_out = x.shape, w.shape[1]
    act = None if kind == "identity" and z is None else FORWARD[kind]
    init, csi = (ZEROS[x.itemsize], 0) if b is None else (b, 1)
    return forward_columns.op(
        x.dtype, n_out, quantum=quantum,
        x=x, rsx=n_in, csx=1, w=w, rsw=n_out, csw=1, init=init, csi=csi,
        z=out if z is None else z, act=act, a=out, n_in=n_in, n_out=n_out, rows=batch,
    )._replace(apart=True)  # fmt: skip


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); see `forward_op`."""
    launch(forward_op(x, w, b, kind, out, z))


def bind(call: LinearCall, at: Binding) -> Op:
    """The op of a call of a plan."""
    given = at.operands(call)
    match call:
        case LinearForward():
            given["out"] = given.pop("a")
            together = at.by_columns(given["w"])
            return forward_columns_op(**given, quantum=together) if together else forward_op(**given)
        case LinearDx():
            w = given["w"].T
            product = {"a": given["dz"], "b": w, "out": given["dx"], "add": given["add"]}
            together = at.by_columns(w)
            return product_columns_op(**product, quantum=together) if together else product_op(**product)
        case LinearDw():
            dw = given["dw"]
            add = dw if at.accumulate else None
            op = product_op(given["x"].T, given["dz"], dw, add, also=at.behind)
            return at.of_parameter(op, dw)
        case _:
            assert_never(call)
