"""The device, its memory and its streams."""

from cuda.bindings import driver

from . import memory, runtime, stream
from .memory import MemoryPointer, MemoryPool, UnownedMemory, alloc
from .stream import Event, ExternalStream, Graph, Stream, get_current_stream, get_elapsed_time

__all__ = [
    "Device",
    "Event",
    "ExternalStream",
    "Graph",
    "MemoryPointer",
    "MemoryPool",
    "Stream",
    "UnownedMemory",
    "alloc",
    "get_current_stream",
    "get_elapsed_time",
    "is_available",
    "memory",
    "runtime",
    "stream",
]


def is_available():
    return runtime.getDeviceCount() > 0


class Device:
    def __init__(self, device=0):
        self.id = int(device)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __enter__(self):
        self.use()
        return self

    def __exit__(self, *error):
        pass

    def use(self):
        runtime.ready()

    def synchronize(self):
        runtime.deviceSynchronize()

    @property
    def compute_capability(self):
        runtime.ready()
        kinds = driver.CUdevice_attribute
        both = (
            kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
        return "".join(str(runtime.check(driver.cuDeviceGetAttribute(kind, self.id))) for kind in both)

    @property
    def mem_info(self):
        return runtime.memGetInfo()
