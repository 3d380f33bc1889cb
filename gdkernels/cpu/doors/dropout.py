"""The doors of dropout."""

from ...ranges import PROBABILITY
from ..cost import NS
from ..dropout import PIECE_ELEMENTS, elements
from ..runtime.jit import kernel
from ..runtime.layout import Double, Floats, Int
from ..runtime.simd import int64_at
from .arguments import Argument, Number, Whole, given, result
from .door import Door

elements_of = elements.source
SAMPLES = 4 * (PIECE_ELEMENTS + 16)  # where in the scratch of a worker, behind the words, a 0 stands


@kernel
def forward(x: Floats, p: Double, seed: Int, offset: Int, out: Floats, start, stop, scratch):
    """Elements [start, stop) of out = dropout(x); element i has number offset + i."""
    samples = int64_at(scratch + SAMPLES)
    samples[0] = 0
    elements_of(x, out, 1, p, seed, samples, offset, start, stop, scratch)


@kernel
def backward(dy: Floats, p: Double, seed: Int, offset: Int, out: Floats, start, stop, scratch):
    """The same of dy."""
    samples = int64_at(scratch + SAMPLES)
    samples[0] = 0
    elements_of(dy, out, 1, p, seed, samples, offset, start, stop, scratch)


def _door(name: str, run, first: str) -> Door:
    arguments: dict[str, Argument] = {
        first: given(),
        "p": Number(PROBABILITY),
        "seed": Whole(),
        "offset": Whole(),
        "out": result(like=(first,)),
    }
    return Door(name, run, arguments, total="size", costs=((NS["dropout"], "size"),))


dropout, dropout_backward = _door("dropout", forward, "x"), _door("dropout_backward", backward, "dy")

DOORS = {door.name: door for door in (dropout, dropout_backward)}
