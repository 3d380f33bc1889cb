"""Arrays of the device, whoever owns them: what goes in, what comes out, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gdkernels as gd

ROOT = Path(__file__).resolve().parents[2]


class Interface:
    """An array of a library that nobody has heard of, which speaks ``__cuda_array_interface__``."""

    def __init__(self, array):
        self.memory = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "version": 3,
            "data": (array.address, False), "stream": None,
        }  # fmt: skip


class Capsule:
    """An array that speaks DLPack alone."""

    def __init__(self, array):
        self.memory = array

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, stream=None, **options):
        from tests.cuda.dlpack import capsule

        return capsule(self.memory)


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def test_results_are_of_the_kind_of_the_first_input(device):
    x = values(4, 5)
    own = device.put(x).owner
    assert type(gd.activation(own, "relu")) is type(own)
    foreign = Interface(device.put(x))
    for result in (gd.activation(foreign, "relu"), gd.activation(Capsule(device.put(x)), "relu")):
        np.testing.assert_array_equal(gd.cuda.to_numpy(result), np.maximum(x, 0))


def test_rows_and_whole_arrays_can_be_set_whatever_their_strides(device):
    x, expected = values(5, 4), np.zeros((9, 8), "f4")
    whole = device.put(expected)
    whole[2:7] = device.put(np.zeros((5, 8), "f4"))  # contiguous
    rows = whole.T[2:6]  # columns of the whole
    rows[1:3] = device.put(values(2, 9))
    expected[:, 3:5] = values(2, 9).T
    np.testing.assert_array_equal(whole.to_numpy(), expected)
    rows[...] = device.put(np.zeros((4, 9), "f4"))
    assert not whole.to_numpy().any()
    whole[2:7].T[:4] = device.put(x.T.copy())
    np.testing.assert_array_equal(whole.to_numpy()[2:7, :4], x)


def test_dlpack_keeps_shape_strides_and_bfloat16(device):
    x = values(6, 4)
    for storage in ("float32", "bfloat16"):
        array = device.put(x, storage)
        result = gd.activation(Capsule(array.T), "identity")
        np.testing.assert_array_equal(gd.cuda.to_numpy(result), array.to_numpy().T)


def test_what_receives_a_result_is_returned_itself(device):
    x, out = Capsule(device.put(values(4, 5))), Capsule(device.put(values(4, 5)))
    assert gd.activation(x, "relu", out=out) is out
    other = Interface(device.put(values(4, 5)))
    assert gd.activation(x, "tanh", out=other) is other


def test_bfloat16_of_numpy_goes_to_the_device(device):
    import ml_dtypes

    x = values(3, 4).astype(ml_dtypes.bfloat16)
    there = gd.cuda.to_device(x)
    np.testing.assert_array_equal(gd.cuda.to_numpy(there), x.astype("f4"))
    assert gd.cuda.to_numpy(gd.matmul(there, there, trans_b=True)).shape == (3, 3)
    with pytest.raises(TypeError, match=r"to_device: values is of type list, expected a NumPy array"):
        gd.cuda.to_device([1.0])
    with pytest.raises(TypeError, match=r"to_numpy: array is of type ndarray, expected an array on the GPU"):
        gd.cuda.to_numpy(x)


def test_scalars_of_results_stay_on_the_device(device):
    x, y = device.put(values(4, 5)).owner, device.put(values(4, 5) + 1).owner
    loss = gd.mse(x, y)
    assert loss.shape == () and hasattr(loss, "__cuda_array_interface__")
    assert float(gd.cuda.to_numpy(loss)) == pytest.approx(1.0, rel=1e-6)
    norm = gd.global_norm(x, y)
    assert norm.shape == () and hasattr(norm, "__cuda_array_interface__")


def test_mixed_arguments_are_refused_by_name(device):
    x, w = values(4, 5), values(5, 3)
    on_gpu = device.put(w).owner
    with pytest.raises(
        TypeError, match="linear: w on the GPU but x in NumPy, expected all arrays on one device"
    ):
        gd.linear(x, on_gpu)
    with pytest.raises(TypeError, match="linear: x on the GPU but w in NumPy"):
        gd.linear(device.put(x).owner, w)
    p = device.put(x)
    with pytest.raises(TypeError, match="adam_step: p on the GPU but g and m and v in NumPy"):
        gd.adam_step(p.owner, x, x, x, 1, 0.1)
    np.testing.assert_array_equal(p.to_numpy(), x)


def test_errors_come_before_anything_is_written(device):
    x, w = device.put(values(4, 5)).owner, device.put(values(6, 3)).owner
    out = device.put(np.full((4, 3), 7.0, "f4"))
    with pytest.raises(ValueError, match=r"linear: w has shape \(6, 3\), expected \(5, n\)"):
        gd.linear(x, w, out=out.owner)
    with pytest.raises(TypeError, match="linear: w has dtype float64, expected float32"):
        gd.linear(x, device.put(values(5, 3).astype("f8")).owner, out=out.owner)
    with pytest.raises(ValueError, match="matmul: out overlaps another argument"):
        square = device.put(values(4, 4)).owner
        gd.matmul(square, square, out=square)
    with pytest.raises(TypeError, match="mse: pred has dtype float16, expected float32 or float64"):
        half = device.put(values(2, 2), "float16").owner
        gd.mse(half, half)
    logits, labels = device.put(values(4, 3)).owner, device.put(np.array([0, 2, 5, 1])).owner
    with pytest.raises(
        ValueError, match=r"softmax_cross_entropy: target\[2\] is 5, expected a class in \[0, 3\)"
    ):
        gd.softmax_cross_entropy(logits, labels, grad=out.owner)
    assert (out.to_numpy() == 7.0).all()


def test_views_that_do_not_overlap_are_told_from_those_that_do(device):
    x = device.put(values(4, 10)).owner
    even, odd = x[:, ::2], x[:, 1::2]
    gd.activation(even, "relu", out=odd)
    with pytest.raises(ValueError, match="activation: out partly overlaps an input"):
        gd.activation(x[:, :5], "relu", out=x[:, 2:7])


def test_strided_copies_of_many_axes(device):
    x = values(2, 3, 4, 5)
    array = device.put(x).T
    np.testing.assert_array_equal(array.copy().to_numpy(), x.T)
    seven = device.put(values(2, 1, 2, 1, 2, 1, 2)).T
    with pytest.raises(ValueError, match="expected at most 6 axes"):
        seven.copy()


PROGRAM = """
import numpy as np, gdkernels as gd
{}
"""


def said_by(body: str, **variables: str) -> str:
    """The last line that a program writes on the emulator with these variables."""
    done = subprocess.run(
        [str(ROOT / "tools/ptxemu/run"), sys.executable, "-c", PROGRAM.format(body)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, **variables},
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1]


@pytest.fixture
def emulator(device):
    if "PTXEMU_BUILD" not in os.environ:
        pytest.skip("a real GPU: its memory and its driver cannot be set")


def test_a_full_device_is_named_with_what_was_wanted(emulator):
    said = said_by("gd.cuda.to_device(np.zeros((1024, 1024, 5), 'f4'))", PTXEMU_MEMORY=str(2**24))
    assert said.startswith(
        "MemoryError: gdkernels: an array of shape (1024, 1024, 5) needs 20.0 MiB on the GPU"
    )


def test_a_network_without_room_stays_where_it_was(emulator):
    said = said_by(
        "net = gd.mlp([1000, 4000, 10])\n"
        "try: net.to('cuda')\n"
        "except MemoryError as error: print(net.device, net.forward(np.zeros((2, 1000), 'f4')).shape, error)",
        PTXEMU_MEMORY=str(2**24),
    )
    assert said.startswith("cpu (2, 10) gdkernels: an array of shape")


def test_a_driver_that_is_too_old_says_so(emulator):
    said = said_by("gd.activation(gd.cuda.to_device(np.zeros(4, 'f4')), 'relu')", PTXEMU_DRIVER="11040")
    assert "driver" in said and "11.4" in said and "pip install" in said
