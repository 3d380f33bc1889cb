"""What is found, on paper: rows as plain dicts for JSON, spreads, and files that are whole whenever they are there."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]


@dataclass
class Section:
    """What a section found.

    failed : pairs of an item and why it failed, or is missing
    cut : items for which there was no time
    """

    rows: list[Row] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[Row]:
        """Rows whose result is not right."""
        return [row for row in self.rows if row.get("ok") is False]

    @property
    def beyond(self) -> list[Row]:
        """Rows that were beyond the limit in every round: then it is none."""
        return [row for row in self.rows if row.get("share_of_limit", {}).get("low", 0.0) > 1.0]

    def fail(self, item: str, why: str) -> str:
        """Note what failed; the line that says so."""
        self.failed.append((item, why))
        return f"FAILED {item}: {why}"


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and the extremes."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def plain(value: Any) -> Any:
    """What JSON can hold: infinities and NaN become words."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, results: dict[str, Any]) -> None:
    """Write beside and rename, so that the file is whole whenever it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(json.dumps(plain(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def keep(
    sections: Iterable[tuple[str, Section]],
    results: dict[str, Any],
    path: Path | None,
    after: Callable[[], dict[str, Any]],
) -> dict[str, Section]:
    """The sections, all of them in the file as soon as each is done: what is done is kept, whatever comes.

    `after` tells what then is to be said of the machine, such as the seconds so far.
    """
    found: dict[str, Section] = {}
    results["sections"] = {}
    for name, section in sections:
        found[name] = section
        results["sections"][name] = asdict(section)
        results["machine"] |= after()
        if path is not None:
            write(path, results)
    return found


class Unreadable(Exception):
    """A file holds no results."""


def read(path: Path) -> dict[str, Any]:
    """The results that `write` stored. Raises Unreadable, with the reason in words."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise Unreadable(f"{path} is not JSON: {error}") from error
    sections = results.get("sections") if isinstance(results, dict) else None
    if not isinstance(sections, dict) or not all(
        isinstance(found, dict) and isinstance(found.get("rows"), list) for found in sections.values()
    ):
        raise Unreadable(f"{path} holds no results of python -m bench: it has no sections with rows")
    return results


def rows_of(results: dict[str, Any], section: str) -> list[Row]:
    """The rows of a section, none where it was not run."""
    return results["sections"].get(section, {"rows": []})["rows"]


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
