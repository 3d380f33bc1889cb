"""The operands of a kernel: named and typed where the kernel is defined, packed into a record where it is called.

A kernel says what an operand is by the annotation of its parameter::

    @kernel
    def forward_elements(act: Code, z: Floats, a: Floats, start, stop): ...

and a caller gives all of them by name, ``forward_elements.op(z.dtype, z.size, act=FORWARD["relu"], z=z, a=out)``. A name
that is missing or unknown, or a value of another kind, is a TypeError when the record is made; nothing is left to be found
out at a wild address. What may be absent is annotated so, ``OptionalFloats``, and given as None. A record holds eight bytes
for each operand, in the order of the parameters.
"""

import inspect
import struct
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, get_args

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from .dispatch import address
from .simd import I64

# What an operand may be. A pointer is given as an array.
Floats = Annotated[Any, "F*"]  # to elements of the type that the kernel is compiled for
Doubles = Annotated[Any, "f8*"]
Ints = Annotated[Any, "i8*"]
Int = Annotated[Any, "i8"]
Double = Annotated[Any, "f8"]
Code = Annotated[Any, "code"]  # the address of a native function of the same element type
# What may be absent: None is 0.
OptionalFloats = Annotated[Any, "F*?"]
OptionalDoubles = Annotated[Any, "f8*?"]
OptionalInts = Annotated[Any, "i8*?"]
OptionalCode = Annotated[Any, "code?"]

# What a kernel gets from whoever runs it, by the names of its parameters: a range of what the op is about and working
# memory of its own; or, as the job of a team, the number of the worker and how many there are.
SUPPLIED = {"start": 1, "stop": 2, "worker": 1, "workers": 2, "scratch": 3}

_MEANINGS = {
    "F*": "an array of {dtype}",
    "f8*": "an array of float64",
    "i8*": "an array of int64",
    "i8": "an integer",
    "f8": "a number",
    "code": "a native function",
}
OPTIONAL = "?"  # behind a word

FLOATS = {"float32": types.float32, "float64": types.float64}
_SCALARS = {
    "i8": types.int64,
    "i4": types.int32,
    "f8": types.float64,
    "f4": types.float32,
    "code": types.int64,
}
_DTYPES = {"f8*": np.dtype(np.float64), "i8*": np.dtype(np.int64)}


class Record(types.Type):
    """Pointer to the operands of a kernel whose element type is `dtype`."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Record({dtype})")


@register_default(Record)
class _RecordModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, I64.as_pointer())


def parse_type(text: str, dtype: str):
    """The Numba type of one word: ``F`` is the element type `dtype`, ``i8 i4 f8 f4`` are scalars, ``*`` is a pointer."""
    name = text.strip().removesuffix(OPTIONAL)
    if name == "record":
        return Record(FLOATS[dtype])
    scalar = FLOATS[dtype] if name[0] == "F" else _SCALARS[name.rstrip("*")]
    return types.CPointer(scalar) if name.endswith("*") else scalar


def words_of(function) -> dict[str, str]:
    """The operands of a kernel's function, by name, each with its word; what is supplied is not among them."""
    words = {}
    for name, parameter in inspect.signature(function).parameters.items():
        said = get_args(parameter.annotation)
        if name in SUPPLIED and not said:
            continue
        if name in SUPPLIED or len(said) != 2 or said[1].removesuffix(OPTIONAL) not in _MEANINGS:
            expected = (
                "none because it is supplied" if name in SUPPLIED else "one that says what operand it is"
            )
            raise TypeError(
                f"{function.__name__}: the annotation of {name} is {parameter.annotation}, expected {expected}"
            )
        words[name] = said[1]
    return words


def arguments_of(function, words: Mapping[str, str]):
    """An intrinsic that reads the operands of a record, and gives what the function takes as one tuple."""
    parameters = tuple(inspect.signature(function).parameters)

    @intrinsic
    def arguments(typingctx, record, first, second, scratch):
        dtype = str(record.dtype)
        kinds = [parse_type(words[name], dtype) if name in words else types.int64 for name in parameters]
        slots = {name: slot for slot, name in enumerate(words)}

        def generate(context, builder, signature, given):
            values = []
            for name, kind in zip(parameters, kinds, strict=True):
                if name in SUPPLIED:
                    values.append(given[SUPPLIED[name]])
                    continue
                word = builder.load(builder.gep(given[0], [I64(slots[name])], inbounds=True), align=8)
                if isinstance(kind, types.CPointer):
                    word = builder.inttoptr(word, context.get_value_type(kind))
                elif isinstance(kind, types.Float):
                    word = builder.bitcast(word, ir.DoubleType())
                values.append(word)
            return context.make_tuple(builder, signature.return_type, values)

        return types.Tuple(kinds)(record, *[types.int64] * 3), generate

    return arguments


def packer(
    name: str, words: Mapping[str, str], result: str, parameters: str, names: Mapping[str, Any]
) -> Any:
    """A function ``(dtype, parameters…, *, operands…)`` that packs its operands into the record which stands in `result`.

    It raises TypeError, which names the kernel and the operand, where one is missing, unknown or not what it should be. It
    stands in front of kernels that take a microsecond: so it is written out for each kernel, as the methods of dataclasses
    are, which takes half the time of a loop over the operands.

    Parameters
    ----------
    result, parameters : source text: an expression in which ``record`` is the record, and what it needs besides
    names : what else the text mentions
    """
    values = ", ".join(_value(operand, word) for operand, word in words.items())
    given = ", ".join(f"{operand}={operand}" for operand in words)
    text = (
        f"def make(dtype{parameters}, *, {', '.join(words)}):\n"
        f"    try:\n"
        f"        record = pack({values})\n"
        f"    except (TypeError, AttributeError, error) as reason:\n"
        f"        raise TypeError(complaint(dtype, {given})) from reason\n"
        f"    return {result}\n"
    )
    layout = struct.Struct("<" + "".join("d" if word == "f8" else "q" for word in words.values()))
    known = {
        "pack": layout.pack, "error": struct.error, "address": address, "address_if": _address_if,
        "float64": np.dtype(np.float64), "int64": np.dtype(np.int64), "complaint": partial(_complaint, name, words),
    }  # fmt: skip
    known |= names
    exec(compile(text, f"<record of {name}>", "exec"), known)
    make: Any = known["make"]
    make.__name__ = make.__qualname__ = name
    return make


_ELEMENTS = {"F*": "dtype", "f8*": "float64", "i8*": "int64"}


def _value(name: str, word: str) -> str:
    """What stands for an operand where a record is packed: the packing refuses what is neither an integer nor a float."""
    if word.endswith(OPTIONAL):
        return f"0 if {name} is None else {_value(name, word.removesuffix(OPTIONAL))}"
    if word == "code":
        return f"{name}.address(dtype)"
    if word.endswith("*"):
        kind = _ELEMENTS[word]
        return f"address({name}) if {name}.dtype is {kind} else address_if({name}, {kind})"
    return name


def _address_if(array: Any, dtype: np.dtype) -> int:
    """The address of an array whose dtype is another object of the same meaning, if it is."""
    if array.dtype != dtype:
        raise TypeError
    return address(array)


def _complaint(name: str, words: Mapping[str, str], dtype: np.dtype, **operands: Any) -> str:
    """What is wrong with operands that cannot be packed."""
    for operand, word in words.items():
        value = operands[operand]
        if not _fits(value, word, dtype):
            kind = (
                f"an array of {value.dtype}"
                if isinstance(value, np.ndarray)
                else f"of type {type(value).__name__}"
            )
            meant = _MEANINGS[word.removesuffix(OPTIONAL)].format(dtype=dtype)
            return f"{name}: {operand} is {kind}, expected {meant}{' or None' * word.endswith(OPTIONAL)}"
    return f"{name}: an operand does not fit into 64 bits"


def _fits(value: Any, word: str, dtype: np.dtype) -> bool:
    """Whether a value is what an operand may be."""
    if word.endswith(OPTIONAL):
        return value is None or _fits(value, word.removesuffix(OPTIONAL), dtype)
    if word.endswith("*"):
        return isinstance(value, np.ndarray) and value.dtype == _DTYPES.get(word, dtype)
    if word == "code":
        return hasattr(value, "address")
    return isinstance(value, int | float | np.number if word == "f8" else int | np.integer)
