"""PTX emulator: run CUDA kernels on the CPU.  `launch` runs one kernel over numpy arrays; `last_fault()`
describes the latest fault seen by the emulated driver (see `run`)."""

from .compile import BuildError

__all__ = ["BuildError", "PtxError", "PtxModule", "compile_kernel", "last_fault", "launch"]


def __getattr__(name):  # the harness needs numpy; the build step must not
    if name in __all__:
        from . import harness

        return getattr(harness, name)
    raise AttributeError(name)
