"""The examples of device functions run, and what they show is so."""

import re
from pathlib import Path

import numpy as np
import pytest

import gdkernels as gd

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("numba.cuda", reason="device functions need numba-cuda")
pytestmark = pytest.mark.filterwarnings("ignore:Grid size")


@pytest.mark.every_kernel
def test_every_thread_evaluates(device, capsys):
    """The kernel's sums are those of net.predict over the same samples; the network is near the formula."""
    from examples.every_thread_evaluates import THREADS, main

    found = main(blocks=4, draws=3, epochs=20)
    assert abs(found["kernel"] - found["network"]) <= 1e-5 * found["network"]
    # a sample may lie so near the alarm that its last bits decide
    assert abs(found["risk"] - found["risk by network"]) <= 1 / (4 * 3 * THREADS)
    assert found["error"] < 0.05 and abs(found["network"] - found["formula"]) < 0.01 * found["formula"]
    assert "net.predict" in capsys.readouterr().out


@pytest.mark.every_kernel
def test_every_block_trains(device, capsys):
    """One of the rates learns the wines, and a Trainer takes the same way."""
    pytest.importorskip("sklearn", reason="the wines come with scikit-learn")
    from examples.every_block_trains import RATES, main

    found = main(seeds=1, epochs=6)
    assert found["best"] >= 0.8
    assert found["difference"] <= 1e-5
    assert len(capsys.readouterr().out.splitlines()) == len(RATES) + 3


def test_the_code_of_the_documentation_runs(device, tmp_path, capsys):
    """Its pieces, one after the other; the last training takes the way of a Trainer."""
    text = (ROOT / "docs/in_your_kernels.md").read_text(encoding="utf-8").partition("\n## 4. ")[2]
    rng, names = np.random.default_rng(0), {}

    def put(*shape):
        return device.put(rng.standard_normal(shape).astype("f4")).owner

    net = gd.mlp([13, 16, 3], "tanh")
    x, target = (rng.standard_normal((320, n)).astype("f4") for n in (13, 3))
    flat = device.put(np.stack([net.flat] * 2))
    given = (
        {},
        {},
        {
            "x": rng.standard_normal((64, 4)).astype("f4"),
            "y": rng.standard_normal((64, 2)).astype("f4"),
            "state": put(50, 4),
            "blocks": 1,
        },
        {
            "x": device.put(x).owner,
            "target": device.put(target).owner,
            "flat": flat.owner,
            "steps": 10,
            "networks": 2,
        },
        {},
    )
    pieces = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for number, (piece, variables) in enumerate(zip(pieces, given, strict=True)):
        file = tmp_path / f"piece{number}.py"
        file.write_text(piece)
        if number == len(pieces) - 1:
            trained = flat.to_numpy()
        names |= variables
        exec(compile(piece, str(file), "exec"), names)
    trainer = gd.Trainer(net, "mse", gd.Adam(lr=1e-3))
    for start in range(0, 320, 32):
        trainer.step(x[start : start + 32], target[start : start + 32])
    assert np.abs(trained - net.flat).max() <= 1e-6
