"""Ordinary CUDA programs on the emulated device: numba-cuda, cuda.core and the driver API."""

import numpy as np
import ptxemu
from cuda.bindings import driver as drv
from expect import check, raises, script
from numba import cuda, float32
from test_instructions import f32, last_block, matmul, matmul_missing_barrier, vadd

NUMBA = "import numpy as np; from numba import cuda, float32; import test_instructions as t\n"  # for script()


@cuda.jit
def scale(a, k):
    i = cuda.grid(1)
    if i < a.size:
        a[i] = a[i] * k + 1


@cuda.jit
def big_shared(o):
    s = cuda.shared.array(0, float32)
    n = o.size
    for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        s[i] = i
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
        o[i] = s[n - 1 - i]


@cuda.jit
def grid_sum(a, out):
    g = cuda.cg.this_grid()
    i = cuda.grid(1)
    for _ in range(3):
        v = a[(i + 37) % a.size]
        g.sync()
        a[i] = v + 1
        g.sync()
    out[i] = a[i]


def test_device_attributes():
    assert cuda.is_available() and len(cuda.gpus) == 1
    d = cuda.get_current_device()
    assert d.WARP_SIZE == 32 and d.MAX_THREADS_PER_BLOCK == 1024 and d.MULTIPROCESSOR_COUNT > 1
    assert d.MAX_SHARED_MEMORY_PER_BLOCK == 48 << 10 and d.COOPERATIVE_LAUNCH
    assert d.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN == 163 << 10 and tuple(d.compute_capability) == (8, 0)
    assert cuda.current_context().get_memory_info().total > 1 << 30
    out = script(
        NUMBA
        + "d = cuda.get_current_device(); print(d.compute_capability[:], d.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)",
        PTXEMU_CC="9.0",
    )
    assert "(9, 0) 232448" in out, out


def test_kernel_attributes():
    def compiled(k):
        return next(iter(k.overloads.values()))

    k = compiled(cuda.jit("void(float32[:], float32)")(scale.py_func))
    assert 0 < k.regs_per_thread <= 255 and k.max_threads_per_block == 1024
    assert k.shared_mem_per_block == 0 and k.local_mem_per_thread == 0
    bounded = cuda.jit("void(float32[:], float32)", launch_bounds=128)(scale.py_func)
    assert compiled(bounded).max_threads_per_block == 128
    raises("INVALID_VALUE", lambda: bounded[1, 256](np.zeros(4, "f4"), 1))


def test_arrays_streams_events():
    a, b = f32(2, 1000)
    c = np.zeros_like(a)
    cuda.jit(vadd)[4, 256](a, b, c)
    assert (c == a + b).all()
    stream, start, stop = cuda.stream(), cuda.event(), cuda.event()
    pinned = cuda.pinned_array(1000, np.float32)
    pinned[:] = a
    start.record(stream)
    d = cuda.to_device(pinned, stream=stream)
    scale[4, 256, stream](d, 2)
    scale[4, 256, cuda.external_stream(int(stream.handle))](d, 2)
    stop.record(stream)
    d.copy_to_host(pinned, stream=stream)
    stream.synchronize()
    assert np.allclose(pinned, (a * 2 + 1) * 2 + 1) and cuda.event_elapsed_time(start, stop) >= 0
    check(drv.cuMemsetD32Async(d.device_ctypes_pointer.value, 0x3F800000, 1000, 0))
    assert (d.copy_to_host() == 1).all()

    class FirstHalf:
        @property
        def __cuda_array_interface__(self):
            return d.__cuda_array_interface__ | {"shape": (500,), "typestr": "<f4", "version": 3}

    view = cuda.as_cuda_array(FirstHalf())
    scale[2, 256](view, 3)
    assert (d.copy_to_host() == [4] * 500 + [1] * 500).all()


def test_large_shared_memory():
    n = 25000  # 100 kB
    o = cuda.device_array(n, np.float32)
    k = cuda.jit("void(float32[::1])")(big_shared.py_func)
    raises("INVALID_VALUE", lambda: k[1, 256, 0, 4 * n](o))
    handle = next(iter(k.overloads.values()))._codelibrary.get_cufunc().handle
    attr = drv.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

    def set_attr(v):
        return drv.cuKernelSetAttribute(attr, v, drv.CUkernel(int(handle)), drv.CUdevice(0))

    assert set_attr(164 << 10)[0] == drv.CUresult.CUDA_ERROR_INVALID_VALUE
    check(set_attr(4 * n))
    k[1, 256, 0, 4 * n](o)
    assert (o.copy_to_host() == np.arange(n)[::-1]).all()


def test_fault_reaches_next_sync():
    a = cuda.to_device(np.zeros(10, "f4"))

    @cuda.jit
    def bad(a):
        a[cuda.grid(1)] = 1

    bad[1, 32](a)
    raises("ILLEGAL_ADDRESS", cuda.synchronize)
    text = ptxemu.last_fault()
    assert (
        "bad" in text and "thread (10,0,0)" in text and "40 bytes" in text and "kernel parameter" in text
    ), text
    cuda.synchronize()  # reported once; the device goes on
    bad[1, 10](a)
    assert (a.copy_to_host() == 1).all()


def test_removed_barrier_in_race_mode():
    code = (
        'A, B = t.f32(2, 64, 64); C = np.zeros((64, 64), "f4"); cuda.jit(t.{})[(4, 4), (16, 16)](A, B, C); '
        'cuda.synchronize(); print("finished", np.abs(C - A @ B).max() < 1e-4)'
    )
    out = script(NUMBA + code.format(matmul.__name__), PTXEMU_RACE="1")
    assert "finished True" in out, out
    out = script(NUMBA + code.format(matmul_missing_barrier.__name__), PTXEMU_RACE="1", PTXEMU_ORDER="random")
    assert "finished" not in out and "shared-memory race" in out and "matmul_missing_barrier" in out, out


def test_orders_and_threads():
    code = (
        'a = np.arange(1280).astype("f4") % 7; o = np.zeros(1, "f4"); '
        'cuda.jit(t.last_block)[40, 32](a, np.zeros(40, "f4"), np.zeros(1, "i4"), o); print("finished", o[0] == a.sum())'
    )
    for env in (
        {"PTXEMU_ORDER": "reverse"},
        {"PTXEMU_ORDER": "random", "PTXEMU_SEED": "7", "PTXEMU_THREADS": "2"},
        {"PTXEMU_CHECK": "0"},
    ):
        assert "finished True" in script(NUMBA + code, **env)
    assert last_block.__name__ in code


def test_grid_sync():
    n = 20 * 64
    a, out = cuda.to_device(np.arange(n).astype("f4")), cuda.device_array(n, np.float32)
    grid_sum[20, 64](a, out)
    assert (out.copy_to_host() == (np.arange(n) + 3 * 37) % n + 3).all()
    raises("exceeds the limit", lambda: grid_sum[100000, 64](a, out))


def capture(stream, body, mode=drv.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL):
    check(drv.cuStreamBeginCapture(stream, mode))
    body()
    return check(drv.cuStreamEndCapture(stream))


def test_graph_capture():
    host = np.arange(100, dtype="f4")
    a, out = cuda.to_device(host), cuda.pinned_array(100, np.float32)
    stream = cuda.stream()
    scale[1, 128, stream](a, 1)  # compile first
    stream.synchronize()
    h = drv.CUstream(int(stream.handle))

    def body():
        check(drv.cuMemcpyHtoDAsync(a.device_ctypes_pointer.value, host.ctypes.data, 400, h))
        scale[1, 128, stream](a, 2)
        scale[1, 128, stream](a, 3)
        check(drv.cuMemsetD32Async(a.device_ctypes_pointer.value, 0, 5, h))
        check(drv.cuMemcpyDtoHAsync(out.ctypes.data, a.device_ctypes_pointer.value, 400, h))

    out[:] = -1
    graph = capture(h, body)
    assert (out == -1).all()  # nothing ran yet
    assert check(drv.cuGraphGetNodes(graph, 100))[1] == 5
    exec_ = check(drv.cuGraphInstantiate(graph, 0))
    for offset in (0, 10):  # replays read the memory as it is then
        host[:] = np.arange(100) + offset
        check(drv.cuGraphLaunch(exec_, h))
        stream.synchronize()
        want = (host * 2 + 1) * 3 + 1
        want[:5] = 0
        assert (out == want).all()
    check(drv.cuGraphExecDestroy(exec_))
    check(drv.cuGraphDestroy(graph))


def test_graph_capture_errors():
    E = drv.CUresult
    h = check(drv.cuStreamCreate(0))
    p = check(drv.cuMemAlloc(64))

    def begin():
        check(drv.cuStreamBeginCapture(h, drv.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))

    for call, code in (
        (lambda: drv.cuMemAlloc(64), E.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (lambda: drv.cuStreamSynchronize(h), E.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (drv.cuCtxSynchronize, E.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (lambda: drv.cuMemcpyDtoD(p, p, 4), E.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    ):
        begin()
        assert call()[0] == code
        assert drv.cuStreamEndCapture(h)[0] == E.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    check(drv.cuMemFree(p))
    side, event = check(drv.cuStreamCreate(0)), check(drv.cuEventCreate(0))
    begin()
    check(drv.cuEventRecord(event, h))
    check(drv.cuStreamWaitEvent(side, event, 0))  # fork
    assert drv.cuStreamEndCapture(h)[0] == E.CUDA_ERROR_STREAM_CAPTURE_UNJOINED
    begin()
    check(drv.cuEventRecord(event, h))
    check(drv.cuStreamWaitEvent(side, event, 0))
    check(drv.cuEventRecord(event, side))
    check(drv.cuStreamWaitEvent(h, event, 0))  # join
    check(drv.cuGraphDestroy(check(drv.cuStreamEndCapture(h))))


def test_cuda_core_launch():
    from cuda.core import Device, LaunchConfig, ObjectCode, Program, ProgramOptions, launch

    dev = Device(0)
    dev.set_current()
    stream = dev.create_stream()
    a = cuda.to_device(np.arange(64, dtype="f4"))
    pointer = a.device_ctypes_pointer.value
    for module in (
        ObjectCode.from_ptx(RAW.encode()),
        Program(RAW, "ptx", ProgramOptions(arch="sm_80")).compile("cubin"),
    ):
        kernel = module.get_kernel("add")
        launch(stream, LaunchConfig(grid=2, block=32), kernel, pointer, np.float32(2))
        stream.sync()
        assert kernel.attributes.max_threads_per_block == 1024
    assert (a.copy_to_host() == np.arange(64) + 4).all()
    source = (
        'extern "C" __global__ void add(float *a, float k) { a[blockIdx.x * blockDim.x + threadIdx.x] += k; }'
    )
    kernel = Program(source, "c++", ProgramOptions(arch="sm_80")).compile("ptx").get_kernel("add")
    launch(stream, LaunchConfig(grid=2, block=32), kernel, pointer, np.float32(-4))
    buf = dev.allocate(256, stream=stream)
    buf.copy_from(dev.allocate(256, stream=stream), stream=stream)
    stream.sync()
    assert (a.copy_to_host() == np.arange(64)).all()


RAW = """.version 8.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 a, .param .f32 k)
{ .reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .f32 %f<4>;
  ld.param.u64 %rd0, [a]; ld.param.f32 %f0, [k];
  mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r0, %r1, %r2;
  mul.wide.u32 %rd1, %r3, 4; add.u64 %rd2, %rd0, %rd1;
  ld.global.f32 %f1, [%rd2]; add.f32 %f2, %f1, %f0; st.global.f32 [%rd2], %f2; ret; }
"""


def test_cuda_core_graph_builder():
    from cuda.core import Device, LaunchConfig, ObjectCode, launch

    dev = Device(0)
    dev.set_current()
    stream = dev.create_stream()
    kernel = ObjectCode.from_ptx(RAW.encode()).get_kernel("add")
    a = cuda.to_device(np.zeros(64, dtype="f4"))
    scale[1, 64](a, 1)
    builder = dev.create_graph_builder().begin_building()
    launch(builder, LaunchConfig(grid=2, block=32), kernel, a.device_ctypes_pointer.value, np.float32(2))
    left, right = builder.split(2)
    launch(left, LaunchConfig(grid=1, block=32), kernel, a.device_ctypes_pointer.value, np.float32(10))
    launch(right, LaunchConfig(grid=1, block=32), kernel, a.device_ctypes_pointer.value + 128, np.float32(20))
    builder = type(builder).join(left, right)
    scale[1, 64, builder](a, 2)  # numba launches into the same graph
    graph = builder.end_building().complete()
    assert (a.copy_to_host() == 1).all()
    graph.launch(stream)
    stream.sync()
    assert (a.copy_to_host() == [27] * 32 + [47] * 32).all()


def test_numba_types_and_print():
    out = script(
        NUMBA + "@cuda.jit\ndef hello(x):\n    if cuda.threadIdx.x < 2: print(cuda.threadIdx.x, x)\n"
        "hello[1, 32](2.5); cuda.synchronize()"
    )
    assert "0 2.5" in out and "1 2.5" in out, out
