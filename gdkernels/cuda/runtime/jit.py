"""How Python functions become CUDA kernels, and how these are launched.

``@kernel(signature)`` makes a `Kernel`, compiled at the first use of a storage type on a device. Its PTX is cached on disk
(`gdkernels.cache`), whose files cannot be stale. A signature is written ``"F*, F*, R*, i8"``: ``F*`` points to elements of
the kernel's storage type, ``R`` and ``R*`` are the type that is computed with (float32 for 16-bit storage), ``f4 f8 i2 i4
i8 u4`` are float32, float64, int16 (pointers only), int32, int64, uint32. An absent array is passed as address 0
(`pointer.is_null`).
"""

import struct
from typing import NamedTuple

from ... import cache as disk
from . import driver
from .elementary import install
from .pointer import COMPUTED, Pointer
from .target import device, entry_of, to_ptx, toolchain, types

__all__ = ["Kernel", "Launch", "device", "kernel", "run"]

install()

_NAMES = {"i8": "int64", "i4": "int32", "i2": "int16", "u4": "uint32", "f4": "float32", "f8": "float64"}
_CODES = {
    types.int64: "q",
    types.int32: "i4x",
    types.uint32: "I4x",
    types.float32: "f4x",
    types.float64: "d",
}
FLOATS = ("float32", "float64")


class Kernel:
    """A kernel for every storage type; `variants` lists those that the static gate compiles."""

    def __init__(self, function, signature: str, threads: int, blocks: int, shared: int, variants):
        self.function, self.threads, self.blocks, self.shared = function, threads, blocks, shared
        self.variants = variants
        self._words = [word.strip() for word in signature.split(",")]
        self.name = disk.name_of(function).replace(".", "_")
        self.__doc__ = function.__doc__
        self._loaded: dict[tuple[str, int], tuple] = {}

    def __repr__(self):
        return f"<CUDA kernel {self.name}({', '.join(self._words)})>"

    def argument_types(self, storage: str):
        """The Numba types of the arguments."""
        kinds = []
        for word in self._words:
            letters = word.rstrip("*")
            name = _NAMES.get(letters) or (storage if letters == "F" else str(COMPUTED[storage]))
            kinds.append(Pointer(name) if word.endswith("*") else COMPUTED[name])
        return tuple(kinds)

    def ptx(self, storage: str, capability: tuple[int, int]) -> str:
        """The PTX for a storage type and compute capability, whose entry has the name of the kernel."""
        return self.ptx_for_each(storage, [capability])[0]

    def ptx_for_each(self, storage: str, capabilities: list[tuple[int, int]]) -> list[str]:
        """`ptx` for several compute capabilities, which takes little longer than for one."""
        symbol = f"cuda.{self.name}.{storage}"
        same = toolchain(), self._words, self.threads, self.blocks
        stored = {one: disk.load(symbol, (one, *same)) for one in capabilities}
        missing = [one for one, text in stored.items() if text is None]
        if missing:
            arguments = self.argument_types(storage)
            made = to_ptx(self.function, arguments, missing, self.threads, self.blocks)
            for one, text in zip(missing, made, strict=True):
                stored[one] = text.replace(entry_of(text), f"{self.name}_{storage}")
                disk.save(symbol, (one, *same), stored[one])
        return [stored[one] for one in capabilities]

    def ready(self, storage: str, device_number: int) -> tuple:
        """(function, room for arguments, their layout) on a device; compiles and loads what is not there yet."""
        loaded = self._loaded.get((storage, device_number))
        if loaded is None:
            if storage == "bfloat16" and driver.capability(device_number) < (8, 0):
                major, minor = driver.capability(device_number)
                raise RuntimeError(
                    f"gdkernels: bfloat16 needs a GPU of compute capability 8.0, this one has {major}.{minor}"
                )
            ptx = self.ptx(storage, driver.capability(device_number))
            function = driver.load(ptx, f"{self.name}_{storage}", device_number, self.shared)
            kinds = self.argument_types(storage)
            layout = struct.Struct("<" + "".join("Q" if isinstance(k, Pointer) else _CODES[k] for k in kinds))
            loaded = function, driver.Parameters(len(kinds)), layout
            self._loaded[storage, device_number] = loaded
        return loaded

    def grid(self, threads: int) -> tuple[int, int, int]:
        """Blocks of the kernel's own size for at least so many threads, in x."""
        return -(-threads // self.threads), 1, 1

    def launch(self, storage: str, grid, arguments: tuple, stream: int) -> None:
        """Launch on a grid of (x, y, z) blocks; nothing happens where there is no block."""
        if not all(grid):
            return
        function, parameters, layout = self.ready(storage, driver.use())
        layout.pack_into(parameters.values, 0, *arguments)
        driver.launch(function, grid, self.threads, self.shared, stream, parameters.table, self.name)


def kernel(signature: str, threads: int = 256, blocks: int = 1, shared: int = 0, variants=FLOATS):
    """Make a kernel of a function.

    Parameters
    ----------
    signature : of the arguments, see the module
    threads : of a block, in x
    blocks : of which at least so many fit on a processor: bounds the registers
    shared : bytes of dynamic shared memory
    variants : the storage types that it is meant for
    """

    def decorate(function) -> Kernel:
        return Kernel(function, signature, threads, blocks, shared, variants)

    return decorate


class Launch(NamedTuple):
    """A kernel with its arguments: what an operation comes down to, for the stream of an array or for a graph."""

    kernel: Kernel
    storage: str
    grid: tuple[int, int, int]
    arguments: tuple

    @property
    def capturable(self) -> bool:
        """Whether it can go into a graph."""
        return True

    def load(self) -> None:
        """Compile, or load from the cache, what the launch needs."""
        self.kernel.ready(self.storage, driver.use())

    def run(self, stream: int) -> None:
        """Launch on a stream."""
        self.kernel.launch(self.storage, self.grid, self.arguments, stream)


def run(launches, stream: int) -> None:
    """Launch one after the other."""
    for one in launches:
        one.run(stream)
