"""``python -m bench``: its options, its time, its sections, and its file."""

import json
from types import SimpleNamespace

import pytest

import gdkernels as gd
from bench import SECTIONS, USUAL, machine, record
from bench import __main__ as command
from bench.plan import Plan, cut, failure


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)


def test_a_full_run_is_all_cases_on_one_and_all_threads(cores):
    options = command.parse([])
    assert options.case == list("abcde") and options.threads == [1, 4] and options.sections == list(USUAL)
    assert options.seconds <= 1800 and options.rounds > 3


def test_a_quick_run_is_less(cores):
    options = command.parse(["--quick"])
    assert options.seconds <= 180 and options.rounds == 3 and options.case == list("ab")
    assert command.parse(["--quick", "--case", "e"]).case == ["e"]


def test_costs_are_measured_where_they_are_asked_for(cores):
    assert {*SECTIONS} - {*USUAL} == {"costs"}
    assert command.parse(["--sections", "costs"]).sections == ["costs"]


def test_sections_come_in_their_order(cores):
    assert command.parse(["--sections", "growth", "limits"]).sections == ["limits", "growth"]


@pytest.mark.parametrize(
    "wrong",
    [["--threads", "5"], ["--threads", "0"], ["--case", "z"], ["--peers", "theano"], ["--sections", "none"]],
)
def test_what_cannot_be_is_refused(cores, wrong, capsys):
    with pytest.raises(SystemExit):
        command.parse(wrong)
    assert "expected" in (said := capsys.readouterr().err) or "invalid choice" in said


def test_peers_are_libraries_or_contestants():
    plan = Plan(True, 0.0, ("a",), ("torch", "jax scan"), (1,))
    wanted = [name for name in command.TRAINING if plan.wants(name)]
    assert wanted == ["gdkernels", "gdkernels step", "torch eager", "torch compile", "jax scan"]


def fake(name, rows, monkeypatch):
    module = SimpleNamespace(rows=rows, line=lambda row: f"row {row['value']}")
    monkeypatch.setitem(command.sys.modules, f"bench.{name}", module)


def test_rows_failures_and_cuts_are_kept_apart(monkeypatch):
    def rows(plan, say):
        yield {"value": 1, "ok": False, "contestant": "torch"}
        yield failure("jax", "jax is not installed")
        yield cut("case e")
        raise RuntimeError("it broke")

    fake("limits", rows, monkeypatch)
    said = []
    section = command.gather("limits", Plan(True, 0.0, (), (), (1,)), said.append)
    assert [row["value"] for row in section.rows] == [1] == [row["value"] for row in section.wrong]
    assert section.failed == [("jax", "jax is not installed"), ("limits", "RuntimeError: it broke")]
    assert section.cut == ["case e"] and said[0] == "row 1"


def test_each_section_gets_its_share_of_the_time_that_is_left(monkeypatch, cores):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(command.time, "monotonic", lambda: clock.now)
    given = {}

    def rows(name):
        def measure(plan, say):
            given[name] = plan.end - clock.now
            clock.now += 1.0
            return iter(())

        return measure

    for name in SECTIONS:
        fake(name, rows(name), monkeypatch)
    asked = command.parse(["--minutes", "10", "--sections", *SECTIONS])
    assert [name for name, _ in command.run(asked, print)] == list(SECTIONS)
    first, *_, last = SECTIONS
    assert given[first] == pytest.approx(600 * SECTIONS[first] / sum(SECTIONS.values()))
    assert given[last] == pytest.approx(600 - (len(SECTIONS) - 1))


def test_a_run_writes_its_file_after_each_section_and_tells_what_is_wrong(monkeypatch, tmp_path, capsys):
    path = tmp_path / "results" / "here.json"
    seen = []

    def limits(plan, say):
        yield {"value": 1}

    def contention(plan, say):
        seen.append(json.loads(path.read_text())["sections"])
        yield {"value": 2, "ok": False, "contestant": "gdkernels"}

    fake("limits", limits, monkeypatch)
    fake("contention", contention, monkeypatch)
    monkeypatch.setattr(command.report, "tables", lambda results: iter(["a table"]))
    assert command.main(["--sections", "limits", "contention", "--json", str(path), "--threads", "1"]) == 1
    assert list(seen[0]) == ["limits"] and seen[0]["limits"]["rows"] == [{"value": 1}]
    results = json.loads(path.read_text())
    assert set(results) == {"machine", "options", "sections"} and "numpy" in results["machine"]["versions"]
    assert results["options"]["threads"] == [1]
    said = capsys.readouterr().out
    assert "a table" in said and "1 wrong" in said


def test_compare_and_plot_are_commands_of_their_own(monkeypatch):
    for name in ("compare", "plot"):
        monkeypatch.setitem(command.COMMANDS, name, lambda arguments: arguments)
        assert command.main([name, "old", "new"]) == ["old", "new"]


# ---------------------------------------------------------------------------------------------- record, machine


def test_results_are_named_by_the_device_and_written_whole(tmp_path):
    assert record.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    path = tmp_path / "results" / "gpu.json"
    record.write(path, {"worst": float("inf"), "rows": [1.0]})
    assert json.loads(path.read_text()) == {"worst": "inf", "rows": [1.0]}
    assert [each.name for each in path.parent.iterdir()] == ["gpu.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "cpu.json"
    record.write(path, {"run": 1})
    with pytest.raises(TypeError):
        record.write(path, {"run": object()})
    assert json.loads(path.read_text()) == {"run": 1}


def test_the_machine_is_described():
    facts = machine.facts()
    assert facts["cores"] >= 1 and facts["cpu"] and f"gdkernels {gd.__version__}" in facts["versions"]
    json.dumps(facts)


def test_versions_name_what_is_installed_alone():
    assert machine.versions(["no-such-package"]) == f"gdkernels {gd.__version__}"
