"""Kernels over elements: each element once, whatever the threads of a block, the count and the addresses."""

import numpy as np
import pytest

from gdkernels.scalar.optim import PLAIN
from tests.cuda.mutation import mutant

COUNT = 1031  # two and more blocks of any size, of four elements a thread; three elements are left over
FEW = 64  # threads of a block


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def forward(device, x):
    from gdkernels.cuda import activation

    out = device.put(np.full_like(x, np.nan))
    activation.forward(device.put(x), "relu", out)
    return out


def added(device, x):
    from gdkernels.cuda import norm
    from gdkernels.cuda.runtime.jit import run

    a, b, out = device.put(x), device.put(x[::-1]), device.put(np.full_like(x, np.nan))
    run(norm.add_launches("float32", a.address, b.address, out.address, x.size), out.stream)
    return out


def dropped(device, x):
    from gdkernels.cuda import dropout

    out = device.put(np.full_like(x, np.nan))
    dropout.forward(device.put(x), 0.25, 3, 5, out)
    return out


def stepped(device, x):
    from gdkernels.cuda import optim

    p, g = device.put(x), device.put(np.ones_like(x))
    optim.step(PLAIN, p, g, (), (1.0, 0.5, 0.0, ()))
    return p


def clipped(device, x):
    from gdkernels.cuda import clip

    g = device.put(x)
    clip.clip(0.1, [g])
    return g


def turned(device, x):
    return device.put(x[:1024].reshape(32, 32)).T.copy()


def widened(device, x):
    return device.put((1000 * x).astype(np.int32)).astype(np.int64)


def copied_in_chunks(device, x):
    from gdkernels.cuda import matmul

    out = device.put(np.zeros((103, 8), np.float32), "bfloat16")
    a, b = device.put(x[:1030].reshape(103, 10), "bfloat16"), device.put(np.ones((8, 10)), "bfloat16")
    matmul.matmul(a, b.T, out)
    return out


def kernels_of(run):
    """The kernels that elements are counted off for."""
    from gdkernels.cuda import activation, clip, dropout, norm, optim
    from gdkernels.cuda.gemm import tensorcore
    from gdkernels.cuda.runtime import strided

    return {
        forward: activation.FORWARD["relu"],
        added: norm.add,
        dropped: dropout.drop,
        stepped: optim.UPDATE[PLAIN],
        clipped: clip.clipped,
        turned: (strided.copy_elements,),
        widened: (strided.widen_integers,),
        copied_in_chunks: (tensorcore.pad,),
    }[run]


@pytest.mark.parametrize(
    "run", [forward, added, dropped, stepped, clipped, turned, widened, copied_in_chunks]
)
def test_no_element_is_left_out_if_a_kernel_has_fewer_threads(device, run, rng, monkeypatch):
    """The grid comes from the kernel's own threads; with that of another kernel, elements would be missing."""
    from gdkernels.cuda.runtime.jit import Kernel

    x = rng.standard_normal(COUNT).astype("f4")
    expected = run(device, x).to_numpy()
    for kernel in kernels_of(run):
        monkeypatch.setattr(kernel, "threads", FEW)
        monkeypatch.setattr(kernel, "_by_storage", {})
    np.testing.assert_array_equal(run(device, x).to_numpy(), expected)
    monkeypatch.setattr(Kernel, "grid", lambda kernel, threads: (-(-threads // 256), 1, 1))
    assert not np.array_equal(run(device, x).to_numpy(), expected)


@pytest.mark.parametrize("threads", [64, 512])
def test_sums_are_complete_for_blocks_of_any_size(device, threads):
    """Everything that blocks add up follows from one number."""
    from gdkernels.cuda import rows
    from gdkernels.cuda.runtime.jit import run

    other = mutant(rows, "THREADS = 256", f"THREADS = {threads}")
    strips, n = 19, 37
    partial, sums = device.put(np.ones((strips, n), "f4")), device.put(np.zeros((2, n), "f4"))
    launches = [
        other.add_strips.on(
            "float32", (-(-n // 32), 1, 1), partial=partial.address, first=sums.address, second=0, strips=strips, n=n,
            accumulate=0,
        ),
        *other.sum_launches(None, "float32", partial.address, sums.address + 4 * n, strips * n),
    ]  # fmt: skip
    run(launches, sums.stream)
    found = sums.to_numpy()
    np.testing.assert_array_equal(found[0], np.full(n, strips))
    assert found[1, 0] == strips * n


def test_teams_refuse_a_kernel_whose_blocks_are_of_another_size(monkeypatch):
    softmax = pytest.importorskip(
        "gdkernels.cuda.softmax", reason="numba-cuda is not installed", exc_type=ImportError
    )

    monkeypatch.setattr(softmax.softmax1, "threads", FEW)
    with pytest.raises(AssertionError, match=r"softmax1.* has 64 threads a block, expected 256"):
        softmax.launches("float32", 4, 4, 2, 5, False)
