"""The public functions of the operations: each tries its door first, one native call (`cpu.doors`).

What a door refuses, because it is wrong, rare, on a GPU or large enough for several threads, goes to the operation itself.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from ..check import FLOATS
from .wings import first_array, run

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
MOST_KNOWN = 256  # element types and names that a door is told once


def everywhere(op: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let an operation take CUDA arrays too, and calls of NumPy arrays go through its door (`cpu.doors`) where it has one.

    The operation itself sees NumPy arrays, or all arrays as `cuda.runtime.arrays.Array`, which looks like one. What it
    returns goes back to the library of the first array.
    """
    entrance = _Entrance(op)
    return cast("Callable[Arguments, Result]", functools.wraps(op)(entrance.function))


class _Entrance:
    """The public function of an operation: it tries the door first, and what the door refuses goes to the operation.

    The function is written out with the parameters of the operation, as the methods of dataclasses are: to hand on
    ``*args, **kwargs`` would take longer than many a kernel.
    """

    def __init__(self, op: Callable[..., Any]):
        self._op = op
        self._door: Any = None
        self._known: set[Any] = set()  # the element types and names that the door was told
        signature = inspect.signature(op)
        parameters = signature.parameters.values()
        given = ", ".join("*" * (one.kind is one.VAR_POSITIONAL) + one.name for one in parameters)
        defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        declared = ", ".join(
            f"{one.name}=defaults[{one.name!r}]"
            if one.name in defaults
            else str(one.replace(annotation=one.empty))
            for one in parameters
        )
        text = (
            f"def {op.__name__}({declared}):\n"
            f"    made = enter({given})\n"
            f"    if made is None:\n"
            f"        return refused(({given},))\n"
            f"    return {'None' if signature.return_annotation is None else 'made'}\n"
        )
        self._names: dict[str, Any] = {"enter": _refuse, "refused": self._refused, "defaults": defaults}
        exec(compile(text, f"<entrance of {op.__name__}>", "exec"), self._names)
        self.function: Callable[..., Any] = self._names[op.__name__]

    def _refused(self, args: tuple[Any, ...]) -> Any:
        """What the door does not know it is told, if it can be; what it cannot do the operation does."""
        first = first_array(args)
        if type(first) is np.ndarray and first.dtype in FLOATS:
            words = tuple(one if type(one) is str else None for one in args)
            if (first.dtype, words) not in self._known:
                self._tell(first.dtype, words)
                if len(self._known) == MOST_KNOWN:  # somebody tries names without end
                    self._known.clear()
                self._known.add((first.dtype, words))
                made = self._names["enter"](*args)
                if made is not None:
                    return None if made is True else made
        return run(self._op, args)

    def _tell(self, dtype: np.dtype[Any], words: tuple[str | None, ...]) -> None:
        from ..cpu import doors

        door = self._door or doors.find(self._op.__name__)
        if door is None or not door.can_open:
            return
        door.learn(dtype, words)
        if self._door is None:
            self._door = door
            self._names["enter"] = door.open()


def _refuse(*args: Any) -> None:
    """What stands for the door of an operation until the first call."""
