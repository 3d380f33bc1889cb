"""Who multiplies: our kernels, cuBLAS, or the faster of them.

cuBLAS runs on a GPU only: CuPy finds no device under the emulator. There NumPy does the product, in the emulated
memory, which is memory of the host, and what is tested is everything around it: which launches are made, how views and
precision are handed over, what is timed, chosen and remembered.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gdkernels as gd
import reference

ASKED = {"bias": 1, "add": 1, "z": 1, "accumulate": True, "activation": "tanh"}


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
    """The module, with an empty memory of its own."""
    pytest.importorskip("numba.cuda")
    from gdkernels.cuda.gemm import choice as gemm_engine

    before = gemm_engine.get_gemm_engine()
    monkeypatch.setattr(gemm_engine, "_path", lambda: tmp_path / "gemm_engine.json")
    gemm_engine._remembered.cache_clear()
    yield gemm_engine
    gemm_engine._current = before
    gemm_engine._remembered.cache_clear()


def in_host_memory(address, storage, *shape):
    """The NumPy array at an address of the emulated device."""
    import ml_dtypes

    from gdkernels.cuda.runtime.arrays import _Memory

    dtype = np.dtype(ml_dtypes.bfloat16 if storage == "bfloat16" else storage)
    bits = np.asarray(_Memory(address, shape, None, np.dtype(f"u{dtype.itemsize}"), False))
    return bits.view(dtype)


def multiply_by_numpy(product):
    m, n, k = product.m, product.n, product.k
    a = in_host_memory(product.a, product.storage, *((k, m) if product.a_turned else (m, k)))
    b = in_host_memory(product.b, product.storage, *((n, k) if product.b_turned else (k, n)))
    wide = np.float64 if product.storage == "float64" else np.float32
    left, right = (a.T if product.a_turned else a).astype(wide), (b.T if product.b_turned else b).astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        in_host_memory(product.out, product.storage, m, n)[...] = left @ right


@pytest.fixture
def vendor(device, engine, monkeypatch):
    """The products that cuBLAS, or NumPy in its place, has done."""
    from gdkernels.cuda.gemm import vendor as gemm_vendor
    from gdkernels.cuda.runtime import driver

    done, real = [], gemm_vendor.multiply
    on_gpu = engine.vendor_is_available()
    if not on_gpu and "PTXEMU_BUILD" not in os.environ:
        pytest.skip("without CuPy there is no cuBLAS")

    def multiply(product, stream):
        if on_gpu:
            real(product, stream)
        else:
            driver.synchronize(stream)
            multiply_by_numpy(product)
        done.append(product)

    monkeypatch.setattr(gemm_vendor, "multiply", multiply)
    monkeypatch.setattr(engine, "cupy_is_installed", lambda: True)
    monkeypatch.setattr(engine, "vendor_is_available", lambda: True)
    return done


def kernels(launches):
    return [getattr(getattr(launch, "kernel", None), "name", "cuBLAS") for launch in launches]


# ------------------------------------------------------------------------------------------------- choosing


def test_the_engine_is_our_own_until_another_is_set(engine):
    assert gd.cuda.get_gemm_engine() == ("own", False)
    gd.cuda.set_gemm_engine("auto", tf32=True)
    assert gd.cuda.get_gemm_engine() == ("auto", True)
    gd.cuda.set_gemm_engine(*engine.GemmEngine())
    assert gd.cuda.get_gemm_engine().engine == "own"
    with pytest.raises(ValueError, match='engine is \'cublas\', expected "own", "vendor" or "auto"'):
        gd.cuda.set_gemm_engine("cublas")


def test_without_cupy_there_is_no_vendor(engine, monkeypatch):
    monkeypatch.setattr(engine, "cupy_is_installed", lambda: False)
    with pytest.raises(RuntimeError, match=r'not installed: pip install "gdkernels\[cuda13\]"'):
        gd.cuda.set_gemm_engine("vendor")
    assert gd.cuda.get_gemm_engine().engine == "own"


def test_where_cupy_finds_no_gpu_there_is_no_vendor(engine, monkeypatch):
    monkeypatch.setattr(engine, "cupy_is_installed", lambda: True)
    monkeypatch.setattr(engine, "vendor_is_available", lambda: False)
    with pytest.raises(RuntimeError, match="finds no GPU"):
        gd.cuda.set_gemm_engine("vendor")


def test_asking_for_the_engine_imports_no_cuda():
    code = (
        "import sys, gdkernels.cuda as c; c.set_gemm_engine('own'); c.get_gemm_engine(); "
        "assert 'numba' not in sys.modules and 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------- cuBLAS


@pytest.mark.parametrize("storage", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("form", ["NN", "NT", "TN", "TT"])
def test_a_product_alone_is_one_call(device, vendor, rng, form, storage):
    from gdkernels.cuda import matmul

    gd.cuda.set_gemm_engine("vendor")
    x, y = rng.standard_normal((5, 7)), rng.standard_normal((7, 3))
    a = device.put(x.T if form[0] == "T" else x, storage)
    b = device.put(y.T if form[1] == "T" else y, storage)
    out = device.empty((5, 3), storage)
    a, b = (a.T if form[0] == "T" else a), (b.T if form[1] == "T" else b)
    assert kernels(matmul.of_arrays(a, b, out)) == ["cuBLAS"]
    matmul.matmul(a, b, out)
    exact = reference.matmul(a.copy().to_numpy(), b.copy().to_numpy())
    bits = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}[storage]
    size = np.abs(a.copy().to_numpy()) @ np.abs(b.copy().to_numpy())
    assert (np.abs(out.to_numpy() - exact) <= 8 * 2.0**-bits * size).all()


@pytest.mark.parametrize("asked", [(), *((name,) for name in ASKED), tuple(ASKED)], ids="-".join)
@pytest.mark.parametrize("gap", [0, 4])
def test_one_kernel_does_the_rest(device, vendor, rng, asked, gap):
    from gdkernels.cuda.gemm import product
    from gdkernels.cuda.runtime.jit import run

    gd.cuda.set_gemm_engine("vendor")
    m, n, k = 6, 12, 9
    x, y, bias, add = (rng.standard_normal(shape).astype("f4") for shape in ((m, k), (k, n), (n,), (m, n)))
    before = rng.standard_normal((m, n + gap)).astype("f4")
    places = {name: device.put(array) for name, array in {"bias": bias, "add": add, "z": before}.items()}
    a, b, out = device.put(x), device.put(y), device.put(before)
    tail = {name: places[name].address if name in places else ASKED[name] for name in asked}
    launches = product.launches(
        out.workspace, "float32", m=m, n=n, k=k, a=a.address, rsa=k, csa=1, b=b.address, rsb=n, csb=1, out=out.address,
        ldo=n + gap, ldadd=n, **tail,
    )  # fmt: skip
    assert kernels(launches)[0] == "cuBLAS" and len(launches) == (1 if not asked and not gap else 2)
    run(launches, out.stream)
    z = x.astype("f8") @ y + ("bias" in asked) * bias + ("add" in asked) * add
    exact = np.tanh(z) if "activation" in asked else z
    exact = exact + before[:, :n] if "accumulate" in asked else exact
    size = np.abs(x) @ np.abs(y) + np.abs(bias) + np.abs(add) + np.abs(before[:, :n]) + 1
    result = out.to_numpy()
    assert (np.abs(result[:, :n] - exact) <= 16 * 2.0**-24 * size).all()
    np.testing.assert_array_equal(result[:, n:], before[:, n:])
    if "z" in asked:
        assert (np.abs(places["z"].to_numpy()[:, :n] - z) <= 16 * 2.0**-24 * size).all()


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_halves_have_a_bias_and_an_activation(device, vendor, rng, storage):
    gd.cuda.set_gemm_engine("vendor")
    x, w, b = (device.put(rng.standard_normal(shape), storage) for shape in ((5, 8), (8, 6), (6,)))
    out = gd.cuda.to_numpy(gd.linear(x.owner, w.owner, b.owner, "relu"))
    z = x.to_numpy().astype("f8") @ w.to_numpy() + b.to_numpy()
    size = np.abs(x.to_numpy()).astype("f8") @ np.abs(w.to_numpy()) + np.abs(b.to_numpy())
    # the product is rounded to the storage, and the result again
    assert (
        np.abs(out - np.maximum(z, 0)) <= 2.1 * 2.0 ** (-8 if storage == "bfloat16" else -11) * size
    ).all()
    assert len(vendor) == 1


def test_operands_with_gaps_are_copied(device, vendor, rng):
    from gdkernels.cuda import matmul

    gd.cuda.set_gemm_engine("vendor")
    x, y = rng.standard_normal((6, 20)).astype("f4"), rng.standard_normal((9, 4)).astype("f4")
    a, b, out = device.put(x), device.put(y), device.empty((6, 4), "f4")
    part = gd.cuda.runtime.arrays.Array(a.shadow[:, 3:12], a.dtype, a.library, a.owner)
    assert kernels(matmul.of_arrays(part, b, out)) == ["runtime_strided_copy_elements", "cuBLAS"]
    matmul.matmul(part, b, out)
    np.testing.assert_allclose(out.to_numpy(), x[:, 3:12] @ y, rtol=1e-5, atol=1e-5)


def test_float32_gradients_of_halves_are_our_own(device, vendor):
    """cupy.matmul gives the type of its operands."""
    from gdkernels.cuda.gemm import product

    gd.cuda.set_gemm_engine("vendor")
    memory = device.empty((4096,), "f4")
    launches = product.launches(
        memory.workspace, "bfloat16", m=8, n=8, k=8, a=memory.address, rsa=8, csa=1, b=memory.address, rsb=8, csb=1,
        out=memory.address, ldo=8, out_storage="float32",
    )  # fmt: skip
    assert kernels(launches)[0].startswith("gemm_tensorcore")


def test_a_launch_can_be_loaded_before_a_capture(device, vendor, rng):
    """On memory of its own: what the operands hold is kept."""
    from gdkernels.cuda import matmul

    gd.cuda.set_gemm_engine("vendor")
    a, b = device.put(rng.standard_normal((5, 7))), device.put(rng.standard_normal((7, 3)))
    out = device.put(np.full((5, 3), 7.0))
    (launch,) = matmul.of_arrays(a, b, out)
    launch.load()
    assert (out.to_numpy() == 7).all() and vendor[0].out != out.address and vendor[0].m == 5


@pytest.mark.parametrize("tf32", [False, True])
def test_views_and_precision_are_handed_to_cupy(device, monkeypatch, rng, tf32):
    """All of `multiply` but the call into cuBLAS and what CuPy asks its own run-time library."""
    cupy = pytest.importorskip("cupy")
    from contextlib import nullcontext

    from cupy._core import _routines_linalg as routines

    from gdkernels.cuda.gemm import vendor as gemm_vendor

    streams, types = [], []

    def product(a, b, out):
        assert [view.shape for view in (a, b, out)] == [(7, 5), (5, 3), (7, 3)]
        assert [view.flags.c_contiguous for view in (a, b, out)] == [True, False, True]
        left, right = in_host_memory(a.data.ptr, "float32", 7, 5), in_host_memory(b.data.ptr, "float32", 3, 5)
        in_host_memory(out.data.ptr, "float32", 7, 3)[...] = left @ right.T
        types.append(compute["type"])

    compute = {"type": routines.COMPUTE_TYPE_DEFAULT}
    monkeypatch.setattr(cupy, "matmul", product)
    monkeypatch.setattr(gemm_vendor, "_current", lambda stream: streams.append(stream) or nullcontext())
    monkeypatch.setattr(routines, "get_compute_type", lambda dtype: compute["type"])
    monkeypatch.setattr(routines, "set_compute_type", lambda dtype, kind: compute.update(type=kind))
    if "PTXEMU_BUILD" not in os.environ:
        pytest.skip("the memory of a GPU is out of NumPy's reach")
    x, y = rng.standard_normal((7, 5)).astype("f4"), rng.standard_normal((3, 5)).astype("f4")
    a, b, out = device.put(x), device.put(y), device.empty((7, 3), "f4")
    gemm_vendor.Product("float32", 7, 3, 5, a.address, False, b.address, True, out.address, tf32).run(77)
    np.testing.assert_allclose(out.to_numpy(), x @ y.T, rtol=1e-5, atol=1e-5)
    assert streams == [77]
    assert types == [routines.COMPUTE_TYPE_TF32 if tf32 else routines.COMPUTE_TYPE_DEFAULT]
    assert compute["type"] == routines.COMPUTE_TYPE_DEFAULT


def test_training_with_cublas_needs_no_graph(device, vendor, rng):
    """CuPy refuses to call cuBLAS while a stream is captured: each step is launched anew."""
    x, y = rng.standard_normal((24, 6)).astype("f4"), rng.integers(0, 3, 24)
    losses = []
    for engine in ("own", "vendor"):
        gd.cuda.set_gemm_engine(engine)
        trainer = gd.Trainer(gd.mlp([6, 8, 3], seed=1).to("cuda"))
        losses.append(trainer.fit(x, y, epochs=2, batch_size=8, progress=False).loss)
    assert len(vendor) >= 6 * 5  # products of a step: two forward, one of dx, two of dw
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


# ------------------------------------------------------------------------------------------------- tf32


def test_tf32_is_for_float32_alone(device):
    from gdkernels.cuda import matmul

    gd.cuda.set_gemm_engine("own", tf32=True)
    a, b, out = (device.empty((8, 8), "f4") for _ in range(3))
    assert kernels(matmul.of_arrays(a, b, out))[0].startswith("gemm_tensorcore")
    a, b, out = (device.empty((8, 8), "f8") for _ in range(3))
    assert kernels(matmul.of_arrays(a, b, out))[0].startswith("gemm_simt")


# ------------------------------------------------------------------------------------------------- auto


@pytest.fixture
def clock(engine, monkeypatch):
    """Milliseconds of each engine, instead of measured ones; counts the measurements."""
    times = {"own": 2.0, "cuBLAS": 1.0, "measured": 0}

    def milliseconds(launches, stream, repetitions):
        times["measured"] += 1
        return times["cuBLAS" if "cuBLAS" in kernels(launches) else "own"]

    monkeypatch.setattr(engine, "_milliseconds", milliseconds)
    return times


def machine(engine):
    """The name under which the times are kept."""
    from gdkernels.cuda.runtime import driver

    return engine._machine(driver.use())


def engine_of(device, m=40, n=24, k=24, **tail):
    from gdkernels.cuda import matmul

    a, b, out = device.empty((m, k), "f4"), device.empty((k, n), "f4"), device.empty((m, n), "f4")
    return "cuBLAS" if "cuBLAS" in kernels(matmul.of_arrays(a, b, out, **tail)) else "own"


def test_auto_takes_the_faster_and_remembers_it(device, vendor, engine, clock, tmp_path):
    gd.cuda.set_gemm_engine("auto")
    assert engine_of(device) == "cuBLAS"
    measured = clock["measured"]
    assert engine_of(device, m=64, k=32) == "cuBLAS"  # of the same class: up to 64, 32, 32
    assert clock["measured"] == measured

    clock["own"] = 0.5
    assert engine_of(device, m=65) == "own"  # another class
    bias = device.empty((24,), "f4")
    assert engine_of(device, bias=bias.address) == "own"  # and so is a product with more to do
    (known,) = json.loads((tmp_path / "gemm_engine.json").read_text()).values()
    assert known == {
        "float32 NN 64 32 32": "vendor",
        "float32 NN 128 32 32": "own",
        "float32 NN 64 32 32 and more": "own",
    }

    engine._remembered.cache_clear()  # the next process
    measured = clock["measured"]
    assert engine_of(device) == "cuBLAS" and engine_of(device, m=65) == "own"
    assert clock["measured"] == measured


def test_auto_times_with_events_on_memory_of_its_own(device, vendor, rng):
    gd.cuda.set_gemm_engine("auto")
    x, y = rng.standard_normal((5, 7)).astype("f4"), rng.standard_normal((7, 3)).astype("f4")
    a, b, out = device.put(x), device.put(y), device.put(np.full((5, 3), 2.0, "f4"))
    from gdkernels.cuda import matmul

    matmul.matmul(a, b, out, accumulate=True)
    np.testing.assert_allclose(out.to_numpy(), 2 + x @ y, rtol=1e-5, atol=1e-5)
    assert vendor and all(product.out != out.address for product in vendor)


def test_auto_is_our_own_without_cupy(device, engine, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "vendor_is_available", lambda: False)
    gd.cuda.set_gemm_engine("auto")
    assert engine_of(device) == "own" and not list(tmp_path.iterdir())


def test_auto_times_nothing_while_a_stream_is_captured(device, vendor, engine, clock, monkeypatch, tmp_path):
    from gdkernels.cuda.runtime import driver

    gd.cuda.set_gemm_engine("auto")
    monkeypatch.setattr(driver, "is_capturing", lambda stream: True)
    assert engine_of(device) == "own" and clock["measured"] == 0 and not list(tmp_path.iterdir())

    def refuse(stream):
        raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_IMPLICIT")

    monkeypatch.setattr(driver, "is_capturing", refuse)
    assert engine_of(device) == "own" and clock["measured"] == 0
    monkeypatch.setattr(driver, "is_capturing", lambda stream: False)
    assert engine_of(device) == "cuBLAS"
    monkeypatch.setattr(driver, "is_capturing", lambda stream: True)
    assert engine_of(device) == "cuBLAS"  # is known


def test_auto_is_our_own_where_there_is_no_memory_to_time_in(device, vendor, engine, monkeypatch, tmp_path):
    def full(launches, stream, repetitions):
        raise MemoryError

    monkeypatch.setattr(engine, "_milliseconds", full)
    gd.cuda.set_gemm_engine("auto")
    assert engine_of(device) == "own" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machine": 3}', b"\xff\xfe"])
def test_a_damaged_file_is_written_anew(device, vendor, engine, clock, tmp_path, text):
    path = tmp_path / "gemm_engine.json"
    text = text if isinstance(text, bytes) else text.replace("machine", machine(engine)).encode()
    path.write_bytes(text)
    gd.cuda.set_gemm_engine("auto")
    assert engine_of(device) == "cuBLAS"
    assert json.loads(path.read_text())[machine(engine)] == {"float32 NN 64 32 32": "vendor"}


def test_a_folder_that_cannot_be_written_is_no_error(device, vendor, engine, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_path", lambda: tmp_path / "missing" / "gemm_engine.json")
    gd.cuda.set_gemm_engine("auto")
    assert engine_of(device) == "cuBLAS"
