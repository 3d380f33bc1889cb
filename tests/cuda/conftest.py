"""What the tests of the CUDA backend run on: a real GPU, or the one that tools/ptxemu emulates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent


class Device:
    """Arrays on the device and back."""

    def put(self, values, storage: str | None = None):
        """A copy on the device, of another element type if one is named ("bfloat16" rounds to nearest even)."""
        from gdkernels.cuda.runtime.arrays import BFLOAT16, default_library, read

        values = np.asarray(values)
        if storage == "bfloat16":
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            quiet = (bits >> 16) | 0x40  # rounding would carry the bits of a NaN into an infinity
            kept = np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
            target = self.empty(values.shape, BFLOAT16)
            from gdkernels.cuda.runtime import driver

            driver.to_device(target.address, kept, target.stream)
            return target
        values = values.astype(storage or values.dtype)
        return read(default_library().empty(values.shape, values.dtype)).fill_from(values)

    def empty(self, shape, dtype: Any):
        """Uninitialised memory on the device."""
        from gdkernels.cuda.runtime.arrays import BFLOAT16, default_library, read

        return read(
            default_library().empty(shape, BFLOAT16 if dtype in ("bfloat16", BFLOAT16) else np.dtype(dtype))
        )


@pytest.fixture(scope="session")
def device() -> Device:
    """The device, or a skip that says why there is none."""
    from gdkernels import cuda

    if not cuda.is_available():
        pytest.skip(f"no GPU and no emulator: {cuda.describe()} (tools/ptxemu/run python -m pytest …)")
    return Device()


def pytest_collection_modifyitems(config, items):
    """Without a device its tests cannot run here; where tests/test_emulator.py is in the run, it runs them."""
    from gdkernels import cuda

    elsewhere = any(item.path.name == "test_emulator.py" for item in items)
    if not elsewhere or cuda.is_available():
        return
    theirs = {item for item in items if item.path.parent == HERE and "device" in item.fixturenames}
    items[:] = [item for item in items if item not in theirs]
    config.hook.pytest_deselected(items=list(theirs))
