"""The driver's calls: modules, launches, copies, streams, events and graphs, with errors in words.

Kernels run in the context that is current, which is the primary context of a device: the one that CuPy, PyTorch and
Numba share.
"""

import ctypes
import threading
from functools import cache

from .target import INSTALL, cuda, to_cubin
from .target import driver_api as api

_OK = api.CUresult.CUDA_SUCCESS
_OUT_OF_MEMORY = api.CUresult.CUDA_ERROR_OUT_OF_MEMORY
_NOT_READY = api.CUresult.CUDA_ERROR_NOT_READY
_NEWER_PTX = api.CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION


def check(answer, doing: str):
    """The results of a driver call; RuntimeError, or MemoryError, that says what failed."""
    status, *results = answer
    if status == _OK:
        return results[0] if len(results) == 1 else results
    if status == _OUT_OF_MEMORY:
        free, total = memory()
        raise MemoryError(
            f"gdkernels: the GPU is out of memory while {doing}: {free / 2**20:,.0f} of {total / 2**20:,.0f} MiB are free"
        )
    _, name = api.cuGetErrorName(status)
    _, text = api.cuGetErrorString(status)
    raise RuntimeError(f"gdkernels: CUDA failed while {doing}: {_text(name)} ({_text(text)})")


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def memory() -> tuple[int, int]:
    """(free, total) bytes of the current device."""
    status, free, total = api.cuMemGetInfo()
    return (free, total) if status == _OK else (0, 0)


def use() -> int:
    """Make a context current where none is; the number of its device."""
    try:
        status, device = api.cuCtxGetDevice()
        if status == _OK:
            return int(device)
        cuda.current_context()
    except Exception as error:  # no driver, none that answers, no device
        reason = " ".join(str(error).split())
        raise RuntimeError(f"gdkernels: no GPU can be used: {reason or type(error).__name__}") from error
    return int(check(api.cuCtxGetDevice(), "asking for the current device"))


@cache
def capability(device: int) -> tuple[int, int]:
    """The compute capability of a device, as (major, minor)."""
    kinds = api.CUdevice_attribute
    doing = "asking for the compute capability"
    major = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor = kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    first, second = (int(check(api.cuDeviceGetAttribute(kind, device), doing)) for kind in (major, minor))
    return first, second


@cache
def processors(device: int) -> int:
    """The streaming multiprocessors of a device."""
    kind = api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    return int(check(api.cuDeviceGetAttribute(kind, device), "asking for the number of processors"))


@cache
def cache_size(device: int) -> int:
    """The bytes of the cache that all processors of a device share."""
    kind = api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
    return int(check(api.cuDeviceGetAttribute(kind, device), "asking for the size of the cache"))


def device_of(address: int) -> int | None:
    """The number of the device whose memory this is; None where it is not memory of a device."""
    kind = api.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    status, number = api.cuPointerGetAttribute(kind, address)
    return int(number) if status == _OK else None


def version() -> tuple[int, int]:
    """The newest CUDA that the driver knows, as (major, minor)."""
    number = int(check(api.cuDriverGetVersion(), "asking for the driver's version"))
    return number // 1000, number % 1000 // 10


def load(ptx: str, name: str, device: int, shared: int) -> int:
    """The handle of the kernel `name` of a PTX text, allowed to use `shared` bytes of dynamic shared memory.

    A driver older than the compiler refuses its PTX; the machine code that nvJitLink makes of it, it takes within one
    major version.
    """
    answer = api.cuModuleLoadData(ptx.encode() + b"\0")
    if answer[0] == _NEWER_PTX:
        answer = _load_assembled(ptx, device)
    module = check(answer, f"loading {name}")
    function = check(api.cuModuleGetFunction(module, name.encode()), f"loading {name}")
    if shared > 48 * 1024:
        kind = api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(api.cuFuncSetAttribute(function, kind, shared), f"asking for {shared} bytes of shared memory")
    return int(function)


def _load_assembled(ptx: str, device: int):
    """The answer to loading what nvJitLink makes of a PTX text."""
    reason = None
    try:
        answer = api.cuModuleLoadData(to_cubin(ptx, capability(device)))
        if answer[0] == _OK:
            return answer
    except Exception as error:  # nvJitLink is missing, or of another version
        reason = error
    major, minor = version()
    raise RuntimeError(
        f"gdkernels: the driver is too old for the installed CUDA compiler: it knows CUDA {major}.{minor}. "
        f"Update the driver, or install the packages that fit it: {INSTALL}"
    ) from reason


def allow_shared(kernel, size: int) -> None:
    """Let launches of a kernel (the driver's handle) have `size` bytes of dynamic shared memory on the current device."""
    kind = api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    doing = f"asking for {size} bytes of shared memory"
    check(api.cuKernelSetAttribute(kind, size, kernel, use()), doing)


class Parameters(threading.local):
    """Where the operands of a launch are put, by each thread: `room` has slots of eight bytes, and the table of their
    addresses."""

    def __init__(self, count: int):
        self._memory = ctypes.create_string_buffer(8 * count)
        start = ctypes.addressof(self._memory)
        self._table = (ctypes.c_void_p * count)(*(start + 8 * slot for slot in range(count)))
        self.room = memoryview(self._memory).cast("B"), ctypes.addressof(self._table)


def launch(function: int, grid, threads: int, shared: int, stream: int, table: int, name: str) -> None:
    """Launch a kernel with the operands that `table` points to."""
    x, y, z = grid
    answer = api.cuLaunchKernel(function, x, y, z, threads, 1, 1, shared, stream, table, 0)
    if answer[0] != _OK:
        check(answer, f"launching {name} on {grid} blocks of {threads} threads")


# ---------------------------------------------------------------------------------------------- copies


def send(place: int, source, stream: int) -> None:
    """Copy a C-contiguous NumPy array to a device address; it must stay as it is until the stream was waited for."""
    if source.nbytes:
        check(api.cuMemcpyHtoDAsync(place, source.ctypes.data, source.nbytes, stream), "copying to the GPU")


def to_device(place: int, source, stream: int) -> None:
    """Copy a C-contiguous NumPy array to a device address; it may be changed when this returns."""
    if source.nbytes:
        send(place, source, stream)
        synchronize(stream)


def to_host(target, place: int, stream: int) -> None:
    """Copy from a device address into a C-contiguous NumPy array, which is filled when this returns."""
    if target.nbytes:
        check(api.cuMemcpyDtoHAsync(target.ctypes.data, place, target.nbytes, stream), "copying from the GPU")
    synchronize(stream)


def copy(target: int, source: int, size: int, stream: int) -> None:
    """Copy bytes from one device address to another."""
    if size:
        check(api.cuMemcpyDtoDAsync(target, source, size, stream), "copying on the GPU")


def clear(place: int, size: int, stream: int) -> None:
    """Set bytes at a device address to zero."""
    if size:
        check(api.cuMemsetD8Async(place, 0, size, stream), "clearing memory of the GPU")


def write_word(place: int, value: int, stream: int) -> None:
    """Write an int64 at a device address, without waiting."""
    bits = value & 0xFFFFFFFFFFFFFFFF
    for half, word in enumerate((bits & 0xFFFFFFFF, bits >> 32)):
        check(api.cuMemsetD32Async(place + 4 * half, word, 1, stream), "writing a number on the GPU")


def wait(stream: int, other: int) -> None:
    """Let what is launched on a stream from now on wait for what was launched on another."""
    if stream != other:
        event = Event()
        event.record(other)
        event.hold(stream)


def synchronize(stream: int) -> None:
    """Wait until everything on the stream is done."""
    check(api.cuStreamSynchronize(stream), "waiting for the GPU")


# ---------------------------------------------------------------------------------------------- streams, events, graphs


class Stream:
    """A stream of our own, which waits for nobody."""

    def __init__(self):
        use()
        flag = api.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream = check(api.cuStreamCreate(flag), "making a stream")
        self.handle = int(self._stream)

    def __del__(self):
        if api is not None and getattr(self, "_stream", None) is not None:
            api.cuStreamDestroy(self._stream)


class Event:
    """A mark on a stream, which keeps the time at which the GPU came by."""

    def __init__(self):
        use()
        self._event = check(api.cuEventCreate(0), "making an event")

    def record(self, stream: int) -> None:
        """Put the mark behind what was launched on the stream so far."""
        check(api.cuEventRecord(self._event, stream), "recording an event")

    def hold(self, stream: int) -> None:
        """Let what is launched on a stream from now on wait for the GPU to come by."""
        check(api.cuStreamWaitEvent(stream, self._event, 0), "letting a stream wait")

    def is_reached(self) -> bool:
        """Whether the GPU has come by, or was never told to."""
        answer = api.cuEventQuery(self._event)
        if answer[0] == _NOT_READY:
            return False
        check(answer, "asking for an event")
        return True

    def since(self, earlier: "Event") -> float:
        """Wait for the GPU to come by; the seconds since it came by an earlier mark."""
        check(api.cuEventSynchronize(self._event), "waiting for the GPU")
        return 1e-3 * check(
            api.cuEventElapsedTime(earlier._event, self._event), "reading the time of an event"
        )

    def __del__(self):
        if api is not None and getattr(self, "_event", None) is not None:
            api.cuEventDestroy(self._event)


def is_capturing(stream: int) -> bool:
    """Whether what is launched on the stream goes into a graph."""
    status = check(api.cuStreamIsCapturing(stream), "asking whether a stream is captured")
    return status != api.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE


class Sequence:
    """Launches that are made anew each time: what stands in for a graph where something cannot be captured."""

    def __init__(self, launches):
        self._launches = launches

    def replay(self, stream: int) -> None:
        """Launch everything again, in the same order."""
        for one in self._launches:
            one.run(stream)


class Graph:
    """Launches that were captured once and are replayed by one call."""

    def __init__(self, stream: int, record):
        """Capture what `record()` launches on the stream."""
        mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        check(api.cuStreamBeginCapture(stream, mode), "beginning to capture a graph")
        try:
            with cuda.defer_cleanup():  # Numba frees no memory meanwhile, which could end the capture
                record()
        except BaseException:
            _, graph = api.cuStreamEndCapture(stream)
            if graph is not None and int(graph):
                api.cuGraphDestroy(graph)
            raise
        graph = check(api.cuStreamEndCapture(stream), "capturing a graph")
        self._replayed = check(api.cuGraphInstantiate(graph, 0), "making a graph ready")
        check(api.cuGraphDestroy(graph), "dropping a graph")

    def replay(self, stream: int) -> None:
        """Launch everything again, in the captured order."""
        check(api.cuGraphLaunch(self._replayed, stream), "launching a graph")

    def __del__(self):
        if api is not None and getattr(self, "_replayed", None) is not None:
            api.cuGraphExecDestroy(self._replayed)
