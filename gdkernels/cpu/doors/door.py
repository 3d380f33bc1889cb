"""A door: an operation as one native call, its arguments included.

A kernel whose operands are named after the arguments of an operation becomes a door when it is told what each argument
must be (`arguments`)::

    @kernel
    def forward(z: Floats, kind: Code, out: Floats, start, stop): ...

    activation = Door("activation", forward, {"z": given(), "kind": LOOPS, "out": result(like=("z",))}, total="size")

The operands of the kernel are then filled by their names: the address of an array, its strides in elements where it may
have any (``rsx``, ``csx`` of x), numbers, and the letters of the dimensions; ``value`` is where a loss goes, ``fault``
where the kernel says that only it could see what is wrong. The same door serves calls from Python (`front.enter`) and from
compiled functions (`gdkernels.njit`).
"""

import struct
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ..runtime import objects as python
from ..runtime.compilers import compile_all
from ..runtime.jit import Kernel, Native
from ..runtime.memory import aligned_zeros
from ..runtime.team import MOST_WORK
from . import words as at
from .arguments import Argument, Name, Number, Tensor, Truth, Whole
from .front import enter

ELEMENTS = (np.dtype(np.float32), np.dtype(np.float64))
LABELS = np.dtype(np.int64)
# What a door knows of Python's objects, in the order of its memory (`words`).
KNOWN = (np.ndarray, None, True, False, float, np.float64, int, np.int64, str, list, tuple, *ELEMENTS, LABELS)
_OF_ANY_SHAPE = {"axes": at.AXES, "size": at.SIZE, "last": at.LAST}
_FASTCALL = 0x80  # the interpreter's name for a function of (self, address of the arguments, their number)


def _bits(value: float) -> int:
    """The bits of a float64 as an int64."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


class Opening:
    """What a door is for Python: a function that `enter` is, and memory in which it finds what it must know.

    Attributes
    ----------
    name : of the operation
    tables : by the name of the element type
    memory : see `words`
    """

    def __init__(self, name: str, enter: Native):
        self.name, self._enter = name, enter
        self.tables: dict[str, np.ndarray] = {}
        self.memory = aligned_zeros(at.DOOR_WORDS, np.int64)
        self._most_work = MOST_WORK  # which lives as long as the door that knows its address

    @property
    def can_open(self) -> bool:
        """Whether the objects of this interpreter can be read in native code."""
        return python.READABLE

    def kernels(self) -> list[Kernel]:
        """What a table needs compiled."""
        raise NotImplementedError

    def table(self, dtype: Any) -> np.ndarray:
        """The table for an element type, with its kernels compiled."""
        raise NotImplementedError

    def choose(self, dtype: Any, place: int, word: str) -> None:
        """Compile what a name among the arguments stands for; most doors have none."""

    def open(self) -> Any:
        """A function of Python for calls of this door, its arguments by place; it knows no table yet."""
        memory, first = self.memory, self.memory.ctypes.data
        memory[: at.TABLE_FLOAT32] = [id(one) for one in KNOWN]
        memory[at.MOST_WORK] = self._most_work.ctypes.data
        # What the interpreter reads of a function (PyMethodDef): name, code, flags, text. It reads that until the function
        # is gone, at the end of the process too: so it lies where the function's `self` keeps it.
        memory[at.TITLE :] = np.frombuffer(
            self.name.encode().ljust(8 * (at.DOOR_WORDS - at.TITLE), b"\0"), np.int64
        )
        memory[at.METHOD : at.TITLE] = first + 8 * at.TITLE, self._enter.address(), _FASTCALL, 0
        return python.new_function(first + 8 * at.METHOD, memory, "gdkernels")

    def learn(self, dtype: Any, words: tuple[str | None, ...]) -> None:
        """Let calls from Python with this element type, and these names in the places of the arguments, be done here."""
        compile_all([(self._enter, dtype), *((one, dtype) for one in self.kernels())])
        table = self.table(dtype)
        for place, word in enumerate(words):
            if word is not None:
                self.choose(dtype, place, word)
        self.memory[at.TABLE_FLOAT32 if np.dtype(dtype) == ELEMENTS[0] else at.TABLE_FLOAT64] = (
            table.ctypes.data
        )


class Door(Opening):
    """An operation as one native call.

    Attributes
    ----------
    name : of the operation
    kernel : what is run
    arguments : what is asked of each argument, in the order of the operation's parameters
    total : the letter, "size", or "" for 1, over whose range the kernel is run
    costs : at most two pairs (nanoseconds of one core for each element, "letters" whose product counts elements)
    gives : one of `words.NOTHING`, `RESULT`, `RESULTS`, `LOSS`
    memory : what the kernel needs behind `SCRATCH_BYTES`: (bytes at least, elements for each of, "letters")
    operands : the argument that an operand of another name stands for; an operand of no argument is 0
    otherwise : the door that is tried where this one does not fit
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        arguments: dict[str, Argument],
        total: str = "",
        costs: tuple[tuple[float, str], ...] = (),
        gives: int = at.RESULT,
        memory: tuple[int, int, str] = (0, 0, ""),
        operands: Mapping[str, str] = MappingProxyType({}),
        otherwise: "Door | None" = None,
    ):
        super().__init__(name, enter)
        self.kernel, self.arguments, self.total, self.costs = kernel, arguments, total, costs
        self.gives, self.further, self.operands, self.otherwise = gives, memory, operands, otherwise
        letters: dict[str, int] = {}
        for argument in self.arguments.values():
            if isinstance(argument, Tensor):
                for dim in argument.dims:
                    if isinstance(dim, str):
                        letters.setdefault(dim, len(letters))
        self.letters = letters | _OF_ANY_SHAPE
        self._words = {
            name: [sys.intern(word) for word in asked.values]
            for name, asked in arguments.items()
            if isinstance(asked, Name)
        }

    # ------------------------------------------------------------------------------------------ tables

    def kernels(self) -> list[Kernel]:
        return [self.kernel, *(self.otherwise.kernels() if self.otherwise else [])]

    def table(self, dtype: Any) -> np.ndarray:
        """The table for an element type, with its kernel compiled."""
        dtype = np.dtype(dtype)
        if dtype.name not in self.tables:
            # Of two threads that come at once, both get the table of the one that is ready first.
            return self.tables.setdefault(dtype.name, self._table(dtype))
        return self.tables[dtype.name]

    def _table(self, dtype: np.dtype) -> np.ndarray:
        slots = {self.operands.get(name, name): slot for slot, name in enumerate(self.kernel.words)}
        choices = at.HEAD_WORDS + at.ARGUMENT_WORDS * len(self.arguments)
        table = aligned_zeros(choices + 2 * sum(map(len, self._words.values())), np.int64)
        table[at.COUNT], table[at.OPERANDS] = len(self.arguments), len(slots)
        table[at.ENTRY] = self.kernel.address(dtype.name)
        table[at.ELEMENT], table[at.ITEM] = id(dtype), dtype.itemsize
        table[at.TOTAL] = self.letters[self.total] if self.total else at.NOWHERE
        table[at.RETURNS] = self.gives
        table[at.VALUE_SLOT] = slots.get("value", at.NOWHERE)
        table[at.FAULT_SLOT] = slots.get("fault", at.NOWHERE)
        table[at.OTHERWISE] = self.otherwise.table(dtype).ctypes.data if self.otherwise else 0
        costs = (*self.costs, (0.0, ""), (0.0, ""))
        for place, (each, counted) in zip((at.FIRST_COST, at.SECOND_COST), costs, strict=False):
            table[place] = _bits(each * dtype.itemsize / 4)
            table[place + 1] = self._mask(counted)
        table[at.MEMORY_LEAST], each, counted = self.further
        table[at.MEMORY_EACH], table[at.MEMORY_DIMS] = each * dtype.itemsize, self._mask(counted)
        table[at.LETTER_SLOTS : at.LETTER_SLOTS + at.LETTERS] = at.NOWHERE
        for letter, place in self.letters.items():
            table[at.LETTER_SLOTS + place] = slots.get(letter, at.NOWHERE)
        places = {name: place for place, name in enumerate(self.arguments)}
        for name, argument in self.arguments.items():
            first = at.HEAD_WORDS + at.ARGUMENT_WORDS * places[name]
            words = table[first : first + at.ARGUMENT_WORDS]
            words[at.SLOT] = slots.get(name, at.NOWHERE)
            words[at.NUMBER_SLOT] = slots.get(f"{name}_number", at.NOWHERE)
            self._describe(words, name, argument, slots, places)
            if isinstance(argument, Name):
                chosen = table[choices : choices + 2 * len(argument.values)]
                chosen[0::2] = [id(word) for word in self._words[name]]
                chosen[1::2] = [
                    at.NOT_READY if isinstance(one, Native) else one for one in argument.values.values()
                ]
                words[at.CHOICES] = chosen.ctypes.data
                choices += len(chosen)
        return table

    def _mask(self, counted: str) -> int:
        """The letters of a product, as bits."""
        return sum(1 << self.letters[letter] for letter in counted.split())

    def _describe(self, words, name: str, argument: Argument, slots, places) -> None:
        words[at.UNLESS] = words[at.NEEDED_IF] = at.NOWHERE
        match argument:
            case Tensor():
                words[at.KIND] = at.ARRAY
                words[at.NDIM] = len(argument.dims) if argument.dims else at.ANY_SHAPE
                for axis, dim in enumerate(argument.dims):
                    words[at.FIRST_DIM + axis] = self.letters[dim] if isinstance(dim, str) else -1 - dim
                words[at.ROW_SLOT] = slots.get(f"rs{name}", at.NOWHERE)
                words[at.COLUMN_SLOT] = slots.get(f"cs{name}", at.NOWHERE)
                words[at.ASKS] = (
                    at.OPTIONAL * argument.optional + at.STRIDED * argument.strided + at.WRITTEN * argument.written
                    + at.ALLOCATED * argument.allocated + at.LABELS * argument.labels
                )  # fmt: skip
                words[at.LIKE] = sum(1 << places[other] for other in argument.like)
                words[at.SWAPPED_BY] = places.get(argument.swapped_by, at.NOWHERE)
                words[at.UNLESS] = places.get(argument.unless_false, at.NOWHERE)
                words[at.NEEDED_IF] = places.get(argument.needed_if, at.NOWHERE)
            case Number(among):
                words[at.KIND] = at.NUMBER
                words[at.LOW], words[at.HIGH] = _bits(among.low), _bits(among.high)
            case Whole(least):
                words[at.KIND], words[at.LOW] = at.WHOLE, least
            case Truth():
                words[at.KIND] = at.TRUTH
            case Name(values):
                words[at.KIND], words[at.HIGH] = at.NAME, len(values)

    def choose(self, dtype: Any, place: int, word: str) -> None:
        """Compile what a name in the place of an argument stands for, so that the door knows it for this element type."""
        argument, asked = [*self.arguments.items()][place]
        if isinstance(asked, Name) and isinstance(asked.values.get(word), Native):
            dtype = np.dtype(dtype)
            table = self.table(dtype)
            choices = (table[at.HEAD_WORDS + at.ARGUMENT_WORDS * place + at.CHOICES] - table.ctypes.data) // 8
            number = self._words[argument].index(word)
            table[choices + 2 * number + 1] = asked.values[word].address(dtype.name)
