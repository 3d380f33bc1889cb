"""Where a network lives: the memory of its parameters, and the engine over them. One class for each backend."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..check import Array, matrix
from ..cpu.runtime.memory import aligned_zeros

if TYPE_CHECKING:
    from ..engine import Engine, Shared
    from ..plan import Plan


class Cpu:
    """NumPy arrays.

    Attributes
    ----------
    call_seconds : how long a call of training should take, of however many steps: a native call cannot be interrupted, and
        shows nothing. None: an epoch is one call
    checks_labels : whether the engine's `step` looks by itself whether labels are in range
    """

    name = "cpu"
    call_seconds: float | None = 0.25
    checks_labels = True

    def zeros(self, count: int, dtype: np.dtype[Any], line: int = 0) -> Any:
        """A flat buffer; buffers that are walked side by side begin at different lines of the cache."""
        return aligned_zeros(count, dtype, line)

    def fill(self, buffer: Any, values: Array) -> None:
        """buffer = values."""
        buffer[...] = values

    def to_numpy(self, buffer: Any) -> Array:
        """The values of a buffer or array, in NumPy."""
        return np.asarray(buffer)

    def on_host(self, targets: Any) -> Any:
        """Targets as the user gave them, in NumPy if they are an array of this place."""
        return targets

    def matrix(self, op: str, name: str, value: Any, dtype: np.dtype[Any], columns: int) -> Any:
        """A matrix (n, columns) as the engine wants it."""
        return matrix(op, name, value, dtype, columns)

    def targets(self, values: Array) -> Any:
        """Checked labels or values as the engine wants them."""
        return values

    def give(self, result: Any, like: Any) -> Any:
        """A result of the engine in the kind of the array that the user gave."""
        return result

    def engine(self, plan: "Plan", params: Any, grads: Any, threads: int | None, storage: str) -> "Engine":
        from ..cpu.engine.engine import Engine

        if storage == "bfloat16":
            raise RuntimeError(
                "Network: a bfloat16 network computes on the GPU only; call net.to('cuda') first"
            )
        return Engine(plan, params, grads, threads)

    def network_view(self, op: str, plan: "Plan", shared: "Shared", storage: str) -> Any:
        """A network in compiled code."""
        self._refuse_bfloat16(op, storage)
        from ..cpu.engine.view import NetworkView

        return NetworkView(plan, shared)

    def trainer_view(self, op: str, plan: "Plan", shared: "Shared", storage: str, *training: Any) -> Any:
        """Training in compiled code."""
        self._refuse_bfloat16(op, storage)
        from ..cpu.engine.view import TrainerView

        return TrainerView(plan, shared, *training)

    def _refuse_bfloat16(self, op: str, storage: str) -> None:
        if storage == "bfloat16":
            raise RuntimeError(
                f"{op}: a bfloat16 network computes on the GPU only, expected float32 or float64"
            )


class Cuda:
    """Arrays of CuPy where it is installed, else of Numba; NumPy arrays are copied to the device and back."""

    name = "cuda"
    call_seconds: float | None = None  # a call waits for the GPU once
    checks_labels = False

    def __init__(self) -> None:
        self._driver.use()  # RuntimeError where there is no GPU

    # Properties, because the package must be imported without the wing, and a place can be pickled.
    @property
    def _arrays(self) -> Any:
        from ..cuda.runtime import arrays

        return arrays

    @property
    def _driver(self) -> Any:
        from ..cuda.runtime import driver

        return driver

    def zeros(self, count: int, dtype: np.dtype[Any], line: int = 0) -> Any:
        buffer = self._arrays.read(self._arrays.default_library().empty((count,), np.dtype(dtype)))
        self._driver.clear(buffer.address, buffer.nbytes, buffer.stream)
        return buffer.owner

    def fill(self, buffer: Any, values: Array) -> None:
        self._arrays.read(buffer).fill_from(values)

    def to_numpy(self, buffer: Any) -> Array:
        values: Array = buffer if isinstance(buffer, np.ndarray) else self._arrays.read(buffer).to_numpy()
        return values

    def on_host(self, targets: Any) -> Any:
        return targets if isinstance(targets, np.ndarray | list | tuple) else self.to_numpy(targets)

    def matrix(self, op: str, name: str, value: Any, dtype: np.dtype[Any], columns: int) -> Any:
        if isinstance(value, np.ndarray):
            return self.targets(matrix(op, name, value, dtype, columns))
        try:
            found = self._arrays.read(value)
        except (AttributeError, BufferError):
            raise TypeError(
                f"{op}: {name} is of type {type(value).__name__}, expected a NumPy or CUDA array"
            ) from None
        if found.dtype != dtype:
            raise TypeError(f"{op}: {name} has dtype {found.dtype}, expected {dtype} like the network")
        if found.ndim != 2 or found.shape[1] != columns:
            raise ValueError(f"{op}: {name} has shape {found.shape}, expected (n, {columns})")
        if not found.flags.c_contiguous:
            found = found.copy()
        self._driver.wait(self._arrays.default_library().stream(), found.stream)
        return found

    def targets(self, values: Array) -> Any:
        buffer = self._arrays.default_library().empty(values.shape, values.dtype)
        return self._arrays.read(buffer).fill_from(values)

    def give(self, result: Any, like: Any) -> Any:
        return result.to_numpy() if isinstance(like, np.ndarray) else result.owner

    def engine(self, plan: "Plan", params: Any, grads: Any, threads: int | None, storage: str) -> "Engine":
        from ..cuda.engine.engine import Engine

        return Engine(plan, self._arrays.read(params), self._arrays.read(grads), storage)

    def network_view(self, op: str, *_: Any) -> Any:
        raise RuntimeError(
            f"{op}: the network is on the GPU, expected it on the CPU; call net.to('cpu') first"
        )

    trainer_view = network_view


Place = Cpu | Cuda
CPU = Cpu()
