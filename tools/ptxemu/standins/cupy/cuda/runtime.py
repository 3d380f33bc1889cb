"""What is asked of the CUDA runtime, answered by the driver."""

from cuda.bindings import driver


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = int(status)
        words = [driver.cuGetErrorName(status)[1], driver.cuGetErrorString(status)[1]]
        name, text = (w.decode() if w else str(status) for w in words)
        super().__init__(f"{name}: {text}")


def check(answer):
    """The result of a driver call, or CUDARuntimeError."""
    status, *results = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CUDARuntimeError(status)
    return results[0] if len(results) == 1 else tuple(results)


def ready():
    """Make the primary context current in this thread, unless another one is."""
    check(driver.cuInit(0))
    if int(check(driver.cuCtxGetCurrent())) == 0:
        check(driver.cuCtxSetCurrent(check(driver.cuDevicePrimaryCtxRetain(0))))


def getDeviceCount():
    check(driver.cuInit(0))
    return check(driver.cuDeviceGetCount())


def getDevice():
    return 0


def driverGetVersion():
    return check(driver.cuDriverGetVersion())


runtimeGetVersion = driverGetVersion


def memGetInfo():
    ready()
    return tuple(int(n) for n in check(driver.cuMemGetInfo()))


def deviceSynchronize():
    ready()
    check(driver.cuCtxSynchronize())


def streamSynchronize(stream):
    ready()
    check(driver.cuStreamSynchronize(stream))
