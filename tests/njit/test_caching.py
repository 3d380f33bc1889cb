"""Functions that call operations may be cached: another process loads them, and compiles them again after an upgrade."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gdkernels
from gdkernels import cache

ROOT = Path(gdkernels.__file__).resolve().parents[1]

USER = """
import json
import numpy as np
from numba import njit, prange
import gdkernels as gd

@njit(cache=True)
def step(x, target, w, b, m, v, count):
    a = gd.linear(x, w, b, "relu")
    da = np.empty_like(a)
    loss = gd.mse(a, target, grad=da)
    _, dw, db = gd.linear_backward(da, x, w, a, "relu", need_dx=False)
    gd.adam_step((w, b), (dw, db), m, v, count, 1e-2)
    return loss + gd.global_norm(dw, db)

@njit(cache=True, parallel=True)
def networks(x, w, b, out, fail):
    for i in prange(x.shape[0]):
        h = gd.linear(x[i], w, b, "gelu")
        gd.softmax(h, out[i])
        gd.matmul(out[i], h, trans_b=True)
    return out

rng = np.random.default_rng(0)
x, target, w, b = (rng.standard_normal(shape).astype("f4") for shape in ((8, 4), (8, 5), (4, 5), 5))
m, v = (w * 0, b * 0), (w * 0, b * 0)
given = [one.copy() for one in (w, b)]
losses = [step(x, target, w, b, m, v, count) for count in range(1, 20)]
m, v = (w * 0, b * 0), (w * 0, b * 0)
expected = [step.py_func(x, target, *given, m, v, count) for count in range(1, 20)]

many = rng.standard_normal((400, 6, 4)).astype("f4")
serial = np.stack([gd.softmax(gd.linear(one, w, b, "gelu")) for one in many])
same = all(
    np.array_equal(networks(many, w, b, np.zeros((400, 6, 5), "f4"), False), serial) for _ in range(20)
)
hits = [sum(one.stats.cache_hits.values()) for one in (step, networks)]
print(json.dumps({"hits": hits, "step": losses == expected, "networks": same, "at": gd.__file__, "loss": losses[-1]}))
"""


def run(folder, packages=ROOT, **environment):
    """What a fresh interpreter says of the user's program."""
    (folder / "user.py").touch() if (folder / "user.py").exists() else (folder / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", folder / "user.py"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(packages), "NUMBA_CACHE_DIR": "", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_process_loads_what_was_compiled_and_it_is_right_in_parallel_loops(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    first, second = run(tmp_path), run(tmp_path)
    assert first["hits"] == [0, 0]
    assert second["hits"] == [1, 1]
    for found in (first, second):
        assert found["step"] and found["networks"]
    assert first["loss"] == second["loss"]


@pytest.mark.slow
def test_another_version_of_the_package_compiles_what_an_older_one_did(tmp_path):
    package, kernels = tmp_path / "packages" / "gdkernels", tmp_path / "kernels"
    shutil.copytree(ROOT / "gdkernels", package, ignore=shutil.ignore_patterns("__pycache__"))
    # A copy has the same fingerprint: it finds the kernels, which it must not take away from this version.
    shutil.copytree(cache.folder(), kernels, copy_function=os.link)
    (tmp_path / "user.py").write_text(USER)
    settings = {"packages": package.parent, "GDKERNELS_CACHE_DIR": str(kernels)}
    assert [run(tmp_path, **settings)["hits"] for _ in range(2)] == [[0, 0], [1, 1]]
    (package / "ops" / "softmax.py").touch()
    after, again = run(tmp_path, **settings), run(tmp_path, **settings)
    assert after["at"] == str(package / "__init__.py")
    assert after["hits"] == [0, 0]
    assert again["hits"] == [1, 1]
    for found in (after, again):
        assert found["step"] and found["networks"]
