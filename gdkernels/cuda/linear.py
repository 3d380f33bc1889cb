"""The dense layer: act(x @ w + b), the activation applied while the product is in registers."""

from .matmul import of_arrays
from .runtime.jit import run as launch


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    bias, saved = (0 if array is None else array.address for array in (b, z))
    launch(of_arrays(x, w, out, bias=bias, activation=kind, z=saved), out.stream)
