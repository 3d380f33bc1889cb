"""The costs' section of `python -m bench`: every row of the table is measured, and what is made of times."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

import gdkernels as gd
from bench import costs, process
from bench.contestants import build, ours_costs
from bench.contestants.ours_costs import JOBS, PARTS, Job
from bench.plan import Plan
from gdkernels.cpu.cost import NS
from gdkernels.scalar.activation import ACTIVATIONS
from gdkernels.scalar.optim import OPTIMIZERS

MADE_UP = {"product": 0.02, "product, element": 0.3}


def job(family="matmul", **units) -> Job:
    return Job(family, {name.replace("_", ", "): float(count) for name, count in units.items()}, lambda: None)


PRODUCTS = [job(product=k * 64, product_element=64) for k in (8, 32, 100)] + [
    job(product=800, product_element=100)
]


def seconds(jobs, by_itself=100.0):
    """Of jobs that cost what is made up, and this many nanoseconds besides."""
    return [1e-9 * (by_itself + sum(MADE_UP[row] * n for row, n in each.units.items())) for each in jobs]


# ---------------------------------------------------------------------------------------------- what is measured


def test_every_row_of_the_table_is_measured():
    """A row that is added to the table needs jobs in bench/contestants/ours_costs.py."""
    assert {row for each in JOBS for row in each.units} == set(NS)


def test_every_activation_is_measured_both_ways():
    families = {part[0].family for part in PARTS}
    assert families >= {f"{kind}{way}" for kind in ACTIVATIONS for way in ("", " backward")}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[0].family)
def test_the_jobs_of_a_part_determine_what_they_tell(part):
    """Costs and what a call takes by itself: as many unknowns, as many independent jobs at least."""
    unknowns = {row for each in part for row in each.units} | {each.family for each in part}
    table = [[each.units.get(name, float(each.family == name)) for name in unknowns] for each in part]
    assert np.linalg.matrix_rank(np.array(table) / np.max(table, axis=0)) == len(unknowns)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[0].family)
def test_every_job_can_be_repeated(part):
    threads = gd.get_threads()
    try:
        for number in map(JOBS.index, part):
            turns = build("gdkernels", {"kind": "costs"}, 1)
            turns.turn(number)
            turns.run(2)
    finally:
        gd.set_threads(threads)


def test_clipping_scales_in_every_call():
    """Otherwise it would tell nothing of what scaling costs."""
    call, norms = ours_costs.clipping(4096), []
    for _ in range(50):
        norms.append(call())
    assert all(later < earlier for earlier, later in pairwise(norms))
    assert norms[-1] > 1e-12


def test_sums_of_blocks_are_those_of_the_columns():
    partial_sums, dgamma, dbeta = ours_costs.blocks_of_norm(2 * 64 * 40)()
    sums = partial_sums.astype(float).sum(0)
    np.testing.assert_allclose(np.concatenate([dgamma, dbeta]), sums, atol=64 * 64 * 2**-24)


# ---------------------------------------------------------------------------------------------- what is made of it


def test_costs_are_told_from_what_a_call_takes_by_itself():
    assert costs.solve(PRODUCTS, seconds(PRODUCTS)) == pytest.approx(MADE_UP, rel=1e-6)


def test_each_family_has_its_own_time_for_a_call():
    other = [job("linear", product=n) for n in (100, 1000)]
    found = costs.solve([*PRODUCTS, *other], seconds(PRODUCTS) + seconds(other, by_itself=900.0))
    assert found == pytest.approx(MADE_UP, rel=1e-6)


def test_nothing_costs_less_than_nothing():
    jobs = [job(squares=n) for n in (100, 1000)]
    assert costs.solve(jobs, [2e-6, 1e-6]) == {"squares": 0.0}


@pytest.mark.parametrize(
    "ratio, moved", [(0.49, True), (0.51, False), (1.0, False), (1.99, False), (2.01, True)]
)
def test_more_than_a_factor_of_two_has_moved(ratio, moved):
    row = costs.beside("dropout", 0.7, {"a": 0.7 * ratio, "b": 0.01, "c": 100.0})
    assert row["moved"] is moved and row["ratio"] == pytest.approx(ratio)
    assert ("moved" in costs.line(row)) is moved


class Runner:
    """Takes the place of our process: a call takes what the table says, and a microsecond; the update fails."""

    def __init__(self, name, work, threads, patience):
        assert (name, work, threads) == ("gdkernels", {"kind": "costs"}, 1)

    def turn(self, number, patience):
        self.job = JOBS[number]
        if "update" in self.job.units:
            raise process.Failed("it died")

    def run(self, times):
        return times * (1e-6 + 1e-9 * sum(NS[row] * count for row, count in self.job.units.items()))

    def cpu_seconds(self):
        return None

    def close(self):
        pass


def test_the_section_tells_all_rows_and_what_failed(monkeypatch):
    monkeypatch.setattr("bench.cast.Contestant", Runner)
    by_kind = defaultdict(list)
    for row in costs.rows(Plan(True, 1e9, (), (), (1,), clock=lambda: 0.0), print):
        by_kind["failed" if "failed" in row else "told"].append(row)
    assert [row["operation"] for row in by_kind["told"]] == [name for name in NS if name != "update"]
    assert all(row["ratio"] == pytest.approx(1.0, rel=1e-6) and not row["moved"] for row in by_kind["told"])
    assert {row["item"] for row in by_kind["failed"]} == set(OPTIMIZERS)


def test_without_time_every_part_is_cut(monkeypatch):
    monkeypatch.setattr("bench.cast.Contestant", Runner)
    found = list(costs.rows(Plan(True, -1.0, (), (), (1,), clock=lambda: 0.0), print))
    assert [row["cut"] for row in found] == [part[0].family for part in PARTS]
