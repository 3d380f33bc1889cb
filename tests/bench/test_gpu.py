"""`python -m bench.gpu` without a GPU: its clock on a simulated one, its processes, its rows, its peers on the CPU."""

import json
import math
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import gdkernels as gd
import reference
from bench import correctness, record, rounds
from bench.cases import Case
from bench.contestants.ours_training import trainer_of
from bench.gpu import __main__ as command
from bench.gpu import clock, conductor, peers, rows
from bench.rounds import Samples

# ---------------------------------------------------------------------------------------------- the clock


class SimulatedGPU:
    """A queue that a host fills: launching keeps the host busy, the work keeps the GPU busy."""

    def __init__(self, launch: float):
        self.now = self.free_at = 0.0
        self.launch = launch

    def work(self, seconds: float):
        def run():
            self.now += self.launch
            self.free_at = max(self.free_at, self.now) + seconds

        return run

    def wait(self):
        self.now = max(self.now, self.free_at)

    def event(self):
        gpu, mark = self, SimpleNamespace(at=0.0)

        def record(stream):
            mark.at = max(gpu.free_at, gpu.now)

        def since(earlier):
            gpu.now = max(gpu.now, mark.at)
            return mark.at - earlier.at

        mark.record, mark.since, mark.is_reached = record, since, lambda: mark.at <= gpu.now
        return mark


@pytest.fixture
def simulated(monkeypatch):
    """A clock on a simulated GPU to which a launch takes ten microseconds."""
    driver = pytest.importorskip("gdkernels.cuda.runtime.driver", exc_type=ImportError)
    gpu = SimulatedGPU(launch=10e-6)
    monkeypatch.setattr(driver, "Event", gpu.event)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: gpu.now)
    return gpu, clock.Stopwatch(0, gpu.work(60e-6), gpu.wait)


@pytest.mark.parametrize("seconds", [2e-6, 30e-6, 5e-3])
def test_the_time_of_the_gpu_does_not_contain_that_of_the_host(simulated, seconds):
    gpu, stopwatch = simulated
    found = stopwatch.compare({"ours": gpu.work(seconds), "theirs": gpu.work(2 * seconds)}, 0.5)
    np.testing.assert_allclose(found["ours"].seconds, seconds)
    np.testing.assert_allclose(found["theirs"].seconds, 2 * seconds)
    assert found["ours"].dirty == found["theirs"].dirty == 0
    counts = len(found["ours"].seconds), len(found["theirs"].seconds)
    assert rounds.FEWEST_ROUNDS <= counts[0] == counts[1] <= clock.ROUNDS


def test_a_slow_host_gets_a_longer_stall_or_is_named(simulated):
    gpu, stopwatch = simulated

    def slow(host):
        def run():
            gpu.now += host
            gpu.work(1e-6)()

        return run

    found = stopwatch.compare({"slow": slow(200e-6), "hopeless": slow(0.1)}, 0.1)
    np.testing.assert_allclose(found["slow"].seconds, 1e-6)
    assert found["slow"].dirty == 0 and found["hopeless"].dirty == len(found["hopeless"].seconds) > 0


def test_time_on_the_wall_contains_the_host(simulated):
    gpu, stopwatch = simulated

    def run(count):
        for _ in range(count):
            gpu.work(2e-6)()
        gpu.wait()

    found = stopwatch.compare_on_the_wall({"ours": run}, 0.5)
    np.testing.assert_allclose(found["ours"].seconds, 10e-6, rtol=1e-3)


def test_where_times_mean_nothing_everything_runs_once():
    ran = []
    blind = clock.Blind(lambda: ran.append("wait"))
    assert blind.compare({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 1.0) == {}
    assert blind.compare_on_the_wall({"c": lambda count: ran.append(count)}, 1.0) == {}
    assert ran == ["a", "b", "wait", 1]


# ---------------------------------------------------------------------------------------------- rows


def test_a_measurement_gives_rates_and_ratios_round_by_round():
    samples = {
        "gdkernels": Samples(seconds=[1.0, 2.0, 4.0]), "copy": Samples(seconds=[1.0, 1.0, 1.0], dirty=2)
    }  # fmt: skip
    row = rows.measurement("relu", "float32", "8 × 8", samples, "GB/s", 8e9)
    assert row["rates"]["gdkernels"] == {"median": 4.0, "low": 2.0, "high": 8.0}
    assert row["ratios"] == {"copy": {"median": 0.5, "low": 0.25, "high": 1.0}}
    text = rows.line(row)
    assert "gdkernels 4 [2..8] GB/s" in text and "0.50 [0.25..1.00] × copy" in text
    assert "copy: the host was late 2 times" in text


def test_a_time_is_given_as_such_and_faster_is_above_one():
    samples = {"gdkernels": Samples(seconds=[1e-6]), "torch": Samples(seconds=[4e-6])}
    row = rows.measurement("launch", "", "wall", samples, "µs")
    assert row["rates"]["gdkernels"]["median"] == pytest.approx(1.0)
    assert row["ratios"]["torch"]["median"] == pytest.approx(4.0)


@pytest.mark.parametrize("error, ok", [(1.0, True), (1.1, False), (np.inf, False), (np.nan, False)])
def test_a_check_holds_up_to_its_bound(error, ok):
    row = rows.check("relu", "float32", "1", error, 1.0)
    assert row["ok"] is ok and ("WRONG" in rows.line(row)) is not ok
    json.dumps(record.plain(row), allow_nan=False)


# ---------------------------------------------------------------------------------------------- processes


def conduct(tmp_path, worker: str, seconds: float = math.inf):
    """What a conductor makes of a worker: Python text in which `skip` and `tell` are known."""
    (tmp_path / "worker.py").write_text(
        "import json, os, sys, time\n"
        "skip = json.loads(sys.argv[1])['skip']\n"
        "def tell(**message): print(json.dumps(message), flush=True)\n" + worker
    )
    said: list[str] = []
    command = (sys.executable, str(tmp_path / "worker.py"))
    whole = conductor.Conductor(seconds, {}, {"device": "none"}, said.append, command)
    return dict(whole.run(["limits"]))["limits"], said


def test_rows_are_told_and_carry_the_device(tmp_path):
    row = rows.check("relu", "float32", "1", 0.5, 1.0)
    found, said = conduct(
        tmp_path, f"tell(item='a', number=0)\ntell(row={row!r})\ntell(cut=['b'])\ntell(end=True)"
    )
    assert found.rows == [row | {"device": "none"}] and found.cut == ["b"] and not found.failed
    assert any("relu" in text for text in said)


def test_a_failed_item_does_not_stop_the_section(tmp_path):
    found, said = conduct(
        tmp_path,
        "tell(item='a', number=0)\ntell(failed='ValueError: no')\ntell(item='b', number=1)\ntell(end=True)",
    )
    assert found.failed == [("a", "ValueError: no")] and "FAILED a: ValueError: no" in said


def test_a_process_that_dies_goes_on_with_the_next_item(tmp_path):
    body = """
for number, name in enumerate("abcd"):
    if number >= skip:
        tell(item=name, number=number)
        if name == "b":
            sys.exit("the kernel faulted")
        if name == "c":
            tell(failed="the device is broken")
            sys.exit(1)
tell(end=True)
"""
    found, _ = conduct(tmp_path, body)
    assert found.failed == [
        ("b", "the process ended with status 1: the kernel faulted"), ("c", "the device is broken"),
    ]  # fmt: skip


def test_a_process_that_dies_at_once_is_not_repeated_for_ever(tmp_path):
    found, _ = conduct(tmp_path, "sys.exit('no such section')")
    assert found.failed == [("start", "the process ended with status 1: no such section")]
    found, _ = conduct(tmp_path, "tell(item='a', number=skip)\nos._exit(7)")
    assert len(found.failed) == conductor.MOST_PROCESSES + 1


def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(conductor, "GRACE", 0.0)
    start = time.monotonic()
    found, _ = conduct(tmp_path, "tell(item='a', number=0)\ntime.sleep(600)", seconds=4.0)
    assert time.monotonic() - start < 60
    assert found.failed == [("a", "it did not end in time and was killed; what follows was not run")]


# ---------------------------------------------------------------------------------------------- the command


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gd.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gd.cuda, "describe", lambda: "not seen: there is no driver")
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    assert command.main() == 1
    assert "needs a GPU; not seen: there is no driver" in capsys.readouterr().out


@pytest.mark.parametrize("options, seconds", [([], 460.0), (["--seconds", "90"], 90.0), (["--quick"], 120.0)])
def test_the_time_is_what_was_asked_for(monkeypatch, options, seconds, tmp_path):
    asked = []
    monkeypatch.setattr(gd.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gd.cuda, "describe", lambda: "a GPU")
    monkeypatch.setattr(command.machine, "facts", lambda name: {"versions": ""})
    conductor = SimpleNamespace(run=lambda chosen: iter(()))
    monkeypatch.setattr(command, "Conductor", lambda seconds, *rest: asked.append(seconds) or conductor)
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--json", str(tmp_path / "gpu.json"), *options])
    assert command.main() == 0 and asked == [seconds]


# ---------------------------------------------------------------------------------------------- peers, on the CPU


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def held(torch, values):
    tensor = torch.from_numpy(np.asarray(values))
    return SimpleNamespace(owner=tensor, shape=tuple(tensor.shape))


def test_pytorch_computes_what_our_kernels_do(torch):
    """Otherwise the times of the two could not be compared."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((6, 8)), rng.standard_normal((6, 8))
    gamma, beta, labels = rng.standard_normal(8), rng.standard_normal(8), rng.integers(0, 8, 6)
    t = peers.Torch(torch)
    a, b, scale, shift = (held(torch, each) for each in (x, dy, gamma, beta))
    for kind in ("relu", "gelu", "tanh"):
        np.testing.assert_allclose(t.forward(kind, a)(), reference.activation(x, kind))
        np.testing.assert_allclose(
            t.backward(kind, b, a)(), reference.activation_backward(dy, x, kind).sum(0), rtol=1e-12
        )
    y, stats = reference.layernorm(x, gamma, beta, 1e-5)
    np.testing.assert_allclose(t.layernorm(a, scale, shift, 1e-5)()[0], y)
    for right, found, wanted in zip(
        reference.layernorm_backward(dy, x, gamma, stats),
        (0, 1, 2),
        ([True, False, False], [False, True, True], [False, True, True]),
        strict=True,
    ):
        np.testing.assert_allclose(t.layernorm_backward(b, a, scale, shift, 1e-5, wanted)()[found], right)
    np.testing.assert_allclose(t.softmax(a)(), reference.softmax(x))
    np.testing.assert_allclose(
        t.cross_entropy(a, held(torch, labels))()[0], reference.softmax_cross_entropy(x, labels)[1]
    )
    np.testing.assert_allclose(t.mse(a, b)()[0], reference.mse(x, dy)[1])
    np.testing.assert_allclose(t.norm(a)(), np.linalg.norm(x))
    out = held(torch, np.empty((6, 6)))
    t.matmul(a.owner, b.owner.T, out.owner, False)()
    np.testing.assert_allclose(out.owner, x @ dy.T)
    assert t.dropout(a, 0.5)().shape == x.shape
    for name in t.optimizers:
        t.optimizer(name, a, b, 0.01)()


SMALL = {
    "labels": Case((12, 16, 5), 8, "relu", "ce", 4),
    "values": Case((6, 8, 1), 8, "tanh", "mse", 4),
}


def on_the_cpu(case):
    """The losses of two epochs of our Trainer."""
    fit = trainer_of(case).fit
    return fit(*case.data(), epochs=2, batch_size=case.batch, shuffle=False, progress=False).loss


@pytest.mark.parametrize("name", SMALL)
def test_the_reference_of_training_is_right(name):
    training = pytest.importorskip("bench.gpu.training", exc_type=ImportError)
    assert training.SMALL[name] == SMALL[name]
    found = on_the_cpu(SMALL[name])
    assert len(found) <= correctness.STEPS
    np.testing.assert_allclose(found, correctness.right(SMALL[name])["losses"][: len(found)], rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_pytorch_trains_as_we_do(torch, name):
    from bench.gpu.torch_training import eager

    case, ours = SMALL[name], on_the_cpu(SMALL[name])[-1]
    assert eager(case, "float32", device="cpu")(2) == pytest.approx(ours, rel=1e-5)
    assert eager(case, "bfloat16", device="cpu")(2) == pytest.approx(ours, rel=2e-2)
