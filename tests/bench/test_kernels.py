"""The kernels' section of `python -m bench`: every contestant's operations on tiny shapes, least bytes, and rows."""

import importlib

import numpy as np
import pytest

from bench import cast, contestants, kernels, operations
from bench.contestants.calls import Calls, Series
from bench.operations import EPS32, OPERATIONS, TILE
from bench.plan import Plan
from bench.process import Failed
from bench.rounds import Samples

FORMS = ("NN", "NT", "TN")


def shape(op: str) -> tuple[int, ...]:
    return {"gemm": (33, 20, 70), "adam": (2 * TILE,)}.get(op, (2 * TILE, 24))


def makers(contestant: str):
    """What a contestant offers, where its library is installed."""
    pytest.importorskip({"torch": "torch", "jax": "optax"}.get(contestant, "numpy"))
    module = importlib.import_module(f"bench.contestants.{contestants.KERNELS[contestant]}")
    return module.KERNELS[contestant]


# ---------------------------------------------------------------------------------------------- contestants


@pytest.mark.parametrize("contestant", contestants.KERNELS)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_operation_of_every_contestant_agrees_with_the_reference(contestant, threads):
    for op, make in makers(contestant).items():
        for form in FORMS if op == "gemm" else ("",):
            what, error, bound = make(shape(op), form, threads).verdict(op)
            assert error <= bound, (contestant, op, form, what)


@pytest.mark.parametrize("contestant", contestants.KERNELS)
def test_an_operation_can_be_repeated(contestant):
    for op, make in makers(contestant).items():
        calls = make(shape(op), "NN", 1)
        calls.run(3)
        assert all(np.isfinite(np.asarray(each)).all() for each in calls.results().values()), op


def test_our_native_calls_do_again_what_they_did():
    """Repetition inside native code gives the result of one call: the kernels are driven as an epoch drives them."""
    make = makers("gdkernels")["layernorm backward"]
    calls = make((64, 40), "", 2)
    calls.run(1)
    once = {name: array.copy() for name, array in calls.results().items()}
    calls.run(5)
    for name, array in calls.results().items():
        np.testing.assert_array_equal(array, once[name])


@pytest.mark.parametrize("op", ["relu backward", "layernorm backward"])
def test_our_native_calls_write_to_no_memory_but_their_own(op):
    """The partial sums of a shared pass are an array of the host function alone; what is allocated after it stays whole."""
    calls = makers("gdkernels")[op]((64 * TILE, 256), "", 2)
    others = [
        np.zeros((rows, columns)) for rows in (1, 16, 32, 64) for columns in (128, 256, 512) for _ in range(8)
    ]
    calls.run(3)
    assert not any(other.any() for other in others)


# ---------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "gemm"])
def test_a_wrong_result_is_flagged(op):
    calls = makers("gdkernels")[op](shape(op), "", 1)
    calls.run(1)
    results = {name: np.array(value) for name, value in calls.results().items()}
    assert all(error <= bound for _, error, bound in OPERATIONS[op].verdicts(calls.inputs, results))
    for name, array in results.items():
        spoiled = array * np.float32(1.001) if name != "out" else np.where(array == 0, 1, array)
        _, error, bound = operations.worst(OPERATIONS[op].verdicts(calls.inputs, results | {name: spoiled}))
        assert error > bound, name


def test_one_wrong_element_of_a_product_is_flagged():
    inputs = OPERATIONS["gemm"].inputs((8, 8, 64), "NN")
    right = (inputs["a"].astype(float) @ inputs["b"]).astype(np.float32)
    wrong = right.copy()
    wrong[3, 5] += 1e-3
    for out, ok in ((right, True), (wrong, False)):
        ((_, error, bound),) = OPERATIONS["gemm"].verdicts(inputs, {"out": out})
        assert (error <= bound) is ok
        assert bound == 64 * EPS32 / 2


def test_a_nan_is_the_worst():
    assert operations.worst([("a", 5.0, 1.0), ("b", float("nan"), 1.0), ("c", 0.0, 1.0)])[0] == "b"


# ---------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize(
    "op, shape, floats, others",
    [
        ("gemm", (2, 3, 5), 2 * 5 + 5 * 3 + 2 * 3, 0),
        ("adam", (100,), 7 * 100, 0),  # p, m, v read and written, g read
        ("relu", (4, 6), 2 * 24, 0),
        ("tanh backward", (4, 6), 3 * 24 + 6, 0),  # da, saved, dz, and db
        ("layernorm", (4, 6), 2 * 24 + 2 * 4 + 2 * 6, 0),  # x, y, statistics, gamma and beta
        (
            "layernorm backward",
            (4, 6),
            3 * 24 + 2 * 4 + 3 * 6,
            0,
        ),  # dy, x, dx, statistics, gamma, dgamma, dbeta
        ("rmsnorm", (4, 6), 2 * 24 + 4 + 6, 0),  # x, y, statistics, gamma
        ("rmsnorm backward", (4, 6), 3 * 24 + 4 + 2 * 6, 0),  # dy, x, dx, statistics, gamma, dgamma
        ("softmax", (4, 6), 2 * 24, 0),
        ("cross-entropy", (4, 6), 2 * 24, 8 * 4),  # logits, gradient, and a label (8 bytes) a row
        ("dropout", (4, 6), 2 * 24, 0),
    ],
)
def test_least_bytes_count_every_input_and_output_once(op, shape, floats, others):
    assert OPERATIONS[op].bytes(shape) == 4 * floats + others


def test_a_product_takes_two_operations_for_each_of_mnk():
    assert OPERATIONS["gemm"].flops((2, 3, 5)) == 2 * 2 * 3 * 5
    assert OPERATIONS["gemm"].work((1000, 1000, 1000)) == pytest.approx(2.0)


def test_streams_lie_within_the_second_cache_or_far_out_of_the_last():
    for op, shapes in kernels.STREAMS.items():
        for shape in shapes:
            assert shape[0] % TILE == 0
            bytes = OPERATIONS[op].bytes(shape)
            assert 0.8 * kernels.IN_CACHE < bytes < 1.2 * kernels.IN_CACHE or bytes >= kernels.OUT_OF_CACHE


# ---------------------------------------------------------------------------------------------- section


def plan(**more) -> Plan:
    return Plan(False, 1e9, ("b",), ("torch",), (1,), **more)


def test_the_products_of_a_case_are_those_of_its_step():
    found = [item for item in kernels.items(plan()) if item[0] == "gemm"]
    assert found[0] == ("gemm", (128, 256, 784), "NN")
    assert ("gemm", (784, 256, 128), "TN") in found
    assert ("gemm", (128, 784, 256), "NT") not in found  # no gradient of the network's input
    assert ("gemm", (128, 256, 128), "NT") in found


def test_ratios_and_shares_are_formed_round_by_round():
    item = ("gemm", (100, 100, 50), "NN")  # 10⁶ operations
    samples = {
        "gdkernels": Samples(seconds=[1e-5, 2e-5, 1e-5]),
        "numpy": Samples(seconds=[2e-5, 4e-5, 2e-5]),
        "limit": Samples(seconds=[0.5e-11, 1e-11, 0.5e-11]),
    }
    judged = {name: {"what": "out", "error": 0.0, "bound": 1.0, "ok": True} for name in samples}
    ours, theirs, limit = kernels.table(item, 1, samples, judged)
    assert theirs["ratio"] == pytest.approx({"median": 2, "low": 2, "high": 2})
    assert ours["share_of_limit"] == pytest.approx({"median": 0.5, "low": 0.5, "high": 0.5})
    assert ours["rate"]["median"] == pytest.approx(100.0)
    assert ours["intensity"] == pytest.approx(1e6 / (4 * (5000 + 5000 + 10000)))
    assert limit["rate"]["median"] == pytest.approx(200.0)
    assert "ratio" not in ours and "ok" not in limit
    assert all(kernels.line(row) for row in (ours, theirs, limit))


def test_a_series_turns_to_its_items():
    inputs = OPERATIONS["gemm"].inputs((4, 4, 4), "NN")
    counted = []

    def make(shape, form, threads):
        counted.append((shape, form, threads))
        out = (inputs["a"].astype(float) @ inputs["b"]).astype(np.float32)
        return Calls(inputs, lambda: counted.append("call"), lambda: {"out": out})

    series = Series({"gemm": make}, [("gemm", [4, 4, 4], "NN")], 2)
    series.turn(0)
    found = series.outcome(1)
    series.run(2)
    assert found["error"] <= found["bound"]
    assert counted == [((4, 4, 4), "NN", 2), "call", "call", "call"]


class Runner:
    """Takes the place of a contestant's process: every unit takes a microsecond."""

    closed = 0

    def __init__(self, name, job, threads, patience):
        if name == "torch":
            raise contestants.Missing("torch is not installed")
        self.name, self.turned = name, 0

    def turn(self, number, patience):
        if self.name == "numpy" and number == 1:
            raise Failed("it died")
        self.turned = number

    def outcome(self, count, patience):
        return {
            "what": np.array("out"),
            "error": np.array(0.5 if self.name == "numpy" else 1e-9),
            "bound": np.array(1e-6),
        }

    def run(self, times):
        return 1e-6 * times

    def cpu_seconds(self):
        return None

    def close(self):
        Runner.closed += 1


@pytest.fixture
def found(monkeypatch):
    """The rows of two products with such contestants."""
    monkeypatch.setattr(cast, "Contestant", Runner)
    listed = [("gemm", (32, 32, 32), "NN"), ("gemm", (32, 32, 32), "TN")]
    monkeypatch.setattr(kernels, "items", lambda plan: listed)
    Runner.closed = 0
    peers = Plan(False, 1e9, ("b",), ("torch", "numpy"), (1,), rounds=3, block=1e-4, clock=lambda: 0.0)
    return list(kernels.rows(peers, print))


def test_a_missing_peer_is_told_once(found):
    assert [row["item"] for row in found if "failed" in row and "not installed" in row["failed"]] == [
        "kernels of torch"
    ]


def test_a_wrong_contestant_is_marked_and_measured_all_the_same(found):
    (row,) = [row for row in found if row.get("contestant") == "numpy"]
    assert row["ok"] is False and row["rate"]["median"] > 0
    assert "WRONG" in kernels.line(row)


def test_a_contestant_that_dies_leaves_the_others_at_work(found):
    assert {"failed": "it died", "item": "numpy: gemm 32×32×32 TN, 1 threads"} in found
    assert [row["form"] for row in found if row.get("contestant") == "gdkernels"] == ["NN", "TN"]


def test_every_process_is_ended(found):
    assert Runner.closed == 4  # ours twice, numpy, and the limit


def test_without_time_the_rest_is_cut(monkeypatch):
    monkeypatch.setattr(cast, "Contestant", Runner)
    late = Plan(True, -1.0, ("b",), (), (1,), clock=lambda: 0.0)
    rows = list(kernels.rows(late, print))
    assert len(rows) == len(kernels.QUICK_ITEMS) and all("cut" in row for row in rows)
