"""The driver calls that a library makes by itself: modules, launches, memory, streams, graphs, contexts."""

import ctypes
import threading

import numpy as np
from cuda.bindings import driver as drv
from expect import check, script, status

# a[i] = k * a[i] + i, and o[i] = s[n - 1 - i] after s[i] = i in dynamic shared memory
PTX = """.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 s[];
.visible .entry scale(.param .u64 a, .param .f32 k, .param .u32 n)
{ .reg .b32 %r<6>; .reg .b64 %rd<4>; .reg .f32 %f<5>; .reg .pred %p<2>;
  ld.param.u64 %rd0, [a]; ld.param.f32 %f0, [k]; ld.param.u32 %r5, [n];
  mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r0, %r1, %r2;
  setp.ge.u32 %p0, %r3, %r5; @%p0 bra DONE;
  mul.wide.u32 %rd1, %r3, 4; add.u64 %rd2, %rd0, %rd1; cvt.rn.f32.u32 %f1, %r3;
  ld.global.f32 %f2, [%rd2]; fma.rn.f32 %f3, %f2, %f0, %f1; st.global.f32 [%rd2], %f3; DONE: ret; }
.visible .entry reverse(.param .u64 o, .param .u32 n)
{ .reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .pred %p<2>;
  ld.param.u64 %rd0, [o]; ld.param.u32 %r5, [n]; mov.u32 %r1, %ntid.x; mov.u32 %r4, s; mov.u32 %r0, %tid.x;
WRITE: setp.ge.u32 %p0, %r0, %r5; @%p0 bra WAIT; shl.b32 %r2, %r0, 2; add.u32 %r2, %r2, %r4;
  st.shared.u32 [%r2], %r0; add.u32 %r0, %r0, %r1; bra WRITE;
WAIT: bar.sync 0; mov.u32 %r0, %tid.x;
READ: setp.ge.u32 %p0, %r0, %r5; @%p0 bra DONE; not.b32 %r2, %r0; add.u32 %r2, %r2, %r5; shl.b32 %r2, %r2, 2;
  add.u32 %r2, %r2, %r4; ld.shared.u32 %r3, [%r2]; mul.wide.u32 %rd1, %r0, 4; add.u64 %rd2, %rd0, %rd1;
  st.global.u32 [%rd2], %r3; add.u32 %r0, %r0, %r1; bra READ; DONE: ret; }
"""


class Arguments:
    """Kernel arguments (ctypes values), packed: `address` is that of a table of pointers to them (void **)."""

    def __init__(self, *values):
        self.values = values
        self.table = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self.address = ctypes.addressof(self.table)


def context():
    """Make the primary context of the device current, as every test here begins."""
    check(drv.cuInit(0))
    primary = check(drv.cuDevicePrimaryCtxRetain(check(drv.cuDeviceGet(0))))
    check(drv.cuCtxSetCurrent(primary))
    return primary


def function(name, image=None):
    module = check(drv.cuModuleLoadData(image or PTX.encode() + b"\0"))
    return check(drv.cuModuleGetFunction(module, name.encode()))


def upload(array):
    p = check(drv.cuMemAlloc(array.nbytes))
    check(drv.cuMemcpyHtoD(p, array.ctypes.data, array.nbytes))
    return p


def download(p, like):
    host = np.empty_like(like)
    check(drv.cuMemcpyDtoH(host.ctypes.data, p, host.nbytes))
    return host


def test_contexts():
    primary = context()
    assert int(check(drv.cuCtxGetCurrent())) == int(primary)
    assert int(check(drv.cuCtxGetDevice())) == 0
    check(drv.cuCtxPushCurrent(primary))
    assert int(check(drv.cuCtxPopCurrent())) == int(primary)
    assert check(drv.cuDevicePrimaryCtxGetState(0))[1] == 1
    out = script(
        "from cuda.bindings import driver as d; d.cuInit(0); print(d.cuCtxGetDevice()[0].name);"
        "print(int(d.cuCtxGetCurrent()[1]), d.cuMemAlloc(4)[0].name)"
    )
    assert out.split() == ["CUDA_ERROR_INVALID_CONTEXT", "0", "CUDA_ERROR_INVALID_CONTEXT"], out


def test_device_attributes():
    context()
    A = drv.CUdevice_attribute
    usual = {
        A.CU_DEVICE_ATTRIBUTE_WARP_SIZE: 32,
        A.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: 1024,
        A.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: 2048,
        A.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: 2**31 - 1,
        A.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: 65535,
        A.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: 48 << 10,
        A.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: 163 << 10,
        A.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: 164 << 10,
        A.CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: 65536,
        A.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: 40 << 20,
        A.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: 108,
        A.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 8,
        A.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: 0,
        A.CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: 1,
        A.CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY: 1,
        A.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH: 1,
        A.CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: 1,
    }
    for attribute, value in usual.items():
        assert check(drv.cuDeviceGetAttribute(attribute, 0)) == value, attribute
    assert check(drv.cuDeviceGetName(64, 0)).startswith(b"PTX emulator")
    assert check(drv.cuDeviceGetCount()) == 1 and status(drv.cuDeviceGet(1)) == "INVALID_DEVICE"
    assert check(drv.cuDeviceTotalMem(0)) == 16 << 30


def test_launch_with_packed_arguments():
    context()
    a = np.linspace(-1, 1, 100, dtype="f4")
    p = upload(a)
    packed = Arguments(ctypes.c_uint64(int(p)), ctypes.c_float(3), ctypes.c_uint32(99))
    check(drv.cuLaunchKernel(function("scale"), 2, 1, 1, 64, 1, 1, 0, 0, packed.address, 0))
    want = np.float32(3) * a.astype("f8") + np.arange(100)
    want[99] = a[99]
    assert (download(p, a) == want.astype("f4")).all()
    assert (
        status(drv.cuLaunchKernel(function("scale"), 0, 1, 1, 64, 1, 1, 0, 0, packed.address, 0))
        == "INVALID_VALUE"
    )
    assert (
        status(drv.cuLaunchKernel(function("scale"), 1, 1, 1, 2048, 1, 1, 0, 0, packed.address, 0))
        == "INVALID_VALUE"
    )


def test_modules():
    context()
    image = PTX.encode() + b"\0"
    log = bytes(200)  # the bindings let the driver write into it
    options = [drv.CUjit_option.CU_JIT_ERROR_LOG_BUFFER, drv.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
    module = check(drv.cuModuleLoadDataEx(image, 2, options, [log, len(log)]))
    assert status(drv.cuModuleGetFunction(module, b"nothing")) == "NOT_FOUND"
    check(drv.cuModuleUnload(module))
    assert status(drv.cuModuleLoadData(b"not PTX\0")) == "INVALID_IMAGE"
    broken = image.replace(b".param .f32 k", b".param .nonsense k")
    assert status(drv.cuModuleLoadDataEx(broken, 2, options, [log, len(log)])) == "INVALID_PTX"
    assert b"nonsense" in log, log


def test_large_shared_memory():
    context()
    n, kernel = 30000, function("reverse")
    p = upload(np.zeros(n, "i4"))
    packed = Arguments(ctypes.c_uint64(int(p)), ctypes.c_uint32(n))

    def launch():
        return drv.cuLaunchKernel(kernel, 1, 1, 1, 256, 1, 1, 4 * n, 0, packed.address, 0)

    limit = drv.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert status(launch()) == "INVALID_VALUE"
    assert status(drv.cuFuncSetAttribute(kernel, limit, (163 << 10) + 1)) == "INVALID_VALUE"
    check(drv.cuFuncSetAttribute(kernel, limit, 4 * n))
    assert check(drv.cuFuncGetAttribute(limit, kernel)) == 4 * n
    check(launch())
    assert (download(p, np.zeros(n, "i4")) == np.arange(n)[::-1]).all()


def test_asynchronous_copies_and_fills():
    context()
    stream = check(drv.cuStreamCreate(drv.CUstream_flags.CU_STREAM_NON_BLOCKING))
    host, back = np.arange(1000, dtype="i4"), np.zeros(1000, "i4")
    p, q = (check(drv.cuMemAllocAsync(4000, stream)) for _ in range(2))
    check(drv.cuMemcpyHtoDAsync(p, host.ctypes.data, 4000, stream))
    check(drv.cuMemcpyDtoDAsync(q, p, 4000, stream))
    check(drv.cuMemsetD8Async(q, 1, 40, stream))
    check(drv.cuMemsetD16Async(int(q) + 40, 7, 20, stream))
    check(drv.cuMemsetD32Async(int(q) + 80, 9, 10, stream))
    check(drv.cuMemcpyDtoHAsync(back.ctypes.data, q, 4000, stream))
    check(drv.cuStreamSynchronize(stream))
    assert (back[30:] == host[30:]).all() and (back[:10] == 0x01010101).all()
    assert (back[10:20] == 0x00070007).all() and (back[20:30] == 9).all()
    assert status(drv.cuMemcpyHtoDAsync(p, host.ctypes.data, 4001, stream)) == "INVALID_VALUE"
    assert status(drv.cuMemsetD8Async(int(p) + 1, 0, 4000, stream)) == "INVALID_VALUE"
    for memory in (p, q):
        check(drv.cuMemFreeAsync(memory, stream))
    assert status(drv.cuMemFree(p)) == "INVALID_VALUE"
    check(drv.cuStreamDestroy(stream))


def test_events():
    context()
    stream = check(drv.cuStreamCreate(0))
    start, stop = (check(drv.cuEventCreate(0)) for _ in range(2))
    assert status(drv.cuEventElapsedTime(start, stop)) == "INVALID_HANDLE"
    p = check(drv.cuMemAlloc(1 << 20))
    check(drv.cuEventRecord(start, stream))
    check(drv.cuMemsetD8Async(p, 0, 1 << 20, stream))
    check(drv.cuEventRecord(stop, stream))
    check(drv.cuEventSynchronize(stop))
    assert check(drv.cuEventElapsedTime(start, stop)) > 0
    check(drv.cuStreamWaitEvent(0, stop, 0))


def test_capture_on_a_created_stream():
    context()
    a, kernel = np.ones(64, "f4"), function("scale")
    p = upload(a)
    packed = Arguments(ctypes.c_uint64(int(p)), ctypes.c_float(2), ctypes.c_uint32(64))
    stream = check(drv.cuStreamCreate(0))
    status_of = drv.CUstreamCaptureStatus
    assert check(drv.cuStreamIsCapturing(stream)) == status_of.CU_STREAM_CAPTURE_STATUS_NONE
    for mode in drv.CUstreamCaptureMode:
        check(drv.cuStreamBeginCapture(stream, mode))
        assert check(drv.cuStreamIsCapturing(stream)) == status_of.CU_STREAM_CAPTURE_STATUS_ACTIVE
        check(drv.cuLaunchKernel(kernel, 1, 1, 1, 64, 1, 1, 0, stream, packed.address, 0))
        check(drv.cuMemsetD32Async(p, 0, 8, stream))
        graph = check(drv.cuStreamEndCapture(stream))
        assert check(drv.cuStreamIsCapturing(stream)) == status_of.CU_STREAM_CAPTURE_STATUS_NONE
    packed.values[1].value = 100  # the graph keeps the arguments that it was captured with
    executable = check(drv.cuGraphInstantiate(graph, 0))
    check(drv.cuGraphDestroy(graph))
    assert (download(p, a) == 1).all()
    want = a.astype("f8")
    for _ in range(3):
        check(drv.cuGraphLaunch(executable, stream))
        want = want * 2 + np.arange(64)
        want[:8] = 0
    check(drv.cuStreamSynchronize(stream))
    assert (download(p, a) == want).all()
    check(drv.cuGraphExecDestroy(executable))
    check(drv.cuStreamDestroy(stream))


def test_pointer_attributes():
    context()
    P = drv.CUpointer_attribute
    p, host = check(drv.cuMemAlloc(1000)), np.zeros(10)
    assert check(drv.cuPointerGetAttribute(P.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p)) == 2
    assert check(drv.cuPointerGetAttribute(P.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, p)) == 0
    kinds = [P.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, P.CU_POINTER_ATTRIBUTE_RANGE_SIZE]
    assert [int(v) for v in check(drv.cuPointerGetAttributes(2, kinds, int(p) + 100))] == [int(p), 1000]
    here = host.ctypes.data
    assert status(drv.cuPointerGetAttribute(P.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, here)) == "INVALID_VALUE"
    kinds = [P.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, P.CU_POINTER_ATTRIBUTE_DEVICE_POINTER]
    assert [int(v) for v in check(drv.cuPointerGetAttributes(2, kinds, here))] == [-2, 0]
    assert [int(v) for v in check(drv.cuMemGetAddressRange(int(p) + 8))] == [int(p), 1000]


MEMORY = """
from cuda.bindings import driver as d
d.cuInit(0); d.cuCtxSetCurrent(d.cuDevicePrimaryCtxRetain(0)[1])
print(*d.cuMemGetInfo()[1:], d.cuDeviceTotalMem(0)[1])
first = d.cuMemAlloc(600_000)[1]
print(d.cuMemAlloc(600_000)[0].name, d.cuMemAllocAsync(600_000, 0)[0].name, *d.cuMemGetInfo()[1:])
print(d.cuMemAlloc(2**64 - 1)[0].name, d.cuMemHostAlloc(600_000, 0)[0].name)
d.cuMemFree(first)
print(d.cuMemAlloc(600_000)[0].name)
"""


def test_out_of_memory():
    full = "CUDA_ERROR_OUT_OF_MEMORY"
    assert script(MEMORY, PTXEMU_MEMORY="1000000").split("\n")[:4] == [
        "1000000 1000000 1000000",
        f"{full} {full} 400000 1000000",
        f"{full} CUDA_SUCCESS",
        "CUDA_SUCCESS",
    ]


DRIVER = f"""
from cuda.bindings import driver as d
d.cuInit(0); d.cuCtxSetCurrent(d.cuDevicePrimaryCtxRetain(0)[1])
print(d.cuDriverGetVersion()[1])
for ptx in ("8.0", "7.4", "9.5"):
    print(ptx, d.cuModuleLoadData({PTX!r}.replace("8.0", ptx).encode() + b"\\0")[0].name)
try:
    print(d.cuLibraryLoadData(b"", [], [], 0, [], [], 0)[0])
except RuntimeError as e:
    print(e)
"""


def test_old_driver():
    """A driver loads PTX up to that of its own CUDA, and lacks the functions that came later."""
    newer, ok = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_SUCCESS"
    for version, loads in ((11040, [newer, ok, newer]), (12000, [ok, ok, newer]), (13050, [ok, ok, ok])):
        out = script(DRIVER, PTXEMU_DRIVER=str(version)).split("\n")
        assert out[:4] == [
            str(version),
            *(f"{v} {r}" for v, r in zip(("8.0", "7.4", "9.5"), loads, strict=True)),
        ], out
        assert ("cuLibraryLoadData" in out[4]) == (version < 12000), out
    assert int(check(drv.cuDriverGetVersion())) >= 13050


def test_threads():
    """Streams may come and go in several threads, each of which makes the context current for itself."""
    primary, kernel, failures = context(), function("scale"), []

    def work():
        try:
            assert status(drv.cuMemAlloc(4)) == "INVALID_CONTEXT"
            check(drv.cuCtxSetCurrent(primary))
            for _ in range(100):
                p, stream = check(drv.cuMemAlloc(256)), check(drv.cuStreamCreate(0))
                packed = Arguments(ctypes.c_uint64(int(p)), ctypes.c_float(2), ctypes.c_uint32(64))
                check(drv.cuMemsetD32Async(p, 0, 64, stream))
                check(drv.cuLaunchKernel(kernel, 1, 1, 1, 64, 1, 1, 0, stream, packed.address, 0))
                check(drv.cuStreamSynchronize(stream))
                assert (download(p, np.zeros(64, "f4")) == np.arange(64)).all()
                check(drv.cuStreamDestroy(stream))
                check(drv.cuMemFree(p))
        except Exception as e:
            failures.append(repr(e))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
