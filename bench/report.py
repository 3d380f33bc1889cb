"""The tables that a person reads, from the rows of a run: `tables` gives them line by line.

In every table "ours ×" says how many times faster ours is than the contestant of the line, formed round by round. A
contestant whose result is wrong is marked, and never the best peer.
"""

from collections.abc import Iterator
from typing import Any

from .contestants import OURS
from .kernels import LIMIT, NATIVE, PYTHON
from .record import Row, rows_of

FUSED = "torch eager"  # with the fused optimizer: what most people would write
PEERS = ("numpy", "torch")  # of calls from Python
SAME = 0.02  # a call from Python that is slower by no more than this has no line of its own


def tables(results: dict[str, Any]) -> Iterator[str]:
    """All tables of a run, each with a title."""
    for title, section, table in (
        ("limits of the machine", "limits", limits),
        ("training, line by line", "training", training),
        ("training, case by case", "training", summary),
        ("kernels, line by line", "kernels", kernels),
        ("kernels, shape by shape", "kernels", kernel_summary),
        ("calls from Python", "calls", calls),
        ("the README's loop", "calls", loops),
        ("inside @njit", "njit", njit),
        ("growth", "growth", growth),
        ("start-up, memory, size", "startup", startup),
        ("a busy machine", "contention", contention),
        ("costs of operations", "costs", costs),
    ):
        lines = list(table(rows_of(results, section)))
        if len(lines) > 1:  # than the header
            yield ""
            yield f"== {title}"
            yield from lines


# ---------------------------------------------------------------------------------------------- cells


def middle(value: Any) -> float | None:
    """The median of a spread, or a number itself; None where there is none."""
    value = value.get("median") if isinstance(value, dict) else value
    return float(value) if isinstance(value, int | float) else None


def number(value: Any, form: str, unit: str = "") -> str:
    """A number in a cell, and a dash where there is none."""
    found = middle(value)
    return "–" if found is None else f"{found:{form}}{unit}"


def share(value: Any) -> str:
    found = middle(value)
    return "–" if found is None else f"{100 * found:.0f} %"


def spread_of(rate: dict[str, float]) -> str:
    """How far the extremes lie from the median, in percent."""
    middle = rate["median"]
    return f"{100 * (rate['low'] / middle - 1):+.0f} {100 * (rate['high'] / middle - 1):+.0f} %"


def verdict(row: Row) -> str:
    """Whether the result is right."""
    if row.get("ok") is None:
        return "not checked"
    if row["ok"]:
        return "right"
    allowed = row.get("tolerance", row.get("bound"))
    return f"WRONG: {number(row.get('error'), '.2g')}, {number(allowed, '.2g')} allowed"


def disturbed(row: Row) -> str:
    """Blocks thrown away, and those that were taken although others disturbed them."""
    dirty = row.get("dirty", 0)
    return f"{row.get('thrown_away', 0)}" + (f" +{dirty} dirty" if dirty else "")


def layout(header: tuple[str, ...], lines: list[tuple[str, ...]], left: int = 1) -> Iterator[str]:
    """A table in columns, of which the first `left` begin at their left edge."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    for line in (header, *lines):
        cells = [
            f"{cell:<{width}}" if column < left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def grouped(rows: list[Row], *keys: str) -> dict[tuple, dict[str, Row]]:
    """Rows by the values of these keys, and by contestant, in their order."""
    found: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        group = tuple(tuple(row[key]) if isinstance(row[key], list) else row[key] for key in keys)
        found.setdefault(group, {})[row["contestant"]] = row
    return found


# ---------------------------------------------------------------------------------------------- training


def training(rows: list[Row]) -> Iterator[str]:
    """A line for each case, number of threads and contestant."""
    lines = []
    for row in rows:
        if "steps_per_second" not in row:
            continue
        lines.append((
            f"{row['case']}", f"{row['threads']}T", row["contestant"], number(row.get("microseconds"), ".1f"),
            spread_of(row["steps_per_second"]), number(row.get("ratio"), ".2f"), share(row.get("share_of_limit")),
            verdict(row), disturbed(row),
        ))  # fmt: skip
    header = ("case", "", "contestant", "µs/step", "spread", "ours ×", "of limit", "result", "thrown away")
    yield from layout(header, lines, 3)


def best_peer(contestants: dict[str, Row]) -> Row | None:
    """The fastest that is not ours and not wrong."""
    peers = [
        row
        for name, row in contestants.items()
        if name not in OURS and row.get("ok") is not False and "steps_per_second" in row
    ]
    return max(peers, key=lambda row: row["steps_per_second"]["median"], default=None)


def ours_of(contestants: dict[str, Row]) -> Row | None:
    """The first of ours that was measured."""
    return next((contestants[name] for name in OURS if name in contestants), None)


def summary(rows: list[Row]) -> Iterator[str]:
    """A line for each case and number of threads: ours beside the best peer, the usual one, and the limit."""
    lines = []
    for (case, threads), contestants in grouped(
        [row for row in rows if "steps_per_second" in row], "case", "threads"
    ).items():
        ours, best, usual = ours_of(contestants), best_peer(contestants), contestants.get(FUSED)
        if ours is None:
            continue
        lines.append((
            f"{case}", f"{threads}T", number(ours.get("microseconds"), ".1f"),
            best["contestant"] if best else "–", number(best and best.get("ratio"), ".2f"),
            number(usual and usual.get("ratio"), ".2f"), share(ours.get("share_of_limit")), verdict(ours),
        ))  # fmt: skip
    header = ("case", "", "ours µs/step", "best peer", "ours × best", f"ours × {FUSED}", "of limit", "result")
    yield from layout(header, lines, 2)


# ---------------------------------------------------------------------------------------------- kernels


def told(contestants: dict[str, Row]) -> list[Row]:
    """The rows of an item, without the call from Python where it costs next to nothing, and without the limit."""
    python, native = contestants.get(PYTHON), contestants.get(NATIVE)
    same = (
        python is not None
        and native is not None
        and abs(native["rate"]["median"] / python["rate"]["median"] - 1) <= SAME
    )
    return [row for name, row in contestants.items() if name != LIMIT and not (same and name == PYTHON)]


def shape_of(shape: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, shape))


def kernels(rows: list[Row]) -> Iterator[str]:
    """A line for each kernel, shape, number of threads and contestant."""
    lines = []
    for (kernel, shape, form, threads), contestants in grouped(
        rows, "kernel", "shape", "form", "threads"
    ).items():
        for row in told(contestants):
            lines.append((
                kernel, shape_of(shape), form, f"{threads}T", row["contestant"],
                number(row["rate"], ".1f", f" {row['unit']}"), spread_of(row["rate"]),
                number(row.get("ratio"), ".2f"), share(row.get("share_of_limit")), verdict(row), disturbed(row),
            ))  # fmt: skip
    header = ("kernel", "shape", "form", "", "contestant", "rate", "spread", "ours ×", "of limit", "result",
              "thrown away")  # fmt: skip
    yield from layout(header, lines, 5)


def kernel_summary(rows: list[Row]) -> Iterator[str]:
    """A line for each kernel, shape and number of threads, the furthest below their limit first."""
    lines = []
    for (kernel, shape, form, threads), contestants in grouped(
        rows, "kernel", "shape", "form", "threads"
    ).items():
        ours = contestants.get(NATIVE)
        if ours is None:
            continue
        peers = [
            row
            for name, row in contestants.items()
            if name not in (NATIVE, PYTHON, LIMIT) and row.get("ok") is not False
        ]
        best = max(peers, key=lambda row: row["rate"]["median"], default=None)
        lines.append((
            middle(ours.get("share_of_limit")) or 0.0,
            (
                kernel, shape_of(shape), form, f"{threads}T", number(ours["rate"], ".1f", f" {ours['unit']}"),
                share(ours.get("share_of_limit")), ours["limit"], best["contestant"] if best else "–",
                number(best and best.get("ratio"), ".2f"), verdict(ours),
            ),
        ))  # fmt: skip
    header = (
        "kernel",
        "shape",
        "form",
        "",
        "ours",
        "of limit",
        "limit",
        "best peer",
        "ours × best",
        "result",
    )
    yield from layout(header, [line for _, line in sorted(lines, key=lambda pair: pair[0])], 4)


# ---------------------------------------------------------------------------------------------- calls


def judgement(row: Row) -> str:
    """Whether a call of ours is slower than the better of the peers: in all rounds, in most, or by no more than it may."""
    if "slower" not in row:
        return "–"
    if row["slower"]:
        return "SLOWER" if row["always"] else "slower in most rounds"
    return "no" if row["of_best"]["median"] >= 1 else f"no, within {row['allowed']} µs"


def calls(rows: list[Row]) -> Iterator[str]:
    """A line for each operation, size, way in which its results come to be, and number of threads."""
    lines = []
    for (op, shape, form, threads), contestants in grouped(
        [row for row in rows if "operation" in row], "operation", "shape", "form", "threads"
    ).items():
        if not contestants.keys() & {NATIVE, *PEERS}:
            continue  # the loop alone
        ours = contestants.get(NATIVE, {})
        peers = [contestants.get(name, {}) for name in PEERS]
        wrong = [name for name, row in contestants.items() if row.get("ok") is False]
        lines.append((
            op, shape_of(shape), form, f"{threads}T", number(ours.get("microseconds"), ".2f"),
            *(number(peer.get("microseconds"), ".2f") for peer in peers),
            *(number(peer.get("ratio"), ".2f") for peer in peers), judgement(ours),
            number(ours.get("beyond_kernel"), ".2f"), f"WRONG: {', '.join(wrong)}" if wrong else "",
        ))  # fmt: skip
    header = ("operation", "size", "results", "", "ours µs", "numpy µs", "torch µs", "ours × numpy", "× torch",
              "slower?", "beyond kernel, µs", "")  # fmt: skip
    yield from layout(header, lines, 4)
    judged = [row["slower"] for row in rows if "slower" in row]
    if judged:
        yield f"slower than the better of both: {sum(judged)} of {len(judged)} calls"


def loops(rows: list[Row]) -> Iterator[str]:
    """A line for each case and number of threads: a step of ours beside NumPy's and PyTorch's."""
    lines = []
    for (case, threads), contestants in grouped(
        [row for row in rows if "case" in row], "case", "threads"
    ).items():
        each = [contestants.get(name, {}) for name in (NATIVE, "numpy", FUSED)]
        lines.append((
            case, f"{threads}T", *(number(row.get("microseconds"), ".1f") for row in each),
            *(number(row.get("ratio"), ".2f") for row in each[1:]), verdict(each[0]),
        ))  # fmt: skip
    header = ("case", "", "ours µs/step", "numpy µs", f"{FUSED} µs", "ours × numpy", f"× {FUSED}", "result")
    yield from layout(header, lines, 2)


def njit(rows: list[Row]) -> Iterator[str]:
    """A line for each case: a step of ours in array operations, by a view and by the engine, and the peers from Python."""
    others = ("gdkernels view", "gdkernels epoch", "numpy", FUSED, "jax jit")
    lines = []
    for (case,), contestants in grouped(rows, "case").items():
        ours, *rest = (contestants.get(name, {}) for name in (NATIVE, *others))
        view, epoch = rest[:2]
        of_engine = epoch["microseconds"] / view["microseconds"] if view and epoch else None
        lines.append((
            case, number(ours.get("microseconds"), ".2f"), *(number(row.get("microseconds"), ".2f") for row in rest),
            number(of_engine, ".2f"), *(number(row.get("ratio"), ".1f") for row in rest[2:]), verdict(ours),
        ))  # fmt: skip
    header = ("case", "ops µs/step", "view µs", "engine µs", "numpy µs", f"{FUSED} µs", "jax jit µs", "view × engine",
              "ops × numpy", f"× {FUSED}", "× jax jit", "result")  # fmt: skip
    yield from layout(header, lines, 1)


# ---------------------------------------------------------------------------------------------- growth


def growth(rows: list[Row]) -> Iterator[str]:
    """A line for each network: ours beside the best peer there."""
    lines = []
    for (axis, value, threads), contestants in grouped(rows, "axis", "value", "threads").items():
        ours, best = ours_of(contestants), best_peer(contestants)
        if ours is None:
            continue
        lines.append((
            axis, f"{value}", f"{threads}T", number(ours["microseconds"], ".1f"), best["contestant"] if best else "–",
            number(best and best["microseconds"], ".1f"), number(best and best.get("ratio"), ".2f"), verdict(ours),
        ))  # fmt: skip
    header = ("growing", "", "", "ours µs/step", "best peer", "its µs/step", "ours × best", "result")
    yield from layout(header, lines)


# ---------------------------------------------------------------------------------------------- the machine


def limits(rows: list[Row]) -> Iterator[str]:
    """A line for each limit and number of threads, a column for each working set."""
    sizes = sorted({row["bytes"] for row in rows if row["bytes"]})
    found: dict[tuple[str, int], dict[int, Row]] = {}
    for row in rows:
        found.setdefault((row["limit"], row["threads"]), {})[row["bytes"]] = row
    lines = []
    for (limit, threads), by_size in found.items():
        unit = next(iter(by_size.values()))["unit"]
        rates = [by_size[0]] if 0 in by_size else [by_size.get(size) for size in sizes]
        cells = [number(row and row["rate"], ".1f") for row in rates]
        lines.append((limit, f"{threads}T", unit, *cells, *[""] * (len(sizes) - len(cells))))
    yield from layout(("limit", "", "", *(f"{size // 1024} KiB" for size in sizes)), lines, 3)


def contention(rows: list[Row]) -> Iterator[str]:
    """A line for each case and contestant: what is left of its rate while others want every core."""
    lines = [
        (
            row["case"], f"{row['threads']}T", row["contestant"], number(row["quiet"], ".1f"),
            number(row["contended"], ".1f"), spread_of(row["contended"]), share(row["share_of_quiet"]),
        )
        for row in rows
    ]  # fmt: skip
    yield from layout(("case", "", "contestant", "steps/s alone", "contended", "spread", "left"), lines, 3)


# ---------------------------------------------------------------------------------------------- start-up


def startup(rows: list[Row]) -> Iterator[str]:
    """A line for each thing that is told, a column for each contestant that it is told of."""
    lines = []
    for row in rows:
        if "seconds" in row:
            value, extremes = f"{row['seconds']['median']:.2f} s", spread_of(row["seconds"])
        else:
            value, extremes = f"{row['bytes']['median'] / 1e6:.0f} MB", ""
        lines.append((row["what"], row["contestant"], value, extremes))
    yield from layout(("what", "contestant", "", "spread"), lines, 2)


# ---------------------------------------------------------------------------------------------- costs


def costs(rows: list[Row]) -> Iterator[str]:
    """A line for each row of `gdkernels.cpu.cost`: what it says, what was measured, and whether that has moved."""
    lines = [
        (
            row["operation"], number(row["table"], ".3f"), number(row["nanoseconds"], ".3f"),
            f"{row['nanoseconds']['low']:.3f} .. {row['nanoseconds']['high']:.3f}" if len(row["kinds"]) > 1 else "",
            number(row["ratio"], ".2f"), "moved" if row["moved"] else "",
        )
        for row in rows
    ]  # fmt: skip
    yield from layout(("operation", "table, ns", "measured, ns", "its kinds", "measured ÷ table", ""), lines)
