"""How Python functions become CUDA kernels, and how these are launched.

``@kernel(signature)`` makes a `Kernel`, compiled at the first use of a storage type on a device. Its PTX is cached on disk
(`gdkernels.cache`), whose files cannot be stale. A signature is written ``"F*, F*, R*, i8"``: ``F*`` points to elements of
the kernel's storage type, ``R`` and ``R*`` are the type that is computed with (float32 for 16-bit storage), ``f4 f8 i2 i4
i8 u4`` are float32, float64, int16 (pointers only), int32, int64, uint32. An absent array is passed as address 0
(`pointer.is_null`).

The operands have the names of the function's parameters and are given by these: ``kernel.on(storage, grid, x=…, n=…)`` makes
a `Launch`, or refuses. Words in parentheses, as in ``"F*, (R, R), i8"``, are operands of which the function takes a tuple.
"""

import math
import operator
import re
import struct
from dataclasses import dataclass

from ... import cache as disk
from . import driver
from .elementary import install
from .pointer import COMPUTED, Pointer
from .storages import REALS
from .target import device, entry_of, to_ptx, toolchain, types

__all__ = ["Kernel", "Launch", "device", "kernel", "run"]

install()

BLOCKS_DOWN = 65535  # that a grid may have in y
_NAMES = {"i8": "int64", "i4": "int32", "i2": "int16", "u4": "uint32", "f4": "float32", "f8": "float64"}
FLOAT32_MOST = (2 - 2**-23) * 2.0**127
_CODES = {
    types.int64: "q",
    types.int32: "i4x",
    types.uint32: "I4x",
    types.float32: "f4x",
    types.float64: "d",
}


def _inner(word: str) -> list[str]:
    """The words of a tuple, or the word alone."""
    return re.findall(r"[^(),\s]+", word)


def _type(word: str, storage: str):
    """The Numba type that a word of a signature means for a storage type."""
    letters = word.rstrip("*")
    name = _NAMES.get(letters) or (storage if letters == "F" else str(COMPUTED[storage]))
    return Pointer(name) if word.endswith("*") else COMPUTED[name]


class Kernel:
    """A kernel for every storage type; `variants` lists those that the static gate compiles.

    `operands` are their names, in the order of the signature: those of the function's parameters, unless they are given.
    """

    def __init__(
        self, function, signature: str, threads: int, blocks: int, shared: int, variants, operands=None
    ):
        self.function, self.threads, self.blocks, self.shared = function, threads, blocks, shared
        self.variants = variants
        self._words = re.findall(r"\([^)]*\)|[^,\s]+", signature)
        self.name = disk.name_of(function).replace(".", "_")
        self.__doc__ = function.__doc__
        code = function.__code__
        self.operands: tuple[str, ...] = tuple(operands or code.co_varnames[: code.co_argcount])
        count = sum(len(_inner(word)) for word in self._words)
        if len(self.operands) != count:
            raise TypeError(f"{self.name}: a signature of {count} words for {', '.join(self.operands)}")
        self._count, of_names = len(self.operands), operator.itemgetter(*self.operands)
        self._in_order = of_names if self._count > 1 else lambda operands: (of_names(operands),)
        self._by_storage: dict[str, _Variant] = {}

    def __repr__(self):
        return f"<CUDA kernel {self.name}({', '.join(self._words)})>"

    def operand_types(self, storage: str) -> tuple:
        """The Numba types of the operands."""
        return tuple(_type(inner, storage) for word in self._words for inner in _inner(word))

    def argument_types(self, storage: str) -> tuple:
        """The Numba types of the function's arguments, of which a tuple takes several operands."""
        return tuple(
            types.BaseTuple.from_types([_type(inner, storage) for inner in _inner(word)])
            if word.startswith("(")
            else _type(word, storage)
            for word in self._words
        )

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

    def variant(self, storage: str) -> "_Variant":
        """The kernel for a storage type."""
        found = self._by_storage.get(storage)
        if found is None:
            found = self._by_storage[storage] = _Variant(self, storage)
        return found

    def grid(self, threads: int) -> tuple[int, int, int]:
        """Blocks of the kernel's own size for at least this many threads, in x."""
        return -(-threads // self.threads), 1, 1

    def on(self, storage: str, grid: tuple[int, int, int], /, **operands) -> "Launch":
        """The kernel with its operands, by name, for a grid of (x, y, z) blocks.

        TypeError where one is missing, has no place in the kernel, or is of another type than the signature says: an address
        is an int, and 0 what is absent. A number beyond float32 is infinite there, as on the CPU.
        """
        try:
            variant = self._by_storage.get(storage) or self.variant(storage)
            packed = variant.pack(*self._in_order(operands))
        except (KeyError, TypeError, struct.error):
            self._refuse(storage, operands)
            raise
        except OverflowError:
            return self.on(storage, grid, **{name: _as_float32(value) for name, value in operands.items()})
        if len(operands) != self._count:
            self._refuse(storage, operands)
        return Launch(variant, grid, packed)

    def _refuse(self, storage: str, operands: dict) -> None:
        """TypeError that says what is wrong with operands."""
        takes = f"it takes {', '.join(self.operands)}"
        if missing := [name for name in self.operands if name not in operands]:
            raise TypeError(f"{self.name}: {', '.join(missing)} is missing; {takes}")
        if unknown := [name for name in operands if name not in self.operands]:
            raise TypeError(f"{self.name}: there is no operand {', '.join(unknown)}; {takes}")
        for name, kind in zip(self.operands, self.operand_types(storage), strict=True):
            value, is_address = operands[name], isinstance(kind, Pointer)
            known = isinstance(value, int | float | None)
            found = repr(value) if known else f"of type {type(value).__name__}"
            try:
                struct.pack("<Q" if is_address else f"<{_CODES[kind]}", value)
            except (TypeError, struct.error) as error:
                expected = f"the address of {kind.storage}, or 0" if is_address else str(kind)
                raise TypeError(f"{self.name}: {name} is {found}, expected {expected}") from error


def _as_float32(value):
    """The number that float32 has for a float; all else as it is."""
    if isinstance(value, float) and abs(value) > FLOAT32_MOST:
        return math.copysign(math.inf, value)
    return value


class _Variant:
    """A kernel for one storage type: how its operands are packed, eight bytes each, and where it is loaded."""

    def __init__(self, kernel: Kernel, storage: str):
        self.kernel, self.storage = kernel, storage
        kinds = kernel.operand_types(storage)
        codes = ("Q" if isinstance(kind, Pointer) else _CODES[kind] for kind in kinds)
        self.layout = struct.Struct("<" + "".join(codes))
        self.pack = self.layout.pack
        self.loaded: dict[int, tuple[int, driver.Parameters]] = {}  # by the number of the device

    def load(self, number: int) -> tuple[int, driver.Parameters]:
        """(function, room for operands) on a device; compiles and loads what is not there yet."""
        if number in self.loaded:
            return self.loaded[number]
        major, minor = capability = driver.capability(number)
        if self.storage == "bfloat16" and major < 8:
            raise RuntimeError(
                f"gdkernels: bfloat16 needs a GPU of compute capability 8.0 or newer, this one has {major}.{minor}"
            )
        kernel, ptx = self.kernel, self.kernel.ptx(self.storage, capability)
        function = driver.load(ptx, f"{kernel.name}_{self.storage}", number, kernel.shared)
        self.loaded[number] = function, driver.Parameters(len(kernel.operands))
        return self.loaded[number]


def kernel(
    signature: str, threads: int = 256, blocks: int = 1, shared: int = 0, variants=REALS, operands=None
):
    """Make a kernel of a function.

    Parameters
    ----------
    signature : the types of the operands, see the module
    threads : of a block, in x
    blocks : how many of them must fit on a processor at least, which bounds the registers
    shared : bytes of dynamic shared memory
    variants : the storage types that it is meant for
    operands : their names, if not those of the function's parameters
    """

    def decorate(function) -> Kernel:
        return Kernel(function, signature, threads, blocks, shared, variants, operands)

    return decorate


@dataclass(slots=True)
class Launch:
    """A kernel with its operands: what an operation comes down to, for the stream of an array or for a graph."""

    variant: _Variant
    grid: tuple[int, int, int]
    packed: bytes

    @property
    def kernel(self) -> Kernel:
        """What is launched."""
        return self.variant.kernel

    @property
    def operands(self) -> dict[str, int | float]:
        """The operands by their names."""
        return dict(zip(self.kernel.operands, self.variant.layout.unpack(self.packed), strict=True))

    @property
    def capturable(self) -> bool:
        """Whether it can go into a graph."""
        return True

    def load(self) -> None:
        """Compile, or load from the cache, what the launch needs."""
        self.variant.load(driver.use())

    def run(self, stream: int) -> None:
        """Launch on a stream; nothing happens where there is no block."""
        grid, variant = self.grid, self.variant
        if 0 in grid:
            return
        number, kernel = driver.use(), variant.kernel
        function, parameters = variant.loaded.get(number) or variant.load(number)
        slots, table = parameters.room
        slots[:] = self.packed
        driver.launch(function, grid, kernel.threads, kernel.shared, stream, table, kernel.name)


def run(launches, stream: int) -> None:
    """Launch one after the other."""
    for one in launches:
        one.run(stream)
