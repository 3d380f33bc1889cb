"""The start-up section of `python -m bench`: what is installed, what a fresh process tells, and its rows."""

import dataclasses
import importlib.metadata
import json
import math
import subprocess
import sys

import pytest

from bench import first, installed, startup
from bench.plan import Plan


def plan(seconds: float = 1e9) -> Plan:
    return Plan(False, seconds, ("b",), ("torch", "jax"), (1, 2), clock=lambda: 0.0)


# ---------------------------------------------------------------------------------------------- installed size


def test_the_closure_holds_every_requirement_once():
    tree = {"a": ["b", "C_c"], "b": ["c.C"], "C_c": ["a", "d"], "d": []}
    assert installed.closure(("a",), tree.__getitem__) == ["a", "b", "C_c", "d"]


def test_our_requirements_are_those_of_the_project():
    pytest.importorskip("packaging")
    found = {name.lower() for name in installed.closure(("gdkernels",))}
    assert {"gdkernels", "numba", "llvmlite", "numpy", "safetensors", "tqdm"} <= found
    assert not found & {"matplotlib", "scikit-learn", "jax"}  # extras are not what one needs


def test_the_size_is_that_of_the_files():
    files = importlib.metadata.distribution("tqdm").files
    expected = sum(
        file.locate().stat().st_size for file in files if file.suffix != ".pyc" and file.locate().is_file()
    )
    assert installed.size("tqdm") == expected > 50_000


def test_a_package_installed_for_editing_is_counted_by_its_files():
    assert 200_000 < installed.size("gdkernels") < 20_000_000


# ---------------------------------------------------------------------------------------------- fresh processes


def test_a_fresh_process_tells_its_imports_and_its_memory():
    request = json.dumps({"contestant": "json", "do": "import", "modules": ["json", "decimal"], "threads": 1})
    done = subprocess.run(
        [sys.executable, "-m", "bench.first", request],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told = json.loads(done.stdout)
    assert 0 <= told["seconds"] < 60
    assert 2e6 < told["peak"] < 1e9


def test_the_peak_is_that_of_this_process():
    before = first.peak()
    block = bytearray(64 << 20)
    assert first.peak() >= min(before + len(block) / 2, before + 1)


def test_a_beginning_is_timed_from_outside(tmp_path):
    told = startup.begin({"contestant": "json", "do": "import", "modules": ["json"], "threads": 1}, tmp_path)
    assert told["wall"] > told["seconds"]


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(startup.Failed, match="no_such_module"):
        startup.begin(
            {"contestant": "x", "do": "import", "modules": ["no_such_module"], "threads": 1}, tmp_path
        )


def test_a_process_that_hangs_is_ended(tmp_path):
    (tmp_path / "hang.py").write_text("import time; time.sleep(600)\n", encoding="utf-8")
    request = {"contestant": "x", "do": "import", "modules": ["bench.first", "time.sleep"], "threads": 1}
    with pytest.raises(startup.Failed, match="within 0 seconds and was killed"):
        startup.begin(request, tmp_path, patience=0.001)


# ---------------------------------------------------------------------------------------------- rows


@pytest.fixture
def begun(monkeypatch):
    """Requests instead of processes; every answer is 1 second, 2 seconds of wall time and 3 bytes."""
    found = []

    def begin(request, folder, patience=math.inf):
        found.append((request, folder))
        if request["contestant"] == "torch compile":
            raise startup.Failed("no compiler")
        return {"seconds": 1.0, "wall": 2.0, "peak": 3}

    monkeypatch.setattr(startup, "begin", begin)
    monkeypatch.setattr(startup, "sizes", lambda plan: iter(()))
    monkeypatch.setattr(startup, "REPEATS", 1)
    return found


def test_each_thing_has_a_row_with_its_unit(begun):
    rows = [row for row in startup.rows(plan(), print) if "what" in row]
    told = {(row["what"], row["contestant"]): row.get("seconds", row.get("bytes"))["median"] for row in rows}
    assert told[startup.IMPORT, "jax"] == 1.0
    assert told[startup.COLD, "gdkernels"] == told[startup.WARM, "jax jit"] == 2.0
    assert told[startup.MEMORY, "torch eager"] == told[startup.EMPTY_MEMORY, "torch"] == 3
    assert not any(name in ("tinygrad", "scikit-learn", "torch compile") for _, name in told)
    assert all(startup.line(row) for row in rows)


def test_what_failed_is_told_once_for_each_thing(begun):
    failed = [row for row in startup.rows(plan(), print) if "failed" in row]
    assert [row["item"] for row in failed] == [
        f"{what}: torch compile" for what in (startup.COLD, startup.WARM, startup.MEMORY)
    ]


def test_nothing_is_cached_at_a_cold_start_and_kept_for_a_warm_one(begun):
    list(startup.rows(plan(), print))
    ours = [(request, folder) for request, folder in begun if request["contestant"] == "gdkernels"]
    cold, fill, warm = (folder for request, folder in ours if request["do"] == "step")
    assert fill == warm != cold


def test_a_quick_run_leaves_out_what_is_slow_to_start(begun):
    list(startup.rows(dataclasses.replace(plan(), quick=True), print))
    assert "torch eager" in {request["contestant"] for request, _ in begun}
    assert startup.SLOW_TO_START not in {request["contestant"] for request, _ in begun}


def test_without_time_everything_is_cut(begun):
    rows = list(startup.rows(plan(-1.0), print))
    assert rows and all("cut" in row for row in rows)


def test_every_cache_lies_in_the_folder(tmp_path):
    paths = [
        value for name, value in startup.caches(tmp_path).items() if not name.startswith("JAX_PERSISTENT")
    ]
    assert len(paths) == 5 and all(value.startswith(str(tmp_path)) for value in paths)
