"""What follows a product: bias, a second summand, the activation; and the sum of the parts that were split along k.

`epilogue(kind)` gives device functions that product kernels call while their sums are still in registers. The kernels of
this file apply the same functions to parts that lie in memory, added up in their order: same input, same bits.
"""

from functools import cache

from ...scalar.activation import ACTIVATIONS
from ..runtime.intrinsics import is_wide, load4, store4
from ..runtime.jit import BLOCKS_DOWN, Launch, device, kernel
from ..runtime.pointer import BYTES, is_null, offset, real
from ..runtime.storages import EVERY
from ..runtime.target import cuda

LANES, WARPS = 32, 8


@cache
def epilogue(kind: str):
    """(finish4, finish1): out (+)= act(v + bias + add) for four elements of a row or for one, and z = v + bias + add.

    `out` and `z` point to the row and `add` to the row of the second summand; bias, add and z may be absent.
    """
    act = ACTIVATIONS[kind].act

    @device
    def finish4(v0, v1, v2, v3, column, bias, add, z, out, accumulate):
        if not is_null(bias):
            b0, b1, b2, b3 = load4(bias, column)
            v0, v1, v2, v3 = v0 + b0, v1 + b1, v2 + b2, v3 + b3
        if not is_null(add):
            s0, s1, s2, s3 = load4(add, column)
            v0, v1, v2, v3 = v0 + s0, v1 + s1, v2 + s2, v3 + s3
        if not is_null(z):
            store4(z, column, (v0, v1, v2, v3))
        v0, v1, v2, v3 = act(v0), act(v1), act(v2), act(v3)
        if accumulate != 0:
            o0, o1, o2, o3 = load4(out, column)
            v0, v1, v2, v3 = o0 + v0, o1 + v1, o2 + v2, o3 + v3
        store4(out, column, (v0, v1, v2, v3))

    @device
    def finish1(v, column, bias, add, z, out, accumulate):
        if not is_null(bias):
            v = v + bias[column]
        if not is_null(add):
            v = v + add[column]
        if not is_null(z):
            z[column] = v
        v = act(v)
        if accumulate != 0:
            v = out[column] + v
        out[column] = v

    return finish4, finish1


@device
def row_of(pointer, row, stride):
    """The pointer to a row; an absent array stays absent."""
    return pointer if is_null(pointer) else offset(pointer, row * stride)


@cache
def kernels(kind: str, parts: str):
    """The kernels of out (+)= act(Σ parts + bias + add), for four columns a thread and for one.

    The parts, `size` elements apart, have the computed type ("R*") or that of the storage ("F*").
    """
    finish4, finish1 = epilogue(kind)

    def parts4(part, count, size, bias, add, ldadd, z, out, ldo, rows, n, turns, accumulate):
        column = 4 * (cuda.blockIdx.x * LANES + (cuda.threadIdx.x & 31))
        row = cuda.blockIdx.y * WARPS + (cuda.threadIdx.x >> 5)
        for _ in range(turns):
            if row < rows and column < n:
                zero = real(part, 0)
                v0, v1, v2, v3 = zero, zero, zero, zero
                place = row * n + column
                for _ in range(count):
                    p0, p1, p2, p3 = load4(part, place)
                    v0, v1, v2, v3 = v0 + p0, v1 + p1, v2 + p2, v3 + p3
                    place += size
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                finish4(v0, v1, v2, v3, column, bias, add_row, z_row, out_row, accumulate)
            row += WARPS * cuda.gridDim.y

    def parts1(part, count, size, bias, add, ldadd, z, out, ldo, rows, n, turns, accumulate):
        column = cuda.blockIdx.x * LANES + (cuda.threadIdx.x & 31)
        row = cuda.blockIdx.y * WARPS + (cuda.threadIdx.x >> 5)
        for _ in range(turns):
            if row < rows and column < n:
                v = real(part, 0)
                place = row * n + column
                for _ in range(count):
                    v += part[place]
                    place += size
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                finish1(v, column, bias, add_row, z_row, out_row, accumulate)
            row += WARPS * cuda.gridDim.y

    made = []
    for body in (parts4, parts1):
        body.__name__ = f"{kind}_{'products' if parts == 'F*' else 'parts'}{body.__name__[-1]}"
        body.__doc__ = f"out (+)= {kind}(Σ parts + bias + add), in the order of the parts."
        signature = f"{parts}, i8, i8, F*, F*, i8, F*, F*, i8, i8, i8, i8, i4"
        made.append(kernel(signature, threads=LANES * WARPS, variants=EVERY)(body))
    return made


def sum_launches(
    storage: str, *, part: int, count: int, m: int, n: int, out: int, ldo: int, accumulate=False, bias=0,
    activation="identity", z=0, add=0, ldadd=0, parts="R*",
) -> list[Launch]:  # fmt: skip
    """out (m, n; row stride ldo) (+)= act(Σ parts + bias + add); `count` parts of (m, n) elements, C-contiguous.

    `storage` is that of bias, add, z and out. The parts have the type that it is computed with, or with ``parts="F*"`` the
    storage type. Without parts the sum is 0.
    """
    size = BYTES[storage]
    wide = n % 4 == 0 and is_wide(storage, out, ldo * size, z, bias, add, ldadd * size) and part % 16 == 0
    chosen = kernels(activation, parts)[0 if wide else 1]
    columns = LANES * (4 if wide else 1)
    strips = -(-m // WARPS)
    grid = -(-n // columns), min(BLOCKS_DOWN, strips), 1
    # handed over, because the compiler divides 64 bits for it, which takes longer than a turn
    turns = -(-strips // BLOCKS_DOWN)
    return [
        chosen.on(
            storage, grid, part=part, count=count, size=m * n, bias=bias, add=add, ldadd=ldadd, z=z, out=out, ldo=ldo,
            rows=m, n=n, turns=turns, accumulate=int(accumulate),
        )
    ]  # fmt: skip
