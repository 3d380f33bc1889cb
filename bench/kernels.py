"""The kernels by themselves: products, optimizer steps, activations, norms and losses beside the peers and the limit.

Ours are called natively in a loop, all threads sharing every call as inside an epoch ("gdkernels"), and through the public
operations, which choose their threads by the work ("gdkernels from Python"); the peers from Python, in batches of calls, as
their users pay for them. All write into memory that they used before. Matrix products are told in GFLOP/s beside the peak
of multiply-adds, all others in GB/s of the bytes that they need at least (`operations`) beside a copy, or for optimizers an
update in place, with the same working set and threads, measured in the same rounds. The working set is either far out of
the last cache or within the second one.
"""

from collections.abc import Iterator
from typing import Any

from . import rounds
from .cases import CASES
from .cast import Cast
from .operations import ACTIVATIONS, OPERATIONS
from .plan import Plan, Say, cut
from .process import Contestant
from .record import Row, spread
from .rounds import Samples

Item = tuple[str, tuple[int, ...], str]  # operation, shape, form

NATIVE, PYTHON, LIMIT = "gdkernels", "gdkernels from Python", "limit"
BLOCK, QUICK_BLOCK = 0.05, 0.03  # seconds of a block, at most
ROUNDS, QUICK_ROUNDS = 5, 3
IN_CACHE, OUT_OF_CACHE = 512 << 10, 256 << 20  # bytes of the working set of a copy

PARAMETERS = (1 << 12, 1 << 16, 1 << 20, 1 << 24)
# (rows, columns) within the second-level cache, and far out of the last one.
STREAMS: dict[str, tuple[tuple[int, int], ...]] = {
    **{kind: ((256, 256), (32768, 1024)) for kind in ACTIVATIONS},
    **{f"{kind} backward": ((160, 256), (24576, 1024)) for kind in ACTIVATIONS},
    "layernorm": ((256, 256), (32768, 1024)),
    "layernorm backward": ((160, 256), (24576, 1024)),
    "rmsnorm": ((256, 256), (32768, 1024)),
    "rmsnorm backward": ((160, 256), (24576, 1024)),
    "softmax": ((6400, 10), (64, 1000), (3360000, 10), (33600, 1000)),
    "cross-entropy": ((6400, 10), (64, 1000), (3200000, 10), (33600, 1000)),
    "dropout": ((256, 256), (32768, 1024)),
}
QUICK_ITEMS: tuple[Item, ...] = (
    ("gemm", (128, 256, 784), "NN"),
    ("gemm", (784, 256, 128), "TN"),
    ("gemm", (128, 256, 128), "NT"),
    ("gemm", (128, 10, 128), "NN"),
    ("adam", (1 << 16,), ""),
    ("relu backward", (160, 256), "in cache"),
    ("relu backward", (24576, 1024), "out of cache"),
    ("layernorm", (256, 256), "in cache"),
    ("cross-entropy", (6400, 10), "in cache"),
)


def items(plan: Plan) -> list[Item]:
    """What is measured, in this order."""
    if plan.quick:
        return list(QUICK_ITEMS)
    products = [each for case in plan.cases for each in CASES[case].products()]
    found: list[Item] = [("gemm", (m, n, k), form) for form, m, n, k in dict.fromkeys(products)]
    found += [("adam", (count,), "") for count in PARAMETERS]
    for op, shapes in STREAMS.items():
        for shape in shapes:
            inside = OPERATIONS[op].bytes(shape) < 2 * IN_CACHE
            found.append((op, shape, "in cache" if inside else "out of cache"))
    return found


def label(item: Item, threads: int) -> str:
    op, shape, form = item
    return f"{op} {'×'.join(map(str, shape))} {form}".strip() + f", {threads} threads"


def limit_of(item: Item) -> dict[str, Any]:
    """The job of the contestant that shows what the machine can do here."""
    op, shape, form = item
    operation = OPERATIONS[op]
    if operation.limit == "fma":
        return {"kind": "limit", "op": "fma"}
    if operation.limit == "update":
        return {"kind": "limit", "op": "update", "bytes": 16 * shape[0]}
    return {"kind": "limit", "op": "copy", "bytes": IN_CACHE if form == "in cache" else OUT_OF_CACHE}


def names(plan: Plan, item: Item) -> list[str]:
    """Who takes part. The limit always does. Out of cache a call from Python costs nothing beside the work."""
    peers = ("numpy", "torch") if item[0] == "gemm" else ("torch", "jax")
    ours = (NATIVE,) if item[2] == "out of cache" else (NATIVE, PYTHON)
    return [*ours, *(peer for peer in peers if plan.wants(peer))]


def rows(plan: Plan, say: Say) -> Iterator[Row]:
    """A row for each item, number of threads and contestant."""
    listed = items(plan)
    for place, threads in enumerate(plan.threads):
        end = plan.clock() + plan.left() / (len(plan.threads) - place)
        with Cast(plan, threads) as cast:
            for number, item in enumerate(listed):
                if plan.clock() >= end:
                    yield cut(label(item, threads))
                else:
                    yield from _measured(plan, cast, listed, number, threads, end)


def _measured(
    plan: Plan, cast: Cast, listed: list[Item], number: int, threads: int, end: float
) -> Iterator[Row]:
    """The rows of one item. Each contestant is started when it is first needed, and goes from item to item."""
    item = listed[number]
    here, limit = label(item, threads), limit_of(item)
    job = {"kind": "kernels", "items": listed}
    runners, judged = ready(plan, cast, names(plan, item), job, number, here)
    key = LIMIT, limit["op"], limit.get("bytes")
    with cast.trying(LIMIT, f"{LIMIT}: {here}", f"{LIMIT}: {here}"):
        runners[LIMIT] = cast.start(LIMIT, limit, key)
    yield from cast.failures()
    block = min(plan.block, QUICK_BLOCK if plan.quick else BLOCK)
    turns = min(plan.rounds, QUICK_ROUNDS if plan.quick else ROUNDS)
    samples = rounds.compare(runners, turns, block, lambda: end - plan.clock())
    for name, each in samples.items():
        if each.failed:
            cast.drop(key if name == LIMIT else name, f"{name}: {here}", each.failed)
    yield from cast.failures()
    yield from table(item, threads, samples, judged)


def ready(
    plan: Plan, cast: Cast, contestants: list[str], job: dict[str, Any], number: int, here: str
) -> tuple[dict[Any, Contestant], dict[str, Row]]:
    """Those who can take part in an item of the job, at work on it, and how right each of them is."""
    runners, judged = {}, {}
    for name in contestants:
        if name not in cast.missing:
            with cast.trying(name, f"{name}: {here}", f"{job['kind']} of {name}"):
                runner = cast.start(name, job)
                runner.turn(number, plan.patience)
                judged[name] = verdict(runner.outcome(1, plan.patience))
                runners[name] = runner
    return runners, judged


def verdict(outcome: dict[str, Any]) -> Row:
    """How right the first call of an item was."""
    error, bound = float(outcome["error"]), float(outcome["bound"])
    return {"what": str(outcome["what"]), "error": error, "bound": bound, "ok": error <= bound}


def table(item: Item, threads: int, samples: dict[str, Samples], judged: dict[str, Row]) -> Iterator[Row]:
    """The rows of one item. Ratios and shares are formed round by round."""
    op, shape, form = item
    operation = OPERATIONS[op]
    ours = samples.get(NATIVE, Samples())
    peak: list[float] = []  # of the limit, in the unit of the rates, round by round
    if LIMIT in samples:
        scale = 1e-9  # a unit of the limit's work is one floating-point operation, or one byte
        peak = [scale / seconds for seconds in samples[LIMIT].seconds]
    for name, each in samples.items():
        if not each.seconds:
            continue
        work = 1e-9 if name == LIMIT else operation.work(shape)
        rates = [work / seconds for seconds in each.seconds]
        row: Row = {
            "kernel": op,
            "shape": list(shape),
            "form": form,
            "threads": threads,
            "contestant": name,
            "unit": operation.unit,
            "rate": spread(rates),
            "microseconds": 1e6 * spread(each.seconds)["median"],
            "limit": operation.limit,
            **each.disturbed,
        }
        if name != LIMIT:
            per_call = spread(each.seconds)["median"]
            row["intensity"] = operation.flops(shape) / operation.bytes(shape)
            row["flops_per_second"] = operation.flops(shape) / per_call
            row |= judged[name]
        if peak and name != LIMIT:
            row["share_of_limit"] = spread([a / b for a, b in zip(rates, peak, strict=False)])
        if ours.seconds and name not in (LIMIT, NATIVE):
            row["ratio"] = rounds.ratio(ours, each)
        yield row


def line(row: Row) -> str:
    """A row on paper."""
    rate = row["rate"]
    shape = "×".join(map(str, row["shape"]))
    words = [
        f"{row['kernel']:18} {shape:15} {row['form']:12} {row['threads']}T {row['contestant']:22}",
        f"{rate['median']:8.1f} {row['unit']:7} [{rate['low']:.1f} .. {rate['high']:.1f}]",
    ]
    if "share_of_limit" in row:
        words.append(f"{100 * row['share_of_limit']['median']:5.1f} % of {row['limit']}")
    if "ratio" in row:
        words.append(f"ours is {row['ratio']['median']:5.2f} ×")
    if not row.get("ok", True):
        words.append(f"WRONG: error of {row['what']} {row['error']:.3g}, {row['bound']:.3g} allowed")
    return "  ".join(words)
