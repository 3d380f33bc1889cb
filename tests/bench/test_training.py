"""What the benchmark of training claims: who is right, what bounds a step, and what a row says."""

import numpy as np
import pytest

import reference
from bench import contention, correctness, growth, limits, training
from bench.cases import CASES, Case
from bench.correctness import STEPS, Tolerances, Verdict, gradients, judge, right
from bench.plan import Plan
from bench.rounds import Samples

RELU, TANH = Case((30, 64, 10), 32, "relu", "ce", 4), Case((5, 16, 1), 8, "tanh", "mse", 16)


def float32_run(case, lr=1e-3, change=lambda gradients: None, seen_loss=lambda loss, case: loss, adam=None):
    """The outcome of a contestant that keeps its parameters in float32, with something wrong."""
    adam = adam or reference.adam_step
    params = {}
    for layer, w in enumerate(case.weights()):
        params |= {f"{layer}.w": w.copy(), f"{layer}.b": np.zeros(w.shape[1], np.float32)}
    states = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}
    losses = []
    for step, (x, y) in enumerate(zip(*case.batched(STEPS), strict=True), start=1):
        loss, found = gradients(case, params, x, y)
        losses.append(seen_loss(loss, case))
        change(found)
        for name, g in found.items():
            p, m, v = adam(params[name], g, *states[name], step, lr)
            params[name], states[name] = p.astype(np.float32), (m.astype(np.float32), v.astype(np.float32))
    return {"losses": np.array(losses), **params}


# ---------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("case", [RELU, TANH])
def test_a_right_contestant_is_right(case):
    assert judge(case, float32_run(case)).ok


@pytest.mark.parametrize("case", [RELU, TANH, CASES["b"]])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_learning_rate_is_caught(case, factor):
    assert not judge(case, float32_run(case, lr=factor * 1e-3)).ok


@pytest.mark.parametrize("case", [RELU, TANH])
def test_a_missing_bias_gradient_is_caught(case):
    verdict = judge(case, float32_run(case, change=lambda found: found["0.b"].fill(0.0)))
    assert not verdict.ok and "0.b" in verdict.what


def test_a_column_that_is_left_out_is_caught():
    """One of 40: the median does not see it, the norm does."""
    case = Case((30, 40, 6), 16, "tanh", "ce", 4)
    assert not judge(case, float32_run(case, change=lambda found: found["0.w"][:, 7].fill(0.0))).ok


@pytest.mark.parametrize("case", [RELU, TANH])
def test_a_sum_instead_of_a_mean_is_caught(case):
    """Adam does not see it; the loss does."""
    wrong = float32_run(
        case,
        change=lambda found: [g.__imul__(case.batch) for g in found.values()],
        seen_loss=lambda loss, case: loss * case.batch,
    )
    verdict = judge(case, wrong)
    assert not verdict.ok and "loss" in verdict.what


def test_a_wrong_activation_gradient_is_caught():
    wrong = Case(TANH.sizes, TANH.batch, "relu", "mse", TANH.batches)
    assert not judge(TANH, float32_run(wrong)).ok


def test_a_missing_correction_of_the_means_is_caught():
    def adam(p, g, m, v, step, lr):
        return reference.adam_step(p, g, m, v, 10**9, lr)

    assert not judge(RELU, float32_run(RELU, adam=adam)).ok


def test_a_nan_is_wrong():
    outcome = float32_run(RELU)
    outcome["1.b"][0] = np.nan
    assert not judge(RELU, outcome).ok


def test_the_second_form_of_eps_is_judged_by_its_own_run():
    """With gradients near ε the two forms differ; a contestant is held against the one that it says it has."""
    usual, second = right(RELU), right(RELU, eps_hat=True)
    assert not np.array_equal(usual["0.w"], second["0.w"])
    assert judge(RELU, second, eps_hat=True).error == 0


def test_the_gradients_of_the_judge_are_those_of_finite_differences():
    params = {
        name: array + 0.1 * np.random.default_rng(3).standard_normal(array.shape)
        for name, array in right(TANH).items()
        if name != "losses"
    }
    x, y = (array[0] for array in TANH.batched(1))
    _, found = gradients(TANH, params, x, y)
    for name, g in found.items():
        numerical = reference.numerical_gradient(
            lambda p, name=name: correctness.forward(TANH, params | {name: p}, x, y)[0], params[name]
        )
        np.testing.assert_allclose(g, numerical, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES.values())
def test_tolerances_catch_a_tenth_of_the_learning_rate_and_a_whole_array(case):
    """A rate that is wrong by a tenth moves the median by at least 0.06 of the root mean square."""
    allowed = Tolerances.of(case)
    assert 0 < allowed.forward < allowed.median < 0.06 and allowed.norm < 0.5


# ---------------------------------------------------------------------------------------------- limits


def test_the_operations_of_a_step_are_those_of_its_products():
    case = Case((3, 5, 2), 7, "relu", "ce", 1)
    forward = 2 * 7 * (3 * 5 + 5 * 2)
    weights, inputs = forward, 2 * 7 * 5 * 2
    assert case.flops == forward + weights + inputs and case.parameters == 3 * 5 + 5 + 5 * 2 + 2


def test_a_step_takes_its_products_and_the_traffic_of_adam():
    case = CASES["a"]
    assert limits.step(case, 1e-11, 0.0) == pytest.approx(1e-11 * case.flops)
    assert limits.step(case, 0.0, 1e-10) == pytest.approx(1e-10 * 28 * case.parameters)
    assert limits.adam_job(case)["bytes"] == 16 * case.parameters


def test_limits_are_measured():
    from bench.contestants.limits import LIMITS

    for op, make in LIMITS.items():
        limit = make({"kind": "limit", "op": op, "bytes": 1 << 16}, 1)
        limit.run(1)
        limit.run(1 << 22)


@pytest.mark.parametrize("working_set", [1, 100_000, 1 << 20])
def test_a_stream_touches_what_it_should(working_set):
    from bench.contestants.limits import Stream

    stream = Stream({"op": "triad", "bytes": working_set}, 1)
    a, b, c = stream._memory
    b[...], c[...] = 2.0, 3.0
    stream.run(3 * 4 * (a.size + 10))  # a whole pass and ten elements
    assert (a == 5.0).all()
    a[...] = 0.0
    stream.run(3 * 4 * 10)
    assert (a[:10] == 5.0).all() and (a[10:] == 0.0).all()


# ---------------------------------------------------------------------------------------------- rows


class FakeRunner:
    facts = {"seconds": 1.5, "threads": {"cores": 2, "torch": 2}, "tinygrad threads": 2, "devices": "one"}  # noqa: RUF012


def test_a_row_says_how_fast_how_right_and_how_near_the_limit():
    case = CASES["a"]
    runners = {"gdkernels": FakeRunner(), "torch eager": FakeRunner()}
    judged = {
        "gdkernels": Verdict("losses", 0.1, 1.0),
        "torch eager": Verdict("0.w", 2.0, 1.0),
        "jax scan": Verdict("0.w", 2.0, 1.0),
    }
    flop, byte = 1e-11, 1e-10
    epoch = 2 * case.batches * limits.step(case, flop, byte)
    samples = {
        "gdkernels": Samples(seconds=[epoch] * 3, cores=[1.9] * 3),
        "torch eager": Samples(seconds=[3 * epoch, 4 * epoch, 5 * epoch], thrown_away=7, dirty=1),
        "jax scan": Samples(failed="it died"),
        training.FMA: Samples(seconds=[flop] * 3),
        training.UPDATE: Samples(seconds=[byte] * 3),
    }
    gone, ours, theirs = sorted(
        training.table("a", case, 2, runners, judged, samples), key=lambda row: "failed" not in row
    )
    assert gone == {"failed": "it died", "item": "a 2T jax scan"}
    assert ours["share_of_limit"]["median"] == pytest.approx(0.5) and ours["ok"] and "ratio" not in ours
    assert ours["steps_per_second"]["median"] == pytest.approx(case.batches / epoch)
    assert ours["threads_reported"] == {"cores": 2, "torch": 2, "tinygrad threads": 2}
    assert theirs["ratio"] == pytest.approx({"median": 4.0, "low": 3.0, "high": 5.0})
    assert not theirs["ok"] and theirs["thrown_away"] == 7 and theirs["dirty"] == 1
    assert "WRONG" in training.line(theirs) and "4.00 ×" in training.line(theirs)
    assert "50.0 % of the limit" in training.line(ours)


def plan(**changes):
    options = {"quick": False, "end": 1e12, "cases": ("a",), "peers": ("torch", "jax"), "threads": (1, 2)}
    return Plan(**options | changes)


def test_what_grows_is_one_thing_at_a_time():
    found = growth.points(plan())
    assert [point.axis for point in found[1]] == ["threads"]
    for point in found[2][1:]:
        base = growth.network()
        changed = {
            "batch": point.case.batch != base.batch,
            "depth": len(point.case.sizes) != len(base.sizes),
            "width": point.case.sizes[1] != base.sizes[1],
        }
        assert not any(value for axis, value in changed.items() if axis != point.axis)
        assert point.value == {"batch": point.case.batch, "depth": len(point.case.layers) - 1,
                               "width": point.case.sizes[1]}[point.axis]  # fmt: skip


def test_contention_is_told_relative_to_the_quiet_machine():
    quiet, busy = Samples(seconds=[1.0] * 3), Samples(seconds=[4.0, 2.0, 2.0])
    row = contention.row("a", "gdkernels", quiet, busy)
    assert row["share_of_quiet"] == 0.5 and row["contended"]["low"] == pytest.approx(contention.BATCHES / 4)
    assert "50.0 %" in contention.line(row)


def test_when_the_time_is_over_what_is_left_is_named():
    for section in (training, growth, contention):
        found = list(section.rows(plan(end=0.0, peers=(), threads=(1,)), print))
        assert found and all("cut" in row for row in found)
