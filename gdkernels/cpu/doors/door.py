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

import ctypes
import struct
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ..runtime import objects as python
from ..runtime.jit import Kernel, Native
from ..runtime.memory import aligned_zeros
from ..runtime.team import MOST_WORK
from . import words as at
from .arguments import Argument, Name, Number, Tensor, Truth, Whole
from .front import enter

ELEMENTS = (np.dtype(np.float32), np.dtype(np.float64))
LABELS = np.dtype(np.int64)
_OF_ANY_SHAPE = {"axes": at.AXES, "size": at.SIZE, "last": at.LAST}
_FASTCALL = 0x80  # the interpreter's name for a function of (self, address of the arguments, their number)


class _Method(ctypes.Structure):
    """What the interpreter wants to know of a function (PyMethodDef)."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("call", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    ]  # fmt: skip


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

    @property
    def can_open(self) -> bool:
        """Whether the objects of this interpreter can be read in native code."""
        return python.READABLE

    def table(self, dtype: Any) -> np.ndarray:
        """The table for an element type, with its kernels compiled."""
        raise NotImplementedError

    def choose(self, dtype: Any, place: int, word: str) -> None:
        """Compile what a name among the arguments stands for; most doors have none."""

    def open(self) -> Any:
        """A function of Python for calls of this door, its arguments by place; it knows no table yet."""
        self.memory[: at.TABLE_FLOAT32] = [
            id(one) for one in (np.ndarray, None, True, False, float, np.float64, int, list, tuple, *ELEMENTS, LABELS)
        ]  # fmt: skip
        self.memory[at.MOST_WORK] = MOST_WORK.ctypes.data
        method = self._method = _Method(self.name.encode(), self._enter.address(), _FASTCALL, None)
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
        return make(ctypes.addressof(method), self.memory, "gdkernels")

    def learn(self, dtype: Any, words: tuple[str | None, ...]) -> None:
        """Let calls from Python with this element type, and these names in the places of the arguments, be done here."""
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
        self._choices: dict[tuple[str, str], np.ndarray] = {}

    # ------------------------------------------------------------------------------------------ tables

    def table(self, dtype: Any) -> np.ndarray:
        """The table for an element type, with its kernel compiled."""
        dtype = np.dtype(dtype)
        if dtype.name not in self.tables:
            self.tables[dtype.name] = self._table(dtype)
        return self.tables[dtype.name]

    def _table(self, dtype: np.dtype) -> np.ndarray:
        slots = {self.operands.get(name, name): slot for slot, name in enumerate(self.kernel.words)}
        table = aligned_zeros(at.HEAD_WORDS + at.ARGUMENT_WORDS * len(self.arguments), np.int64)
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
            self._describe(words, name, argument, slots, places, dtype)
        return table

    def _mask(self, counted: str) -> int:
        """The letters of a product, as bits."""
        return sum(1 << self.letters[letter] for letter in counted.split())

    def _describe(self, words, name: str, argument: Argument, slots, places, dtype: np.dtype) -> None:
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
                choices = self._choices[name, dtype.name] = np.empty(2 * len(values), np.int64)
                choices[0::2] = [id(sys.intern(one)) for one in values]
                choices[1::2] = [
                    at.NOT_READY if isinstance(value, Native) else value for value in values.values()
                ]
                words[at.KIND], words[at.HIGH] = at.NAME, len(values)
                words[at.CHOICES] = choices.ctypes.data

    def choose(self, dtype: Any, place: int, word: str) -> None:
        """Compile what a name in the place of an argument stands for, so that the door knows it for this element type."""
        argument, asked = [*self.arguments.items()][place]
        dtype = np.dtype(dtype)
        self.table(dtype)
        if isinstance(asked, Name) and isinstance(asked.values.get(word), Native):
            place = 2 * [*asked.values].index(word) + 1
            self._choices[argument, dtype.name][place] = asked.values[word].address(dtype.name)
