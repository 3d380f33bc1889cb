"""What docs/in_your_kernels_njit.md shows works."""

import re
import runpy
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "in_your_kernels_njit.md").read_text(encoding="utf-8")


def test_the_loop_learns(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    program = tmp_path / "loop.py"
    program.write_text(block, encoding="utf-8")
    assert runpy.run_path(str(program))["loss"] < 0.1
