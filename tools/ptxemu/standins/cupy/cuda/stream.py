"""Streams, events and graphs captured from streams."""

import threading

from cuda.bindings import driver

from .runtime import check, ready


class Current(threading.local):
    def __init__(self):
        self.streams = []


current = Current()


def get_current_stream(device_id=-1):
    return current.streams[-1] if current.streams else Stream.null


def handle(stream):
    return (stream or get_current_stream()).ptr


class ExternalStream:
    """A stream that something else made."""

    def __init__(self, ptr, device_id=-1):
        self.ptr, self.before = int(ptr), []

    def __enter__(self):
        self.before.append(list(current.streams))
        return self.use()

    def __exit__(self, *error):
        current.streams = self.before.pop()

    def __eq__(self, other):
        return getattr(other, "ptr", None) == self.ptr

    def __hash__(self):
        return hash(self.ptr)

    def use(self):
        current.streams.append(self)
        return self

    def synchronize(self):
        ready()
        check(driver.cuStreamSynchronize(self.ptr))

    @property
    def done(self):
        return driver.cuStreamQuery(self.ptr)[0] == driver.CUresult.CUDA_SUCCESS

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        check(driver.cuStreamWaitEvent(self.ptr, event.ptr, 0))

    def begin_capture(self, mode=None):
        modes = driver.CUstreamCaptureMode
        check(driver.cuStreamBeginCapture(self.ptr, modes(mode or modes.CU_STREAM_CAPTURE_MODE_RELAXED)))

    def is_capturing(self):
        ready()
        return int(check(driver.cuStreamIsCapturing(self.ptr))) != 0

    def end_capture(self):
        return Graph(check(driver.cuStreamEndCapture(self.ptr)))


class Stream(ExternalStream):
    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.own = not (null or ptds)
        if self.own:
            ready()
        super().__init__(check(driver.cuStreamCreate(int(non_blocking))) if self.own else 2 if ptds else 0)

    def __del__(self):
        if self.own:
            driver.cuStreamDestroy(self.ptr)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        ready()
        self.ptr = int(check(driver.cuEventCreate(0)))

    def __del__(self):
        driver.cuEventDestroy(self.ptr)

    def record(self, stream=None):
        check(driver.cuEventRecord(self.ptr, handle(stream)))

    def synchronize(self):
        check(driver.cuEventSynchronize(self.ptr))

    @property
    def done(self):
        return driver.cuEventQuery(self.ptr)[0] == driver.CUresult.CUDA_SUCCESS


def get_elapsed_time(start, end):
    """Milliseconds between two recorded events."""
    return check(driver.cuEventElapsedTime(start.ptr, end.ptr))


class Graph:
    def __init__(self, graph):
        self.graph, self.executable = graph, check(driver.cuGraphInstantiate(graph, 0))

    def __del__(self):
        driver.cuGraphExecDestroy(self.executable)
        driver.cuGraphDestroy(self.graph)

    def launch(self, stream=None):
        check(driver.cuGraphLaunch(self.executable, handle(stream)))

    def upload(self, stream=None):
        check(driver.cuGraphUpload(self.executable, handle(stream)))
