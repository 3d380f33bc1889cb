"""What docs/in_your_kernels.md shows of `@njit` works."""

import re
import runpy
from pathlib import Path

import numpy as np

TEXT = (Path(__file__).parents[2] / "docs" / "in_your_kernels.md").read_text(encoding="utf-8")


def blocks(number: int) -> list[str]:
    """The code of a part of the page."""
    part = TEXT.partition(f"\n## {number}. ")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", part, re.S)


def test_the_loop_learns(tmp_path):
    (block,) = blocks(2)
    program = tmp_path / "loop.py"
    program.write_text(block, encoding="utf-8")
    assert runpy.run_path(str(program))["loss"] < 0.1


def test_the_code_around_views_runs(tmp_path):
    program = tmp_path / "views.py"
    program.write_text("\n".join(blocks(3)), encoding="utf-8")
    names = runpy.run_path(str(program))
    assert names["trainer"].steps == 100
    assert np.abs(names["net"].predict(names["x"])).max() < 1.0
