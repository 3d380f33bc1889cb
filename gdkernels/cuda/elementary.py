"""The elementary functions of `scalar.elementary` on the device, and the scalar mathematics for kernels.

They are libdevice's: errors of 1 to 2 ulp, no flushing of denormals, the limits of IEEE 754.
"""

from ..scalar import FUNCTIONS, activations, elementary, losses, optimizers, philox  # noqa: F401
from .target import libdevice, overload, types

INLINE = {"forceinline": True}


def _of_both(single, double):
    """What `overload` asks for: the function of each type."""

    def choose(x):
        if x == types.float32:
            return lambda x: single(x)
        if x == types.float64:
            return lambda x: double(x)
        return None

    return choose


for _name, _single, _double in (
    ("exp", libdevice.expf, libdevice.exp),
    ("expm1", libdevice.expm1f, libdevice.expm1),
    ("log", libdevice.logf, libdevice.log),
    ("log1p", libdevice.log1pf, libdevice.log1p),
    ("tanh", libdevice.tanhf, libdevice.tanh),
    ("erf", libdevice.erff, libdevice.erf),
    ("normal_cdf", libdevice.normcdff, libdevice.normcdf),
):
    overload(getattr(elementary, _name), target="cuda", jit_options=INLINE)(_of_both(_single, _double))

DENSITY = 0.3989422804014327  # 1 / √(2π)
LARGE = 40.0  # from here on the density is 0, also in float64


def _density(exp, fma):
    """e^(−x²/2) / √(2π). What x² loses when it is rounded, which e^x would magnify x²/2 times, is put back."""

    def density(x):
        x = abs(x)
        x = type(x)(LARGE) if x > type(x)(LARGE) else x
        half = type(x)(0.5)
        square = x * x
        lost = fma(x, x, -square)
        return type(x)(DENSITY) * exp(-half * square) * (type(x)(1) - half * lost)

    return density


@overload(elementary.normal_pdf, target="cuda", jit_options=INLINE)
def _normal_pdf(x):
    return _DENSITIES.get(x)


_DENSITIES = {
    types.float32: _density(libdevice.expf, libdevice.fmaf),
    types.float64: _density(libdevice.exp, libdevice.fma),
}


def _on_device(function):
    overload(function, target="cuda", jit_options=INLINE, strict=False)(lambda *arguments: function)


for _function in FUNCTIONS:
    _on_device(_function)
