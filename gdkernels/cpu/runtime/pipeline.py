"""How Numba compiles a native function: as it does any other, and with leave for LLVM to use the widest vectors.

Left to itself LLVM takes half of a 512-bit register on Intel's processors, because the first that had it ran slower
meanwhile. Those of today do not; half vectors halve what the multiply-add units do.
"""

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering, NativeLowering

from .machine import VECTOR_BITS

WIDEST = f'"prefer-vector-width"="{VECTOR_BITS}"'  # an attribute of a function, in LLVM's words


class WideLower(Lower):
    """Numba IR to LLVM's, in a function that asks for whole vectors."""

    def setup_function(self, fndesc):
        super().setup_function(fndesc)
        # llvmlite writes an attribute as it stands, but takes only those that it knows through `add` of its own.
        set.add(self.function.attributes, WIDEST)


@register_pass(mutates_CFG=True, analysis_only=False)
class WideLowering(BaseNativeLowering):
    _name = "gdkernels_wide_lowering"

    @property
    def lowering_class(self):
        return WideLower


class WideCompiler(CompilerBase):
    """Numba's nopython pipeline with `WideLowering`."""

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (WideLowering, words) if one is NativeLowering else (one, words) for one, words in passes.passes
        ]
        passes.finalize()
        return [passes]
