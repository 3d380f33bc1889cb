"""The matrix product on tensor cores, held against float64 products of the operands as the tensor cores read them."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.cuda.mutation import mutant

STORAGES = ("bfloat16", "float16", "float32")  # float32 is multiplied as tf32
SHAPES = ((1, 1, 1), (5, 3, 2), (129, 65, 33), (33, 17, 1000), (128, 128, 64))  # m, n, k
BITS = {"bfloat16": 8, "float16": 11, "float32": 24}  # of a significand


class Laid(NamedTuple):
    """A matrix in memory of the device, among NaN."""

    array: Any
    address: int
    stride: int
    stride_column: int
    read: np.ndarray  # as the tensor cores read it, in float64


def to_tf32(x):
    """float32 to 10 bits behind the point, ties away from zero; Inf and NaN stay."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = ((bits + 0x1000) & 0xFFFFE000).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def lay(device, values, storage, transposed=False, start=0, gap=0, step=1):
    """Put a matrix `start` elements behind an aligned address, with `gap` elements between its rows (its columns, if it is
    transposed), taking every `step`-th."""
    rows = np.asarray(values.T if transposed else values, np.float32)
    count, length = rows.shape
    ld = length * step + gap
    memory = np.full(start + count * ld + 64, np.nan, np.float32)
    memory[start : start + count * ld].reshape(count, ld)[:, : length * step : step] = rows
    array = device.put(memory, storage)
    held = array.to_numpy().astype(np.float64)
    kept = held[start : start + count * ld].reshape(count, ld)[:, : length * step : step]
    read = to_tf32(kept).astype(np.float64) if storage == "float32" else kept
    strides = (step, ld) if transposed else (ld, step)
    return Laid(array, array.address + start * array.itemsize, *strides, read.T if transposed else read)


def frame(device, values, storage, gap):
    """`values` in an array whose rows are `gap` longer, and 7 wherever nothing may be written."""
    framed = np.full((values.shape[0] + 1, values.shape[1] + gap), 7.0, np.float32)
    framed[:-1, : values.shape[1]] = values
    return device.put(framed, storage)


def multiply(device, storage, a, b, before=None, gap=0, z_wanted=False, out_storage=None, **tail):
    """(out, z) of the tensor cores, as float64. `before` is what `out` holds; nothing beyond it may change."""
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore
    from gdkernels.cuda.runtime.jit import run

    (m, k), n = a.read.shape, b.read.shape[1]
    empty = np.full((m, n), np.nan, np.float32)
    out = frame(device, empty if before is None else before, out_storage or storage, gap)
    z = frame(device, empty, storage, gap)
    rows = z.address if z_wanted else 0
    launches = gemm_tensorcore.launches(
        out.workspace, storage, m=m, n=n, k=k, a=a.address, rsa=a.stride, csa=a.stride_column, b=b.address, rsb=b.stride,
        csb=b.stride_column, out=out.address, ldo=n + gap, out_storage=out_storage, z=rows, **tail,
    )  # fmt: skip
    run(launches, out.stream)
    results = [array.to_numpy().astype(np.float64) for array in (out, z)]
    for framed in results:
        assert (framed[:-1, n:] == 7).all() and (framed[-1] == 7).all()
    return results[0][:-1, :n], results[1][:-1, :n]


def assert_product(result, exact, a, b, storage):
    """A tensor core adds products to a sum at the exponent of the largest, and cuts off what is below 24 bits: at most
    2⁻²³ for each product, and as much for the sum of each few of them. The result is rounded to its storage."""
    k = a.shape[1]
    half_ulp = np.ldexp(np.abs(exact), -BITS[storage]) + (2.0**-25 if storage == "float16" else 2.0**-134)
    bound = 4 * (k + 2) * 2.0**-24 * (np.abs(a) @ np.abs(b) + np.abs(exact)) + half_ulp
    assert (np.abs(result - exact) <= bound).all()


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def tile(monkeypatch):
    """Take this tile and this many parts for all products."""
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore
    from gdkernels.cuda.gemm import tiling as gemm_tiling

    def take(number, parts=1):
        def choose(tiles, m, n, k, size, processors, speed):
            span = -(-k // (parts * tiles[number].depth)) * tiles[number].depth
            return gemm_tiling.Tiling(tiles[number], -(-k // span), span)

        monkeypatch.setattr(gemm_tensorcore, "choose", choose)

    return take


LARGE, SMALL = 0, 1
# Every way from memory to the tensor cores: each operand along k and across it, for both sizes of elements and both tiles.
KERNELS = [
    *((storage, form, SMALL) for storage in ("bfloat16", "float32") for form in ("nn", "nt", "tn", "tt")),
    ("bfloat16", "nn", LARGE), ("bfloat16", "tt", LARGE), ("float32", "nt", LARGE), ("float32", "tn", LARGE),
    ("float16", "nn", SMALL),
]  # fmt: skip


@pytest.mark.every_kernel
@pytest.mark.parametrize(("storage", "form", "number"), KERNELS)
def test_each_kernel_among_nan(device, rng, storage, form, number, tile):
    """Rows, columns and k end within a tile; what lies around the operands is NaN, and does not leak."""
    tile(number)
    m, n, k = (136, 72, 104) if number == SMALL else (136, 152, 72)
    a = lay(device, random(rng, m, k), storage, form[0] == "t", gap=8)
    b = lay(device, random(rng, k, n), storage, form[1] == "t", gap=16)
    gap = 3 if storage == "float32" else 4  # results element by element, or by fours
    result, _ = multiply(device, storage, a, b, gap=gap)
    assert_product(result, a.read @ b.read, a.read, b.read, storage)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_product(device, rng, storage, m, n, k):
    a, b = lay(device, random(rng, m, k), storage), lay(device, random(rng, k, n), storage)
    first, _ = multiply(device, storage, a, b)
    again, _ = multiply(device, storage, a, b)
    assert_product(first, a.read @ b.read, a.read, b.read, storage)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"gap": 1}, id="odd-rows"),
        pytest.param({"start": 1, "gap": 3}, id="misaligned"),
        pytest.param({"step": 2}, id="strided"),
        pytest.param({"transposed": True, "step": 3, "gap": 1}, id="strided-transposed"),
    ],
)
def test_any_strides(device, rng, storage, how):
    a = lay(device, random(rng, 40, 24), storage, **how)
    b = lay(device, random(rng, 24, 48), storage, **how)
    result, _ = multiply(device, storage, a, b)
    assert_product(result, a.read @ b.read, a.read, b.read, storage)


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
def test_negative_and_zero_strides(device, rng, storage):
    a, b = lay(device, random(rng, 40, 24), storage), lay(device, random(rng, 24, 48), storage)
    last = a.address + 39 * 24 * a.array.itemsize
    upside_down = a._replace(address=last, stride=-a.stride, read=a.read[::-1])
    result, _ = multiply(device, storage, upside_down, b)
    assert_product(result, upside_down.read @ b.read, upside_down.read, b.read, storage)
    repeated = b._replace(stride=0, read=np.repeat(b.read[:1], 24, axis=0))
    result, _ = multiply(device, storage, a, repeated)
    assert_product(result, a.read @ repeated.read, a.read, repeated.read, storage)


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
@pytest.mark.parametrize("n", [48, 47])  # rows by fours, and element by element
def test_epilogue(device, rng, storage, n):
    """out = silu(A @ B + bias + add), and z before the activation."""
    a, b = lay(device, random(rng, 40, 24), storage), lay(device, random(rng, 24, n), storage)
    bias, add = device.put(random(rng, n), storage), device.put(random(rng, 40, n), storage)
    rest = {"bias": bias.address, "add": add.address, "ldadd": n}
    result, z = multiply(device, storage, a, b, gap=4, z_wanted=True, activation="silu", **rest)
    exact = a.read @ b.read + bias.to_numpy() + add.to_numpy()
    assert_product(z, exact, a.read, b.read, storage)
    assert_product(result, exact / (1 + np.exp(-exact)), a.read, b.read, storage)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("storage", "out_storage"), [("bfloat16", "float32"), ("float16", None), ("float32", None)]
)
def test_gradient_of_weights(device, rng, storage, out_storage, parts, tile):
    """dW += Xᵀ @ dZ, in parts along the batch and in float32."""
    tile(SMALL, parts)
    x, dz = lay(device, random(rng, 200, 40), storage), lay(device, random(rng, 200, 24), storage)
    xt = x._replace(stride=1, stride_column=x.stride, read=x.read.T)
    before = device.put(random(rng, 40, 24), out_storage or storage).to_numpy()
    result, _ = multiply(device, storage, xt, dz, before, out_storage=out_storage, accumulate=True)
    again, _ = multiply(device, storage, xt, dz, before, out_storage=out_storage, accumulate=True)
    exact = before.astype(np.float64) + xt.read @ dz.read
    assert_product(result, exact, xt.read, dz.read, out_storage or storage)
    np.testing.assert_array_equal(result, again)


def test_parts_with_an_epilogue(device, rng, tile):
    tile(SMALL, 2)
    a, b = lay(device, random(rng, 24, 100), "bfloat16"), lay(device, random(rng, 100, 17), "bfloat16")
    bias = device.put(random(rng, 17), "bfloat16")
    result, z = multiply(device, "bfloat16", a, b, z_wanted=True, activation="silu", bias=bias.address)
    exact = a.read @ b.read + bias.to_numpy()
    assert_product(z, exact, a.read, b.read, "bfloat16")
    assert_product(result, exact / (1 + np.exp(-exact)), a.read, b.read, "bfloat16")


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
def test_nothing_to_add_up(device, rng, storage):
    """k = 0: out is silu(bias), or stays under accumulate."""
    a, b = lay(device, np.zeros((40, 0)), storage), lay(device, np.zeros((0, 48)), storage)
    bias = device.put(random(rng, 48), storage)
    result, _ = multiply(device, storage, a, b, activation="silu", bias=bias.address)
    exact = np.broadcast_to(bias.to_numpy().astype(np.float64), (40, 48))
    assert_product(result, exact / (1 + np.exp(-exact)), a.read, b.read, storage)
    before = device.put(random(rng, 40, 48), storage).to_numpy()
    result, _ = multiply(device, storage, a, b, before, accumulate=True)
    np.testing.assert_array_equal(result, before)


@pytest.mark.parametrize(("m", "n"), [(0, 8), (8, 0), (0, 0)])
def test_empty(device, m, n):
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore

    operands = {"a": 0, "rsa": 8, "csa": 1, "b": 0, "rsb": n, "csb": 1, "out": 0, "ldo": n}
    assert gemm_tensorcore.launches(None, "bfloat16", m=m, n=n, k=8, **operands) == []


@pytest.mark.parametrize("storage", STORAGES)
def test_nan_and_infinity_pass(device, rng, storage):
    x, y = random(rng, 40, 24), random(rng, 24, 48)
    x[3, 5], x[7, 1], y[2, 11] = np.nan, np.inf, -np.inf
    x[9, 23], y[23, 4] = np.inf, 0.0  # at the end of k
    a, b = lay(device, x, storage), lay(device, y, storage)
    result, _ = multiply(device, storage, a, b)
    with np.errstate(invalid="ignore"):
        exact = a.read @ b.read
    finite = np.isfinite(exact)
    assert np.isnan(exact[3]).all() and np.isinf(exact[7]).any() and np.isnan(exact[9, 4])
    np.testing.assert_array_equal(result[~finite], exact[~finite])
    assert finite.sum() > 1000


@pytest.mark.parametrize(
    ("a", "b", "copies"),
    [
        pytest.param((0, 24, 1), (0, 48, 1), 0, id="nn"),
        pytest.param((0, 1, 40), (0, 1, 24), 0, id="tt"),
        pytest.param((16, 32, 1), (32, 1, 32), 0, id="views"),
        pytest.param((2, 24, 1), (0, 48, 1), 1, id="misaligned"),
        pytest.param((0, 25, 1), (0, 1, 25), 2, id="odd-rows"),
        pytest.param((0, 48, 2), (0, 96, 2), 2, id="strided"),
    ],
)
def test_operands_are_copied_only_where_they_must(device, a, b, copies):
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore

    operands = dict(zip(("a", "rsa", "csa", "b", "rsb", "csb"), (*a, *b), strict=True))
    launches = gemm_tensorcore.launches(
        lambda size: 1 << 20, "bfloat16", m=40, n=48, k=24, **operands, out=0, ldo=48
    )
    assert [launch.kernel is gemm_tensorcore.pad for launch in launches] == [True] * copies + [False]


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
def test_longer_rows_than_a_grid_has_blocks(device, rng, storage, monkeypatch):
    """Four blocks' worth of a copied row for two blocks, which take two turns."""
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore

    monkeypatch.setattr(gemm_tensorcore, "BLOCKS_DOWN", 2)
    a, b = lay(device, random(rng, 5, 101), storage, step=2), lay(device, random(rng, 101, 8), storage)
    result, _ = multiply(device, storage, a, b)
    assert_product(result, a.read @ b.read, a.read, b.read, storage)


@pytest.mark.parametrize("storage", STORAGES)
def test_older_gpus_are_refused(device, storage, monkeypatch):
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore
    from gdkernels.cuda.runtime import driver

    monkeypatch.setattr(driver, "capability", lambda number: (7, 5))
    with pytest.raises(
        RuntimeError, match=rf"matrix products of {storage}.* 8\.0 or newer, this one has 7\.5"
    ):
        gemm_tensorcore.launches(
            None, storage, m=8, n=8, k=8, a=0, rsa=8, csa=1, b=0, rsb=8, csb=1, out=0, ldo=8
        )


# ------------------------------------------------------------------------------------------------- mutations


def emulate(module, a, b, race=True, order="forward"):
    """A @ B by the NN kernel of `module`, run by the emulator's race detector."""
    import ptxemu

    kernel = module.product(4, module.CORE_64, True, False, "identity", False)
    (m, k), n = a.shape, b.shape[1]
    out = np.full((m, n), np.nan, np.float32)
    places = [array.ctypes.data for array in (a, b, out)]
    ranges = [(array.ctypes.data, array.nbytes, "array") for array in (a, b, out)]
    operands = [places[0], k, places[1], n, places[2], n, 0, 0, 0, 0, m, n, k, k, m * n, 0, 1, 0]
    emulated = ptxemu.PtxModule(kernel.ptx("float32", (8, 0)), race=race)
    emulated.run(f"{kernel.name}_float32", 1, kernel.threads, operands, order=order, ranges=ranges)
    return out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("", "", id="right"),
        pytest.param("            copies_but_one()\n", "", id="wait"),
        pytest.param("            cuda.syncthreads()  #", "            #", id="barrier"),
        pytest.param("        all_copies()\n        cuda.syncthreads()\n", "", id="barrier-behind-the-loop"),
        pytest.param("sums)\n        cuda.syncwarp()\n", "sums)\n", id="barrier-of-a-warp"),
    ],
)
def test_a_missing_wait_or_barrier_is_caught(old, new, rng):
    """By the race detector, or because copies land when they are waited for."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda.gemm import tensorcore as gemm_tensorcore

    module = mutant(gemm_tensorcore, old, new) if old else gemm_tensorcore
    a, b = to_tf32(random(rng, 64, 128)), to_tf32(random(rng, 128, 64))
    exact = a.astype(np.float64) @ b
    caught = []
    for order in ("forward", "reverse"):
        try:
            assert_product(emulate(module, a, b, order=order), exact, a, b, "float32")
        except (AssertionError, ptxemu.PtxError) as error:
            caught.append(error)
    assert len(caught) == (2 if old else 0)
