"""The dense layer: act(x @ w + b), rows shared among the workers."""

from . import activation
from .gemm.product import ZEROS, gemm
from .gemm.tile import ROWS
from .runtime.jit import kernel
from .runtime.simd import apply, offset, unpack
from .runtime.team import SCRATCH_BYTES, address, launch


@kernel
def forward(record, start, stop, worker):
    """Rows [start, stop) of z = x @ w + b and, where `act` is not 0, of a = act(z), while z is still in the cache.

    `init` is b (`csi` 1) or a row of zeros (`csi` 0); `act` is the address of a native activation. z and a may be one.
    """
    scratch, x, rsx, csx, w, rsw, csw, init, csi, z, act, a, n_in, n_out = unpack(
        record, "i8, F*, i8, i8, F*, i8, i8, F*, i8, F*, i8, F*, i8, i8"
    )
    rows = stop - start
    z = offset(z, start * n_out)
    gemm(
        rows, n_out, n_in, offset(x, start * rsx), rsx, csx, w, rsw, csw, init, 0, csi, z, n_out, 0,
        scratch + worker * SCRATCH_BYTES,
    )  # fmt: skip
    if act != 0:
        apply(act, z, offset(a, start * n_out), rows * n_out)


@kernel
def forward_columns(record, start, stop, worker):
    """Columns [start, stop) of the same, for all rows."""
    scratch, x, rsx, csx, w, rsw, csw, init, csi, z, act, a, n_in, n_out, rows = unpack(
        record, "i8, F*, i8, i8, F*, i8, i8, F*, i8, F*, i8, F*, i8, i8, i8"
    )
    z, a, width = offset(z, start), offset(a, start), stop - start
    gemm(
        rows, width, n_in, x, rsx, csx, offset(w, start * csw), rsw, csw, offset(init, start * csi), 0, csi, z, n_out, 0,
        scratch + worker * SCRATCH_BYTES,
    )  # fmt: skip
    if act != 0:
        for row in range(rows):
            apply(act, offset(z, row * n_out), offset(a, row * n_out), width)


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    (batch, n_in), n_out, itemsize = x.shape, w.shape[1], x.itemsize
    init, csi = (address(b), 1) if b is not None else (address(ZEROS), 0)
    act = 0 if kind == "identity" and z is None else activation.FORWARD[kind].address(x.dtype)
    operands = (
        address(x), x.strides[0] // itemsize, x.strides[1] // itemsize,
        address(w), w.strides[0] // itemsize, w.strides[1] // itemsize,
        init, csi, address(out if z is None else z), act, address(out), n_in, n_out,
    )  # fmt: skip
    launch(forward, x.dtype, operands, batch, ROWS, batch * n_out * (0.02 * n_in + 1.0))
