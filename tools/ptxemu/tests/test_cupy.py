"""The stand-in for CuPy, and what its arrays do with numba-cuda and the driver."""

from expect import script

START = """
import numpy as np, cupy as cp
from cuda.bindings import driver as drv
def raises(error, f, *args):
    try: f(*args)
    except error as e: return str(e)
    raise AssertionError(f"no {error}")
"""


def run(code, **env):
    """The program must reach its end."""
    out = script(f"{START}{code}\nprint('reached the end')", PTXEMU_CUPY="1", **env)
    assert "reached the end" in out, out


def test_arrays():
    run("""
assert cp.cuda.runtime.getDeviceCount() == 1 and "ptxemu" in cp.__version__
a = cp.asarray(np.arange(12, dtype="f4").reshape(3, 4))
assert type(a).__module__.startswith("cupy") and a.data.ptr % 512 == 0
assert (a.get() == np.arange(12).reshape(3, 4)).all() and (cp.asnumpy(a.T) == a.get().T).all()
assert np.isnan(cp.empty(5, "f4").get()).all() and (cp.zeros((2, 3), "i4").get() == 0).all()
b = a[1:, ::2]
assert b.data.ptr == a.data.ptr + 16 and b.__cuda_array_interface__["strides"] == (16, 8)
b[...] = -1
assert (a.get()[1:, ::2] == -1).all()
c = b.copy()
c[0, 0] = 7
assert c.flags.c_contiguous and a.get()[1, 0] == -1 and float(c[0, 0]) == 7 and c[0, 0].shape == ()
assert cp.empty((0, 3)).get().shape == (0, 3) and a.reshape(-1).data.ptr == a.data.ptr
assert cp.asarray(a) is a and cp.array(a) is not a and cp.asarray(a, "f8").dtype == np.float64
d = cp.asfortranarray(a)
assert d.flags.f_contiguous and (d.get() == a.get()).all()
""")


def test_computing():
    run("""
a = cp.arange(10, dtype="f4")
b = cp.exp(a) + 2 * a - a.sum()
h = np.arange(10, dtype="f4")
assert isinstance(b, cp.ndarray) and (b.get() == np.exp(h) + 2 * h - h.sum()).all()
assert isinstance(np.tanh(a), cp.ndarray) and isinstance(cp.random.rand(3), cp.ndarray)
a *= 2
out = cp.empty(10, "f4")
assert cp.add(a, 1, out=out) is out and (out.get() == 2 * h + 1).all()
assert bool((a == 2 * h[3]).any()) and a[a > 5].size == 7
raises(TypeError, lambda: a + h)
raises(TypeError, lambda: h + a)
raises(TypeError, np.asarray, a)
""")


def test_products_of_somebody_elses_memory():
    run("""
from cupy._core import _routines_linalg as routines
whole = cp.asarray(np.arange(24, dtype="f4"))
def part(first, *shape):
    memory = cp.cuda.UnownedMemory(whole.data.ptr + 4 * first, 4 * shape[0] * shape[1], whole, 0)
    return cp.ndarray(shape, np.dtype("f4"), cp.cuda.MemoryPointer(memory, 0))
a, b, out = part(0, 2, 4), part(8, 3, 4), part(20, 2, 2)
h = np.arange(24, dtype="f4")
with cp.cuda.Stream.null:
    assert cp.matmul(a, b.T[:, :2], out=out) is out
assert (whole.get()[20:].reshape(2, 2) == h[:8].reshape(2, 4) @ h[8:20].reshape(3, 4).T[:, :2]).all()
before = routines.get_compute_type(np.float32)
routines.set_compute_type(np.float32, routines.COMPUTE_TYPE_TF32)
assert before != routines.get_compute_type(np.float32) == routines.COMPUTE_TYPE_TF32
""")


def test_memory():
    run("""
pool = cp.get_default_memory_pool()
a = cp.empty(100_000, "u1")
assert pool.used_bytes() == 100_000
raises(cp.cuda.memory.OutOfMemoryError, cp.empty, 950_000, "u1")
del a
assert pool.used_bytes() == 0 and pool.total_bytes() == 100_000
b = cp.empty(950_000, "u1")
assert cp.cuda.Device().mem_info == (50_000, 1_000_000)
""", PTXEMU_MEMORY="1000000")  # fmt: skip


def test_streams_and_graphs():
    run("""
assert cp.cuda.get_current_stream() == cp.cuda.Stream.null and cp.cuda.Stream.null.ptr == 0
stream = cp.cuda.Stream(non_blocking=True)
a, b = cp.zeros(8, "f4"), cp.ones(8, "f4")
with stream:
    assert cp.cuda.get_current_stream().ptr == stream.ptr != 0
    assert a.__cuda_array_interface__["stream"] == stream.ptr
    stream.begin_capture()
    drv.cuMemcpyDtoDAsync(a.data.ptr, b.data.ptr, 16, stream.ptr)
    raises(NotImplementedError, lambda: a + 1)
    del b
    graph = stream.end_capture()
assert cp.cuda.get_current_stream().ptr == 0 and (a.get() == 0).all()
start, end = cp.cuda.Event(), cp.cuda.Event()
start.record(stream)
graph.launch(stream)
end.record(stream)
end.synchronize()
assert (a.get() == [1] * 4 + [0] * 4).all() and cp.cuda.get_elapsed_time(start, end) >= 0
""")


def test_with_numba():
    run("""
from numba import cuda
@cuda.jit
def double(a):
    i = cuda.grid(1)
    if i < 10: a[i] *= 2
a = cp.arange(10, dtype="f4")
stream = cp.cuda.Stream()
double[1, 32, cuda.external_stream(stream.ptr)](a)
assert (a.get() == 2 * np.arange(10)).all()
double[1, 32](a[::2])                     # reads past the end of its five elements: a fault
assert "ILLEGAL_ADDRESS" in raises(cp.cuda.runtime.CUDARuntimeError, a.get)
b = cp.asarray(cuda.to_device(np.arange(20.))[::-2])
assert (b.get() == np.arange(20)[::-2]).all() and b.strides == (-16,) and isinstance(b, cp.ndarray)
""")
