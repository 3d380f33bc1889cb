"""Where the parameters of a multi-layer perceptron lie, and where a tile of rows has its matrices."""

import itertools
from typing import NamedTuple

from ...plan import room_of


class Layer(NamedTuple):
    """A linear layer: its widths, and where its weight and bias begin in the flat buffer of parameters."""

    n_in: int
    n_out: int
    w: int
    b: int
    is_last: bool


def layers_of(sizes: tuple[int, ...]) -> tuple[list[Layer], int]:
    """The layers and the elements of all parameters, as `gd.mlp` lays them out: w, b, w, b, … each with `room_of` it."""
    layers, at = [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        b = at + room_of(n_in * n_out)
        layers.append(Layer(n_in, n_out, at, b, len(layers) == len(sizes) - 2))
        at = b + room_of(n_out)
    return layers, at


class Columns(NamedTuple):
    """Of which matrices a tile consists, each by its first column: a column has the rows of one feature.

    outputs : of the input and of the output of each layer; of the last one, y and then dL/dy
    slopes : of each hidden layer, where the backward pass reads what act′ is a function of and leaves dL/dz: the
        pre-activation, where that is what it reads
    total : the number of columns
    """

    outputs: tuple[int, ...]
    slopes: tuple[int, ...]
    total: int


def columns_of(sizes: tuple[int, ...]) -> Columns:
    """The columns of a tile."""
    outputs = [0, *itertools.accumulate(sizes)]
    slopes = [outputs[-1], *itertools.accumulate(sizes[1:-1], initial=outputs[-1])][1:]
    return Columns(tuple(outputs[:-1]), tuple(slopes[:-1]), slopes[-1])


def pitch_of(rows: int) -> int:
    """The elements from one column of a tile to the next: whole groups of four rows, and an odd number of these.

    So eight lanes that read groups of neighbouring columns find them in different banks.
    """
    return 4 * (((rows + 3) >> 2) | 1)
