"""Instructions of the GPU that Python has no words for, each with a line of meaning."""

from .pointer import BYTES, COMPUTED, STORED, element, narrow, widen
from .target import cuda, device, intrinsic, ir, types

FULL = 0xFFFFFFFF  # all lanes of a warp
LANES = 32


# ---------------------------------------------------------------------------------------------- wide accesses


def _vector(storage: str, count: int):
    """LLVM's vectors for `count` elements, at most 16 bytes each: (vector type, elements in each, number)."""
    each = min(count, 16 // BYTES[storage])
    return ir.VectorType(STORED[storage], each), each, count // each


def _wide_load(count: int):
    @intrinsic
    def load(typing, pointer, index):
        def code(context, builder, signature, arguments):
            storage, space = pointer.storage, pointer.space
            place = element(context, builder, *arguments, signature.args[1])
            kind, each, number = _vector(storage, count)
            start = builder.bitcast(place, ir.PointerType(kind, space))
            values = []
            for part in range(number):
                at = builder.gep(start, [ir.Constant(ir.IntType(64), part)])
                vector = builder.load(at, align=each * BYTES[storage])
                for lane in range(each):
                    bits = builder.extract_element(vector, ir.Constant(ir.IntType(32), lane))
                    values.append(widen(builder, bits, storage))
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(COMPUTED[pointer.storage], count)(pointer, index), code

    return load


def _wide_store(count: int):
    @intrinsic
    def store(typing, pointer, index, values):
        def code(context, builder, signature, arguments):
            storage, space = pointer.storage, pointer.space
            place = element(context, builder, *arguments[:2], signature.args[1])
            kind, each, number = _vector(storage, count)
            start = builder.bitcast(place, ir.PointerType(kind, space))
            for part in range(number):
                vector = ir.Constant(kind, ir.Undefined)
                for lane in range(each):
                    value = builder.extract_value(arguments[2], part * each + lane)
                    bits = narrow(builder, value, storage)
                    vector = builder.insert_element(vector, bits, ir.Constant(ir.IntType(32), lane))
                at = builder.gep(start, [ir.Constant(ir.IntType(64), part)])
                builder.store(vector, at, align=each * BYTES[storage])
            return context.get_dummy_value()

        return types.void(pointer, index, types.UniTuple(COMPUTED[pointer.storage], count)), code

    return store


# load4(p, i) -> (p[i], p[i+1], p[i+2], p[i+3]) and store4(p, i, values): one access of 16 bytes for float32, two for
# float64, one of 8 bytes for 16-bit storage. The address must be a multiple of what is accessed.
load4, store4 = _wide_load(4), _wide_store(4)
load2, store2 = _wide_load(2), _wide_store(2)


def is_wide(storage: str, *addresses_and_strides: int) -> bool:
    """Whether `load4` and `store4` may be used at these addresses (bytes) and row lengths (bytes); 0 is absent."""
    size = min(16, 4 * BYTES[storage])
    return all(number % size == 0 for number in addresses_and_strides)


# ---------------------------------------------------------------------------------------------- warps


@device
def warp_sum(value):
    """Σ over the 32 lanes, the same bits in every lane: pairs at distance 16, 8, 4, 2, 1."""
    value += cuda.shfl_xor_sync(FULL, value, 16)
    value += cuda.shfl_xor_sync(FULL, value, 8)
    value += cuda.shfl_xor_sync(FULL, value, 4)
    value += cuda.shfl_xor_sync(FULL, value, 2)
    value += cuda.shfl_xor_sync(FULL, value, 1)
    return value


@device
def larger(a, b):
    """The larger of two numbers; NaN if either is."""
    return a if a > b or a != a else b


@device
def warp_max(value):
    """The largest of the 32 lanes; NaN if any is."""
    value = larger(value, cuda.shfl_xor_sync(FULL, value, 16))
    value = larger(value, cuda.shfl_xor_sync(FULL, value, 8))
    value = larger(value, cuda.shfl_xor_sync(FULL, value, 4))
    value = larger(value, cuda.shfl_xor_sync(FULL, value, 2))
    return larger(value, cuda.shfl_xor_sync(FULL, value, 1))


# ---------------------------------------------------------------------------------------------- conversions


@intrinsic
def bfloat16_bits(typing, x):
    """The bits (int16) of x in bfloat16, to nearest even: integer arithmetic, which GPUs without bfloat16 have too."""

    def code(context, builder, signature, arguments):
        word = ir.IntType(32)
        single = context.cast(builder, arguments[0], signature.args[0], types.float32)
        bits = builder.bitcast(single, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        nearest = builder.add(bits, builder.add(odd, word(0x7FFF)))
        quiet = builder.or_(bits, word(0x400000))  # rounding would carry the bits of a NaN into an infinity
        chosen = builder.select(builder.fcmp_unordered("uno", single, single), quiet, nearest)
        return builder.trunc(builder.lshr(chosen, word(16)), ir.IntType(16))

    return types.int16(x), code
