"""The section of calls from Python: every contestant's operations and loops, what is right, what is slower, and rows."""

import importlib
import sys
import time

import numpy as np
import pytest

import gdkernels as gd
from bench import array_operations, calls, cast, contestants, correctness, report
from bench.array_operations import ALLOCATED, ARRAY_OPERATIONS, GIVEN, IN_PLACE, MANY
from bench.cases import CASES
from bench.contestants.array_calls import NOTHING, fastest
from bench.kernels import Item
from bench.operations import OPERATIONS
from bench.plan import Plan
from bench.process import Failed
from bench.rounds import Samples

# Until gdkernels' functions take lists of arrays: then this fails, and goes.
NO_LISTS = pytest.mark.xfail(raises=TypeError, strict=True, reason="the functions take single arrays")


@pytest.fixture(autouse=True)
def settings():
    """Contestants set threads, and PyTorch's forgets gradients, for the whole of their process, which here is ours."""
    threads, torch = gd.get_threads(), sys.modules.get("torch")
    counted = torch and torch.get_num_threads()
    yield
    gd.set_threads(threads)
    if torch := sys.modules.get("torch"):
        torch.set_grad_enabled(True)
        torch.set_num_threads(counted or torch.get_num_threads())


def module(table: dict[str, str], contestant: str):
    """The file of a contestant, where its library is installed."""
    pytest.importorskip("torch" if contestant.startswith("torch") else "numpy")
    return importlib.import_module(f"bench.contestants.{table[contestant]}")


def makers(contestant: str):
    return module(contestants.CALLS, contestant).CALLS[contestant]


# Every contestant with every operation.
PAIRS = [
    pytest.param(
        contestant, op, marks=NO_LISTS if contestant == "gdkernels" and op.endswith(MANY) else (),
        id=f"{contestant} {op}",
    )
    for contestant in contestants.CALLS
    for op in ARRAY_OPERATIONS
]  # fmt: skip


# ---------------------------------------------------------------------------------------------- contestants


@pytest.mark.parametrize("contestant", contestants.CALLS)
def test_every_contestant_has_every_operation(contestant):
    assert makers(contestant).keys() == {*ARRAY_OPERATIONS, NOTHING}


@pytest.mark.parametrize("contestant, op", PAIRS)
def test_every_call_agrees_with_the_reference(contestant, op):
    """However its results come to be, at the two smaller sizes."""
    operation = ARRAY_OPERATIONS[op]
    for form in operation.forms:
        for shape in operation.sizes[:2]:
            what, error, bound = makers(contestant)[op](shape, form, 1).verdict(op)
            assert error <= bound, (form, shape, what)


@pytest.mark.parametrize("contestant, op", PAIRS)
def test_a_call_can_be_repeated(contestant, op):
    for form in ARRAY_OPERATIONS[op].forms:
        call = makers(contestant)[op](ARRAY_OPERATIONS[op].sizes[0], form, 1)
        call.run(5)
        for values in call.results().values():
            assert np.isfinite(array_operations.flat(values)).all(), form


@pytest.mark.parametrize("contestant", ["numpy", "torch"])
@pytest.mark.parametrize("way", range(3))
def test_every_way_to_write_an_operation_is_right(contestant, way, monkeypatch):
    """Not only the one that was the fastest here."""
    offered = makers(contestant)
    written = module(contestants.CALLS, contestant)
    monkeypatch.setattr(written, "fastest", lambda *ways: ways[min(way, len(ways) - 1)])
    for op, operation in ARRAY_OPERATIONS.items():
        for form in operation.forms:
            what, error, bound = offered[op](operation.sizes[1], form, 1).verdict(op)
            assert error <= bound, (op, form, what)


def test_the_fastest_way_is_taken():
    slow, fast = (lambda: time.sleep(1e-3)), (lambda: None)
    assert fastest(slow, fast) is fast and fastest(fast, slow) is fast


def test_results_are_written_where_they_are_given():
    call = makers("gdkernels")["linear"]((64, 20, 64), GIVEN, 1)
    (out,) = call.results().values()
    assert not out.any()
    call.run(1)
    assert out.any()
    assert not makers("gdkernels")["linear"]((64, 20, 64), ALLOCATED, 1).results()


def test_inputs_are_kept_as_they_are_judged():
    """What a step changes is a copy of the inputs that its results are held against."""
    call = makers("gdkernels")["adam_step"]((64,), IN_PLACE, 1)
    before = call.inputs["p"].copy()
    call.run(1)
    np.testing.assert_array_equal(call.inputs["p"], before)
    assert (call.results()["p"] != before).all()


@pytest.mark.parametrize("contestant", [pytest.param("gdkernels", marks=NO_LISTS), "numpy", "torch eager"])
@pytest.mark.parametrize("letter", calls.LOOP_CASES)
def test_every_loop_trains_as_it_should(contestant, letter):
    loop = module(contestants.LOOPS, contestant).LOOPS[contestant](CASES[letter], 1)
    verdict = correctness.judge(CASES[letter], loop.outcome(correctness.STEPS))
    assert verdict.ok, verdict
    loop.run(1)


# ---------------------------------------------------------------------------------------------- verdicts


def exact(op: str):
    """(inputs, what is right, the same as results)."""
    inputs = ARRAY_OPERATIONS[op].inputs(ARRAY_OPERATIONS[op].sizes[1])
    rights = ARRAY_OPERATIONS[op].right(inputs)
    return inputs, rights, {each.name: each.exact.astype(np.float32) for each in rights}


@pytest.mark.parametrize("op", [op for op in ARRAY_OPERATIONS if op != "dropout"])
def test_a_wrong_result_is_flagged(op):
    """One that is wrong by a thousandth, whichever of the results it is."""
    inputs, rights, results = exact(op)
    assert all(error <= bound for _, error, bound in ARRAY_OPERATIONS[op].judge(inputs, rights, results))
    for name, array in results.items():
        spoiled = results | {name: array * np.float32(1.001)}
        judged = {
            what: error > bound for what, error, bound in ARRAY_OPERATIONS[op].judge(inputs, rights, spoiled)
        }
        assert judged == {what: what == name for what in results}


def test_a_dropout_that_drops_nothing_is_flagged():
    inputs, rights, _ = exact("dropout")
    judged = ARRAY_OPERATIONS["dropout"].judge(inputs, rights, {"out": 2 * inputs["x"]})
    assert [error > bound for _, error, bound in judged] == [False, True]


def test_a_result_of_another_shape_is_refused():
    """The losses of all elements are not their mean, even where they are all the same."""
    inputs, rights, results = exact("mse")
    with pytest.raises(ValueError, match=r"loss has shape \(64, 64\), expected \(\)"):
        ARRAY_OPERATIONS["mse"].judge(inputs, rights, results | {"loss": np.full((64, 64), results["loss"])})


# ---------------------------------------------------------------------------------------------- items


def plan(**changes) -> Plan:
    options = {"quick": False, "end": 1e9, "cases": ("a", "d"), "peers": ("numpy", "torch"), "threads": (1,),
               "rounds": 3, "block": 1e-4, "clock": lambda: 0.0}  # fmt: skip
    return Plan(**options | changes)


def test_sizes_go_from_tiny_to_large():
    found = calls.items(plan(), 1)
    assert {("matmul", (1, 4, 64), ALLOCATED), ("linear", (64, 20, 64), GIVEN)} <= {*found}
    for operation in ARRAY_OPERATIONS.values():
        counts = [np.prod(shape) for shape in operation.sizes]
        assert len(counts) == 4 and counts == sorted(counts) and counts[-1] >= 32 * counts[0]
    assert len(calls.items(plan(threads=(1, 2)), 2)) == len(found) // 4


def test_a_quick_run_is_a_tenth():
    assert set(calls.items(plan(quick=True), 1)) < set(calls.items(plan(), 1))
    assert len(calls.items(plan(quick=True), 1)) <= len(calls.items(plan(), 1)) / 10
    assert calls.QUICK.keys() <= ARRAY_OPERATIONS.keys()
    assert not calls.items(plan(quick=True, threads=(1, 2)), 2)


def test_the_kernel_alone_does_what_the_call_does():
    """The same sizes of the same operands, and as many numbers in the results."""
    known = {item: calls.native(item) for item in calls.items(plan(), 1)}
    assert known["matmul", (1, 4, 64), GIVEN] == ("gemm", (1, 64, 4), "NN")
    assert not any(alone for (_, _, form), alone in known.items() if form == ALLOCATED)
    offered = module(contestants.KERNELS, "gdkernels").KERNELS["gdkernels"]
    for (op, shape, _), alone in known.items():
        if alone and shape in ARRAY_OPERATIONS[op].sizes[:2]:
            name, native_shape, form = alone
            theirs = OPERATIONS[name].inputs(native_shape, form)
            ours = ARRAY_OPERATIONS[op].inputs(shape)
            assert sorted(map(np.shape, ours.values())) == sorted(map(np.shape, theirs.values()))
            assert name in offered


# ---------------------------------------------------------------------------------------------- rows

RIGHT = {"what": "out", "error": 0.0, "bound": 1.0, "ok": True}
LINEAR: Item = ("linear", (64, 20, 64), GIVEN)


def compared(ours: float, numpy: float, torch: float, wrong: tuple[str, ...] = ()) -> dict:
    """Our row, of calls that take so many microseconds, and 0.1 each for the loop."""
    samples = {
        name: Samples(seconds=[1e-6 * (each + 0.1)] * 3)
        for name, each in (("gdkernels", ours), ("numpy", numpy), ("torch", torch))
    }
    judged = {name: RIGHT | {"ok": name not in wrong} for name in samples}
    found = calls.compared(LINEAR, 1, samples, judged, 1e-7)
    return {row["contestant"]: row for row in found}["gdkernels"]


def test_times_are_told_without_the_loop_and_ratios_formed_round_by_round():
    samples = {
        "gdkernels": Samples(seconds=[2.1e-6, 4.1e-6, 2.1e-6]),
        "numpy": Samples(seconds=[4.1e-6, 8.1e-6, 4.1e-6], thrown_away=2),
        calls.KERNEL: Samples(seconds=[0.5e-6, 1.5e-6, 0.5e-6]),
    }
    ours, theirs = calls.compared(LINEAR, 1, samples, dict.fromkeys(samples, RIGHT), 1e-7)
    assert ours["microseconds"] == pytest.approx(2.0) and theirs["microseconds"] == pytest.approx(4.0)
    assert theirs["ratio"] == pytest.approx({"median": 2, "low": 2, "high": 2}) and theirs["thrown_away"] == 2
    assert ours["beyond_kernel"] == pytest.approx({"median": 1.5, "low": 1.5, "high": 2.5})
    assert ours["best"] == "numpy" and not ours["slower"] and "ratio" not in ours
    assert all(calls.line(row) for row in (ours, theirs))


@pytest.mark.parametrize(
    "ours, best, slower, words",
    [
        (4.0, 4.5, False, "no"),
        (5.1, 4.5, False, "no, within 0.7 µs"),
        (5.3, 4.5, True, "SLOWER"),
        (6.2, 6.0, True, "SLOWER"),
        (6.0, 6.0, False, "no"),
    ],
)
def test_short_calls_may_take_a_little_longer_than_the_best(ours, best, slower, words):
    row = compared(ours, numpy=9.0, torch=best)
    assert row["best"] == "torch" and row["slower"] is slower and report.judgement(row) == words


def test_a_peer_that_is_wrong_is_never_the_best():
    assert compared(5.0, numpy=6.0, torch=1.0)["slower"]
    row = compared(5.0, numpy=6.0, torch=1.0, wrong=("torch",))
    assert row["best"] == "numpy" and not row["slower"]


def test_slower_in_most_rounds_is_told_from_slower_in_all():
    ours, theirs = Samples(seconds=[7e-6, 7e-6, 5e-6]), Samples(seconds=[6e-6, 6e-6, 6e-6])
    row = calls.against(ours, {"numpy": theirs})
    assert row["slower"] and not row["always"] and report.judgement(row) == "slower in most rounds"


# ---------------------------------------------------------------------------------------------- section


class Runner:
    """Takes the place of a contestant's process: a unit takes three microseconds, the loop alone one."""

    closed, item = 0, ""

    def __init__(self, name, job, threads, patience):
        if name.startswith("torch"):
            raise contestants.Missing("torch is not installed")
        self.name, self.job = name, job
        self.facts = {"seconds": 0.0, "threads": {"cores": threads}}

    def turn(self, number, patience):
        if self.name == "numpy" and number == 1:
            raise Failed("it died")
        self.item = self.job["items"][number][0]

    def outcome(self, count, patience=0.0):
        if self.job["kind"] == "loop":
            return {}
        return {"what": np.array("out"), "error": np.array(0.0), "bound": np.array(1.0)}

    def run(self, times):
        return (1e-6 if self.item == NOTHING else 3e-6) * times

    def cpu_seconds(self):
        return None

    def close(self):
        Runner.closed += 1


@pytest.fixture
def stubs(monkeypatch):
    monkeypatch.setattr(cast, "Contestant", Runner)
    monkeypatch.setattr(correctness, "judge", lambda *_: correctness.Verdict("losses", 0.0, 1.0))
    monkeypatch.setattr(calls, "items", lambda plan, threads: [LINEAR, ("activation relu", (64, 64), GIVEN)])
    Runner.closed = 0


def test_the_section_tells_the_loops_and_every_item(stubs):
    found = list(calls.rows(plan(), print))
    assert [(row["case"], row["contestant"]) for row in found if "case" in row] == [
        ("a", "gdkernels"), ("a", "numpy"), ("d", "gdkernels"), ("d", "numpy"),
    ]  # fmt: skip
    assert [(row["operation"], row["contestant"]) for row in found if "operation" in row] == [
        (NOTHING, calls.LOOP), ("linear", "gdkernels"), ("linear", "numpy"), ("activation relu", "gdkernels"),
    ]  # fmt: skip
    assert {row["item"]: row["failed"] for row in found if "failed" in row} == {
        "torch eager": "torch is not installed",
        "calls of torch": "torch is not installed",
        "numpy: activation relu 64×64 given, 1 threads": "it died",
    }
    assert all(calls.line(row) for row in found if "failed" not in row)
    assert [row["microseconds"] for row in found if row.get("operation") == "linear"] == pytest.approx([2, 2])
    (relu,) = [row for row in found if row.get("operation") == "activation relu"]
    assert "beyond_kernel" in relu and "slower" not in relu
    assert Runner.closed == 7  # two of each loop, ours, NumPy's, and the kernel alone


def test_a_quick_run_has_one_number_of_threads(stubs):
    quick = plan(quick=True, threads=(1, 2), peers=())
    assert {row["threads"] for row in calls.rows(quick, print) if "case" in row} == {1}


def test_without_time_the_rest_is_cut(stubs):
    found = list(calls.rows(plan(end=-1.0), print))
    assert [row["cut"] for row in found if "cut" in row] == [
        "loop a 1T", "loop d 1T", "linear 64×20×64 given, 1 threads", "activation relu 64×64 given, 1 threads"
    ]  # fmt: skip


def test_the_section_runs_from_end_to_end(monkeypatch):
    """In processes of their own, for two operations."""
    listed: list[Item] = [("activation relu", (64, 64), GIVEN), ("adam_step", (1280,), IN_PLACE)]
    monkeypatch.setattr(calls, "items", lambda plan, threads: listed)
    small = plan(quick=True, cases=(), peers=("numpy",), block=1e-3, end=60.0)
    found = list(calls.rows(small, print))
    assert not [row for row in found if "failed" in row or "cut" in row]
    assert [(row["operation"], row["contestant"]) for row in found] == [
        (NOTHING, calls.LOOP), ("activation relu", "gdkernels"), ("activation relu", "numpy"),
        ("adam_step", "gdkernels"), ("adam_step", "numpy"),
    ]  # fmt: skip
    assert all(row["ok"] and row["microseconds"] > 0 for row in found[1:])
    assert all("beyond_kernel" in row for row in found if row["contestant"] == "gdkernels")


def test_time_is_shared_by_the_items_of_each_number_of_threads(stubs, monkeypatch):
    """Of 100 seconds those of one thread get as much more as there are more of them."""
    ends = []
    monkeypatch.setattr(calls, "items", lambda plan, threads: [LINEAR] * (60 if threads == 1 else 0))
    monkeypatch.setattr(calls, "loops", lambda plan, threads, missing, end: ends.append(end) or iter(()))
    monkeypatch.setattr(calls, "_measured", lambda *_: iter(()))
    list(calls.rows(plan(threads=(1, 2), end=100.0), print))
    assert ends == [80.0, 100.0]
