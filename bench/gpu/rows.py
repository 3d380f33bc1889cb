"""Rows: what is found, as plain dicts for JSON, and as lines.

A row has `what`, `storage` and `shape`, or is a `note`. A check has an `error` and the `bound` that it must keep. A
measurement has the `unit`, the `rates` of all contestants and our `ratios` to the others, each with median, low and high
over the rounds; ratios are formed round by round. Above 1, ours is faster.
"""

from ..record import Row, spread
from ..rounds import Samples, ratio


def check(what: str, storage: str, shape: str, error: float, bound: float) -> Row:
    """The row of a comparison with what is right."""
    ok = bool(error <= bound)
    return {"what": what, "storage": storage, "shape": shape, "error": error, "bound": bound, "ok": ok}


def note(text: str) -> Row:
    """A row of words."""
    return {"note": text}


def failure(why: str) -> Row:
    """What somebody could not do: the worker tells it as a failure of the item."""
    return {"failed": why}


def measurement(
    what: str, storage: str, shape: str, samples: dict[str, Samples], unit: str, work: float = 1.0
) -> Row:
    """The row of a comparison in time. The first contestant is ours.

    Rates are in `unit`, one call being `work` of its numerators; where the unit is a time, they are times of one call.
    """
    rates = {name: spread([_rate(s, unit, work) for s in each.seconds]) for name, each in samples.items()}
    ours, *others = samples
    ratios = {name: ratio(samples[ours], samples[name]) for name in others}
    row: Row = {
        "what": what,
        "storage": storage,
        "shape": shape,
        "unit": unit,
        "rates": rates,
        "ratios": ratios,
    }
    late = {name: each.dirty for name, each in samples.items() if each.dirty}
    return row | ({"host was late": late} if late else {})


SCALES = {"µs": 1e-6, "GB/s": 1e9, "TFLOP/s": 1e12, "steps/s": 1.0}


def _rate(seconds: float, unit: str, work: float) -> float:
    if unit == "µs":
        return seconds / SCALES[unit]
    return work / seconds / SCALES[unit]


def line(row: Row) -> str:
    """A row on paper."""
    if "note" in row:
        return row["note"]
    start = f"{row['what']:32} {row['storage']:8} {row['shape']:22}"
    if "error" in row:
        verdict = "ok" if row["ok"] else "WRONG"
        return f"{start} {verdict:5} error {row['error']:.3g}, {row['bound']:.3g} allowed"
    words = [f"{name} {_numbers(rate, '.4g')} {row['unit']}" for name, rate in row["rates"].items()]
    words += [f"{_numbers(ratio, '.2f')} × {name}" for name, ratio in row["ratios"].items()]
    words += [
        f"{name}: the host was late {count} times" for name, count in row.get("host was late", {}).items()
    ]
    return f"{start} {'   '.join(words)}"


def _numbers(values: dict[str, float], form: str) -> str:
    return f"{values['median']:{form}} [{values['low']:{form}}..{values['high']:{form}}]"
