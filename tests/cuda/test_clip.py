"""The global norm on the device and clipping by it, against the reference, the CPU and PyTorch's rules."""

import math

import numpy as np
import pytest

import gdkernels as gd
import reference
from gdkernels.cpu import clip as cpu_clip
from reference import bounds
from reference.rounding import GPU
from tests.cuda.mutation import mutant
from tests.within import assert_within

SHAPES = (3, 5), (4096,), (2 * 4096 + 17,), (), (0, 4), (100, 129), (1,)


def arrays_of(rng, dtype, shapes=SHAPES):
    return [np.array(rng.standard_normal(shape), dtype) for shape in shapes]


# That an element goes through: 16 in a thread, 5 between lanes and 8 between warps, twice (in the second stage fewer).
ADDITIONS = 2 * (16 + 5 + 8)


def assert_norm(found, arrays, dtype):
    assert found.shape == () and found.dtype == dtype
    bound = bounds.global_norm(*arrays, additions=ADDITIONS, on=GPU)
    assert_within(found.to_numpy(), reference.global_norm(*arrays), bound)


def assert_clipped(there, arrays, max_norm):
    _, clipped = reference.clip_by_global_norm(max_norm, *arrays)
    of_norm = bounds.global_norm(*arrays, additions=ADDITIONS, on=GPU).ulps
    allowed = bounds.clip_by_global_norm(max_norm, *arrays, of_norm=of_norm, on=GPU)
    for one, exact, bound in zip(there, clipped, allowed, strict=True):
        assert_within(one.to_numpy(), exact, bound)


@pytest.mark.every_kernel
def test_norm_and_clipping_match_the_reference(device, dtype, rng):
    arrays = arrays_of(rng, dtype)
    there = [device.put(array) for array in arrays]
    norm = gd.global_norm(*there) if dtype == "float32" else None
    before = gd.clip_by_global_norm(1.5, *there)
    assert_norm(as_array(before), arrays, dtype)
    if norm is not None:
        assert as_array(norm).to_numpy().tobytes() == as_array(before).to_numpy().tobytes()
    assert_clipped(there, arrays, 1.5)


def as_array(value):
    """What an operation returned, as `cuda.runtime.arrays.Array`."""
    from gdkernels.cuda.runtime.arrays import read

    return read(value)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 1000, 4095, 4096, 4097])
def test_every_size(device, dtype, count, rng):
    from gdkernels.cuda import clip

    (g,) = arrays_of(rng, dtype, [(count,)])
    there = device.put(g)
    assert_norm(clip.norm([there]), [g], dtype)
    clip.clip(0.5, [there])
    assert_clipped([there], [g], 0.5)


def test_the_bits_do_not_depend_on_the_address(device, dtype, rng):
    """Nor on the call: kernels for four elements and for one sum in the same order."""
    from gdkernels.cuda import clip
    from gdkernels.cuda.runtime import driver

    (g,) = arrays_of(rng, dtype, [(9001,)])
    sums = set()
    for first in (0, 1, 2, 3, 4, 0):
        there = device.put(np.concatenate([np.full(first, np.nan), g]).astype(dtype))
        partial = device.put(np.full(3 * 4, 7.0, dtype))
        place = there.address + first * there.itemsize
        for launch in clip.squares_launches(dtype, place, g.size, partial.address, 4):
            launch.run(there.stream)
        driver.synchronize(there.stream)
        sums.add(partial.to_numpy().tobytes())
    assert len(sums) == 1
    planes = partial.to_numpy().reshape(3, 4)
    assert (planes[:, 3] == 7).all()
    exact = [np.square(part.astype("f8")).sum() for part in np.split(g, [4096, 8192])]
    for plane, scale in zip(planes, (1.0, clip.DOWN, clip.UP), strict=True):
        bound = (16 + 5 + 8 + 1) / 2 * np.finfo(dtype).eps
        with np.errstate(over="ignore", under="ignore"):
            # infinite or 0 in the scales that are not needed
            scaled = (np.array(exact) * scale**2).astype(dtype)
        np.testing.assert_allclose(plane[:3], scaled, rtol=bound)


def test_without_planes_the_plain_sums_are_written_alone(device, rng):
    from gdkernels.cuda import clip
    from gdkernels.cuda.runtime import driver

    (g,) = arrays_of(rng, "float32", [(9001,)])
    there, partial = device.put(g), device.put(np.full(6, 7.0, "f4"))
    assert clip.squares_count(g.size) == 3
    for launch in clip.squares_launches("float32", there.address, g.size, partial.address):
        launch.run(there.stream)
    driver.synchronize(there.stream)
    exact = [np.square(part.astype("f8")).sum() for part in np.split(g, [4096, 8192])]
    np.testing.assert_allclose(partial.to_numpy(), [*exact, 7, 7, 7], rtol=15 * np.finfo("f4").eps)


@pytest.mark.parametrize("size", [1e-45, 3e-42, 1e-30, 2.0**-28, 1e-9, 1e4, 1e18, 1e19, 3e37])
def test_no_square_of_a_float32_overflows_or_vanishes(device, size):
    g = np.full(100, size, np.float32)
    found = as_array(gd.global_norm(device.put(g)))
    assert_norm(found, [g], "float32")


@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0, math.inf, 1e300])
@pytest.mark.parametrize("spoiled_by", [None, math.inf, -math.inf, math.nan])
def test_clipping_is_that_of_the_cpu_also_where_the_norm_is_not_finite(
    device, spoiled_by, max_norm, dtype, rng
):
    from gdkernels.cuda import clip

    arrays = arrays_of(rng, dtype, [(4, 3), (7,)])
    if spoiled_by is not None:
        arrays[1][2] = spoiled_by
    there = [device.put(array) for array in arrays]
    before = float(clip.clip(max_norm, there).to_numpy())
    exact = cpu_clip.clip(max_norm, arrays)
    np.testing.assert_allclose(before, exact, rtol=16 * np.finfo(dtype).eps)
    for one, other in zip(there, arrays, strict=True):
        np.testing.assert_allclose(one.to_numpy(), other, rtol=20 * np.finfo(dtype).eps)


def test_a_short_gradient_is_not_touched(device, rng):
    from gdkernels.cuda import clip

    (g,) = arrays_of(rng, "float32", [(51,)])
    g[0] = -0.0
    for max_norm in (1.01 * reference.global_norm(g) + 1e-5, math.inf):
        there = device.put(g)
        clip.clip(max_norm, [there])
        assert there.to_numpy().tobytes() == g.tobytes()


def test_a_strided_array_is_measured_and_clipped(device, dtype, rng):
    (values,) = arrays_of(rng, dtype, [(13, 21)])
    straight, across = device.put(values), device.put(values.T)
    gd.clip_by_global_norm(0.1, straight)
    norm = gd.clip_by_global_norm(0.1, across.T)
    assert_norm(as_array(norm), [values], dtype)
    assert (straight.to_numpy() == across.to_numpy().T).all()


def test_nothing_has_the_norm_0(device):
    from gdkernels.cuda import clip

    assert clip.norm([device.put(np.zeros((0, 3), "f4"))]).to_numpy() == 0
    assert clip.norm([device.put(np.zeros(9))]).to_numpy() == 0


# ---------------------------------------------------------------------------------------------- mutations


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("if place + lane < count:", "if place + lane < count - 1:", id="tail"),
        pytest.param("for w in range(1, WARPS):", "for w in range(1, WARPS - 1):", id="reduction"),
        pytest.param("fours:\n            g0, g1, g2, g3 = load4(g, 4 * place)\n            sums",
                     "fours - 1:\n            g0, g1, g2, g3 = load4(g, 4 * place)\n            sums", id="mask"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_caught(device, old, new):
    """All elements are needed, those of the last threads too."""
    from gdkernels.cuda import clip

    changed = mutant(clip, old, new)
    g = np.ones(4096 + 4096 - 1, np.float32)
    with pytest.raises(AssertionError):
        assert_norm(changed.norm([device.put(g)]), [g], "float32")


@pytest.mark.parametrize("missing", [False, True])
def test_a_missing_barrier_is_caught(missing):
    """By the race detector, in whatever order the warps run."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda import clip

    module = mutant(clip, "    cuda.syncthreads()\n", "") if missing else clip
    kernel = module.squares4
    emulated = ptxemu.PtxModule(kernel.ptx("float32", (8, 0)), race=True)
    g, partial = np.ones(4096, np.float32), np.zeros(1, np.float32)
    ranges = [(array.ctypes.data, array.nbytes, "array") for array in (g, partial)]
    operands = [g.ctypes.data, partial.ctypes.data, 0, 1024]
    name = f"{kernel.name}_float32"
    for order in ("forward", "reverse"):
        if missing:
            with pytest.raises(ptxemu.PtxError, match="race"):
                emulated.run(name, 1, 256, operands, order=order, ranges=ranges)
        else:
            emulated.run(name, 1, 256, operands, order=order, ranges=ranges)
            assert partial == 4096
