"""Results too large for a cache, written past the caches.

An ordinary store reads the cache line that it writes into, and pushes another one out of the cache. A result that nobody
will find in a cache is spared both: a few vectors at a time are computed into memory that stays in the first cache, and go
from there to their place by non-temporal stores. They are few, so that a core computes the next ones while those are on
their way. Whether that is done changes no bit.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import Emitter, lanes
from .jit import inlined, native
from .machine import IS_X86, VECTOR_BITS
from .memory import LINE
from .simd import I32, I64, VOID, address_of, declare, noalias, offset, stack, typed

# Bytes that one worker writes, from which on they go past the caches: more than its share of a third-level cache.
LARGE = 16 << 20
PIECE_BYTES = 4 * LINE
AHEAD_BYTES = 2048  # that what is read next is asked for in advance
VECTOR_BYTES = VECTOR_BITS // 8

_words = stack((PIECE_BYTES + LINE) // 8)


@intrinsic
def _write_element(typingctx, pointer, value):
    """*pointer = value, past the caches."""

    def generate(context, builder, signature, arguments):
        pointer, value = arguments
        bits = ir.IntType(signature.args[1].bitwidth)
        place = builder.bitcast(pointer, bits.as_pointer())
        _bypass(builder, builder.store(builder.bitcast(value, bits), place, align=bits.width // 8))
        return context.get_dummy_value()

    return types.void(pointer, pointer.dtype), generate


@intrinsic
def _write_vectors(typingctx, source, target, ahead, count):
    """target = source for `count` vectors, past the caches; `target` is aligned. What lies at `ahead` will be read soon."""

    def generate(context, builder, signature, arguments):
        emit = Emitter(context, builder, signature.args[0].dtype)

        def one(places, _):
            source, target, ahead = places
            emit.prefetch(ahead, False)
            place = builder.bitcast(target, emit.vector.as_pointer())
            _bypass(builder, builder.store(emit.load(source), place, align=VECTOR_BYTES))
            return []

        emit.repeat(arguments[3], arguments[:3], [I64(emit.lanes)] * 3, [], one)
        return context.get_dummy_value()

    return types.void(source, source, source, types.int64), generate


def _bypass(builder, store):
    """Let a store go past the caches."""
    store.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))


@intrinsic
def settle(typingctx):
    """Let other threads see what was written past the caches before what is written from now on."""

    def generate(context, builder, signature, arguments):
        if IS_X86:
            builder.call(declare(builder.module, "llvm.x86.sse.sfence", VOID, []), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@inlined
def is_large(count, like):
    """Should one worker write `count` elements past the caches?"""
    return count * (VECTOR_BYTES // lanes(like)) >= LARGE


@inlined
def piece(like):
    """Memory for PIECE_BYTES, of the type of the pointer `like`, for as long as the function runs."""
    return typed((address_of(_words()) + LINE - 1) // LINE * LINE, like)


@inlined
def room(like):
    """Elements of a piece."""
    return lanes(like) * (PIECE_BYTES // VECTOR_BYTES)


@inlined
def before_line(pointer):
    """Elements up to the next beginning of a cache line."""
    return -address_of(pointer) % LINE // (VECTOR_BYTES // lanes(pointer))


@inlined
def write(source, target, reads, count):
    """target = source, past the caches: vectors where `target` begins a cache line. `source` is computed from `reads`."""
    side = lanes(target)
    vectors = count // side if address_of(target) % LINE == 0 else 0
    _write_vectors(source, target, offset(reads, side * (AHEAD_BYTES // VECTOR_BYTES)), vectors)
    for i in range(vectors * side, count):
        _write_element(offset(target, i), source[i])


@native("F*, F*, F*, i8")
def write_block(source, target, reads, count):
    """target = source, past the caches, for memory that begins anywhere; what comes next is computed from `reads`."""
    noalias()
    head = min(count, before_line(target))
    write(source, target, reads, head)
    write(offset(source, head), offset(target, head), offset(reads, head), count - head)
