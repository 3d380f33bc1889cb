"""Calls from Python: every array operation that a training step needs, as people call it from a loop of their own.

Beside ours stand the expressions of NumPy and PyTorch (`contestants`), with results allocated by the call and with results
given to it, at sizes from tiny to large (`array_operations`). A time is that of a call in a loop of Python's own, less that
of the same loop around a function that does nothing, which is measured once for each number of threads. Where `kernels` can
run the same kernels natively again and again, what our call takes beyond them is told as well. Memory is that of every day:
no contestant is told to keep what it frees.

Then whole steps in such a loop, as in the README ("the README's loop"), beside the same in NumPy and in eager PyTorch with
autograd and its fused Adam.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from . import contestants, rounds
from .array_operations import ARRAY_OPERATIONS, GIVEN, IN_PLACE, MANY
from .cases import CASES
from .cast import Cast
from .contestants.array_calls import NOTHING
from .kernels import Item, label, ready
from .operations import TILE
from .plan import Plan, Say, cut
from .record import Row, spread
from .report import judgement, shape_of
from .rounds import Samples
from .training import OURS, judge, table
from .training import line as line_of_loop

KERNEL, LOOP = "kernel alone", "Python"
BLOCK, QUICK_BLOCK = 0.03, 0.015  # seconds of a block: thousands of calls of some microseconds
ROUNDS, QUICK_ROUNDS = 5, 3
LEAST = 1e-9  # seconds of a call
LOOP_CASES = "ad"
LOOP_SHARE = 20  # items take as long as the loops
SHORT, MORE = 5.0, 0.7  # microseconds: calls that are shorter may take so much longer than the best
# How `kernels` names what is the same there. Its batches repeat a tile of rows.
NATIVE = {
    "matmul": "gemm", "activation relu": "relu", "activation tanh": "tanh", "layernorm": "layernorm",
    "softmax_cross_entropy": "cross-entropy", "dropout": "dropout", "adam_step": "adam",
}  # fmt: skip
QUICK = {  # of an operation's sizes, from the smallest
    "matmul": (0, 2), "linear": (1,), "linear_backward": (1,), "activation relu": (0,), "layernorm": (1,),
    "softmax": (1,), "softmax_cross_entropy": (1,), "adam_step": (1,), f"adam_step {MANY}": (1,),
    f"clip_by_global_norm {MANY}": (1,),
}  # fmt: skip


def items(plan: Plan, threads: int) -> list[Item]:
    """What is measured, in this order: all with the fewest threads; with others the largest of each, or quickly nothing."""
    found: list[Item] = []
    fewest = threads == min(plan.threads)
    for op, operation in ARRAY_OPERATIONS.items():
        shapes = operation.sizes if fewest else operation.sizes[-1:]
        if plan.quick:
            shapes = tuple(operation.sizes[size] for size in QUICK.get(op, ()) if fewest)
        found += [(op, shape, form) for shape in shapes for form in operation.forms]
    return found


def native(item: Item) -> Item | None:
    """The item of `kernels` whose kernels are those of our call, where there is one."""
    op, shape, form = item
    if op not in NATIVE or form not in (GIVEN, IN_PLACE):
        return None
    if op == "matmul":
        m, k, n = shape
        return "gemm", (m, n, k), "NN"
    return None if shape[0] % TILE else (NATIVE[op], shape, "")


def names(plan: Plan) -> list[str]:
    """Who takes part, ours first."""
    return [name for name in contestants.CALLS if plan.wants(name)]


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each case of the loop, and for each item; for each number of threads and contestant."""
    missing: set[str] = set()
    shares = {threads: LOOP_SHARE + len(items(plan, threads)) for threads in plan.threads}
    for threads in plan.threads:
        end = plan.clock() + plan.left() * shares[threads] / sum(shares.values())
        del shares[threads]
        if threads == min(plan.threads) or not plan.quick:
            yield from loops(plan, threads, missing, end)
        if not (listed := items(plan, threads)):
            continue
        with Cast(plan, threads, missing) as cast:
            nothing = yield from _nothing(plan, cast, listed, end)
            for number, item in enumerate(listed):
                if plan.clock() >= end:
                    yield cut(label(item, threads))
                else:
                    yield from _measured(plan, cast, listed, number, nothing, end)


def job(listed: list[Item]) -> dict[str, Any]:
    """What the contestants are asked for. The last of its items is the loop alone."""
    return {"kind": "calls", "items": [*listed, (NOTHING, (), "")]}


def _turns(plan: Plan) -> tuple[int, float]:
    """Rounds and seconds of a block."""
    return (
        min(plan.rounds, QUICK_ROUNDS if plan.quick else ROUNDS),
        min(plan.block, QUICK_BLOCK if plan.quick else BLOCK),
    )


def _nothing(plan: Plan, cast: Cast, listed: list[Item], end: float) -> Iterator[Row]:
    """The row of the loop alone; returns seconds of a turn of it, 0 where that fails."""
    with cast.trying(OURS, f"{OURS}: {NOTHING}", f"calls of {OURS}"):
        runner = cast.start(OURS, job(listed))
        runner.turn(len(listed), plan.patience)
        samples = rounds.compare({OURS: runner}, *_turns(plan), lambda: end - plan.clock())[OURS]
        if samples.seconds:
            yield {
                "operation": NOTHING, "shape": [], "form": "", "threads": cast.threads, "contestant": LOOP,
                **timed(samples, 0.0),
            }  # fmt: skip
            return median(samples.seconds)
    yield from cast.failures()
    return 0.0


def _measured(
    plan: Plan, cast: Cast, listed: list[Item], number: int, nothing: float, end: float
) -> Iterator[Row]:
    """The rows of one item. Each contestant is started when it is first needed, and goes from item to item."""
    item = listed[number]
    here = label(item, cast.threads)
    runners, judged = ready(plan, cast, names(plan), job(listed), number, here)
    alone = native(item) if cast.threads == 1 else None
    if alone and OURS in runners:
        known = [each for each in map(native, listed) if each]
        with cast.trying(KERNEL, f"{KERNEL}: {here}"):
            runner = cast.start(OURS, {"kind": "kernels", "items": known}, KERNEL)
            runner.turn(known.index(alone), plan.patience)
            runner.outcome(1, plan.patience)  # loads what is timed
            runners[KERNEL] = runner
    yield from cast.failures()
    samples = rounds.compare(runners, *_turns(plan), lambda: end - plan.clock())
    for name, each in samples.items():
        if each.failed:
            cast.drop(name, f"{name}: {here}", each.failed)
    yield from cast.failures()
    yield from compared(item, cast.threads, samples, judged, nothing)


def less(samples: Samples, nothing: float) -> list[float]:
    """Seconds of a call, round by round, less those of the loop alone; some at least, whatever disturbed that."""
    return [max(seconds - nothing, LEAST) for seconds in samples.seconds]


def timed(samples: Samples, nothing: float) -> Row:
    """What is told of the times of a call."""
    seconds = less(samples, nothing)
    return {"seconds": spread(seconds), "microseconds": 1e6 * median(seconds), **samples.disturbed}


def compared(
    item: Item, threads: int, samples: dict[str, Samples], judged: dict[str, Row], nothing: float
) -> Iterator[Row]:
    """The rows of an item. Ratios and differences are formed round by round."""
    op, shape, form = item
    net = {name: Samples(seconds=less(each, nothing)) for name, each in samples.items() if each.seconds}
    ours, alone = net.get(OURS), samples.get(KERNEL, Samples())
    right = {name: each for name, each in net.items() if name not in (OURS, KERNEL) and judged[name]["ok"]}
    for name in net:
        if name == KERNEL:
            continue
        row: Row = {
            "operation": op,
            "shape": list(shape),
            "form": form,
            "threads": threads,
            "contestant": name,
            **timed(samples[name], nothing),
            **judged[name],
        }
        if name == OURS:
            if right:
                row |= against(net[name], right)
            if alone.seconds:
                pairs = zip(net[name].seconds, alone.seconds, strict=False)
                row["beyond_kernel"] = spread([1e6 * (call - kernel) for call, kernel in pairs])
        elif ours:
            row["ratio"] = rounds.ratio(ours, net[name])
        yield row


def against(ours: Samples, peers: dict[str, Samples]) -> Row:
    """Ours beside the better of the peers: which that is, how many times faster ours is, and whether ours is slower.

    Of a call of less than `SHORT` microseconds by the better peer, ours may take `MORE` more.
    """
    best = min(peers, key=lambda name: median(peers[name].seconds))
    least = 1e6 * median(peers[best].seconds)
    more = [1e6 * (a - b) for a, b in zip(ours.seconds, peers[best].seconds, strict=False)]
    allowed = MORE if least < SHORT else 0.0
    return {
        "best": best,
        "of_best": rounds.ratio(ours, peers[best]),
        "longer": spread(more),
        "allowed": allowed,
        "slower": median(more) > allowed,
        "always": min(more) > allowed,
    }


def loops(plan: Plan, threads: int, missing: set[str], end: float) -> Iterator[Row]:
    """The rows of the README's loop: those of `training`, each case once."""
    listed = [name for name in contestants.LOOPS if plan.wants(name)]
    for letter in LOOP_CASES:
        if letter not in plan.cases:
            continue
        if plan.clock() >= end:
            yield cut(f"loop {letter} {threads}T")
            continue
        with Cast(plan, threads, missing) as cast:
            judged = judge(cast, f"loop {letter}", CASES[letter], listed, "loop")
            yield from cast.failures()
            samples = rounds.compare(cast.at_work, _turns(plan)[0], plan.block, lambda: end - plan.clock())
            yield from table(letter, CASES[letter], threads, cast.at_work, judged, samples)


def line(row: Row) -> str:
    """A row on paper."""
    if "case" in row:
        return f"loop {line_of_loop(row)}"
    words = [
        f"{row['operation']:25} {shape_of(row['shape']):12} {row['form']:9} {row['threads']}T {row['contestant']:10}",
        f"{row['microseconds']:9.2f} µs [{1e6 * row['seconds']['low']:.2f} .. {1e6 * row['seconds']['high']:.2f}]",
    ]
    if "ratio" in row:
        words.append(f"ours is {row['ratio']['median']:5.2f} ×")
    if "slower" in row:
        words.append(f"{row['of_best']['median']:5.2f} × {row['best']}: {judgement(row)}")
    if "beyond_kernel" in row:
        words.append(f"{row['beyond_kernel']['median']:.2f} µs beyond the kernel")
    if not row.get("ok", True):
        words.append(f"WRONG: error of {row['what']} {row['error']:.3g}, {row['bound']:.3g} allowed")
    return "  ".join(words)
