"""Which tile computes a product, and in how many parts along k: by a model of the time, from the shape and the GPU type.

A gradient of weights is a small result of a long k: few tiles, with which most of the GPU would idle. Parts of k keep it
busy, at the price of a second launch that adds them up. The choice depends on nothing that changes from run to run: the
same GPU type gives the same bits.
"""

from functools import lru_cache
from typing import NamedTuple, Protocol

# A processor's time in cycles. HALF_RATE_WARPS, START_CYCLES, SECOND_CYCLES, CYCLE_BYTES and the tiles' shares are fitted to
# the times of all tiles and parts for 51 shapes in float32, tf32 and bfloat16 on an H200: what this model chooses takes 1 %
# longer than the best on average, and 23 % at most. `python -m bench.gpu --sections tilings` measures it on another GPU.
CYCLE_FMAS = 128  # multiply-adds in a cycle
HALF_RATE_WARPS = 5  # warps with which it does half of what it can do
START_CYCLES = 2_000  # until the first slab has come, and the result gone
SECOND_CYCLES = 4_000  # for the launch that adds up the parts
CYCLE_BYTES = 5  # from and to memory in a cycle
SHALLOWEST = 64  # of k that is worth a part
PROMISE = 1.02  # by which parts must be faster in this model
PARTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024)


class Tile(Protocol):
    """What a block computes, as far as the model knows it; `simt_tiles` and `tensorcore_tiles` tell the rest.

    It has side x side elements, of `threads`, which walk along k by multiples of `depth`. `blocks` of them fit on a
    processor, and compute at this `share` of the peak of the ordinary units.
    """

    @property
    def side(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def share(self) -> float: ...


class Tiling(NamedTuple):
    """A tile, the number of parts, and the span of k (a multiple of the tile's depth) that each takes."""

    tile: Tile
    parts: int
    span: int


def _cycles(m: int, n: int, size: int, processors: int, speed: float, tiling: Tiling) -> float:
    tile, parts, span = tiling
    blocks = -(-m // tile.side) * -(-n // tile.side) * parts
    each = -(-blocks // processors)  # of the processor that has most
    warps = min(each, tile.blocks) * tile.threads / 32
    rate = CYCLE_FMAS * tile.share * speed * warps / (warps + HALF_RATE_WARPS)
    cycles = each * tile.side**2 * span / rate + -(-each // tile.blocks) * START_CYCLES
    if parts > 1:
        cycles += SECOND_CYCLES + 2 * size * parts * m * n / (CYCLE_BYTES * processors)
        cycles *= PROMISE
    return cycles


def ranked(
    tiles: tuple[Tile, ...], m: int, n: int, k: int, size: int, processors: int, speed: float = 1.0
) -> list[Tiling]:
    """All tilings, the fastest by the model first; arguments as those of `choose`."""
    tilings = []
    for tile in tiles:
        for parts in PARTS:
            if parts == 1 or k // parts >= SHALLOWEST:
                span = -(-k // (parts * tile.depth)) * tile.depth
                tilings.append(Tiling(tile, -(-k // span), span))
    return sorted(tilings, key=lambda tiling: _cycles(m, n, size, processors, speed, tiling))


@lru_cache(maxsize=4096)
def choose(
    tiles: tuple[Tile, ...], m: int, n: int, k: int, size: int, processors: int, speed: float = 1.0
) -> Tiling:
    """The fastest tiling by the model, for parts with elements of `size` bytes; `speed` is relative to the tiles' shares."""
    return ranked(tiles, m, n, k, size, processors, speed)[0]
