"""The dense layer: act(x @ w + b), the activation applied while the product is in registers."""

from .matmul import of_arrays
from .runtime.arrays import address_of
from .runtime.jit import run as launch


def run(x, w, b, kind: str, out, z) -> None:
    """out = act(x @ w + b); z, if given, receives x @ w + b. x and w may have any strides."""
    launch(of_arrays(x, w, out, bias=address_of(b), activation=kind, z=address_of(z)), out.stream)
