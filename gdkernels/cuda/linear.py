"""The dense layer: act(x @ w + b), the activation applied while the product is in registers; backward, two products."""

from typing import assert_never

from ..plan import LinearCall, LinearDw, LinearDx, LinearForward
from .binding import Binding
from .gemm import product
from .matmul import of_arrays
from .runtime.arrays import address_of
from .runtime.jit import Launch
from .runtime.jit import run as launch


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    launch(of_arrays(x, w, out, bias=address_of(b), activation=kind, z=address_of(z)), out.stream)


def bind(call: LinearCall, at: Binding) -> list[Launch]:
    """The launches of a call of a plan."""
    given, rows, storage = at.operands(call), at.rows, at.storage
    match call:
        case LinearForward():
            n_in, n_out = call.w.shape
            return product.launches(
                at.room, storage, m=rows, n=n_out, k=n_in, a=given["x"], rsa=n_in, csa=1, b=given["w"], rsb=n_out, csb=1,
                out=given["a"], ldo=n_out, bias=given["b"], activation=call.kind, z=given["z"],
            )  # fmt: skip
        case LinearDx():
            n_in, n_out = call.w.shape
            return product.launches(
                at.room, storage, m=rows, n=n_in, k=n_out, a=given["dz"], rsa=n_out, csa=1, b=given["w"], rsb=1,
                csb=n_out, out=given["dx"], ldo=n_in, add=given["add"], ldadd=n_in,
            )  # fmt: skip
        case LinearDw():
            n_in, n_out = call.x.columns, call.dz.columns
            return product.launches(
                at.room, storage, m=n_in, n=n_out, k=rows, a=given["x"], rsa=1, csa=n_in, b=given["dz"], rsb=n_out, csb=1,
                out=given["dw"], ldo=n_out, out_storage=at.real, accumulate=at.accumulate,
            )  # fmt: skip
        case _:
            assert_never(call)
