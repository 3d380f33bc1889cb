"""Instructions of the GPU that Python has no words for, each with a line of meaning."""

from .pointer import BYTES, COMPUTED, SHARED, STORED, element, narrow, widen
from .target import cuda, device, intrinsic, ir, types

FULL = 0xFFFFFFFF  # all lanes of a warp


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
store2 = _wide_store(2)


@intrinsic
def transposed(typing, rows):
    """((a, b, …), (c, d, …), …) -> ((a, c, …), (b, d, …), …): of groups of elements, what each element has in them."""
    columns = [types.BaseTuple.from_types([row[i] for row in rows]) for i in range(len(rows[0]))]

    def code(context, builder, signature, arguments):
        parts = [builder.extract_value(arguments[0], row) for row in range(len(rows))]
        made = [
            context.make_tuple(builder, column, [builder.extract_value(part, i) for part in parts])
            for i, column in enumerate(columns)
        ]
        return context.make_tuple(builder, signature.return_type, made)

    return types.BaseTuple.from_types(columns)(rows), code


def is_wide(storage: str, *addresses_and_strides: int) -> bool:
    """Whether `load4` and `store4` may be used at these addresses (bytes) and row lengths (bytes); 0 is absent.

    Row lengths must be whole groups of four elements, which for float64 is more than its loads of 16 bytes need.
    """
    return all(number % (4 * BYTES[storage]) == 0 for number in addresses_and_strides)


# ---------------------------------------------------------------------------------------------- warps


def warp_reduction(combine):
    """A device function of (value, shift): `combine` over 2^shift neighbours, a whole warp from shift 5 on.

    Pairs at distance 16, 8, 4, 2, 1, as far as these are below 2^shift: where `combine` commutes, each has the same bits.
    """

    @device
    def reduce(value, shift):
        if shift > 4:
            value = combine(value, cuda.shfl_xor_sync(FULL, value, 16))
        if shift > 3:
            value = combine(value, cuda.shfl_xor_sync(FULL, value, 8))
        if shift > 2:
            value = combine(value, cuda.shfl_xor_sync(FULL, value, 4))
        if shift > 1:
            value = combine(value, cuda.shfl_xor_sync(FULL, value, 2))
        if shift > 0:
            value = combine(value, cuda.shfl_xor_sync(FULL, value, 1))
        return value

    return reduce


@device
def plus(a, b):
    """a + b."""
    return a + b


@device
def times(a, b):
    """a · b."""
    return a * b


@device
def larger(a, b):
    """The larger of two numbers, of which none is NaN."""
    return a if a > b else b


@device
def smaller(a, b):
    """The smaller of two numbers, of which none is NaN."""
    return a if a < b else b


# warp_sum(value, 5): Σ over the 32 lanes
warp_sum = warp_reduction(plus)


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


# ---------------------------------------------------------------------------------------------- integers


@intrinsic
def divided(typing, number, by):
    """(number // by, number % by) of two integers from 0 to 2^32 − 1.

    There is no instruction for those of 64 bits. It is PTX, because the compiler may move an ordinary division to 64 bits.
    """

    def code(context, builder, signature, arguments):
        word, wide = ir.IntType(32), ir.IntType(64)
        above, below = (
            context.cast(builder, argument, kind, types.uint32)
            for argument, kind in zip(arguments, signature.args, strict=True)
        )
        divide = ir.InlineAsm(ir.FunctionType(word, [word, word]), "div.u32 $0, $1, $2;", "=r,r,r")
        quotient = builder.call(divide, [above, below])
        parts = [quotient, builder.sub(above, builder.mul(quotient, below))]
        return context.make_tuple(
            builder, signature.return_type, [builder.zext(part, wide) for part in parts]
        )

    return types.UniTuple(types.int64, 2)(number, by), code


# ---------------------------------------------------------------------------------------------- written out


@intrinsic
def repeat(typing, step, count, arguments):
    """step(i, *arguments) for i = 0 … count − 1, written out; `count` is a constant, `arguments` a tuple.

    As `unrolled`, for any count; each i is a constant for the compiler, and so are quotients and comparisons of it.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    inner = typing.resolve_function_type(step, (types.int64, *arguments), {})

    def code(context, builder, signature, values):
        run = context.get_function(signature.args[0], inner)
        for library in getattr(run, "libs", ()):
            context.active_code_library.add_linking_library(library)
        rest = [builder.extract_value(values[2], place) for place in range(len(arguments))]
        for i in range(count.literal_value):
            run(builder, [context.get_constant(types.int64, i), *rest])
        return context.get_dummy_value()

    return types.void(step, count, arguments), code


def unrolled(step, count: int):
    """step(i, …) for i below `count`, a power of two, written out one after the other.

    A loop would do, if every compiler unrolled it: NVVM does not where inline PTX stands in it (for sm_100 on), and an
    array that a loop indexes lies in local memory instead of registers.
    """
    if count == 1:
        return step
    half = count // 2
    steps = unrolled(step, half)

    @device
    def both(i, *arguments):
        steps(i, *arguments)
        steps(i + half, *arguments)

    return both


# ---------------------------------------------------------------------------------------------- tensor cores

_REGISTERS = {
    "r": (types.uint32, ir.IntType(32)),
    "l": (types.int64, ir.IntType(64)),
    "f": (types.float32, ir.FloatType()),
}


def _assembly(builder, text: str, results: str, operands: str, values, effect: bool = False):
    """A PTX instruction; `results` and `operands` are letters: r for 32 bits, l for 64 bits, f for float32."""
    given = [_REGISTERS[letter][1] for letter in results]
    kind = ir.VoidType() if not given else given[0] if len(given) == 1 else ir.LiteralStructType(given)
    taken = [_REGISTERS[letter][1] for letter in operands]
    constraints = [f"={letter}" for letter in results] + list(operands) + ["~{memory}"] * effect
    code = ir.InlineAsm(ir.FunctionType(kind, taken), text, ",".join(constraints), side_effect=effect)
    return builder.call(code, values, attrs=("convergent",))


def _instruction(text: str, results: str = "", operands: str = "", effect: bool = False):
    """An intrinsic of one PTX instruction: operands to result, or to a tuple of results.

    With `effect` it keeps its place among accesses to memory.
    """
    kinds = [_REGISTERS[letter][0] for letter in results]
    kind = types.void if not kinds else kinds[0] if len(kinds) == 1 else types.UniTuple(kinds[0], len(kinds))
    signature = kind(*(_REGISTERS[letter][0] for letter in operands))

    def code(context, builder, signature, values):
        result = _assembly(builder, text, results, operands, values, effect)
        if not results:
            return context.get_dummy_value()
        if len(results) == 1:
            return result
        parts = [builder.extract_value(result, part) for part in range(len(results))]
        return context.make_tuple(builder, signature.return_type, parts)

    typed = {  # by the number of operands: Numba wants them named
        0: lambda typing: (signature, code),
        1: lambda typing, x: (signature, code),
        3: lambda typing, x, y, z: (signature, code),
    }
    return intrinsic(typed[len(operands)])


# ldmatrix(at) -> four registers, one of each of four 8x8 matrices of 16 bits: lanes 8i to 8i + 7 give the shared addresses
# of the rows (16 bytes) of matrix i; lane l receives of each matrix the elements 2(l % 4) and 2(l % 4) + 1 of row l / 4
ldmatrix = _instruction("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0,$1,$2,$3}, [$4];", "rrrr", "r", True)
# likewise with the matrices transposed: lane l receives the elements of column l / 4 in the rows 2(l % 4) and 2(l % 4) + 1
ldmatrix_transposed = _instruction(
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0,$1,$2,$3}, [$4];", "rrrr", "r", True
)
# load_word(at): the 32 bits at a shared address
load_word = _instruction("ld.shared.b32 $0, [$1];", "r", "r", True)
# to_tf32(bits): a float32 rounded to the 10 bits after the point that tensor cores read, ties away from zero
to_tf32 = _instruction("cvt.rna.tf32.f32 $0, $1;", "r", "r")
# copy_async(to, source, size): start to copy `size` of 16 bytes from global to shared memory, and fill up with zeros
copy_async = _instruction("cp.async.cg.shared.global [$0], [$1], 16, $2;", "", "rlr", True)
# copy_commit(): close the group of the copies that were started
copy_commit = _instruction("cp.async.commit_group;", effect=True)
# copies_but_one(), all_copies(): wait for this thread's groups, for all but the newest or for all
copies_but_one = _instruction("cp.async.wait_group 1;", effect=True)
all_copies = _instruction("cp.async.wait_group 0;", effect=True)

_PRODUCTS = {
    "bfloat16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "float16": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    "float32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
}


@intrinsic
def multiply_add(typing, like, a, b, sums):
    """sums + a @ b on a tensor core, of 16x8 float32 sums that a warp holds: four a lane. a is 16 rows and b 8 columns of
    32 bytes along k, of the storage of `like` (float32: tf32), in four registers and two."""

    def code(context, builder, signature, arguments):
        text = (
            _PRODUCTS[signature.args[0].storage]
            + " {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
        )
        values = [
            builder.extract_value(argument, part)
            for argument, parts in zip(arguments[1:], (4, 2, 4), strict=True)
            for part in range(parts)
        ]
        result = _assembly(builder, text, "ffff", "rrrrrrffff", values)
        parts = [builder.extract_value(result, part) for part in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    registers, four = types.uint32, types.UniTuple(types.float32, 4)
    return four(like, types.UniTuple(registers, 4), types.UniTuple(registers, 2), four), code


@intrinsic
def address(typing, pointer):
    """The address of a pointer as the instructions above take it: 32 bits in shared memory, 64 in global memory."""
    name = "r" if pointer.space == SHARED else "l"
    kind, bits = _REGISTERS[name]

    def code(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], bits)

    return kind(pointer), code
