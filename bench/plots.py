"""Pictures of a run, from its results alone: ``python -m bench plot RESULTS.json``.

Four kinds: the roofline (Williams, Waterman, Patterson 2009) with each of our kernels in it, calls from Python beside the
better of two peers, the speed of every contestant in every case, and how the cost of a step grows. They are written beside
the results.
"""

import argparse
import sys
from collections.abc import Iterator
from math import log2, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .kernels import LIMIT, NATIVE
from .record import Row, Unreadable, read, rows_of
from .report import grouped, middle, ours_of, shape_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 110
WIDTH = 9.0  # inches: about as wide as a page, so that the letters keep their size
# Okabe and Ito's colours, which colour-blind people tell apart; ours is the strong blue.
COLOURS = {
    "gdkernels": "#0072B2",
    "gdkernels step": "#56B4E9",
    "torch eager": "#D55E00",
    "torch compile": "#E69F00",
    "jax jit": "#009E73",
    "jax scan": "#00664B",
    "tinygrad": "#CC79A7",
    "scikit-learn": "#999999",
}
OTHERS = "#000000"
MARKERS = dict(zip(COLOURS, "osD^vP*X", strict=True))
FASTER, SLOWER = "#56B4E9", "#E69F00"  # cells, dark letters upon them
SMALL, NORMAL = 8, 10
UNITS = {
    "batch": "batch: rows",
    "width": "width: units of a layer",
    "depth": "depth: layers",
    "threads": "threads",
}
# The colours of dots and their labels in a roofline: dark enough to be read as letters.
PLACES = {"in cache": "#0072B2", "out of cache": "#B34700", "Adam": "#00664B", "products": "#0072B2"}


def figures(results: dict[str, Any]) -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) of all that the results hold."""
    kernels = rows_of(results, "kernels")
    products = [row for row in kernels if row["kernel"] == "gemm"]
    others = [row for row in kernels if row["kernel"] != "gemm"]
    for name, rows in (("roofline", others), ("roofline-products", products)):
        if any(row["contestant"] == NATIVE for row in rows):
            yield name, roofline(rows, kernels)
    calls = [row for row in rows_of(results, "calls") if "of_best" in row]
    if calls:
        yield "calls", cells(calls)
    training = [row for row in rows_of(results, "training") if "steps_per_second" in row]
    if training:
        yield "training", bars(training)
    growth = [row for row in rows_of(results, "growth") if "steps_per_second" in row]
    if growth:
        yield "growth", curves(growth)


def write(results: dict[str, Any], stem: Path) -> list[Path]:
    """Write the pictures as STEM-NAME.png. ModuleNotFoundError where matplotlib is not installed."""
    paths = []
    for name, figure in figures(results):
        paths.append(stem.with_name(f"{stem.name}-{name}.png"))
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench plot", description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="what a run has written")
    options = parser.parse_args(arguments)
    try:
        paths = write(read(options.results), options.results.with_suffix(""))
    except Unreadable as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"plot: {error.name} is not installed; pip install 'gdkernels[plot]'", file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0 if paths else 2


# ---------------------------------------------------------------------------------------------- roofline


def roofline(rows: list[Row], kernels: list[Row]) -> "Figure":
    """A panel for each number of threads. `kernels` also holds the limits that were measured beside other rows."""
    counts = sorted({row["threads"] for row in rows})
    most = max(
        sum(row["threads"] == threads and row["contestant"] == NATIVE for row in rows) for threads in counts
    )
    panels = _panels(len(counts), 1, max(4.5, 1.4 + 0.17 * most))  # inches: a line for each name
    for axes, threads in zip(panels[1], counts, strict=True):
        dots = [row for row in rows if row["threads"] == threads and row["contestant"] == NATIVE]
        roofs = _roofs([row for row in kernels if row["threads"] == threads and row["contestant"] == LIMIT])
        _roofline_panel(axes, dots, roofs)
        axes.set_title(
            f"gdkernels, {_threads(threads)}; in percent: of the limit that was measured with it",
            fontsize=NORMAL,
            loc="left",
            pad=30,
        )
    return panels[0]


def _roofs(limits: list[Row]) -> dict[str, float]:
    """The median of each limit: GFLOP/s of multiply-adds, GB/s of copies in and out of cache."""
    found: dict[str, list[float]] = {}
    for row in limits:
        if row["limit"] == "update":
            continue
        name = "multiply-adds" if row["limit"] == "fma" else f"copy {row['form']}"
        found.setdefault(name, []).append(row["rate"]["median"])
    return {name: sorted(rates)[len(rates) // 2] for name, rates in found.items()}


def _roofline_panel(axes: "Axes", dots: list[Row], roofs: dict[str, float]) -> None:
    intensities = [row["intensity"] for row in dots]
    left, right = min(intensities) / 1.6, max(intensities) * 1.6
    peak = roofs.get("multiply-adds")
    ends = [(left, right)]
    for (name, rate), style in zip(
        ((n, r) for n, r in roofs.items() if n != "multiply-adds"), ("-", "--"), strict=False
    ):
        stop = min(right, peak / rate) if peak else right
        if stop > left:
            axes.plot([left, stop], [left * rate, stop * rate], style, color="#555555", linewidth=1.4,
                      label=f"{name}: {rate:.0f} GB/s")  # fmt: skip
    if peak:
        axes.plot(*zip(*[(x, peak) for x in ends[0]], strict=True), "-", color="#D55E00", linewidth=1.6,
                  label=f"multiply-adds: {peak:.0f} GFLOP/s")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    heights = [row["flops_per_second"] / 1e9 for row in dots] + ([peak] if peak else [])
    axes.set_ylim(*_decade_part(min(heights) / 1.1, max(heights) * 1.1))
    for name, colour in PLACES.items():
        chosen = [row for row in dots if _place(row) == name]
        if chosen:
            axes.plot(
                [row["intensity"] for row in chosen],
                [row["flops_per_second"] / 1e9 for row in chosen],
                "o",
                color=colour,
                markersize=4.5,
                label=name,
            )
    _label(axes, dots)
    axes.set_xlabel("intensity: floating-point operations a byte of the least traffic", fontsize=NORMAL)
    axes.set_ylabel("GFLOP/s", fontsize=NORMAL)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    _plain(axes.xaxis, axes.yaxis)
    axes.legend(
        fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2
    )


def _label(axes: "Axes", dots: list[Row]) -> None:
    """Names in a column beside the panel, in the order of the dots' heights, each with a thin line to its dot."""
    ordered = sorted(dots, key=lambda row: row["flops_per_second"])
    for place, row in enumerate(ordered):
        height = (place + 0.5) / len(ordered)
        words = [] if row["kernel"] == "gemm" else [row["kernel"]]
        words += [shape_of(row["shape"])] + ([row["form"]] if row["kernel"] == "gemm" else [])
        of_limit = middle(row.get("share_of_limit"))
        words += [f" {100 * of_limit:.0f} %"] if of_limit else []
        colour = PLACES[_place(row)]
        axes.annotate(
            " ".join(words),
            (row["intensity"], row["flops_per_second"] / 1e9),
            xytext=(1.04, height),
            textcoords="axes fraction",
            fontsize=SMALL,
            verticalalignment="center",
            color=colour,
            arrowprops={
                "arrowstyle": "-", "linewidth": 0.5, "color": colour, "alpha": 0.5, "relpos": (0, 0.5), "shrinkA": 1,
                "shrinkB": 2,
            },
        )  # fmt: skip


def _place(row: Row) -> str:
    """Which dots belong together: what is in the picture of the products, or where the working set of others lies."""
    return row["form"] if row["form"] in PLACES else {"gemm": "products"}.get(row["kernel"], "Adam")


# ---------------------------------------------------------------------------------------------- calls


def cells(rows: list[Row]) -> "Figure":
    """A cell for each operation, size and way in which results come to be: how many times faster than its peers ours is.

    With the fewest threads. Where there is but one way, the cells of both are one.
    """
    from matplotlib.patches import Rectangle

    fewest = min(row["threads"] for row in rows)
    found: dict[str, dict[tuple[int, ...], list[Row]]] = {}  # by operation and shape
    for row in (row for row in rows if row["threads"] == fewest):
        found.setdefault(row["operation"], {}).setdefault(tuple(row["shape"]), []).append(row)
    figure, (axes,) = _panels(1, 1, 1.5 + 0.21 * len(found))
    for place, shapes in enumerate(found.values()):
        for size, shape in enumerate(sorted(shapes, key=prod)):
            width = 1 / len(shapes[shape])
            for slot, row in enumerate(shapes[shape]):
                times, x = row["of_best"]["median"], size + slot * width
                colour = SLOWER if row["slower"] else FASTER if times >= 1 else "white"
                strength = min(
                    1.0, 0.15 + 0.4 * abs(log2(times))
                )  # a factor of four and more is the whole colour
                axes.add_patch(Rectangle((x, place), width, 1, color=colour, alpha=strength, linewidth=0))
                axes.text(
                    x + width / 2, place + 0.52, f"{times:.2f}", fontsize=SMALL, ha="center", va="center"
                )
    most = max(map(len, found.values()))
    axes.set_xlim(0, most)
    axes.set_ylim(len(found), 0)
    axes.set_yticks([place + 0.5 for place in range(len(found))], list(found), fontsize=SMALL)
    axes.set_xticks([size + 0.5 for size in range(most)], ["smallest size", *[""] * (most - 2), "largest"][:most],
                    fontsize=SMALL)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_xticks(range(most + 1), minor=True)
    axes.set_yticks(range(len(found) + 1), minor=True)
    axes.grid(True, which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_title(
        f"the better of NumPy's and PyTorch's time ÷ gdkernels', {_threads(fewest)};\nin each size: results allocated, "
        "results given;\nblue: as fast or faster, orange: slower, white: by no more than it may",
        fontsize=NORMAL, loc="left",
    )  # fmt: skip
    return figure


# ---------------------------------------------------------------------------------------------- bars


def bars(rows: list[Row]) -> "Figure":
    """A panel for each number of threads: steps per second of every contestant by those of ours."""
    counts = sorted({row["threads"] for row in rows})
    names = [name for name in _contestants(rows) if name != "gdkernels"]
    figure, panels = _panels(len(counts), 1, 3.9)
    for axes, threads in zip(panels, counts, strict=True):
        cases = grouped([row for row in rows if row["threads"] == threads], "case")
        labels = []
        for place, ((case,), contestants) in enumerate(cases.items()):
            ours = ours_of(contestants)
            speed = middle(ours["steps_per_second"]) if ours else None
            labels.append(f"{case}\n{_duration(1 / speed)}" if speed else f"{case}")
            for slot, name in enumerate(names):
                row = contestants.get(name)
                if row is None or not speed:
                    continue
                relative = (middle(row["steps_per_second"]) or 0.0) / speed
                x = place + (slot - (len(names) - 1) / 2) * 0.8 / len(names)
                axes.bar(x, relative, 0.8 / len(names), color=_colour(name), edgecolor="white", linewidth=0.4,
                         hatch="xx" if row.get("ok") is False else None)  # fmt: skip
                axes.text(
                    x, relative * 1.08, f"{relative:.2g}", rotation=90, fontsize=SMALL, zorder=3,
                    horizontalalignment="center", verticalalignment="bottom",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                )  # fmt: skip
        axes.axhline(1, color=_colour("gdkernels"), linewidth=1.6, zorder=1)
        axes.set_yscale("log")
        _plain(axes.yaxis)
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.3, max(high, 1) * 2)
        axes.set_xticks(range(len(labels)), labels, fontsize=NORMAL)
        axes.set_ylabel("steps per second ÷ gdkernels'", fontsize=NORMAL)
        axes.set_title(
            f"{_threads(threads)}; the line at 1 is gdkernels, whose time for a step stands below each case",
            fontsize=NORMAL,
            loc="left",
        )
        axes.grid(True, axis="y", which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    _legend(figure, names)
    return figure


# ---------------------------------------------------------------------------------------------- growth


def curves(rows: list[Row]) -> "Figure":
    """A line of panels for each thing that grows: microseconds a step, and how many times faster ours is."""
    axes_of = list(
        dict.fromkeys((row["axis"], row["threads"] if row["axis"] != "threads" else 0) for row in rows)
    )
    names = _contestants(rows)
    figure, panels = _panels(len(axes_of), 2, 2.9)
    for place, (axis, threads) in enumerate(axes_of):
        chosen = [row for row in rows if row["axis"] == axis and threads in (0, row["threads"])]
        cost, relative = panels[2 * place], panels[2 * place + 1]
        for name in names:
            own = sorted((row for row in chosen if row["contestant"] == name), key=lambda row: row["value"])
            style = {
                "color": _colour(name),
                "marker": MARKERS.get(name, "o"),
                "markersize": 4,
                "linewidth": 1.4,
            }
            rated = [row for row in own if "ratio" in row and name != "gdkernels"]
            for axes, those, value in ((cost, own, "microseconds"), (relative, rated, "ratio")):
                if those:
                    axes.plot([row["value"] for row in those], [middle(row[value]) for row in those], **style)
        relative.axhline(1, color=_colour("gdkernels"), linewidth=1.4)
        values = sorted({row["value"] for row in chosen})
        for axes, unit in ((cost, "µs a step"), (relative, "time ÷ gdkernels'")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
            axes.set_xlabel(UNITS.get(axis, axis), fontsize=NORMAL)
            axes.set_ylabel(unit, fontsize=NORMAL)
            axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
            _plain(axes.yaxis)
        cost.set_title(f"{axis}" + (f", {_threads(threads)}" if threads else ""), fontsize=NORMAL, loc="left")
        relative.set_title("how many times faster ours is", fontsize=NORMAL, loc="left")
    _legend(figure, names)
    return figure


# ---------------------------------------------------------------------------------------------- in common


def _contestants(rows: list[Row]) -> list[str]:
    """Their names, the known ones in the order of their colours."""
    present = dict.fromkeys(row["contestant"] for row in rows)
    return [name for name in COLOURS if name in present] + [name for name in present if name not in COLOURS]


def _colour(name: str) -> str:
    return COLOURS.get(name, OTHERS)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _duration(seconds: float) -> str:
    """Seconds in the unit that suits them, three digits."""
    scale, unit = next(
        (s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (0.0, "µs")) if seconds >= s
    )
    value = seconds / (scale or 1e-6)
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"


def _decade_part(low: float, high: float) -> tuple[float, float]:
    """The nearest of 1, 2, 5 in some decade below `low`, and above `high`: where ticks with numbers are."""
    marks = [mark * 10.0**decade for decade in range(-6, 9) for mark in (1, 2, 5)]
    return max((m for m in marks if m <= low), default=low), min(
        (m for m in marks if m >= high), default=high
    )


def _plain(*axes: "Axis") -> None:
    """Ticks at 1, 2 and 5 of each decade of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _panels(rows: int, columns: int, height: float) -> tuple["Figure", list["Axes"]]:
    """A figure with panels of that height."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _legend(figure: "Figure", names: list[str]) -> None:
    """The contestants' colours, above the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_colour(name), marker=MARKERS.get(name, "s"), linewidth=2, label=name)
        for name in names
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(names)), fontsize=NORMAL)
