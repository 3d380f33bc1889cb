"""The matrix product on the ordinary units, held against products in float64 (float64: in long double)."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import reference
from gdkernels.scalar.activation import ACTIVATIONS
from reference import bounds
from reference.rounding import GPU
from tests.cuda.mutation import mutant
from tests.ops.test_activation import assert_forward
from tests.within import assert_within

FORMS = ("NN", "NT", "TN", "TT")
# storage, tile, form, four elements at a time: every way of each operand, in every tile
KERNELS = (
    *(("float32", "TILE_64", form, False) for form in FORMS),
    ("float32", "TILE_64", "NN", True),
    ("float32", "TILE_64", "TT", True),
    ("float32", "TILE_128", "NT", True),
    ("float32", "TILE_128", "TN", True),
    ("float64", "TILE_64_FLOAT64", "NN", False),
    ("float64", "TILE_64_FLOAT64", "TT", False),
    ("float64", "TILE_64_FLOAT64", "NT", True),
    ("float64", "TILE_64_FLOAT64", "TN", True),
)


class Laid(NamedTuple):
    """A matrix in memory of the device, among NaN."""

    memory: Any
    address: int
    stride: int
    stride_column: int
    values: np.ndarray


def lay(device, values, stride, stride_column, first=8):
    """Put a matrix on the device, with these strides in elements; `first` elements of NaN stand before it."""
    rows, columns = values.shape
    down, across = (rows - 1) * stride, (columns - 1) * stride_column
    low, high = min(0, down) + min(0, across), max(0, down) + max(0, across)
    memory = np.full(first + high - low + 9, np.nan, values.dtype)
    strides = (stride * values.itemsize, stride_column * values.itemsize)
    as_strided(memory[first - low :], values.shape, strides)[...] = values
    array = device.put(memory)
    return Laid(array, array.address + (first - low) * values.itemsize, stride, stride_column, values)


def operand(device, rng, storage, rows, columns, turned=False, gap=0, first=8):
    """A random matrix, row-major or turned, whose rows (columns) are `gap` elements apart."""
    values = rng.standard_normal((rows, columns)).astype(storage)
    strides = (1, rows + gap) if turned else (columns + gap, 1)
    return lay(device, values, *strides, first)


def operands(device, rng, storage, form, m, n, k, **layout):
    """A and B of a form."""
    return (
        operand(device, rng, storage, m, k, form[0] == "T", **layout),
        operand(device, rng, storage, k, n, form[1] == "T", **layout),
    )


def multiply(device, a, b, before=None, gap=4, first=8, **tail):
    """(out, the launches) of `gemm.launches`; nothing but the m · n elements of out may have been written."""
    from gdkernels.cuda.gemm import product as gemm
    from gdkernels.cuda.runtime.jit import run

    (m, k), n, dtype = a.values.shape, b.values.shape[1], a.values.dtype
    before = np.zeros((m, n)) if before is None else before
    out = lay(device, before.astype(dtype), n + gap, 1, first)
    launches = gemm.launches(
        out.memory.workspace, dtype.name, m=m, n=n, k=k, a=a.address, rsa=a.stride, csa=a.stride_column, b=b.address,
        rsb=b.stride, csb=b.stride_column, out=out.address, ldo=n + gap, **tail,
    )  # fmt: skip
    run(launches, out.memory.stream)
    memory = out.memory.to_numpy()
    inside = as_strided(memory[first:], (m, n), ((n + gap) * dtype.itemsize, dtype.itemsize))
    result = inside.copy()
    inside[...] = np.nan
    assert np.isnan(memory).all()
    return result, launches


def assert_product(result, a, b, *summands):
    """float32 against float64, and that against long double."""
    wide = np.longdouble if result.dtype == np.float64 else np.float64
    x, y = a.values.astype(wide), b.values.astype(wide)
    exact = (reference.matmul(x, y) if wide is np.float64 else x @ y) + sum(summands)
    assert_within(result, exact, bounds.matmul(a.values, b.values, *summands))


def force(monkeypatch, tile, parts=1):
    """Let products be computed by this tile, in this many parts."""
    from gdkernels.cuda.gemm import simt
    from gdkernels.cuda.gemm.tiling import Tiling

    def choose(tiles, m, n, k, size, processors):
        assert tile in tiles
        span = -(-k // (parts * tile.depth)) * tile.depth
        return Tiling(tile, -(-k // span), span)

    monkeypatch.setattr(simt, "choose", choose)


# ------------------------------------------------------------------------------------------------- products


@pytest.mark.every_kernel
@pytest.mark.parametrize(("storage", "tile", "form", "by_four"), KERNELS)
def test_tiles_cover_the_product_and_nothing_else(device, rng, monkeypatch, storage, tile, form, by_four):
    """Two tiles down and two across, of which three are cut, and three slabs, of which the first is shallow."""
    from gdkernels.cuda.gemm import simt

    tile = getattr(simt, tile)
    force(monkeypatch, tile)
    beyond = (4, 8, 12) if by_four else (5, 1, 3)
    m, n, k = tile.side + beyond[0], tile.side + beyond[1], 2 * tile.depth + beyond[2] % tile.depth
    a, b = operands(device, rng, storage, form, m, n, k, gap=4 if by_four else 1)
    result, launches = multiply(device, a, b)
    names = [launch.kernel.name for launch in launches]
    assert names == [f"gemm_simt_{form.lower()}_{tile.side}x{tile.side}_identity{4 if by_four else 1}"]
    assert_product(result, a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (129, 65, 33), (33, 17, 1000), (128, 128, 64), (5, 1, 7), (1, 70, 3), (70, 1, 2), (3, 4, 5)],
)
def test_any_shape_in_every_form(device, rng, form, m, n, k):
    a, b = operands(device, rng, "float32", form, m, n, k)
    assert_product(multiply(device, a, b)[0], a, b)


@pytest.mark.every_kernel
@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("n", [20, 17])
def test_parts_of_k_are_added_up(device, rng, monkeypatch, storage, n):
    """A gradient of weights: few tiles, many rows. By fours and one by one."""
    from gdkernels.cuda.gemm import simt

    force(monkeypatch, simt.TILE_64_FLOAT64 if storage == "float64" else simt.TILE_64, parts=4)
    a, b = operands(device, rng, storage, "TT" if n == 20 else "NN", 36, n, 200)
    bias = device.put(rng.standard_normal(n).astype(storage))
    result, launches = multiply(device, a, b, bias=bias.address)
    assert [launch.grid[2] for launch in launches] == [4, 1]
    assert_product(result, a, b, bias.to_numpy())


@pytest.mark.parametrize("n", [20, 17])
def test_more_rows_of_parts_than_a_grid_has_blocks(device, rng, monkeypatch, n):
    """Five strips of rows for two blocks, which take three turns."""
    from gdkernels.cuda.gemm import epilogue, simt

    monkeypatch.setattr(epilogue, "BLOCKS_DOWN", 2)
    force(monkeypatch, simt.TILE_64, parts=2)
    a, b = operands(device, rng, "float32", "NN", 37, n, 64)
    result, launches = multiply(device, a, b)
    assert launches[1].grid[1] == 2
    assert_product(result, a, b)


def test_a_tall_gradient_is_split_and_a_large_product_is_not(device):
    from gdkernels.cuda.gemm.simt import TILE_64, TILE_128
    from gdkernels.cuda.gemm.tiling import choose

    for processors in (20, 108, 132, 170):
        for m, n, k in [
            (33, 17, 1000),
            (784, 256, 60_000),
            (9, 3, 10**8),
            (1, 1, 1),
            (64, 10, 128),
            (2048, 4096, 256),
        ]:
            tile, parts, span = choose((TILE_128, TILE_64), m, n, k, 4, processors)
            assert span % tile.depth == 0 and (parts - 1) * span < k <= parts * span
            assert parts <= 1024
        assert choose((TILE_128, TILE_64), 33, 17, 100_000, 4, processors).parts > 1
        assert choose((TILE_128, TILE_64), 4096, 4096, 4096, 4, processors)[:2] == (TILE_128, 1)
        assert choose((TILE_128, TILE_64), 32, 32, 64, 4, processors)[:2] == (TILE_64, 1)


def test_more_rows_than_a_grid_has_blocks(device, rng, monkeypatch):
    from gdkernels.cuda.gemm import simt

    monkeypatch.setattr(simt, "MOST_ROWS", 64)
    for form in ("NN", "TN"):
        a, b = operands(device, rng, "float32", form, 150, 5, 7)
        add = operand(device, rng, "float32", 150, 5, gap=2)
        result, launches = multiply(device, a, b, add=add.address, ldadd=7)
        assert len(launches) == 3
        assert_product(result, a, b, add.values)


def test_tiles_are_taken_column_by_column(device, rng):
    """Four rows of tiles at a time; the last of 18 rows leave two places empty."""
    a, b = operands(device, rng, "float32", "NN", 64 * 17 + 3, 130, 2)
    result, (launch,) = multiply(device, a, b)
    assert launch.grid == (3 << 2, 5, 1)
    assert_product(result, a, b)


# ------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("storage", ["float32", "float64"])
def test_without_k_there_is_only_what_follows(device, rng, storage):
    a, b = operands(device, rng, storage, "NN", 5, 7, 0)
    bias = device.put(rng.standard_normal(7).astype(storage))
    before = rng.standard_normal((5, 7)).astype(storage)
    result, _ = multiply(device, a, b, bias=bias.address, activation="relu")
    np.testing.assert_array_equal(result, np.maximum(np.broadcast_to(bias.to_numpy(), (5, 7)), 0))
    result, _ = multiply(device, a, b, before, accumulate=True)
    np.testing.assert_array_equal(result, before)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_result_is_no_launch(device, m, n):
    from gdkernels.cuda.gemm import product as gemm

    operands = {"a": 0, "rsa": 8, "csa": 1, "b": 0, "rsb": n, "csb": 1, "out": 0, "ldo": n}
    assert gemm.launches(None, "float32", m=m, n=n, k=8, **operands) == []


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("a_strides", "b_strides"),
    [((11, 1), (5, 1)), ((-9, 1), (1, -11)), ((18, 2), (5, 1)), ((9, 1), (10, 2)), ((-9, -1), (-1, -9)), ((0, 1), (1, 0))],
)  # fmt: skip
def test_any_strides_and_addresses(device, rng, a_strides, b_strides, first):
    m, n, k = 6, 5, 9
    x, y = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    if a_strides[0] == 0:
        x[...], y[...] = x[0], y[:, :1]
    a, b = lay(device, x, *a_strides, first), lay(device, y, *b_strides, first)
    assert_product(multiply(device, a, b, first=first)[0], a, b)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 6, 5), (6, 1, 5), (6, 5, 1)])
def test_the_stride_along_an_axis_of_one_means_nothing(device, rng, m, n, k):
    x, y = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    a = lay(device, x, 12, 2) if k > 1 else lay(device, x, 3, 77)
    b = lay(device, y, 2, 17) if n > 1 else lay(device, y, 3, 99)
    assert_product(multiply(device, a, b)[0], a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by_four", [True, False])
def test_nan_and_infinity_pass_and_stay_in_their_row_and_column(device, rng, form, by_four):
    """At the ends of the operands too; what lies around these is NaN anyway."""
    if by_four and form in ("NT", "TN"):
        return  # no kernels but those of the forms that are tested
    m, n, k = (68, 72, 36) if by_four else (67, 69, 35)
    a, b = operands(device, rng, "float32", form, m, n, k, gap=4 if by_four else 1)
    x, y = a.values.copy(), b.values.copy()
    x[3, 5], x[7, 1], x[m - 1, k - 1], y[2, 11], y[k - 1, n - 1] = np.nan, np.inf, np.inf, -np.inf, 0
    a, b = lay(device, x, a.stride, a.stride_column), lay(device, y, b.stride, b.stride_column)
    result, _ = multiply(device, a, b)
    with np.errstate(invalid="ignore"):
        exact = x.astype("f8") @ y
    finite = np.isfinite(exact)
    assert np.isnan(exact[3]).all() and np.isinf(exact[7]).any() and np.isnan(exact[m - 1, n - 1])
    np.testing.assert_array_equal(result[~finite], exact[~finite])
    assert np.isfinite(result[finite]).all()


def test_the_same_bits_again(device, rng):
    for m, n, k in [(70, 30, 50), (33, 17, 1000)]:
        a, b = operands(device, rng, "float32", "TN", m, n, k)
        first, second = (multiply(device, a, b)[0] for _ in range(2))
        assert first.tobytes() == second.tobytes()


# ------------------------------------------------------------------------------------------------- what follows


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("by_four", [True, False])
@pytest.mark.parametrize(
    "asked",
    [("bias",), ("add",), ("accumulate",), ("z",), ("bias", "add", "accumulate", "z")],
    ids="-".join,
)
def test_what_follows_the_product(device, rng, monkeypatch, asked, by_four, parts):
    from gdkernels.cuda.gemm import simt

    force(monkeypatch, simt.TILE_64, parts)
    m, n, k = (68, 20, 40) if by_four else (67, 19, 41)
    a, b = operands(device, rng, "float32", "NN", m, n, k)
    tail, summands, before = {}, [], None
    if "bias" in asked:
        bias = device.put(rng.standard_normal(n).astype("f4"))
        tail["bias"] = bias.address
        summands.append(bias.to_numpy())
    if "add" in asked:
        add = operand(device, rng, "float32", m, n, gap=8 if by_four else 3)
        tail |= {"add": add.address, "ldadd": add.stride}
        summands.append(add.values)
    if "z" in asked:
        z = lay(device, np.zeros((m, n), "f4"), n + 4, 1)
        tail["z"] = z.address
    if "accumulate" in asked:
        before = rng.standard_normal((m, n)).astype("f4")
        tail["accumulate"] = True
    result, launches = multiply(device, a, b, before, **tail)
    assert launches[-1].kernel.name.endswith("4" if by_four else "1") and len(launches) == (
        1 if parts == 1 else 2
    )
    if "z" in asked:
        memory = z.memory.to_numpy()[8:]
        kept = as_strided(memory, (m, n), ((n + 4) * 4, 4))
        assert_product(kept, a, b, *summands)
    assert_product(result, a, b, *summands, *([] if before is None else [before]))


def test_the_result_may_take_the_place_of_the_second_summand(device, rng):
    from gdkernels.cuda.gemm import product as gemm
    from gdkernels.cuda.runtime.jit import run

    for n in (20, 19):
        a, b = operands(device, rng, "float32", "NN", 30, n, 10)
        values = rng.standard_normal((30, n)).astype("f4")
        out = device.put(values)
        launches = gemm.launches(
            out.workspace, "float32", m=30, n=n, k=10, a=a.address, rsa=a.stride, csa=1, b=b.address, rsb=b.stride,
            csb=1, out=out.address, ldo=n, add=out.address, ldadd=n,
        )  # fmt: skip
        run(launches, out.stream)
        assert_product(out.to_numpy(), a, b, values)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_follows_the_parts(device, rng, monkeypatch, kind):
    from gdkernels.cuda.gemm import simt

    force(monkeypatch, simt.TILE_64, parts=2)
    a, b = operands(device, rng, "float32", "NN", 9, 7, 40)
    z = lay(device, np.zeros((9, 7), "f4"), 11, 1)
    result, _ = multiply(device, a, b, z=z.address, activation=kind)
    kept = as_strided(z.memory.to_numpy()[8:], (9, 7), (44, 4)).copy()
    assert_product(kept, a, b)
    assert_forward(kept, result, kind, GPU)


@pytest.mark.every_kernel
@pytest.mark.parametrize(
    ("storage", "kind", "n"),
    [("float32", "gelu", 9), ("float32", "tanh", 12), ("float64", "silu", 9)],
)
def test_activations_in_the_same_kernel(device, rng, storage, kind, n):
    a, b = operands(device, rng, storage, "NN", 8, n, 12, gap=0)
    z = lay(device, np.zeros((8, n), storage), n + 4, 1)
    result, launches = multiply(device, a, b, z=z.address, activation=kind)
    assert len(launches) == 1 and f"_{kind}" in launches[0].kernel.name
    size = result.itemsize
    kept = as_strided(z.memory.to_numpy()[8:], (8, n), ((n + 4) * size, size)).copy()
    assert_product(kept, a, b)
    assert_forward(kept, result, kind, GPU)


# ------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("storage", ["float32", "float64"])
def test_matmul_takes_arrays_of_any_strides(device, rng, storage):
    from gdkernels.cuda import matmul

    x, y = rng.standard_normal((12, 10)).astype(storage), rng.standard_normal((12, 7)).astype(storage)
    start = rng.standard_normal((10, 7)).astype(storage)
    out = device.put(start)
    matmul.matmul(device.put(x).T, device.put(y), out, accumulate=True)
    a, b = (Laid(None, 0, 0, 0, values) for values in (x.T, y))
    assert_product(out.to_numpy(), a, b, start)


# ------------------------------------------------------------------------------------------------- mutations


def emulate(module, a, b, order):
    """A @ B by the NN kernel of `module`, under the emulator's race detector."""
    import ptxemu

    kernel = module.product("float32", module.TILE_64, True, False, False, "identity")
    (m, k), n = a.shape, b.shape[1]
    out = np.full((m, n), np.nan, np.float32)
    ranges = [(array.ctypes.data, array.nbytes, "array") for array in (a, b, out)]
    places = [place for place, _, _ in ranges]
    operands = [places[0], k, places[1], n, places[2], n, 0, 0, 0, 0, m, n, k, k, m * n, 0, 0]
    emulated = ptxemu.PtxModule(kernel.ptx("float32", (8, 0)), race=True)
    emulated.run(
        f"{kernel.name}_float32", 1, kernel.threads, operands, order=order, ranges=ranges, uninit=True
    )
    return out


BARRIER = "cuda.syncthreads()\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("", "", id="right"),
        pytest.param(f"b_ahead)\n        {BARRIER}", "b_ahead)\n", id="barrier-before-the-loop"),
        pytest.param(f"b_ahead)\n            {BARRIER}", "b_ahead)\n", id="barrier-in-the-loop"),
        pytest.param(
            f"            {BARRIER}            left", "            left", id="barrier-before-the-end"
        ),
        pytest.param("jump, ks = types.int32(-jump)", "jump, ks = jump", id="one-half-too-many"),
        pytest.param("while ks >= 0:", "while ks > 0:", id="one-slab-too-few"),
    ],
)
def test_a_missing_barrier_is_caught(old, new, rng):
    """By the race detector, whatever the order of the warps; a wrong slab by the bounds or the result."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator finds races, a GPU does not")
    from gdkernels.cuda.gemm import simt

    module = mutant(simt, old, new) if old else simt
    x, y = rng.standard_normal((40, 37)).astype("f4"), rng.standard_normal((37, 33)).astype("f4")
    a, b = (Laid(None, 0, 0, 0, values) for values in (x, y))
    caught = []
    for order in ("forward", "reverse"):
        try:
            assert_product(emulate(module, x, y, order), a, b)
        except (AssertionError, ptxemu.PtxError) as error:
            caught.append(error)
    assert len(caught) == (2 if old else 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("along_k or types.int32(mine(t)[0] + j) < rows", "True", id="rows"),
        pytest.param("+ deep < ks", "+ deep <= ks", id="k"),
        pytest.param("min(row, rows - 1)", "row", id="last-row"),
    ],
)
def test_a_wrong_mask_at_an_edge_is_caught(old, new, rng):
    """What lies behind the operands is touched, or comes in."""
    ptxemu = pytest.importorskip("ptxemu", reason="the emulator knows where arrays end")
    from gdkernels.cuda.gemm import simt, simt_tiles

    line = "from ..runtime.target import cuda, types\n"
    # a name of its own in the cache
    module = mutant(simt, line, f"{line}\nMISTAKE = {old!r}, {new!r}\n")
    module.operand = mutant(simt_tiles, old, new).operand
    x, y = rng.standard_normal((40, 37)).astype("f4"), rng.standard_normal((37, 33)).astype("f4")
    a, b = (Laid(None, 0, 0, 0, values) for values in (x, y))
    with pytest.raises((AssertionError, ptxemu.PtxError)):
        assert_product(emulate(module, x, y, "forward"), a, b)
