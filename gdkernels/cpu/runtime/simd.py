"""What LLVM has and Python has no words for. Who else writes LLVM is told in docs/architecture.md.

Each is one line of meaning. Addresses are int64, strides and offsets count elements.
"""

import time

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CLOCK_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)
CLOCK_THREAD = getattr(time, "CLOCK_THREAD_CPUTIME_ID", 0)
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
VOID = ir.VoidType()


def declare(module, name, result, arguments):
    """An LLVM intrinsic or an outside function."""
    return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)


# ---------------------------------------------------------------------------------------------- pointers


@intrinsic
def noalias(typingctx):
    """State that the pointer arguments of the function being compiled do not overlap (or are equal)."""

    def generate(context, builder, signature, arguments):
        for argument in builder.function.args[2:]:  # after Numba's return slot and exception slot
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def offset(typingctx, pointer, count):
    """pointer + count elements."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, types.int64), generate


def _address_of(kind):
    @intrinsic
    def pointer_at(typingctx, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return pointer_at


int64_at = _address_of(types.int64)  # int64_at(address): a pointer to int64
int32_at = _address_of(types.int32)
float64_at = _address_of(types.float64)


@intrinsic
def typed(typingctx, address, like):
    """The pointer at an address, of the type of the pointer `like`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return like(types.int64, like), generate


def stack(count: int):
    """stack(count)(): a pointer to `count` int64 that live as long as the function being compiled runs."""

    @intrinsic
    def words(typingctx):
        def generate(context, builder, signature, arguments):
            memory = cgutils.alloca_once(builder, I64, size=I64(count))
            return builder.bitcast(memory, context.get_value_type(signature.return_type))

        return types.CPointer(types.int64)(), generate

    return words


@intrinsic
def address_of_bytes(typingctx, memory):
    """Where the contents of a `bytes` object are, as int64."""

    def generate(context, builder, signature, arguments):
        buffer = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0])
        return builder.ptrtoint(buffer.data, I64)

    return types.int64(memory), generate


@intrinsic
def address_of(typingctx, pointer):
    """A pointer as int64."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], I64)

    return types.int64(pointer), generate


def taken(count: int):
    """taken(count)(like, numbers): the first `count` float64 at `numbers`, as a tuple of the type that `like` points to."""

    @intrinsic
    def take(typingctx, like, numbers):
        def generate(context, builder, signature, arguments):
            kind, values = signature.args[0].dtype, []
            for place in range(count):
                value = builder.load(builder.gep(arguments[1], [I64(place)], inbounds=True), align=8)
                values.append(value if kind == types.float64 else builder.fptrunc(value, ir.FloatType()))
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(like.dtype, count)(like, numbers), generate

    return take


# ---------------------------------------------------------------------------------------------- calls by address


def _indirect(builder, address, result, arguments):
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, function.as_pointer()), arguments)


@intrinsic
def invoke(typingctx, address, record, start, stop, scratch):
    """Call the kernel at `address` on the record at address `record`; see `jit.kernel`."""

    def generate(context, builder, signature, arguments):
        record = builder.inttoptr(arguments[1], I64.as_pointer())
        _indirect(builder, arguments[0], VOID, [record, *arguments[2:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def apply(typingctx, address, *arguments):
    """Call the native function at `address`, which returns nothing, with these arguments."""

    def generate(context, builder, signature, values):
        _indirect(builder, values[0], VOID, cgutils.unpack_tuple(builder, values[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple(arguments)), generate


# ---------------------------------------------------------------------------------------------- atomics


@intrinsic
def atomic_load(typingctx, pointer):
    """*pointer, sequentially consistent."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(arguments[0], "seq_cst", 8)

    return types.int64(pointer), generate


@intrinsic
def atomic_store(typingctx, pointer, value):
    """*pointer = value, sequentially consistent."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], arguments[0], "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64), generate


@intrinsic
def atomic_add(typingctx, pointer, value):
    """*pointer += value; gives the old value."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", arguments[0], arguments[1], "seq_cst")

    return types.int64(pointer, types.int64), generate


@intrinsic
def relax(typingctx):
    """Tell the core that this is a spin loop."""
    from .machine import IS_X86

    def generate(context, builder, signature, arguments):
        if IS_X86:
            builder.call(declare(builder.module, "llvm.x86.sse2.pause", VOID, []), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(typingctx):
    """Let another thread run on this core (sched_yield, or what stands for it)."""

    def generate(context, builder, signature, arguments):
        builder.call(declare(builder.module, "gdkernels.yield", I32, []), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def nap(typingctx, microseconds):
    """Sleep (usleep); where that is not to be had, give way."""
    from .machine import HAS_CLOCK

    def generate(context, builder, signature, arguments):
        if HAS_CLOCK:
            time = builder.trunc(arguments[0], I32)
            builder.call(declare(builder.module, "gdkernels.nap", I32, [I32]), [time])
        else:
            builder.call(declare(builder.module, "gdkernels.yield", I32, []), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _read(clock):
    @intrinsic
    def read(typingctx):
        from .machine import HAS_CLOCK

        def generate(context, builder, signature, arguments):
            if not HAS_CLOCK:
                return I64(0)
            now = cgutils.alloca_once(builder, I64, size=2)  # seconds, nanoseconds
            function = declare(builder.module, "gdkernels.clock", I32, [I32, I64.as_pointer()])
            builder.call(function, [I32(clock), now])
            seconds, rest = (builder.load(builder.gep(now, [I64(place)])) for place in range(2))
            return builder.add(builder.mul(seconds, I64(10**9)), rest)

        return types.int64(), generate

    return read


# Time by clock_gettime, always 0 where that is not to be had: since some moment, and what this thread had of a core.
nanoseconds = _read(CLOCK_MONOTONIC)
thread_nanoseconds = _read(CLOCK_THREAD)


# ---------------------------------------------------------------------------------------------- denormal numbers

MXCSR_FLUSH = 0x8040  # results that are denormal become 0 (bit 15), and so do operands (bit 6)


@intrinsic
def flush_denormals(typingctx):
    """Let this thread treat denormal numbers as 0 (x86; elsewhere nothing happens); gives the mode before."""
    from .machine import IS_X86

    def generate(context, builder, signature, arguments):
        if not IS_X86:
            return I64(0)
        place, byte = cgutils.alloca_once(builder, I32), ir.IntType(8).as_pointer()
        read, write = (
            declare(builder.module, f"llvm.x86.sse.{name}", VOID, [byte]) for name in ("stmxcsr", "ldmxcsr")
        )
        builder.call(read, [builder.bitcast(place, byte)])
        before = builder.load(place)
        builder.store(builder.or_(before, I32(MXCSR_FLUSH)), place)
        builder.call(write, [builder.bitcast(place, byte)])
        return builder.zext(before, I64)

    return types.int64(), generate


@intrinsic
def restore_denormals(typingctx, mode):
    """Go back to the mode that `flush_denormals` gave."""
    from .machine import IS_X86

    def generate(context, builder, signature, arguments):
        if IS_X86:
            place, byte = cgutils.alloca_once(builder, I32), ir.IntType(8).as_pointer()
            builder.store(builder.trunc(arguments[0], I32), place)
            builder.call(
                declare(builder.module, "llvm.x86.sse.ldmxcsr", VOID, [byte]), [builder.bitcast(place, byte)]
            )
        return context.get_dummy_value()

    return types.void(types.int64), generate


# ---------------------------------------------------------------------------------------------- bits of a float


_SAME_BITS = {
    types.float32: types.int32,
    types.int32: types.float32,
    types.float64: types.int64,
    types.int64: types.float64,
}


@intrinsic
def bits(typingctx, value):
    """float32 <-> int32, float64 <-> int64: the same bits."""
    if value not in _SAME_BITS:
        return None

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return _SAME_BITS[value](value), generate


def _integer_binary(method):
    @intrinsic
    def operation(typingctx, left, right):
        if left != right or left not in (types.int32, types.int64):
            return None

        def generate(context, builder, signature, arguments):
            return getattr(builder, method)(*arguments)

        return left(left, left), generate

    return operation


# int32 stays int32, where Numba's own operators would widen it (and halve the lanes of a vector).
add = _integer_binary("add")
sub = _integer_binary("sub")
shift_left = _integer_binary("shl")
shift_right = _integer_binary("ashr")  # the sign bit is shifted in: division by a power of two, rounded down


# ---------------------------------------------------------------------------------------------- arithmetic


@intrinsic
def copysign(typingctx, magnitude, sign):
    """`magnitude` with the sign of `sign`."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        suffix = "f32" if signature.return_type == types.float32 else "f64"
        function = declare(builder.module, f"llvm.copysign.{suffix}", kind, [kind, kind])
        return builder.call(function, arguments)

    return magnitude(magnitude, magnitude), generate


@intrinsic
def fused(typingctx, left, right, addend):
    """left · right + addend, rounded once; only for machines that have it (`machine.HAS_FMA`)."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        suffix = "f32" if signature.return_type == types.float32 else "f64"
        function = declare(builder.module, f"llvm.fma.{suffix}", kind, [kind] * 3)
        return builder.call(function, arguments)

    return left(left, left, left), generate


@intrinsic
def horner(typingctx, x, coefficients):
    """c[0] + x (c[1] + x (c[2] + …)), in the type of x; `coefficients` is a tuple of constants."""

    def generate(context, builder, signature, arguments):
        x, packed = arguments
        total = None
        for c in reversed(cgutils.unpack_tuple(builder, packed)):
            if c.type != x.type:
                c = builder.fptrunc(c, x.type)
            total = c if total is None else builder.fadd(builder.fmul(total, x), c)
        return total

    return x(x, coefficients), generate
