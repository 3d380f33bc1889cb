"""What the calls of a plan are bound to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..plan import Call, Operand


@dataclass(frozen=True)
class Binding:
    """What calls are bound to, for a number of rows.

    Attributes
    ----------
    place : the address of an operand; 0 where it is absent
    storage, real : the types of the matrices and of what is computed with
    samples : the address of an int64, the number of samples seen before the step
    room : gives temporaries, which last for one call
    rows : of the batch
    accumulate : whether the gradients of parameters are added to what is there
    """

    place: Callable[[Operand], int]
    storage: str
    real: str
    samples: int
    room: Any
    rows: int
    accumulate: bool = False

    def __call__(self, operand: Operand) -> int:
        return self.place(operand)

    def operands(self, call: Call) -> dict[str, Any]:
        """What a call is about, by name: addresses and options."""
        return call.placed(self)
