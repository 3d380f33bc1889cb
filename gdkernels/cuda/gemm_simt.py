"""The matrix product on ordinary arithmetic units: float32 and float64.

A block computes a tile of the result. It walks along k in slabs: while the slab in shared memory is multiplied, the next
one is on its way from global memory into registers, and goes into the other half of the shared memory (double buffering:
one barrier a slab). Each warp owns a part of the tile, each thread one or four squares of 4 x 4 of it, so that 128-bit loads
from shared memory feed 16 or 64 fused multiply-adds.

Both operands lie in shared memory as [k][row] and [k][column]. From an operand whose rows are contiguous in that direction
("across") four elements are copied as they are; from one that is contiguous along k, four are turned. Hence the four forms

    NN  A along k,  B across        NT  A along k,  B along k
    TN  A across,   B across        TT  A across,   B along k

Each comes with three ways to load: "whole" (the sizes are multiples of the tile, 128-bit loads without a question), "fours"
(the contiguous sizes are multiples of 4: 128-bit loads that ask whether they are inside) and "ones" (single elements, for
every address, row length and size).
"""

from functools import cache, lru_cache
from typing import NamedTuple

from . import gemm_epilogue
from .gemm_epilogue import epilogue, row_of
from .intrinsics import is_wide, load4, store4
from .jit import Kernel, Launch, device, kernel
from .pointer import BYTES, offset, real, shared
from .target import cuda, types


class Tile(NamedTuple):
    """What a block computes: rows x columns, `depth` of k at a time; a thread has 4·down x 4·right elements.

    A warp is 4 x 8 threads. `blocks` shall fit on a processor, which bounds the registers. `share` of the peak is what one
    may hope for: by the share of fused multiply-adds in the loop, and by how often each number is read.
    """

    rows: int
    columns: int
    depth: int
    down: int
    right: int
    blocks: int
    share: float

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (16 * self.down * self.right)


LARGE = Tile(128, 128, 8, 2, 2, blocks=2, share=0.9)
SMALL = Tile(64, 64, 16, 2, 1, blocks=4, share=0.7)
DOUBLE = Tile(64, 64, 16, 1, 1, blocks=2, share=0.7)
_ELEMENTS = {"float32": types.float32, "float64": types.float64}


def _operand(storage: str, size: int, depth: int, threads: int, along_k: bool, loads: str):
    """Device functions that bring slabs (depth, size) of an operand to shared memory, and the length of a row there.

    Element (row, k) lies at row · ld + k or, across, at row + k · ld. Each thread brings `fours` times four elements, of
    which it has the first at (row, k) of `mine(t)`, and those of the next four `deeper` further along k.
    """
    stride = (
        size + 16 // BYTES[storage]
    )  # keeps fours aligned, and the threads that turn them off each other's banks
    fours = size * depth // (4 * threads)
    across = size // 4
    deeper = 8 * (threads // 2 // size) if along_k else threads // across

    @device
    def mine(t):
        """Along k two threads bring eight elements (a sector of 32 bytes) of a row, and their neighbours the next rows."""
        if along_k:
            return (t >> 1) % size, 4 * (t & 1) + 8 * ((t >> 1) // size)
        return 4 * (t % across), t // across

    @device
    def start(p, ld, first, rows, k0, t):
        """Where the thread begins in the tile at row `first` and k0.

        Instead of rows that do not exist it reads the last ones again: what comes of these is not stored."""
        row, k = mine(t)
        if loads == "fours" or (loads == "ones" and along_k):
            row = min(row, rows - (1 if along_k else 4))
        return offset(p, (first + row) * ld + k0 + k if along_k else first + row + (k0 + k) * ld)

    @device
    def advance(p, ld):
        """The same place in the next slab."""
        return offset(p, depth if along_k else depth * ld)

    @device
    def read(p, ld, ahead, rows, ks, t):
        """The thread's elements into registers; zeros from `ks` on."""
        row, k = mine(t)
        for i in range(fours):
            place = i * deeper if along_k else i * deeper * ld
            if loads == "whole" or (loads == "fours" and types.int32(k + i * deeper) < ks):
                ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = load4(p, place)
            else:
                for j in range(4):
                    down, deep = (0, j) if along_k else (j, 0)
                    ahead[4 * i + j] = real(p, 0)
                    if loads == "ones" and (along_k or types.int32(row + down) < rows):
                        if types.int32(k + i * deeper + deep) < ks:
                            ahead[4 * i + j] = p[place + j]

    @device
    def write(slab, at, ahead, t):
        """The thread's elements from its registers into the slab that begins at `at`."""
        row, k = mine(t)
        for i in range(fours):
            place = at + (k + i * deeper) * stride + row
            if along_k:
                for j in range(4):
                    slab[place + j * stride] = ahead[4 * i + j]
            else:
                store4(slab, place, (ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3]))

    return start, advance, read, write, stride, 4 * fours


def _unrolled(step, count: int):
    """step(i, …) for i below `count`, a power of two, written out: the compiler unrolls short loops only, and keeps an array
    that a loop indexes in memory."""
    if count == 1:
        return step
    half = count // 2
    steps = _unrolled(step, half)

    @device
    def both(i, *arguments):
        steps(i, *arguments)
        steps(i + half, *arguments)

    return both


@cache
def product(storage: str, tile: Tile, a_along_k: bool, b_along_k: bool, loads: str, kind: str) -> Kernel:
    """The kernel of this tile, form, way to load and activation."""
    threads, depth, down, right = tile.threads, tile.depth, tile.down, tile.right
    start_a, advance_a, read_a, write_a, stride_a, ahead_a = _operand(
        storage, tile.rows, depth, threads, a_along_k, loads
    )
    start_b, advance_b, read_b, write_b, stride_b, ahead_b = _operand(
        storage, tile.columns, depth, threads, b_along_k, loads
    )
    finish4, finish1 = epilogue(kind)
    element = _ELEMENTS[storage]
    slab_a, slab_b = depth * stride_a, depth * stride_b
    both_a = 2 * slab_a
    memory = both_a + 2 * slab_b
    high, wide = 4 * down, 4 * right  # what a thread computes
    count = high * wide
    warps_across = tile.columns // (32 * right)
    tile_rows, tile_columns = tile.rows, tile.columns

    @device
    def multiply1(p, sums, a, at_a, b, at_b):
        """sums += the outer product of the thread's rows and columns at k = p of the slabs."""
        rows = cuda.local.array(high, element)
        columns = cuda.local.array(wide, element)
        for q in range(down):
            place = at_a + p * stride_a + 16 * q
            rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3] = load4(a, place)
        for q in range(right):
            place = at_b + p * stride_b + 32 * q
            columns[4 * q], columns[4 * q + 1], columns[4 * q + 2], columns[4 * q + 3] = load4(b, place)
        for i in range(high):
            for j in range(wide):
                sums[i * wide + j] += rows[i] * columns[j]

    @device
    def finish_row(i, sums, row0, column0, m, n, bias, add, ldadd, z, out, ldo, accumulate):
        """What follows the product, for the thread's row i, by fours."""
        row = row0 + (i & 3) + 16 * (i >> 2)
        if loads == "whole" or row < m:
            add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
            for q in range(right):
                column = column0 + 32 * q
                if loads == "whole" or column < n:
                    s = i * wide + 4 * q
                    four = sums[s], sums[s + 1], sums[s + 2], sums[s + 3]
                    finish4(*four, column, bias, add_row, z_row, out_row, accumulate)

    @device
    def gather_row(i, sums, tile, down0, right0):
        """The thread's row i of the sums into its place in the tile."""
        row = down0 + (i & 3) + 16 * (i >> 2)
        for q in range(right):
            s = i * wide + 4 * q
            store4(
                tile, row * tile_columns + right0 + 32 * q, (sums[s], sums[s + 1], sums[s + 2], sums[s + 3])
            )

    @device
    def finish_tile(tile, row0, column0, rows, columns, bias, add, ldadd, z, out, ldo, accumulate, t):
        """What follows the product, for a tile in shared memory: neighbours in a warp are neighbours in a row."""
        within = t % tile_columns
        column = column0 + within
        down = t // tile_columns
        while down < rows:
            if within < columns:
                row = row0 + down
                add_row, z_row, out_row = row_of(add, row, ldadd), row_of(z, row, ldo), offset(out, row * ldo)
                v = tile[down * tile_columns + within]
                finish1(v, column, bias, add_row, z_row, out_row, accumulate)
            down += threads // tile_columns

    multiply, finish, gather = (
        _unrolled(multiply1, depth),
        _unrolled(finish_row, high),
        _unrolled(gather_row, high),
    )

    def body(
        a, lda, b, ldb, out, ldo, bias, add, ldadd, z, m, n, k, chunk, part, shift, accumulate
    ):  # fmt: skip
        # 2^shift rows of tiles are computed column by column, so that they find each other's operands in the L2 cache
        row0 = ((cuda.blockIdx.y << shift) + (cuda.blockIdx.x & ((1 << shift) - 1))) * tile_rows
        column0 = (cuda.blockIdx.x >> shift) * tile_columns
        k0 = cuda.blockIdx.z * chunk
        if row0 >= m:
            return
        ks = types.int32(min(k - k0, chunk))
        rows, columns = types.int32(min(m - row0, tile_rows)), types.int32(min(n - column0, tile_columns))
        t = cuda.threadIdx.x
        a_slabs = shared(a, memory)
        b_slabs = offset(a_slabs, both_a)
        sums = cuda.local.array(count, element)
        a_ahead = cuda.local.array(ahead_a, element)
        b_ahead = cuda.local.array(ahead_b, element)
        for i in range(count):
            sums[i] = real(a, 0)

        warp, lane = t >> 5, t & 31
        down0 = warp // warps_across * (16 * down) + 4 * ((lane & 1) + 2 * (lane >> 4))
        right0 = warp % warps_across * (32 * right) + 4 * ((lane >> 1) & 7)

        pa, pb = start_a(a, lda, row0, rows, k0, t), start_b(b, ldb, column0, columns, k0, t)
        read_a(pa, lda, a_ahead, rows, ks, t)
        read_b(pb, ldb, b_ahead, columns, ks, t)
        write_a(a_slabs, 0, a_ahead, t)
        write_b(b_slabs, 0, b_ahead, t)
        cuda.syncthreads()
        from_a, from_b, to_a, to_b = down0, right0, slab_a, slab_b
        while ks > 0:
            ks = types.int32(ks - depth)
            pa, pb = advance_a(pa, lda), advance_b(pb, ldb)
            if ks > 0:
                read_a(pa, lda, a_ahead, rows, ks, t)
                read_b(pb, ldb, b_ahead, columns, ks, t)
            multiply(0, sums, a_slabs, from_a, b_slabs, from_b)
            if ks > 0:
                write_a(a_slabs, to_a, a_ahead, t)
                write_b(b_slabs, to_b, b_ahead, t)
            cuda.syncthreads()
            from_a, to_a = down0 + to_a, slab_a - to_a
            from_b, to_b = right0 + to_b, slab_b - to_b

        out = offset(out, cuda.blockIdx.z * part)
        if loads == "ones":
            gather(0, sums, a_slabs, down0, right0)
            cuda.syncthreads()
            finish_tile(a_slabs, row0, column0, rows, columns, bias, add, ldadd, z, out, ldo, accumulate, t)
        else:
            row0, column0 = row0 + down0, column0 + right0
            finish(0, sums, row0, column0, m, n, bias, add, ldadd, z, out, ldo, accumulate)

    form = f"{'n' if a_along_k else 't'}{'t' if b_along_k else 'n'}"
    body.__name__ = f"{form}_{tile.rows}x{tile.columns}_{loads}_{kind}"
    body.__doc__ = (
        f"out (+)= {kind}(A @ B + bias + add), form {form.upper()}; part by part of k where these are many."
    )
    signature = "F*, i8, F*, i8, F*, i8, F*, F*, i8, F*, i8, i8, i8, i8, i8, i4, i4"
    return kernel(signature, threads=threads, blocks=tile.blocks, variants=(storage,))(body)


# ---------------------------------------------------------------------------------------------- which kernel

# A model of the time in cycles of a processor. None of it is measured: no GPU was at hand.
FUSED = 128  # multiply-adds in a cycle
WARPS = 8  # that keep a processor busy: two for each of its four schedulers
START = 2_000  # for the first slab to come and the result to go
SECOND = 5_000  # for the launch that adds up the parts
BYTES_A_CYCLE = 10  # of global memory, for each processor
SHALLOWEST = 128  # of k that are worth a part


class Plan(NamedTuple):
    """A tile, and how much of k one of the parts takes."""

    tile: Tile
    parts: int
    chunk: int


def _cycles(m: int, n: int, size: int, processors: int, plan: Plan) -> float:
    tile, parts, chunk = plan
    blocks = -(-m // tile.rows) * -(-n // tile.columns) * parts
    each = -(-blocks // processors)  # the processor that has most
    busy = min(1.0, min(each, tile.blocks) * tile.threads / (32 * WARPS))
    cycles = each * tile.rows * tile.columns * chunk / (FUSED * tile.share * busy)
    cycles += -(-each // tile.blocks) * START
    if parts > 1:
        cycles += SECOND + 2 * size * parts * m * n / (BYTES_A_CYCLE * processors)
    return cycles


@lru_cache(maxsize=4096)
def choose(tiles: tuple[Tile, ...], m: int, n: int, k: int, size: int, processors: int) -> Plan:
    """The plan that the model takes for the fastest, from the shape and the GPU type alone: same GPU type, same bits."""
    plans = []
    for tile in tiles:
        parts = 1
        while parts == 1 or k // parts >= SHALLOWEST:
            chunk = -(-k // (parts * tile.depth)) * tile.depth
            plans.append(Plan(tile, -(-k // chunk), chunk))
            parts *= 2
    return min(plans, key=lambda plan: _cycles(m, n, size, processors, plan))


# ---------------------------------------------------------------------------------------------- launches


def launches(
    room, storage: str, m: int, n: int, k: int, a: int, rsa: int, csa: int, b: int, rsb: int, csb: int, out: int,
    ldo: int, *, accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0, processors: int,
) -> list[Launch]:  # fmt: skip
    """As `gemm.launches`, for m, n, k > 0 and operands of which one stride is 1 (that along k is looked at first)."""
    size = BYTES[storage]
    a_along_k, b_along_k = csa == 1, rsb == 1
    lda, ldb = rsa if a_along_k else csa, csb if b_along_k else rsb
    fours = (
        is_wide(storage, a, lda * size, b, ldb * size, out, ldo * size, bias, z, add, ldadd * size)
        and n % 4 == 0
        and (k if a_along_k else m) % 4 == 0
        and (not b_along_k or k % 4 == 0)
    )
    tiles = (DOUBLE,) if storage == "float64" else (SMALL,)
    if storage == "float32" and fours and (a_along_k or not b_along_k):
        tiles = LARGE, SMALL
    tile, parts, chunk = choose(tiles, m, n, k, size, processors)
    whole = fours and m % tile.rows == n % tile.columns == k % tile.depth == 0
    loads = "whole" if whole else "fours" if fours else "ones"
    tail = {
        "bias": bias,
        "add": add,
        "ldadd": ldadd,
        "z": z,
        "accumulate": accumulate,
        "activation": activation,
    }
    if parts > 1:
        part = room(parts * m * n * size)
        first = _product(storage, tile, loads, a, lda, a_along_k, b, ldb, b_along_k, part, n, m, n, k, chunk)
        return first + gemm_epilogue.launches(storage, part, parts, m, n, out, ldo, **tail)
    return _product(
        storage, tile, loads, a, lda, a_along_k, b, ldb, b_along_k, out, ldo, m, n, k, chunk, **tail
    )


MOST_ROWS = 1 << 24  # of one launch: the grid is limited to 65535 in y


def _product(
    storage, tile, loads, a, lda, a_along_k, b, ldb, b_along_k, out, ldo, m, n, k, chunk, *,
    accumulate=False, bias=0, activation="identity", z=0, add=0, ldadd=0,
) -> list[Launch]:  # fmt: skip
    """The launches of one product, or of its parts along k, `m · n` apart."""
    chosen = product(storage, tile, a_along_k, b_along_k, loads, activation)
    across, parts = -(-n // tile.columns), -(-k // chunk)
    made = []
    for first in range(0, m, MOST_ROWS):
        rows = min(m - first, MOST_ROWS)
        down = -(-rows // tile.rows)
        # No more than one block in eight shall find nothing to do.
        shift = next(s for s in (3, 2, 1, 0) if (-down % (1 << s)) * 8 <= down)
        below = first * BYTES[storage]
        operands = (
            a + below * (lda if a_along_k else 1), lda, b, ldb, out + below * ldo, ldo, bias,
            add + below * ldadd if add else 0, ldadd, z + below * ldo if z else 0,
            rows, n, k, chunk, m * n, shift, int(accumulate),
        )  # fmt: skip
        made.append(Launch(chosen, storage, (across << shift, -(-down // (1 << shift)), parts), operands))
    return made
