"""Which tile computes a product, and in how many parts along k: by a model of the time, from the shape and the GPU type.

A gradient of weights is a small result of a long k: few tiles, with which most of the GPU would idle. Parts of k keep it
busy, at the price of a second launch that adds them up. The choice depends on nothing that changes from run to run: the
same GPU type gives the same bits.
"""

from functools import lru_cache
from typing import NamedTuple

from .simt_tiles import Tile

# A processor's time in cycles. None of it was measured: no GPU was at hand.
FUSED = 128  # multiply-adds in a cycle
WARPS = 8  # that keep it busy: two for each of its four schedulers
START = 2_000  # until the first slab has come, and the result gone
SECOND = 5_000  # for the launch that adds up the parts
BYTES = 10  # from and to memory in a cycle
SHALLOWEST, MOST = 128, 1024  # of k that are worth a part, and of parts
PROMISE = 1.1  # by which parts must be faster in this model, since it is no more than that


class Plan(NamedTuple):
    """A tile, the number of parts, and how much of k (a multiple of the tile's depth) each takes."""

    tile: Tile
    parts: int
    chunk: int


def _cycles(m: int, n: int, size: int, processors: int, plan: Plan) -> float:
    tile, parts, chunk = plan
    blocks = -(-m // tile.side) * -(-n // tile.side) * parts
    each = -(-blocks // processors)  # of the processor that has most
    busy = min(1.0, min(each, tile.blocks) * tile.threads / (32 * WARPS))
    cycles = each * tile.side**2 * chunk / (FUSED * tile.share * busy)
    cycles += -(-each // tile.blocks) * START
    if parts > 1:
        cycles += SECOND + 2 * size * parts * m * n / (BYTES * processors)
        cycles *= PROMISE
    return cycles


@lru_cache(maxsize=4096)
def choose(tiles: tuple[Tile, ...], m: int, n: int, k: int, size: int, processors: int) -> Plan:
    """The fastest plan by the model, for elements of `size` bytes."""
    plans = []
    for tile in tiles:
        parts = 1
        while parts == 1 or (k // parts >= SHALLOWEST and parts <= MOST):
            chunk = -(-k // (parts * tile.depth)) * tile.depth
            plans.append(Plan(tile, -(-k // chunk), chunk))
            parts *= 2
    return min(plans, key=lambda plan: _cycles(m, n, size, processors, plan))
