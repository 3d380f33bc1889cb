"""`python -m bench.gpu` on an emulated GPU: the whole path with tiny shapes, and no time anywhere."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_TIMES = "emulated: no times"
# Seconds and what is counted by them, and ratios; "12 × 64" is a shape.
A_TIME = re.compile(
    r"\d\s*(s|ms|µs|us|ns|seconds?|minutes?|[GT]B/s|[GT]FLOP/s|steps/s|%)(?![\w×])|\d\.\d+ ×|\brates?\b|\bratios?\b",
    re.I,
)


@pytest.fixture
def emulator(device):
    if "PTXEMU_BUILD" not in os.environ:
        pytest.skip("a real GPU: run python -m bench.gpu itself")


def run(path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(ROOT / "tools/ptxemu/run"),
        sys.executable,
        "-m",
        "bench.gpu",
        "--json",
        str(path),
        *arguments,
    ]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=900
    )


def test_the_whole_path_without_times(emulator, tmp_path):
    from bench.gpu import SECTIONS, USUAL

    assert {*SECTIONS} - {*USUAL} == {"tilings"}
    path = tmp_path / "gpu.json"
    done = run(path, "--sections", *SECTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert NO_TIMES in done.stdout
    assert not A_TIME.search(done.stdout), A_TIME.findall(done.stdout)
    results = json.loads(path.read_text())
    assert results["machine"]["times"] == NO_TIMES and not A_TIME.search(path.read_text())
    assert list(results["sections"]) == list(SECTIONS)
    for name, section in results["sections"].items():
        assert not section["failed"] and not section["cut"]
        assert any(row.get("ok") for row in section["rows"]), f"{name} checks nothing"
        assert all(row.get("ok", True) for row in section["rows"])
        assert all("PTX emulator" in row["device"] and "numpy" in row["versions"] for row in section["rows"])
    assert not list((ROOT / "bench").glob("results/gpu-ptx*"))


def test_the_vendor_is_walked_with_the_stand_in_for_cupy(emulator, tmp_path):
    pytest.importorskip("ml_dtypes")
    path = tmp_path / "gpu.json"
    done = run(path, "--sections", "limits", "gemm", PTXEMU_CUPY="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["sections"]
    for section, what in (("limits", "cuBLAS by cupy"), ("gemm", "product, cupy")):
        assert [row["storage"] for row in found[section]["rows"] if row["what"] == what] == [
            "float32",
            "tf32",
            "bfloat16",
        ]


def test_what_a_time_looks_like():
    """The pattern above finds what a GPU's run would print."""
    for text in (
        "0.3 s",
        "12 µs",
        "1.5e3 GB/s",
        "90 %",
        "2.00 × torch",
        "9 seconds",
        '"rates": {',
        "120.5 TFLOP/s",
    ):
        assert A_TIME.search(text), text
    for text in (
        "12 × 64",
        "33 × 20 × 17 NN",
        "losses of 8 steps",
        "3 of 3 checks hold",
        "10 kernels, replayed 3 times",
    ):
        assert not A_TIME.search(text), text


def test_measurements_are_taken_where_times_count(device, monkeypatch):
    """The other half of the path, in this process, where nothing is told to anybody."""
    from bench.gpu import clock, gemm, kernels, launches, limits, rows, tilings, training
    from bench.gpu import device as in_kernels
    from bench.gpu.lab import Lab
    from bench.record import plain

    for name, value in {"LONG_STALL": 0.0, "WALL_BLOCK": 1e-3, "WARM_UP": 0.0, "ROUNDS": 2}.items():
        monkeypatch.setattr(clock, name, value)
    monkeypatch.setattr(clock.Events, "most", 2)
    lab = Lab(tiny=True, timed=True, seconds=60.0, torch=False)
    what = {name: (make, storages[0], moved) for name, make, storages, moved in kernels.KERNELS}
    (_, case), *_ = training.SMALL.items()
    measured = [
        ("GB/s", ["gdkernels", "copy"], partial(kernels.examine, lab, "mse", *what["mse, gradient"])),
        ("GB/s", ["kernel", "driver"], partial(limits.copy, lab, "tiny", 1 << 14)),
        ("TFLOP/s", ["gdkernels"], partial(gemm.measure, lab, gemm.grid(lab)[0], "float32")),
        ("TFLOP/s", ["chosen", "64 in 1"], partial(tilings.examine, lab, gemm.grid(lab)[0], "float32")),
        ("µs", ["gdkernels"], partial(launches.from_python, lab)),
        ("µs", ["gdkernels"], partial(launches.replays, lab, 10)),
        ("steps/s", ["gdkernels"], partial(training.race, lab, "labels", case, "float32", False)),
        (
            "TFLOP/s",
            ["gdkernels", "copy"],
            partial(in_kernels.by_thread, lab, "4-16-2", *in_kernels.EVALUATED["4-16-2"]),
        ),
        ("steps/s", ["gdkernels"], in_kernels.items(lab)[-1][1]),
    ]
    for unit, contestants, examine in measured:
        lab.forget()
        found = [row for row in examine() if "rates" in row]
        assert found
        for row in found:
            assert row["unit"] == unit and list(row["rates"])[: len(contestants)] == contestants
            assert all(0 < rate["low"] <= rate["median"] <= rate["high"] for rate in row["rates"].values())
            assert f" {unit}" in rows.line(row) and json.dumps(plain(row), allow_nan=False)


def test_a_trainer_asks_for_its_engine_in_every_epoch(device, monkeypatch):
    """An engine that was set while the trainer was made would multiply in no step that is timed."""
    from bench.gpu import training
    from gdkernels.cuda.gemm import choice as gemm_engine

    asked = []

    class Trainer:
        def fit(self, *arguments, **options):
            asked.append(gemm_engine.get_gemm_engine().engine)
            return SimpleNamespace(loss=[0.5])

    monkeypatch.setattr(training, "trainer_of", lambda *asked: Trainer())
    run = training.ours(training.SMALL["labels"], "float32", "auto")
    assert run(1) == run(2) == 0.5
    assert asked == ["auto", "auto"] and gemm_engine.get_gemm_engine().engine == "own"


def test_a_broken_device_is_noticed_and_the_next_items_have_another_process(emulator, tmp_path):
    """A kernel that reads outside of its memory: with PTXEMU_STICKY nothing works behind it, as on a GPU."""
    body = """
import sys, types
from bench.gpu import worker
from gdkernels.cuda.activation import FORWARD

def fault():
    lab.run([FORWARD["relu"].by_one.on("float32", (1, 1, 1), z=64, a=64, groups=4)])
    lab.wait()
    yield {}

def fine():
    x = lab.put(__import__("numpy").ones(4), "float32")
    yield {"what": "sum", "storage": "", "shape": "", "error": float(abs(x.to_numpy() - 1).max()), "bound": 0.0, "ok": True}

section = types.ModuleType("bench.gpu.broken")
section.items = lambda given: globals().update(lab=given) or [("fault", fault), ("fine", fine)]
sys.modules["bench.gpu.broken"] = section
worker.main()
"""
    (tmp_path / "worker.py").write_text(body)
    script = f"""
import sys
from bench.gpu import SECTIONS, conductor
SECTIONS["broken"] = 1
options = {{"tiny": True, "timed": False, "torch": False}}
command = (sys.executable, {str(tmp_path / "worker.py")!r})
found = dict(conductor.Conductor(float("inf"), options, {{}}, command=command).run(["broken"]))
print([name for name, _ in found["broken"].failed], [row["what"] for row in found["broken"].rows])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PTXEMU_STICKY": "1", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.splitlines()[-1:] == ["['fault'] ['sum']"], done.stdout + done.stderr
