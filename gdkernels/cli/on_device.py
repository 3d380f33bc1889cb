"""The operations and networks of gdkernels, computed on the GPU for arguments that lie in NumPy arrays.

`gdkernels verify` puts this in the place of the package, so that the same checks hold both wings against the reference.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gdkernels

Array = NDArray[Any]


class OnDevice:
    """Has the names of the package. Functions take NumPy arrays to the GPU and bring back results and what they wrote."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(gdkernels, name)
        return found if isinstance(found, type) or not callable(found) else on_device(found)

    def mlp(self, *arguments: Any, **options: Any) -> "NetworkOnDevice":
        """`gd.mlp`, on the GPU."""
        return NetworkOnDevice(gdkernels.mlp(*arguments, **options))

    def Trainer(self, net: "NetworkOnDevice", **options: Any) -> Any:
        """`gd.Trainer` of a network on the GPU."""
        return gdkernels.Trainer(net.net, **options)


def on_device(op: Callable[..., Any]) -> Callable[..., Any]:
    """An operation on the GPU, for NumPy arrays."""
    from ..cuda.runtime.arrays import default_library, read

    @functools.wraps(op)
    def call(*arguments: Any, **options: Any) -> Any:
        carried: list[tuple[Array, Any]] = []

        def there(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            on_gpu = read(default_library().empty(value.shape, value.dtype)).fill_from(value)
            carried.append((value, on_gpu))
            return on_gpu.owner

        def here(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(here, value))
            if not hasattr(value, "__cuda_array_interface__"):
                return value
            for given, on_gpu in carried:
                if on_gpu.owner is value:
                    return given
            result = read(value).to_numpy()
            return result if result.ndim else float(result)

        result = op(*map(there, arguments), **{name: there(value) for name, value in options.items()})
        for given, on_gpu in carried:
            if given.flags.writeable:
                given[...] = on_gpu.to_numpy()
        return here(result)

    return call


class NetworkOnDevice:
    """A network on the GPU whose parameters and gradients are seen in NumPy arrays."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self._params = {name: values.copy() for name, values in net.params.items()}
        net.to("cuda")

    @property
    def params(self) -> dict[str, Array]:
        """The parameters; what is written into them is there at the next forward pass."""
        for name, values in self.net.params.items():
            self._params[name][...] = self.net.place.to_numpy(values)
        return self._params

    @property
    def grads(self) -> dict[str, Array]:
        """Copies of the gradients."""
        return {name: self.net.place.to_numpy(values) for name, values in self.net.grads.items()}

    def forward(self, x: Array, train: bool = False) -> Any:
        for name, values in self.net.params.items():
            self.net.place.fill(values, self._params[name])
        return self.net.forward(x, train)

    def backward(self, dy: Array) -> Any:
        return self.net.backward(dy)
