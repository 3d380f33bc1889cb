"""What the calls of a plan are bound to, and how the rows, columns and parameters of their ops are dealt out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Call, Operand
from .gemm.narrow import NARROW
from .gemm.tile import ROWS
from .runtime.jit import Op

# What stays with one worker.
VECTOR_ELEMENTS = 128  # of a parameter that is a vector: a multiple of a cache line
MATRIX_ELEMENTS = 512  # of a parameter that is a small matrix
PRODUCT_COLUMNS = 64  # of a product that is dealt out by columns: some panels of every vector width
BY_COLUMNS_BYTES = 8 << 20  # of a weight, from which its products are dealt out by columns


@dataclass(frozen=True)
class Deal:
    """How a parameter is dealt out: `items` (rows of a matrix, elements of a vector) of `width` elements each, of which
    `together` stay with one worker. Its gradient, the squares of that and its update are dealt out alike, so that the
    worker that has computed a part of the gradient reads it from its own cache.
    """

    items: int
    together: int
    width: int

    @classmethod
    def of(cls, *shape: int) -> "Deal":
        if len(shape) == 2:
            return cls(shape[0], ROWS * max(1, MATRIX_ELEMENTS // (ROWS * shape[1])), shape[1])
        return cls(shape[0], VECTOR_ELEMENTS, 1)

    @property
    def blocks(self) -> int:
        """Parts that are not divided any further."""
        return -(-self.items // self.together)

    @property
    def block(self) -> int:
        """Elements of such a part."""
        return self.together * self.width


@dataclass(frozen=True)
class Binding:
    """What calls are bound to, for a number of rows.

    Attributes
    ----------
    place : the array of an operand
    samples : one int64, the number of samples seen before the step
    rows : of the batch
    accumulate : whether the gradients of parameters are added to what is there
    shared : whether several workers will share the ops
    behind : how many elements behind a gradient its parameter lies, which is claimed with it; 0 for not at all
    """

    place: Callable[[Operand, int], Any]
    samples: np.ndarray
    rows: int
    accumulate: bool = False
    shared: bool = False
    behind: int = 0

    def __call__(self, operand: Operand) -> Any:
        return self.place(operand, self.rows)

    def operands(self, call: Call) -> dict[str, Any]:
        """What a call is about, by name: arrays, None and options."""
        return call.placed(self)

    def by_rows(self, op: Op) -> Op:
        """An op over rows, or over the elements of rows, dealt out so that every worker has rows of its own."""
        return op._replace(quantum=max(1, op.total // max(1, self.rows)) * ROWS)

    def by_columns(self, weight: np.ndarray) -> int:
        """How many columns of a product with a matrix (k, n) stay together; 0 where it is dealt out by rows.

        By columns where the matrix is so large that it takes longer to bring it in than to multiply it with a part of the
        rows. A narrow rest would be added up in another order.
        """
        n = weight.shape[1]
        wide = n >= 16 * PRODUCT_COLUMNS and not 0 < n % PRODUCT_COLUMNS <= NARROW
        return PRODUCT_COLUMNS if self.shared and weight.nbytes >= BY_COLUMNS_BYTES and wide else 0

    def of_parameter(self, op: Op, gradient: np.ndarray) -> Op:
        """An op over the rows or elements of a gradient, dealt out as its parameter is."""
        return op._replace(quantum=Deal.of(*gradient.shape).together)
