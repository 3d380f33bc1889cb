"""Which wing an operation runs on: that of its arrays."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

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
    """Let an operation take CUDA arrays too.

    The operation itself sees NumPy arrays, or all arrays as `cuda.runtime.arrays.Array`, which looks like one. What it
    returns goes back to the library of the first array.
    """

    @functools.wraps(op)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if args and type(args[0]) is np.ndarray:
            try:
                return op(*args, **kwargs)
            except TypeError:
                _refuse_mixture(op, args, kwargs)
                raise
        return _wherever(op, args, kwargs)

    return call


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
