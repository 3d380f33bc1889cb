"""What is made of results: tables, pictures, and the comparison of two runs. No measurement is made here."""

import copy
import json
import subprocess
import sys

import pytest

from bench import compare, record, report

from .made_up import around, results


def table(title: str, found: dict) -> list[str]:
    """The lines of one table."""
    lines = list(report.tables(found))
    start = lines.index(f"== {title}") + 1
    return lines[start : lines.index("", start) if "" in lines[start:] else None]


def row(found: dict, section: str, **wanted) -> dict:
    return next(
        each
        for each in found["sections"][section]["rows"]
        if all(each[key] == value for key, value in wanted.items())
    )


# ---------------------------------------------------------------------------------------------- tables


def test_training_has_a_line_for_each_case_threads_and_contestant():
    found = results()
    lines = table("training, line by line", found)
    assert len(lines) == 1 + len(found["sections"]["training"]["rows"])
    assert lines[3].split() == [
        "a",
        "1T",
        "torch",
        "eager",
        "80.0",
        "-2",
        "+2",
        "%",
        "4.00",
        "18",
        "%",
        "right",
        "1",
    ]


def test_the_summary_names_the_best_peer_and_the_limit():
    assert table("training, case by case", results())[1].split() == [
        "a", "1T", "20.0", "jax", "scan", "1.60", "4.00", "70", "%", "right"
    ]  # fmt: skip


def test_a_wrong_peer_is_marked_and_never_the_best():
    found = results()
    row(found, "training", case="a", threads=1, contestant="jax scan").update(ok=False, error=0.5)
    assert "jax jit" in table("training, case by case", found)[1]
    (line,) = [line for line in table("training, line by line", found) if "WRONG" in line]
    assert "jax scan" in line and "WRONG: 0.5, 0.0001 allowed" in line


def test_a_case_without_peers_has_dashes():
    found = results()
    rows = found["sections"]["training"]["rows"]
    found["sections"]["training"]["rows"] = [each for each in rows if each["contestant"] == "gdkernels"]
    assert table("training, case by case", found)[1].split() == [
        "a",
        "1T",
        "20.0",
        "–",
        "–",
        "–",
        "70",
        "%",
        "right",
    ]


def test_a_call_from_python_has_its_line_only_where_it_costs_something():
    found = results()
    assert not any("from Python" in line for line in table("kernels, line by line", found))
    row(found, "kernels", contestant="gdkernels from Python", kernel="relu", threads=1)["rate"] = around(40.0)
    (line,) = [line for line in table("kernels, line by line", found) if "from Python" in line]
    assert "40.0 GB/s" in line


def test_the_kernels_furthest_below_their_limit_come_first():
    found = results()
    row(found, "kernels", contestant="gdkernels", kernel="relu", threads=2, form="in cache")[
        "share_of_limit"
    ] = around(0.2)
    assert table("kernels, shape by shape", found)[1].startswith("relu")


def test_calls_tell_both_peers_and_whether_ours_is_slower():
    *lines, last = table("calls from Python", results())[1:]
    assert last == "slower than the better of both: 0 of 2 calls"
    assert [line.split() for line in lines] == [
        ["softmax", "1×10", "given", "1T", "2.00", "6.00", "1.60", "3.00", "0.80", "no,", "within", "0.7", "µs", "1.20"],
        ["softmax", "32×10", "given", "1T", "2.00", "6.00", "3.00", "3.00", "1.50", "no", "1.20"],
    ]  # fmt: skip


def test_a_call_that_is_slower_or_wrong_is_marked():
    found = results()
    row(found, "calls", operation="softmax", contestant="gdkernels").update(slower=True, always=True)
    row(found, "calls", operation="softmax", contestant="numpy").update(ok=False)
    *lines, last = table("calls from Python", found)
    (line,) = [line for line in lines if "SLOWER" in line]
    assert line.endswith("WRONG: numpy") and last.endswith("1 of 2 calls")


def test_the_loop_of_the_readme_has_a_line_for_each_case():
    assert table("the README's loop", results())[1].split() == [
        "a", "1T", "40.0", "120.0", "300.0", "3.00", "7.50", "right"
    ]  # fmt: skip


def test_growth_tells_ours_beside_the_best_peer():
    assert table("growth", results())[1].split() == [
        "batch", "8", "2T", "13.0", "jax", "scan", "20.8", "1.60", "right"
    ]  # fmt: skip


def test_limits_have_a_column_for_each_working_set():
    lines = table("limits of the machine", results())
    assert lines[0].split() == ["limit", "16", "KiB", "262144", "KiB"]
    assert lines[1].split() == ["fma", "1T", "GFLOP/s", "100.0"]
    assert lines[4].split() == ["copy", "2T", "GB/s", "180.0", "40.0"]


def test_contention_tells_what_is_left():
    assert table("a busy machine", results())[1].split() == [
        "a", "2T", "gdkernels", "50000.0", "20000.0", "-30", "+30", "%", "40", "%"
    ]  # fmt: skip


def test_costs_tell_what_has_moved():
    lines = [line.split() for line in table("costs of operations", results())[1:]]
    assert lines == [["softmax", "0.800", "0.400", "0.200", "..", "0.600", "0.50"],
                     ["mse", "0.200", "0.500", "2.50", "moved"]]  # fmt: skip


def test_sections_that_were_not_run_have_no_table():
    found = results()
    found["sections"] = {"training": found["sections"]["training"]}
    assert [line for line in report.tables(found) if line.startswith("==")] == [
        "== training, line by line", "== training, case by case"
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- comparison


def changes(old: dict, new: dict) -> dict[str, compare.Change]:
    return {change.name: change for change in compare.compare(old, new)}


def test_the_same_results_hold_no_change():
    found = changes(results(), results())
    assert found and not any(change.slower or change.faster for change in found.values())


def test_a_slower_machine_is_no_change():
    """Everything takes twice as long, also what the limit measures: shares and ratios stay."""
    new = results()
    for section in ("training", "growth"):
        for each in new["sections"][section]["rows"]:
            each["steps_per_second"] = {name: value / 2 for name, value in each["steps_per_second"].items()}
    for each in new["sections"]["kernels"]["rows"]:
        each["rate"] = {name: value / 2 for name, value in each["rate"].items()}
    found = changes(results(), new)
    moved = [change for change in found.values() if change.slower or change.faster]
    # In growth it has neither limit nor ratio.
    assert all("gdkernels step" in change.name for change in moved)


def test_ours_slower_by_its_share_of_the_limit():
    new = results()
    row(new, "training", case="b", threads=1, contestant="gdkernels")["share_of_limit"] = around(0.6)
    change = changes(results(), new)["training b 1 gdkernels"]
    assert change.slower and change.by == "the limit" and change.factor == pytest.approx(0.6 / 0.7)


def test_without_a_limit_a_peer_of_the_same_rounds_is_the_measure():
    old, new = results(), results()
    for found in (old, new):
        for each in found["sections"]["training"]["rows"]:
            del each["share_of_limit"]
    row(new, "training", case="b", threads=1, contestant="torch eager")["ratio"] = around(5.0, 0.001)
    row(old, "training", case="b", threads=1, contestant="torch eager")["ratio"] = around(4.0, 0.001)
    change = changes(old, new)["training b 1 gdkernels"]
    assert change.faster and change.by == "torch eager" and change.factor == pytest.approx(1.25)


def test_what_lies_within_the_spreads_does_not_count():
    new = results()
    row(new, "training", case="b", threads=1, contestant="gdkernels")["share_of_limit"] = around(0.6, 0.2)
    assert not changes(results(), new)["training b 1 gdkernels"].slower


def test_a_small_change_does_not_count_however_sure():
    old, new = results(), results()
    for found, share in ((old, 0.70), (new, 0.68)):
        row(found, "training", case="b", threads=1, contestant="gdkernels")["share_of_limit"] = around(
            share, 1e-4
        )
    assert not changes(old, new)["training b 1 gdkernels"].slower


def test_memory_and_start_are_better_where_they_are_smaller():
    new = results()
    row(new, "startup", what="import")["seconds"] = around(0.2)
    row(new, "startup", what="installed size")["bytes"] = around(3e8, 0)
    found = changes(results(), new)
    assert found["startup import gdkernels"].faster
    assert found["startup installed size gdkernels"].slower


def test_a_call_is_compared_by_its_peers():
    """And the loop alone, which is nobody's, not at all."""
    new = results()
    for each in new["sections"]["calls"]["rows"]:
        if each["contestant"] in ("numpy", "torch") and each.get("shape") == [32, 10]:
            each["ratio"] = around(each["ratio"]["median"] / 2)
    found = changes(results(), new)
    assert {name for name in found if name.startswith("calls")} == {
        "calls softmax 1×10 given 1 gdkernels", "calls softmax 32×10 given 1 gdkernels", "calls a 1 gdkernels"
    }  # fmt: skip
    assert [change.slower for name, change in found.items() if "32×10" in name] == [True]


def test_a_time_that_was_taken_once_is_not_compared():
    new = results()
    row(new, "startup", what="import").update(seconds=around(0.2), repeats=1)
    assert "startup import gdkernels" not in changes(results(), new)


def write(path, found) -> str:
    record.write(path, found)
    return str(path)


def test_the_exit_status_tells_whether_ours_got_slower(tmp_path, capsys):
    old, new = write(tmp_path / "old.json", results()), copy.deepcopy(results())
    row(new, "training", case="c", threads=2, contestant="gdkernels")["share_of_limit"] = around(0.3)
    assert compare.main([old, old]) == 0
    assert compare.main([old, write(tmp_path / "new.json", new)]) == 1
    assert "slower  training c 2 gdkernels" in capsys.readouterr().out
    assert compare.main([old, str(tmp_path / "new.json"), "--threshold", "2"]) == 0


def test_a_result_that_became_wrong_is_slower_than_any(tmp_path):
    new = results()
    row(new, "kernels", contestant="gdkernels", kernel="relu", threads=1).update(ok=False)
    paths = [write(tmp_path / name, found) for name, found in (("old.json", results()), ("new.json", new))]
    assert compare.main(paths) == 1
    assert "WRONG NOW" in next(compare.lines(compare.compare(results(), new)))


@pytest.mark.parametrize(
    "text, why",
    [(None, "No such file"), ("{", "is not JSON"), ("[]", "no sections"), ('{"sections": 3}', "no sections")],
)
def test_a_file_without_results_is_refused_in_words(text, why, tmp_path, capsys):
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert compare.main([str(path), str(path)]) == 2
    assert why in capsys.readouterr().err


def test_results_with_nothing_in_common_are_refused(tmp_path, capsys):
    empty = {"sections": {"training": {"rows": []}}}
    assert compare.main([write(tmp_path / "a.json", results()), write(tmp_path / "b.json", empty)]) == 2
    assert "no row of ours in common" in capsys.readouterr().err


def test_compare_is_a_command(tmp_path):
    old = write(tmp_path / "old.json", results())
    done = subprocess.run(
        [sys.executable, "-m", "bench", "compare", old, old], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "as they were" in done.stdout


# ---------------------------------------------------------------------------------------------- pictures


def test_pictures_are_drawn_from_a_file_alone(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from bench import plots

    path = tmp_path / "run.json"
    assert plots.main([write(path, results())]) == 0
    drawn = sorted(each.name for each in tmp_path.glob("*.png"))
    assert drawn == [
        "run-calls.png",
        "run-growth.png",
        "run-roofline-products.png",
        "run-roofline.png",
        "run-training.png",
    ]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    assert capsys.readouterr().out.split() == [str(tmp_path / f"run-{name}.png") for name in
                                               ("roofline", "roofline-products", "calls", "training", "growth")]  # fmt: skip


def test_only_what_was_measured_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from bench import plots

    found = json.loads(json.dumps(results()))
    found["sections"] = {"training": found["sections"]["training"]}
    assert [path.name for path in plots.write(found, tmp_path / "run")] == ["run-training.png"]


def test_names_in_the_roofline_do_not_overlap():
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    from bench import plots

    figure = dict(plots.figures(results()))["roofline-products"]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]  # without their lines
    assert len(boxes) == 36
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])


@pytest.mark.parametrize(
    "seconds, text", [(2.5, "2.50 s"), (0.0345, "34.5 ms"), (2.1e-4, "210 µs"), (9e-6, "9.00 µs")]
)
def test_durations_have_three_digits(seconds, text):
    from bench import plots

    assert plots._duration(seconds) == text
