"""Dropout: the mask is computed from the position of an element, never stored.

Element number c, counted over everything that a seed is used for, takes word c mod 4 of the Philox block c // 4, as on the
CPU. A thread takes four elements: the words of one block where their numbers begin at a multiple of 4, of two otherwise.
"""

import numpy as np

from ..plan import Dropout
from . import elements
from .binding import Binding
from .device.philox import philox_word, philox_words
from .runtime.jit import Launch, device, run
from .runtime.pointer import is_null
from .runtime.storages import EVERY
from .runtime.target import cuda
from .runtime.widths import both_widths


@device
def _four_words(seed, number):
    """The words of four elements, the first of which has this number."""
    skipped = number & np.uint64(3)
    w0, w1, w2, w3 = philox_words(seed, number)
    if skipped != 0:
        v0, v1, v2, _ = philox_words(seed, number + np.uint64(4))
        if skipped >= 2:
            w0, w1, w2, w3, v0 = w2, w3, v0, v1, v2
        if skipped != 2:
            w0, w1, w2, w3 = w1, w2, w3, v0
    return w0, w1, w2, w3


@device
def _one_word(seed, number):
    """The word of the element with this number."""
    return (philox_word(seed, number),)


@device
def _number(begin, samples, n, place):
    """begin + samples[0] n + place, modulo 2^64; without samples, begin + place."""
    return np.uint64(begin + place if is_null(samples) else begin + samples[0] * n + place)


@device
def _kept(x, word, threshold, scale):
    return scale * x if word >= threshold else type(x)(0)


@both_widths("F*, F*, i8, R, i8, i8, i8*, i8, i8", variants=EVERY)
def drop(width):
    """out = scale x where the word of an element ≥ threshold (at most 2^32), else 0; out may be x."""
    load, store, keep, size = width.load, width.store, width.each(_kept, 2), width.size
    words_of = _four_words if size == 4 else _one_word

    def body(x, out, threshold, scale, seed, begin, samples, n, groups):
        place = cuda.grid(1)
        if place < groups:
            values = load(x, size * place)
            words = words_of(seed, _number(begin, samples, n, size * place))
            store(out, size * place, keep(values, words, np.uint64(threshold), scale))

    return body


def launches(
    storage: str, *, x: int, out: int, count: int, n: int, p: float, seed: int, begin: int, samples: int
) -> list[Launch]:
    """out = x / (1 − p) with probability 1 − p, else 0; also the backward pass, of dy. out may be x.

    Element i has number begin + samples[0] n + i; `samples` is the address of an int64, or 0.
    """
    threshold, scale = int(p * 2.0**32), 1.0 / (1.0 - p) if p < 1.0 else 0.0
    made = []
    for kernel, first, groups, places in elements.parts(drop, storage, count, {"x": x, "out": out}):
        wrapped = (begin + first + 2**63) % 2**64 - 2**63
        made.append(
            kernel.on(
                storage, kernel.grid(groups), **places, threshold=threshold, scale=scale, seed=seed, begin=wrapped,
                samples=samples, n=n, groups=groups,
            )
        )  # fmt: skip
    return made


def forward(x, p: float, seed: int, begin: int, out) -> None:
    """out = dropout(x), for C-contiguous arrays of any one shape; out may be x. `begin` is the number of x[0]."""
    made = launches(
        x.storage, x=x.address, out=out.address, count=x.size, n=0, p=p, seed=seed, begin=begin, samples=0
    )
    run(made, x.stream)


def bind(call: Dropout, at: Binding) -> list[Launch]:
    """The launches of a call of a plan: element j of sample i of all that were seen has number i n + j."""
    n = call.x.columns
    return launches(at.storage, **at.operands(call), count=at.rows * n, n=n, begin=0, samples=at.samples)
