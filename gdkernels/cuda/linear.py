"""The dense layer: act(x @ w + b), the activation applied while the product is in registers; backward, two products."""

from typing import assert_never

from ..plan import LinearCall, LinearDw, LinearDx, LinearForward
from .binding import Binding
from .gemm import product
from .matmul import of_arrays
from .runtime.jit import Launch
from .runtime.jit import run as launch


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    bias, saved = (0 if array is None else array.address for array in (b, z))
    launch(of_arrays(x, w, out, bias=bias, activation=kind, z=saved), out.stream)


def bind(call: LinearCall, at: Binding) -> list[Launch]:
    """The launches of a call of a plan."""
    given, rows, storage = at.operands(call), at.rows, at.storage
    match call:
        case LinearForward():
            n_in, n_out = call.w.shape
            return product.launches(
                at.room, storage, rows, n_out, n_in, given["x"], n_in, 1, given["w"], n_out, 1, given["a"], n_out,
                bias=given["b"], activation=call.kind, z=given["z"],
            )  # fmt: skip
        case LinearDx():
            n_in, n_out = call.w.shape
            return product.launches(
                at.room, storage, rows, n_in, n_out, given["dz"], n_out, 1, given["w"], 1, n_out, given["dx"], n_in,
                add=given["add"], ldadd=n_in,
            )  # fmt: skip
        case LinearDw():
            n_in, n_out = call.x.columns, call.dz.columns
            return product.launches(
                at.room, storage, n_in, n_out, rows, given["x"], 1, n_in, given["dz"], n_out, 1, given["dw"], n_out,
                out_storage=at.real, accumulate=at.accumulate,
            )  # fmt: skip
        case _:
            assert_never(call)
