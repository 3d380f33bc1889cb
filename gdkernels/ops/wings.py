"""Which wing an operation runs on: that of its arrays."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

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


def first_array(args: tuple[Any, ...]) -> Any:
    """The first argument that is no number, or the first of its items where it is a list; None where there is none."""
    for one in args:
        if isinstance(one, list | tuple) and one:
            return one[0]
        if not isinstance(one, int | float):
            return one
    return None


def run(op: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call an operation with the arrays on whatever device they are, but not some there and some here.

    It sees NumPy arrays, or all arrays as `cuda.runtime.arrays.Array`; what it returns goes back to their library.
    """
    if type(first_array(args)) is np.ndarray:
        try:
            return op(*args)
        except TypeError:
            _refuse_mixture(op, args)
            raise
    if not any(_on_device(value) for _, value in _named(op, args)):
        return op(*args)
    _refuse_mixture(op, args)
    from ..cuda.runtime import arrays

    read = []

    def seen(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [*map(seen, value)]
        if not _on_device(value):
            return value
        read.append(arrays.read(value))
        return read[-1]

    args = tuple(map(seen, args))
    with arrays.in_order(read):
        result = op(*args)
    if isinstance(result, tuple):
        return tuple(map(arrays.release, result))
    return arrays.release(result)


def _on_device(value: object) -> bool:
    if value is None or isinstance(value, np.ndarray | np.generic | bool | int | float | str | type):
        return False
    if type(value).__module__.partition(".")[0] == "torch":
        return bool(getattr(value, "is_cuda", False))
    if hasattr(value, "__cuda_array_interface__"):
        return True
    if not hasattr(value, "__dlpack_device__"):
        return False
    return value.__dlpack_device__()[0] in (2, 13)  # kDLCUDA, kDLCUDAManaged


def _named(op: Callable[..., Any], args: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """The arguments with their names, and the items of those that are lists."""
    parameters = inspect.signature(op).parameters.values()
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    if rest:
        names += [f"{rest[0]}[{index}]" for index in range(len(args) - len(names))]
    for name, value in zip(names, args, strict=False):
        if isinstance(value, list | tuple):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
        else:
            yield name, value


def _refuse_mixture(op: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """TypeError where some arrays lie on the GPU and others do not."""
    named = [*_named(op, args)]
    there = [name for name, value in named if _on_device(value)]
    here = [name for name, value in named if isinstance(value, np.ndarray)]
    if there and here:
        raise TypeError(
            f"{op.__name__}: {' and '.join(there)} on the GPU but {' and '.join(here)} in NumPy, "
            "expected all arrays on one device"
        )
