"""The only file that imports numba.cuda: the target's vocabulary, and Python functions to PTX.

Everything else in this folder takes Numba's names from here, so that a change of the target changes one file.
"""

import re
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

INSTALL = (
    'pip install "gdkernels[cuda13]" (driver 580 or newer), or "gdkernels[cuda12]" (driver 525 or newer)'
)

try:
    from numba import cuda
except ImportError as error:
    raise ImportError(f"gdkernels: CUDA arrays need the package numba-cuda: {INSTALL}") from error
if getattr(cuda, "implementation", "built-in") != "NVIDIA":
    raise ImportError(
        "gdkernels: numba.cuda is Numba's old built-in target, expected that of the package numba-cuda; it is not "
        f"installed, or lies on PYTHONPATH, where it cannot take the place of the old one: {INSTALL}"
    )

from cuda.bindings import driver as driver_api
from cuda.pathfinder import load_nvidia_dynamic_lib
from llvmlite import ir
from numba.cuda import compiler, dispatcher, libdevice, types
from numba.cuda.core import errors
from numba.cuda.cudadecl import register_attr, register_global
from numba.cuda.cudadrv import nvvm
from numba.cuda.cudaimpl import lower as lower_builtin
from numba.cuda.cudaimpl import lower_constant, lower_getattr_generic
from numba.cuda.datamodel.models import OpaqueModel
from numba.cuda.extending import intrinsic, overload, register_model
from numba.cuda.models import PrimitiveModel
from numba.cuda.typing import signature as make_signature
from numba.cuda.typing.templates import AbstractTemplate, AttributeTemplate

__all__ = [
    "INSTALL",
    "AbstractTemplate",
    "AttributeTemplate",
    "OpaqueModel",
    "PrimitiveModel",
    "cuda",
    "device",
    "driver_api",
    "entry_of",
    "errors",
    "intrinsic",
    "ir",
    "libdevice",
    "lower_builtin",
    "lower_constant",
    "lower_getattr_generic",
    "make_signature",
    "overload",
    "register_attr",
    "register_global",
    "register_model",
    "to_cubin",
    "to_ptx",
    "toolchain",
    "types",
]


def device(function):
    """A function that is inlined into the kernels that call it."""
    return cuda.jit(device=True, forceinline=True)(function)


@contextmanager
def _compiling_for(capability):
    """Numba asks the current device for its capability when it compiles a device function; here is the answer, which
    also spares compilation a GPU."""
    ask = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = ask


def to_ptx(function, arguments, capabilities, threads: int, blocks: int) -> list[str]:
    """The PTX of a kernel with these argument types, for at least `blocks` blocks of `threads` threads on a processor.

    There is a text for each of the compute capabilities; all but NVVM's part of the work, a tenth, is done once. float32
    divisions and roots are those that need no call (2 and 1 ulp); denormals are kept.
    """
    options = {"opt": 3, "prec_div": False, "prec_sqrt": False}
    lowest = min(capabilities)
    with compiler.global_compiler_lock, _compiling_for(lowest):
        compiled = compiler.compile_cuda(
            function, types.void, arguments, nvvm_options=options, cc=lowest, abi="numba"
        )
        library, entry = compiled.library, compiled.fndesc.llvm_func_name
        kernel = library.get_function(entry)
        library._entry_name = entry
        compiler.kernel_fixup(kernel, False)
        nvvm.set_launch_bounds(kernel, (threads, blocks))
        return [library.get_asm_str(cc=capability).rstrip("\0") for capability in capabilities]


@cache
def toolchain() -> tuple:
    """What PTX depends on besides its source: numba-cuda and the file of the compiler behind it."""
    library = Path(load_nvidia_dynamic_lib("nvvm").abs_path)
    status = library.stat()
    return version("numba-cuda"), str(library), status.st_size, status.st_mtime_ns


def entry_of(ptx: str) -> str:
    """The name of the kernel in a PTX text."""
    found = re.search(r"\.entry\s+([\w$]+)", ptx)
    assert found, "no kernel in the PTX"
    return found.group(1)


def to_cubin(ptx: str, capability) -> bytes:
    """The machine code that nvJitLink makes of a PTX text."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}")
    return bytes(Linker(ObjectCode.from_ptx(ptx.encode()), options=options).link("cubin").code)
