"""Which wing an operation runs on: that of its arrays."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from ..check import FLOATS

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_CPU: dict[str, Any] = {}
_CUDA: dict[str, Any] = {}


def wing(array: Any, family: str) -> Any:
    """The module of this family of kernels for the memory that an array (or `cuda.runtime.arrays.Array`) lies in."""
    modules = _CPU if isinstance(array, np.ndarray) else _CUDA
    module = modules.get(family)
    if module is None:
        place = "cpu" if modules is _CPU else "cuda"
        module = modules[family] = importlib.import_module(f"..{place}.{family}", __package__)
    return module


def everywhere(op: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let an operation take CUDA arrays too, and calls of NumPy arrays go through its door (`cpu.doors`) where it has one.

    The operation itself sees NumPy arrays, or all arrays as `cuda.runtime.arrays.Array`, which looks like one. What it
    returns goes back to the library of the first array.
    """
    parameters = inspect.signature(op).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):

        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return _on_its_wing(op, args, kwargs)

        return functools.wraps(op)(call)
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
        self._known: set[Any] = (
            set()
        )  # element types and names that the door was told, as far as it can do them
        signature = inspect.signature(op)
        given = ", ".join(signature.parameters)
        declared = [
            name if one.default is one.empty else f"{name}=defaults[{name!r}]"
            for name, one in signature.parameters.items()
        ]
        gives = "" if signature.return_annotation is None else "return made"
        text = (
            f"def {op.__name__}({', '.join(declared)}):\n"
            f"    made = enter({given})\n"
            f"    if made is None:\n"
            f"        return refused(({given},))\n"
            f"    {gives or 'return None'}\n"
        )
        defaults = {name: one.default for name, one in signature.parameters.items()}
        self._names: dict[str, Any] = {"enter": _refuse, "refused": self._refused, "defaults": defaults}
        exec(compile(text, f"<entrance of {op.__name__}>", "exec"), self._names)
        self.function: Callable[..., Any] = self._names[op.__name__]

    def _refused(self, args: tuple[Any, ...]) -> Any:
        """What the door does not know it is told, if it can be; what it cannot do the operation does."""
        first = args[0]
        if type(first) is np.ndarray and first.dtype in FLOATS:
            words = tuple(sys.intern(one) if type(one) is str else None for one in args)
            if (first.dtype, words) not in self._known:
                self._known.add((first.dtype, words))
                self._tell(first.dtype, words)
                made = self._names["enter"](*args)
                if made is not None:
                    return None if made is True else made
        return _on_its_wing(self._op, args, {})

    def _tell(self, dtype: np.dtype[Any], words: tuple[str | None, ...]) -> None:
        from ..cpu import doors

        door = self._door or doors.find(self._op.__name__)
        if door is None or not door.can_open:
            return
        if self._door is None:
            self._door = door
            self._names["enter"] = door.open()
        door.learn(dtype, words)


def _refuse(*args: Any) -> None:
    """What stands for the door of an operation until the first call."""


def _on_its_wing(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operation; its arrays may lie on the GPU, but not some there and some here."""
    if args and type(args[0]) is np.ndarray:
        try:
            return op(*args, **kwargs)
        except TypeError:
            _refuse_mixture(op, args, kwargs)
            raise
    return _wherever(op, args, kwargs)


def _on_device(value: object) -> bool:
    if value is None or isinstance(value, np.ndarray | np.generic | bool | int | float | str):
        return False
    if type(value).__module__.partition(".")[0] == "torch":
        return bool(getattr(value, "is_cuda", False))
    if hasattr(value, "__cuda_array_interface__"):
        return True
    if not hasattr(value, "__dlpack_device__"):
        return False
    return value.__dlpack_device__()[0] in (2, 13)  # kDLCUDA, kDLCUDAManaged


def _named(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """The arguments with their names."""
    parameters = inspect.signature(op).parameters.values()
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if rest:
        names += [f"{rest[0]}[{index}]" for index in range(len(args) - len(names))]
    return [*zip(names, args, strict=False), *kwargs.items()]


def _refuse_mixture(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """TypeError where some arrays lie on the GPU and others do not."""
    named = _named(op, args, kwargs)
    there = [name for name, value in named if _on_device(value)]
    here = [name for name, value in named if isinstance(value, np.ndarray)]
    if there and here:
        raise TypeError(
            f"{op.__name__}: {' and '.join(there)} on the GPU but {' and '.join(here)} in NumPy, "
            "expected all arrays on one device"
        )


def _wherever(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operation whose first argument is not a NumPy array."""
    if not any(map(_on_device, args)) and not any(map(_on_device, kwargs.values())):
        return op(*args, **kwargs)
    _refuse_mixture(op, args, kwargs)
    from ..cuda.runtime import arrays

    read = []

    def seen(value: Any) -> Any:
        if not _on_device(value):
            return value
        read.append(arrays.read(value))
        return read[-1]

    args, kwargs = tuple(map(seen, args)), {name: seen(value) for name, value in kwargs.items()}
    with arrays.in_order(read):
        result = op(*args, **kwargs)
    if isinstance(result, tuple):
        return tuple(map(arrays.release, result))
    return arrays.release(result)
