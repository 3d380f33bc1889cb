"""One call of a door from a compiled function: types are checked when it is compiled, everything else when it runs.

An overload makes a `Call` of the types of its arguments. What is wrong with these is said at once, in the words that the
same call from Python has. ``call.run(arguments)`` is then a function for compiled code that hands the arguments to
`cpu.doors.admission.perform` and raises ValueError where that finds a fault.
"""

from functools import cached_property
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import infer, infer_global, make_overload_template
from numba.extending import intrinsic, models, register_model

from ..cpu import doors
from ..cpu.doors import words as at
from ..cpu.doors.arguments import Name, Number, Tensor, Truth, Whole
from ..ranges import integers
from .arrays import LABELS, bring, put_array
from .kinds import FLOATS, OUR_KIND, UNKNOWN, Refused, constant, is_absent, is_number, told
from .mark import I64, perform, ready, table


class _Operation(types.Function):
    """The type of an operation. What is wrong with a call is said alone, not in Numba's report on all candidates."""

    def __init__(self, template: Any, name: str):
        super().__init__(template)
        self.name = name

    def get_call_type(self, context, args, kws):
        try:
            return super().get_call_type(context, args, kws)
        except Refused as reason:
            raise TypingError(str(reason)) from None


register_model(_Operation)(models.OpaqueModel)


def inside(op: Any) -> Any:
    """Teach Numba an operation: the function that is decorated gives the implementation for types of arguments.

    It is what `numba.extending.overload` takes.
    """

    def decorate(typing: Any) -> Any:
        options = {"nopython": True, "no_cpython_wrapper": True}
        template = make_overload_template(
            op, typing, options, strict=True, inline="never", prefer_literal=True
        )
        infer(template)
        infer_global(op, _Operation(template, f"gdkernels.{op.__name__}"))
        return typing

    return decorate


# ---------------------------------------------------------------------------------------------- calls


class Call:
    """A call of a door with arguments of these types, by name; the first array decides the element type.

    Raises `Refused` when an argument cannot be right, whatever its value.
    """

    def __init__(self, name: str, **kinds: Any):
        found: Any = doors.find(name)
        self.door = found
        self.op = name.partition(".")[0]
        self.kinds = kinds
        first, kind = next(iter(kinds.items()))
        if not isinstance(kind, types.Array) or kind.dtype not in FLOATS:
            raise Refused(f"{self.op}: {first} {told(kind)}, expected {OUR_KIND}")
        self.first, self.dtype = first, FLOATS[kind.dtype]
        self._numbers: dict[str, int] = {}  # of names, among the values of their argument
        for name, asked in self.door.arguments.items():
            self._check(name, asked, kinds[name])

    def _check(self, name: str, asked: Any, kind: Any) -> None:
        match asked:
            case Tensor():
                self._check_array(name, asked, kind)
            case Name(values):
                value = constant(kind)
                if value is UNKNOWN:
                    raise Refused(
                        f"{self.op}: {name} {told(kind)}, expected a name that stands in the call itself"
                    )
                if value not in values:
                    raise Refused(f"{self.op}: {name} is {value!r}, expected one of {', '.join(values)}")
                self._numbers[name] = [*values].index(value)
            case Number(among):
                if not is_number(kind, types.Number):
                    raise Refused(f"{self.op}: {name} {told(kind)}, expected {among.words}")
            case Whole(least):
                if not is_number(kind, types.Integer):
                    raise Refused(
                        f"{self.op}: {name} {told(kind)}, expected {integers(least if least > 0 else None)}"
                    )
            case Truth():
                if not isinstance(constant(kind), bool) and not isinstance(kind, types.Boolean):
                    raise Refused(f"{self.op}: {name} {told(kind)}, expected True or False")

    def _check_array(self, name: str, asked: Tensor, kind: Any) -> None:
        if is_absent(kind):
            if not asked.optional:
                raise Refused(f"{self.op}: {name} is None, expected an array")
            if asked.needed_if and constant(self.kinds[asked.needed_if]) is not False:
                why = f"{asked.needed_if} {told(self.kinds[asked.needed_if])}"
                raise Refused(f"{self.op}: {name} is None, expected an array because {why}")
            return
        if not isinstance(kind, types.Array):
            raise Refused(f"{self.op}: {name} {told(kind)}, expected an array")
        if asked.labels:
            if kind.dtype not in LABELS:
                raise Refused(f"{self.op}: {name} {told(kind)}, expected int32 or int64 labels")
        elif str(kind.dtype) != self.dtype.name:
            raise Refused(
                f"{self.op}: {name} has dtype {kind.dtype}, expected {self.dtype} because {self.first} has {self.dtype}"
            )
        if asked.dims and kind.ndim != len(asked.dims):
            raise Refused(
                f"{self.op}: {name} has {kind.ndim} dimensions, expected {len(asked.dims)}: {shape(asked)}"
            )
        if asked.written and not kind.mutable:
            raise Refused(f"{self.op}: {name} is read-only, expected a writable array")

    # ------------------------------------------------------------------------------------------ native code

    @property
    def words(self) -> tuple[tuple[int, str], ...]:
        """The names among the arguments, by their places."""
        return tuple(
            (place, [*asked.values][self._numbers[name]])
            for place, (name, asked) in enumerate(self.door.arguments.items())
            if isinstance(asked, Name)
        )

    @cached_property
    def run(self) -> Any:
        """A function of the arguments as one tuple, in their order: None, or the float64 that the door gives."""
        mark = ready(self.door.name, self.dtype.name, self.words)
        gives = types.float64 if self.door.gives == at.LOSS else types.none

        @intrinsic
        def run(typingctx, arguments):
            def generate(context, builder, signature, given):
                context.active_code_library._reload_init.add(mark)
                values = cgutils.unpack_tuple(builder, given[0])
                return self._generate(context, builder, signature.args[0].types, values)

            return gives(arguments), generate

        return run

    def _generate(self, context, builder, kinds, values):
        views = cgutils.alloca_once(builder, I64, size=I64(len(self.door.arguments) * at.VIEW_WORDS))
        outcome = cgutils.alloca_once(builder, I64, size=I64(2))
        copies = self.put_views(context, builder, views, kinds, values)
        fault = perform(builder, "one", [table(builder, self.door, self.dtype.name), views, outcome])
        bring(context, builder, fault, copies)
        self.answer(context, builder, fault)
        if self.door.gives != at.LOSS:
            return context.get_dummy_value()
        return builder.bitcast(builder.load(outcome), ir.DoubleType())

    def put_views(self, context, builder, views, kinds, values) -> list[Any]:
        """Fill the views of the arguments, of these types and values; give the copies that were made for the kernel."""
        copies = []
        for place, (name, asked) in enumerate(self.door.arguments.items()):
            put = putter(builder, builder.gep(views, [I64(place * at.VIEW_WORDS)]))
            kind, value = kinds[place], values[place]
            if isinstance(asked, Tensor):
                copies += put_array(context, builder, put, kind, value, asked)
            elif isinstance(asked, Name):
                put(at.VALUE, I64(self._numbers[name]))
            elif isinstance(asked, Number):
                number = context.cast(builder, value, kind, types.float64)
                put(at.VALUE, builder.bitcast(number, I64))
            else:
                put(at.VALUE, context.cast(builder, value, kind, types.int64))
        return copies

    def answer(self, context, builder, fault) -> None:
        """Raise ValueError where there is a fault of an argument, MemoryError where there is no memory."""
        wrong = builder.icmp_unsigned("!=", fault, I64(0))
        with builder.if_then(wrong, likely=False):
            for code, text in self._faults():
                with builder.if_then(builder.icmp_unsigned("==", fault, I64(code))):
                    context.call_conv.return_user_exc(builder, ValueError, (text,))
            context.call_conv.return_user_exc(builder, MemoryError, (f"{self.op}: out of memory",))

    def _faults(self):
        """What can be wrong when the call runs, with the message for each."""
        for place, (name, asked) in enumerate(self.door.arguments.items()):
            for what, text in self._said(name, asked):
                yield place * at.FAULTS + what, f"{self.op}: {name} {text}"

    def _said(self, name: str, asked: Any):
        match asked:
            case Tensor():
                if is_absent(self.kinds[name]):
                    yield at.MISSING, "is None, expected an array"
                    return
                if asked.labels:
                    yield at.VALUE_RANGE, "holds a label that is not a class"
                yield at.DIMENSION, f"has a shape that does not fit, expected {self._shape(name, asked)}"
                yield at.LAYOUT, "has strides that are not whole elements"
                if asked.written:
                    yield at.OVERLAP, "overlaps another argument, expected memory of its own"
            case Number(among):
                yield at.VALUE_RANGE, f"is out of range, expected {among.words}"
            case Whole(least):
                yield at.VALUE_RANGE, f"is out of range, expected {integers(least if least > 0 else None)}"
            case _:
                return

    def _shape(self, name: str, asked: Tensor) -> str:
        """What is asked of a shape, and what the letters are."""
        first: Any = self.door.arguments[self.first]
        if name == self.first or not asked.dims:
            return shape(asked, self.first)
        return f"{shape(asked)} where {self.first} is {shape(first)}"


class Calls:
    """A call of a door for tuples of arrays, such as all parameters of a network; what is no tuple holds for all items.

    Raises `Refused` as `Call` does, and where tuples are of different lengths or hold None.
    """

    def __init__(self, name: str, **kinds: Any):
        first, kind = next(iter(kinds.items()))
        self._count = len(kind)
        for key, one in kinds.items():
            if isinstance(one, types.BaseTuple) and len(one) != self._count:
                raise Refused(f"{name}: {key} has {len(one)} arrays, expected {self._count} like {first}")
            if isinstance(one, types.BaseTuple) and any(map(is_absent, one)):
                raise Refused(f"{name}: {key} holds None, expected arrays")
            if isinstance(doors.find(name).arguments[key], Tensor) and not isinstance(
                one, types.BaseTuple | types.NoneType
            ):
                raise Refused(f"{name}: {key} {told(one)}, expected a tuple like {first}")
        self._several = [isinstance(one, types.BaseTuple) for one in kinds.values()]
        self._calls = [
            Call(name, **{key: _item(one, index) for key, one in kinds.items()})
            for index in range(self._count)
        ]
        dtype = self._calls[0].dtype
        for index, call in enumerate(self._calls):
            if call.dtype != dtype:
                raise Refused(
                    f"{name}: {first}[{index}] has dtype {call.dtype}, expected {dtype} because {first}[0] has {dtype}"
                )

    @cached_property
    def run(self) -> Any:
        """A function of the arguments as one tuple, in their order."""
        call = self._calls[0]
        mark = ready(call.door.name, call.dtype.name, call.words, "all")

        @intrinsic
        def run(typingctx, arguments):
            def generate(context, builder, signature, given):
                context.active_code_library._reload_init.add(mark)
                values = cgutils.unpack_tuple(builder, given[0])
                self._generate(context, builder, signature.args[0].types, values)
                return context.get_dummy_value()

            return types.none(arguments), generate

        return run

    def _generate(self, context, builder, kinds, values) -> None:
        each = len(kinds) * at.VIEW_WORDS
        views, copies = cgutils.alloca_once(builder, I64, size=I64(each * self._count)), []
        for index, call in enumerate(self._calls):
            here = [_item(kind, index) for kind in kinds]
            items = [
                builder.extract_value(value, index) if several else value
                for value, several in zip(values, self._several, strict=True)
            ]
            copies += call.put_views(context, builder, builder.gep(views, [I64(index * each)]), here, items)
        call = self._calls[0]
        here = table(builder, call.door, call.dtype.name)
        fault = perform(builder, "all", [here, views, I64(self._count)])
        bring(context, builder, fault, copies)
        none = builder.icmp_signed("<", fault, I64(0))
        call.answer(context, builder, builder.select(none, fault, builder.urem(fault, I64(at.ITEM_FAULTS))))


def _item(kind: Any, index: int) -> Any:
    """The type of an item of a tuple, or of what holds for all items."""
    return kind.types[index] if isinstance(kind, types.BaseTuple) else kind


def shape(asked: Tensor, first: str = "") -> str:
    """What is asked of a shape, in letters."""
    if not asked.dims:
        return f"that of {first}" if first else "any"
    return f"({', '.join(map(str, asked.dims))}{',' * (len(asked.dims) == 1)})"


def putter(builder, view):
    """A function (word, value) that fills a view."""

    def put(word, value):
        builder.store(value, builder.gep(view, [I64(word)]))

    return put
