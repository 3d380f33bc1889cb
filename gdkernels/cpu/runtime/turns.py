"""Workers that do the pieces of a work by turns, each alone: for a machine whose cores others want as well.

There a worker is on its core for some milliseconds, and then off it for as long. Two that share every step wait for each
other most of the time, and one that works alone stands still when its core is taken from it. By turns, a worker hands the
work over before that is to be expected, and sleeps while the next one works, which by then is due on its own core: so
the work goes on where a core can be had.

The work is a row of pieces, of three kinds by turns: the phases of the steps of training. A turn ends between two pieces.
Whose turn it is stands in a word that only the worker whose turn it is writes, after everything else of its pieces. Who
waits naps and looks again, so that no wake-up can be lost.
"""

from .jit import native
from .simd import atomic_load, atomic_store, nanoseconds, nap, offset, thread_nanoseconds

# The words of a record of turns: whose turn it is, the piece that is next, and how many nanoseconds on a core all turns had.
# Behind them each worker has a line of its own: whether it is there; when its turn, or what is left of it since it was
# last off its core, began; when it last looked at the clock; its time on a core when the turn began; the least time of each
# kind of piece.
WHOSE, NEXT, RAN = 0, 1, 2
HERE, BEGAN, LOOKED, HAD, LEAST = 0, 1, 2, 3, 4
KINDS = 3
LINE_WORDS = 8
OVER = (1 << 62) - 1  # the turn of nobody, and the piece after all others

# Nanoseconds of a turn. Linux leaves a core for 3 or 4 ms to a process that others wait for: of turns of 1 to 6 ms, those of
# 2.5 to 3.5 ms brought the most beside a busy process on every core.
TURN = 3_000_000
AWAY = 500_000  # nanoseconds by which a piece is longer than another when its worker was off its core
# Microseconds after which one who waits looks again: at first, since a turn has just begun, and then.
LONG_NAP, NAP = 2000, 100


def words_of(workers: int) -> int:
    """How long a record of turns is."""
    return LINE_WORDS * (1 + workers)


@native("i8*, i8 -> i8")
def await_turn(turns, worker):
    """Sleep until it is this worker's turn; the piece that is next, or OVER."""
    own = offset(turns, LINE_WORDS * (1 + worker))
    atomic_store(offset(own, HERE), 1)
    whose, length = atomic_load(offset(turns, WHOSE)), LONG_NAP
    while whose != worker:
        if whose == OVER:
            return OVER
        nap(length)
        whose, length = atomic_load(offset(turns, WHOSE)), NAP
    now = nanoseconds()
    own[BEGAN], own[LOOKED], own[HAD] = now, now, thread_nanoseconds()
    return turns[NEXT]


@native("i8*, i8, i8, i8 -> i8")
def pass_turn(turns, worker, workers, piece):
    """Before this piece, not the first of the turn: end the turn where it might not fit in; tell whether it ended."""
    own = offset(turns, LINE_WORDS * (1 + worker))
    now = nanoseconds()
    took = now - own[LOOKED]
    own[LOOKED] = now
    least, coming = offset(own, LEAST + (piece - 1) % KINDS), own[LEAST + piece % KINDS]
    if least[0] == 0 or took < least[0]:
        least[0] = took
    elif took > least[0] + AWAY:  # it has just got its core again
        own[BEGAN] = now
    if now + coming <= own[BEGAN] + TURN:
        return 0
    heir = worker
    for further in range(1, workers):
        other = (worker + further) % workers
        if atomic_load(offset(turns, LINE_WORDS * (1 + other) + HERE)) != 0:
            heir = other
            break
    if heir == worker:  # nobody else has woken up
        own[BEGAN] = now
        return 0
    turns[NEXT] = piece
    turns[RAN] += thread_nanoseconds() - own[HAD]
    atomic_store(offset(turns, WHOSE), heir)
    return 1


@native("i8*, i8")
def close_turns(turns, worker):
    """By the worker whose turn it is: there are no more turns."""
    own = offset(turns, LINE_WORDS * (1 + worker))
    turns[RAN] += thread_nanoseconds() - own[HAD]
    atomic_store(offset(turns, WHOSE), OVER)
