"""`gdkernels verify` lets the kernels pass, and nothing that is wrong."""

import numpy as np
import pytest

import gdkernels as gd
import reference
from gdkernels.cli import verify
from gdkernels.cli.checks import Case, Checks, excess
from gdkernels.cli.differences import Differences
from gdkernels.cli.main import main
from gdkernels.cli.verify import Row, summarise
from gdkernels.train.loss import LOSSES


def row(checks, name):
    return summarise(name, "float32", "cpu", "reference", dict(verify.checks_of(checks))[name])


def test_every_row_holds(capsys):
    assert main(["verify"]) == 0
    *table, last = capsys.readouterr().out.splitlines()[1:]
    assert last.startswith(f"{len(table)} of {len(table)} rows hold, 0 fail")
    assert all(line.endswith("  ok") for line in table)
    for dtype in ("float32", "float64"):
        assert sum(dtype in line for line in table) > 20


def test_every_public_kernel_has_a_row():
    public = [name for name in dir(gd) if not name.startswith("_")]
    kernels = {name for name in public if callable(getattr(gd, name)) and hasattr(reference, name)}
    rows = {name.split()[0] for name, _ in verify.table(reference, "cpu")}
    # dropout's row holds its backward pass, and saved_for computes nothing.
    assert kernels - rows == {"dropout_backward", "saved_for"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("matmul", lambda out: -out),
        ("matmul", lambda out: out * np.float32(1 + 1e-4)),
        ("linear", lambda out: out + np.float32(1e-3)),
        ("activation", lambda out: np.nan_to_num(out)),
        ("dropout", lambda out: out[::-1]),
        ("softmax", lambda out: out * np.float32(1 + 1e-4)),
        ("log_softmax", lambda out: np.exp(out)),
        ("layernorm", lambda out: out * np.float32(1 + 1e-3)),
        ("rmsnorm", lambda out: -out),
        ("scale", lambda out: out * np.float32(1 + 1e-6)),
        ("global_norm", lambda out: out * (1 + 1e-6)),
        ("mse", lambda out: out / 2),
        ("huber", lambda out: out * 2),
        ("binary_cross_entropy", lambda out: -out),
        ("softmax_cross_entropy", lambda out: out + 0.01),
    ],
)
def test_a_wrong_result_fails_its_row(name, wrong, monkeypatch):
    right = getattr(gd, name)
    monkeypatch.setattr(
        gd, name, lambda *arguments, **options: wrong(right(*arguments, **options)), raising=False
    )
    assert not row(Checks(reference, "float32"), name).passed


@pytest.mark.parametrize(
    "name", ["linear_backward", "layernorm_backward", "rmsnorm_backward", "scale_backward"]
)
def test_a_wrong_gradient_fails_its_rows(name, monkeypatch):
    right = getattr(gd, name)

    def wrong(*arguments, **options):
        dx, *others = right(*arguments, **options)
        return (dx * dx.dtype.type(1.01), *others)

    monkeypatch.setattr(gd, name, wrong, raising=False)
    assert not row(Checks(reference, "float32"), name).passed
    assert not row(Differences(reference), name).passed


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("part", ["value", "gradient"])
def test_a_loss_that_is_off_by_one_in_ten_thousand_fails_its_row(name, part, monkeypatch):
    right = getattr(gd, name)

    def wrong(*arguments, grad, **options):
        value = right(*arguments, grad=grad, **options)
        if part == "gradient":
            grad *= np.float32(1 + 1e-4)
            return value
        return value * np.float32(1 + 1e-4)

    monkeypatch.setattr(gd, name, wrong, raising=False)
    assert not row(Checks(reference, "float32"), name).passed


def test_threads_that_change_a_bit_fail_their_row(monkeypatch):
    right = gd.Trainer

    def wrong(net, threads, **options):
        trainer = right(net, threads=threads, **options)
        if threads == 2:
            weights = net.params["1.w"]
            weights[0, 0] = np.nextafter(weights[0, 0], np.float32(1))
        return trainer

    monkeypatch.setattr(gd, "Trainer", wrong, raising=False)
    assert not row(Checks(reference, "float32"), "threads").passed


def test_a_step_that_forgets_the_decay_fails_its_row(monkeypatch):
    right = gd.adam_step

    def wrong(*arguments, weight_decay, **options):
        right(*arguments, **options)

    monkeypatch.setattr(gd, "adam_step", wrong, raising=False)
    assert not row(Checks(reference, "float32"), "adam_step").passed


def test_a_failing_row_names_its_case_and_sets_the_exit_code(capsys, monkeypatch):
    rows = [
        Row("matmul", "float32", "cpu", "reference", 3, 1.0, 8.0, "small"),
        summarise(
            "linear", "float32", "cpu", "reference", [Case("good", 2.0, 8.0), Case("gelu (3, 5)", 9.0, 8.0)]
        ),
    ]
    monkeypatch.setattr(verify, "rows", lambda reference: iter(rows))
    assert main(["verify"]) == 1
    table = capsys.readouterr().out
    assert "FAILS at gelu (3, 5)" in table
    assert "1 of 2 rows hold, 1 fail" in table


def test_an_op_that_raises_fails_its_row_and_no_other(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(gd, "matmul", fail, raising=False)
    broken = row(Checks(reference, "float32"), "matmul")
    assert not broken.passed
    assert "FAILS at RuntimeError: no such instruction" in str(broken)
    assert row(Checks(reference, "float32"), "sgd_step").passed


def test_a_row_without_cases_fails():
    assert not summarise("matmul", "float32", "cpu", "reference", []).passed


@pytest.mark.parametrize(
    ("result", "exact", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.5 / 0.2),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([1.0, np.inf], [1.0, 2.0], np.inf),
    ],
)
def test_the_error_is_the_worst_in_units_of_what_is_allowed(result, exact, expected):
    assert excess(np.array(result), np.array(exact), np.array([0.1, 0.2])) == pytest.approx(expected)


def test_where_no_rounding_is_allowed_any_is_too_much():
    assert excess(np.array([0.0, 0.0]), np.zeros(2), np.zeros(2)) == 0.0
    assert excess(np.array([0.0, 1e-300]), np.zeros(2), np.zeros(2)) == np.inf
