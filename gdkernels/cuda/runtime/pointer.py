"""Pointers in kernels: ``p[i]`` is a load or a store, and 16-bit storage is computed with in float32.

A `Pointer` knows the storage of its elements and the memory that they lie in. Reading an element widens it to the type
that is computed with (`COMPUTED`), writing rounds it to the storage, to nearest even. There is no wrap-around of negative
indices, so that an index costs one addition.
"""

import operator

from .target import (
    AbstractTemplate,
    PrimitiveModel,
    errors,
    intrinsic,
    ir,
    lower_builtin,
    make_signature,
    register_global,
    register_model,
    types,
)

STORED = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "float16": ir.IntType(16),
    "bfloat16": ir.IntType(16),
    "int8": ir.IntType(8),
    "int16": ir.IntType(16),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
    "uint32": ir.IntType(32),
}
COMPUTED = {
    "float32": types.float32,
    "float64": types.float64,
    "float16": types.float32,
    "bfloat16": types.float32,
    "int8": types.int8,
    "int16": types.int16,
    "int32": types.int32,
    "int64": types.int64,
    "uint32": types.uint32,
}
BYTES = {
    name: 8 if kind == ir.DoubleType() else 4 if kind == ir.FloatType() else kind.width // 8
    for name, kind in STORED.items()
}
# Address spaces of NVVM. Private is what a thread has for itself, and also where the compiler has to find out which of
# the others it is.
PRIVATE, GLOBAL, SHARED = 0, 1, 3


class Pointer(types.Type):
    """To elements of a storage type, in global or shared memory, or in registers."""

    def __init__(self, storage: str, space: int = GLOBAL):
        self.storage, self.space = storage, space
        self.dtype = COMPUTED[storage]
        super().__init__(name=f"Pointer({storage}, {space})")

    def llvm(self):
        return ir.PointerType(STORED[self.storage], self.space)


@register_model(Pointer)
class PointerModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.llvm())


@register_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args, kws):
        pointer, index = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return make_signature(pointer.dtype, pointer, index)
        return None


@register_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args, kws):
        pointer, index, _ = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return make_signature(types.none, pointer, index, pointer.dtype)
        return None


def element(context, builder, pointer, index, index_type):
    """The address pointer + index."""
    kind = types.int64 if index_type.signed else types.uint64
    return builder.gep(pointer, [context.cast(builder, index, index_type, kind)])


def widen(builder, bits, storage: str):
    """A stored value as the value that is computed with."""
    if storage == "bfloat16":
        high = builder.shl(builder.zext(bits, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(high, ir.FloatType())
    if storage == "float16":
        convert = ir.FunctionType(ir.FloatType(), [ir.IntType(16)])
        return builder.call(ir.InlineAsm(convert, "cvt.f32.f16 $0, $1;", "=f,h"), [bits])
    return bits


def narrow(builder, value, storage: str):
    """A computed value as it is stored, rounded to nearest even."""
    if storage in ("bfloat16", "float16"):
        convert = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
        short = "bf16" if storage == "bfloat16" else "f16"
        return builder.call(ir.InlineAsm(convert, f"cvt.rn.{short}.f32 $0, $1;", "=h,f"), [value])
    return value


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _load(context, builder, signature, arguments):
    kind = signature.args[0]
    value = builder.load(element(context, builder, *arguments, signature.args[1]), align=BYTES[kind.storage])
    return widen(builder, value, kind.storage)


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _store(context, builder, signature, arguments):
    kind = signature.args[0]
    place = element(context, builder, *arguments[:2], signature.args[1])
    builder.store(narrow(builder, arguments[2], kind.storage), place, align=BYTES[kind.storage])
    return context.get_dummy_value()


@intrinsic
def pointer(typing, array):
    """The pointer to the first element of a C-contiguous Numba array of float32 or float64; a pointer as it is."""
    if isinstance(array, Pointer):
        return array(array), lambda context, builder, signature, arguments: arguments[0]
    if not isinstance(array, types.Array):
        raise errors.TypingError(f"gdkernels: {array}, expected an array")
    if array.layout != "C" or str(array.dtype) not in ("float32", "float64"):
        raise errors.TypingError(
            f"gdkernels: an array of type {array}, expected one of float32 or float64 that is C-contiguous"
        )

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.bitcast(data, signature.return_type.llvm())

    return Pointer(str(array.dtype), PRIVATE)(array), code


@intrinsic
def offset(typing, pointer, count):
    """The pointer, `count` elements further."""

    def code(context, builder, signature, arguments):
        return element(context, builder, *arguments, signature.args[1])

    return pointer(pointer, count), code


@intrinsic
def shared(typing, like, count):
    """Shared memory of a block: `count` (a constant) elements of the type of `like`, a number or a pointer to such.

    It belongs to the place of this call: a device function that is called twice has the same memory both times.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    number = like.dtype if isinstance(like, Pointer) else like

    def code(context, builder, signature, arguments):
        kind = ir.ArrayType(STORED[signature.return_type.storage], count.literal_value)
        module = builder.module
        memory = ir.GlobalVariable(module, kind, module.get_unique_name("shared"), addrspace=SHARED)
        memory.linkage, memory.align = "internal", 16
        memory.initializer = ir.Constant(kind, ir.Undefined)
        return builder.bitcast(memory, signature.return_type.llvm())

    return Pointer(str(number), SHARED)(like, count), code


@intrinsic
def registers(typing, like, count):
    """`count` (a constant) numbers of a thread, of the type that those of `like` are computed with.

    They are registers as long as every index is a constant when loops are unrolled; otherwise they are local memory.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None

    def code(context, builder, signature, arguments):
        kind = ir.ArrayType(STORED[signature.return_type.storage], count.literal_value)
        with builder.goto_entry_block():
            memory = builder.alloca(kind)
            memory.align = 16
        return builder.bitcast(memory, signature.return_type.llvm())

    return Pointer(str(like.dtype), PRIVATE)(like, count), code


@intrinsic
def at(typing, like, address):
    """The pointer of the kind of `like` to an address that was read from memory."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[1], signature.return_type.llvm())

    return like(like, types.int64), code


@intrinsic
def is_null(typing, pointer):
    """Whether the pointer was given as 0."""

    def code(context, builder, signature, arguments):
        word = builder.ptrtoint(arguments[0], ir.IntType(64))
        return builder.icmp_unsigned("==", word, ir.Constant(ir.IntType(64), 0))

    return types.boolean(pointer), code


@intrinsic
def real(typing, pointer, value):
    """A number as the type that the elements of `pointer` are computed with."""

    def code(context, builder, signature, arguments):
        return context.cast(builder, arguments[1], signature.args[1], signature.return_type)

    return pointer.dtype(pointer, value), code
