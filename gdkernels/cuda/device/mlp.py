"""A multi-layer perceptron for kernels: an object whose functions a kernel calls, compiled for its sizes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...check import choice, whole
from ...scalar.activation import ACTIVATIONS
from ...scalar.optim import RULES
from ..runtime.target import (
    AttributeTemplate,
    OpaqueModel,
    lower_constant,
    lower_getattr_generic,
    register_attr,
    register_model,
    types,
)
from . import block, thread
from .layout import columns_of, layers_of, pitch_of


class Mlp:
    """The functions of ``gd.mlp(sizes, activation)``, for kernels.

    The object is a global of the kernel, or a variable of the function around it:

    >>> mlp = Mlp([4, 16, 2], "tanh")
    >>> @cuda.jit
    ... def evaluate(params, x, y):
    ...     row = cuda.grid(1)
    ...     if row < len(x):
    ...         mlp.predict(params, x[row], y[row])
    >>> evaluate[blocks, 256](net.flat, x, y)  # net = gd.mlp([4, 16, 2], "tanh").to("cuda")

    Parameters
    ----------
    sizes : number of inputs, of the outputs of every hidden layer, and of outputs
    activation : of the hidden layers, a name that `gd.activation` lists
    optimizer : whose update `block_update` makes, a name of `gdkernels.scalar.optim.RULES`

    Attributes
    ----------
    size : elements of the flat buffers of parameters, gradients and states: those of ``net.flat``
    n_in, n_out : of the network

    Of one thread, for one sample; x, y, dy and dx are arrays of one dimension, or anything else that is indexed:

    ``predict(params, x, y)``
        y = the network's output for x.
    ``vjp(params, x, dy, dx, grads)``
        dx = dL/dx from dy = dL/dy; this sample's dL/dparams is added to `grads`, which must belong to this thread alone.
        `dx` or `grads` may be None. The forward pass is computed again, so that y need not be known.

    Of a whole block, for a tile of rows; every thread of the block must call, with the same arguments, which cannot be
    checked. `tile` is shared memory of ``tile_size(rows)`` elements; a function sees what was written before it was called:

    ``block_x(row, column, rows)``, ``block_y(row, column, rows)``
        Where in `tile` an element of x, or of y, lies.
    ``block_forward(params, tile, rows)``
        y from x, which the threads have written into `tile`; y can be read when it returns.
    ``block_backward(params, grads, tile, rows)``
        From dL/dy, which the threads have written in the place of y after `block_forward`: dL/dparams, summed over the
        rows, is added to `grads`. `tile` may be filled again when it returns.
    ``block_input_gradient(params, tile, rows)``
        After `block_backward` and before `block_update`: dL/dx takes the place of x in `tile`.
    ``block_update(params, grads, states, row)``
        A step of the optimizer. `states` is a tuple of its states' buffers, `row` what ``adam_row(step, lr)`` gives;
        `grads` is zero afterwards, for the next step. The next `block_forward` sees the new parameters; to read them
        otherwise, call ``cuda.syncthreads()`` first, and likewise after changing `grads` before this function.

    `params`, `grads` and each state are C-contiguous arrays of `size` elements, float32 or float64, in global or shared
    memory, which begin at a multiple of 16 bytes: ``cuda.shared.array(0, float32, alignment=16)``. `rows` is any number from
    1 on; ragged tiles are no special case. A batch of several tiles calls `block_forward` and `block_backward` for each of
    them, and then `block_update`.

    Raises ValueError where sizes are no two positive numbers at least, or a name is unknown.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu", optimizer: str = "adam") -> None:
        if len(sizes) < 2:
            raise ValueError(f"Mlp: sizes is {sizes!r}, expected at least two numbers, of inputs and outputs")
        self.sizes = tuple(whole("Mlp", "sizes", size, at_least=1) for size in sizes)
        choice("Mlp", "activation", activation, ACTIVATIONS)
        choice("Mlp", "optimizer", optimizer, RULES)
        self.activation, self.optimizer = activation, optimizer
        self.size = layers_of(self.sizes)[1]
        self.n_in, self.n_out = self.sizes[0], self.sizes[-1]

    def __repr__(self) -> str:
        return f"Mlp({list(self.sizes)}, {self.activation!r}, {self.optimizer!r})"

    @property
    def _numba_type_(self) -> "MlpType":
        return _type(self.sizes, self.activation, self.optimizer)

    def tile_size(self, rows: int) -> int:
        """The elements of a tile for so many rows: what is between the layers, forward and backward."""
        rows = whole("Mlp.tile_size", "rows", rows, at_least=1)
        return columns_of(self.sizes).total * pitch_of(rows)

    def shared_bytes(self, rows: int, buffers: int = 0, itemsize: int = 4) -> int:
        """The bytes of shared memory for a tile of so many rows, and for `buffers` flat buffers beside it.

        With Adam and everything in shared memory there are four of these: parameters, gradients, m and v. `itemsize` is 8
        for float64. What is more than 48 KiB must be asked for: `allow_shared`.
        """
        buffers = whole("Mlp.shared_bytes", "buffers", buffers, at_least=0)
        return itemsize * (buffers * self.size + self.tile_size(rows))


# ---------------------------------------------------------------------------------------------- for the compiler


class MlpType(types.Type):
    """The type of an `Mlp` in a kernel: its attributes are constants, numbers or functions."""

    def __init__(self, sizes: tuple[int, ...], activation: str, optimizer: str):
        layers, size = layers_of(sizes)
        self.numbers = {"size": size, "n_in": sizes[0], "n_out": sizes[-1]}
        self.functions = {
            "predict": thread.predict_of(layers, activation),
            "vjp": thread.vjp_of(layers, activation),
            **block.functions_of(sizes, activation, optimizer),
        }
        super().__init__(name=f"Mlp({sizes}, {activation}, {optimizer})")

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two types the same."""
        return self.name, *self.functions.values()


@cache
def _type(sizes: tuple[int, ...], activation: str, optimizer: str) -> MlpType:
    return MlpType(sizes, activation, optimizer)


register_model(MlpType)(OpaqueModel)


@register_attr
class _Attributes(AttributeTemplate):
    key = MlpType

    def generic_resolve(self, mlp, name):
        if name in mlp.numbers:
            return types.int64
        if name in mlp.functions:
            return mlp.functions[name]._numba_type_
        return None


@lower_getattr_generic(MlpType)
def _attribute(context, builder, mlp, value, name):
    if name in mlp.numbers:
        return context.get_constant(types.int64, mlp.numbers[name])
    return context.get_dummy_value()


@lower_constant(MlpType)
def _constant(context, builder, mlp, value):
    return context.get_dummy_value()
