"""The examples of device functions run, and what they show is so."""

import pytest

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
