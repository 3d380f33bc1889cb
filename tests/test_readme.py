"""What the README shows works."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_quick_start_is_two_commands_of_one_line():
    section = README.partition("## Quick start")[2].partition("\n## ")[0]
    commands = re.findall(r"```\n(.*?)\n```", section, re.S)
    assert len(commands) == 2 and all("\n" not in command for command in commands)
    assert commands[0].endswith("gdkernels train digits")
    assert commands[1].endswith("-m pytest")


def test_the_loops_learn(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    names: dict = {}
    for number, block in enumerate(blocks):
        path = tmp_path / f"block_{number}.py"  # Numba keeps what it compiles beside the source
        path.write_text(block)
        exec(compile(block, str(path), "exec"), names)
    assert names["loss"] < 0.1
    assert names["trainer"].evaluate(names["x"], names["labels"])["accuracy"] > 0.98
    assert np.diff(names["history"].loss[[0, -1]])[0] < 0
