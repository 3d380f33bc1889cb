"""The norm of a gradient and clipping by it inside ``@njit``, of any number of arrays or of one tuple of them."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..cpu import doors
from ..cpu.doors import words as at
from ..cpu.doors.arguments import Tensor
from ..ops import clip as ops
from .arrays import bring, put_array
from .call import inside, putter
from .kinds import FLOATS, Refused, is_number, told
from .mark import I64, perform, ready, table


@inside(ops.global_norm)
def global_norm(*arrays):
    if not unpacked(arrays):
        return lambda *arrays: 0.0
    run = norm_of("global_norm", unpacked(arrays))
    if isinstance(arrays[0], types.BaseTuple):
        return lambda *arrays: run(arrays[0], 0.0)
    return lambda *arrays: run(arrays, 0.0)


@inside(ops.clip_by_global_norm)
def clip_by_global_norm(max_norm, *arrays):
    if not is_number(max_norm, types.Number):
        raise Refused(f"clip_by_global_norm: max_norm {told(max_norm)}, expected {ops.MAX_NORM.words}")
    if not unpacked(arrays):
        return lambda max_norm, *arrays: 0.0
    run = norm_of("clip_by_global_norm", unpacked(arrays))
    if isinstance(arrays[0], types.BaseTuple):
        return lambda max_norm, *arrays: run(arrays[0], max_norm)
    return lambda max_norm, *arrays: run(arrays, max_norm)


def unpacked(arrays: Any) -> Any:
    """The types of the arrays of a call, which may have come as one tuple."""
    return arrays[0].types if len(arrays) == 1 and isinstance(arrays[0], types.BaseTuple) else arrays


def norm_of(op: str, kinds: Any) -> Any:
    """A function (tuple of arrays of these types, limit) that gives their norm and, where the operation clips, clips."""
    first, clips = kinds[0], op == "clip_by_global_norm"
    for index, kind in enumerate(kinds):
        if not isinstance(kind, types.Array) or kind.dtype not in FLOATS:
            raise Refused(f"{op}: arrays[{index}] {told(kind)}, expected an array of float32 or float64")
        if kind.dtype != first.dtype:
            raise Refused(
                f"{op}: arrays[{index}] has dtype {kind.dtype}, expected {first.dtype} because arrays[0] has {first.dtype}"
            )
        if clips and not kind.mutable:
            raise Refused(f"{op}: arrays[{index}] is read-only, expected a writable array")
    door: Any = doors.find(op)
    dtype = FLOATS[first.dtype].name
    mark = ready(op, dtype, performer="norm")

    @intrinsic
    def run(typingctx, arrays, limit):
        def generate(context, builder, signature, given):
            context.active_code_library._reload_init.add(mark)
            views = cgutils.alloca_once(builder, I64, size=I64(len(kinds) * at.VIEW_WORDS))
            copies, asked = [], Tensor(written=clips)
            for index, value in enumerate(cgutils.unpack_tuple(builder, given[0])):
                put = putter(builder, builder.gep(views, [I64(index * at.VIEW_WORDS)]))
                copies += put_array(context, builder, put, signature.args[0].types[index], value, asked)
            number = cgutils.alloca_once(builder, ir.DoubleType())
            limit = context.cast(builder, given[1], signature.args[1], types.float64)
            builder.store(limit if clips else ir.DoubleType()(float("inf")), number)
            count = I64(len(kinds))
            fault = perform(
                builder, "norm", [table(builder, door, dtype), views, count, I64(int(clips)), number]
            )
            bring(context, builder, fault, copies)
            for code, text in (
                (at.OVERLAP, f"{op}: an array overlaps another one, expected memory of its own"),
                (at.VALUE_RANGE, f"{op}: max_norm is out of range, expected {ops.MAX_NORM.words}"),
            ):
                with builder.if_then(builder.icmp_signed("==", fault, I64(code)), likely=False):
                    context.call_conv.return_user_exc(builder, ValueError, (text,))
            with builder.if_then(builder.icmp_signed("<", fault, I64(0)), likely=False):
                context.call_conv.return_user_exc(builder, MemoryError, (f"{op}: out of memory",))
            return builder.load(number)

        return types.float64(arrays, limit), generate

    return run
