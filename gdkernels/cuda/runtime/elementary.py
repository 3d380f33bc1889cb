"""The elementary functions of `scalar.elementary` on the device, and the scalar mathematics for kernels.

They are libdevice's: errors of 1 to 2 ulp, no flushing of denormals, the limits of IEEE 754. The normal distribution in
float32 is our own.
"""

from ...scalar import elementary, functions
from .target import device, libdevice, overload, types

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


def _decay(exp):
    return device(lambda x: exp(-abs(x)))


DENSITY = 0.3989422804014327  # 1 / √(2π)
FAR = 40.0  # beyond it e^(−x²/2) is 0, also in float64


def _bell(exp, fma):
    """e^(−x²/2). What x² loses when it is rounded, which e^x would magnify x²/2 times, is put back."""

    def bell(x):
        x = abs(x)
        x = type(x)(FAR) if x > type(x)(FAR) else x
        half = type(x)(0.5)
        square = x * x
        lost = fma(x, x, -square)
        return exp(-half * square) * (type(x)(1) - half * lost)

    return device(bell)


_BELLS = {
    types.float32: _bell(libdevice.expf, libdevice.fmaf),
    types.float64: _bell(libdevice.exp, libdevice.fma),
}


def _normal_pdf(x):
    bell = _BELLS.get(x)
    return bell and (lambda x: type(x)(DENSITY) * bell(x))


# P(N(0, 1) > x) e^(x²/2) for 0 ≤ x ≤ 15 in float32: the quotient of polynomials of `cpu.runtime.elementary`. With
# libdevice's function gelu took 1.4 (float32) and 1.5 times (bfloat16) as long on an H200, for it waits for arithmetic.
ABOVE = 0.5, 0.43811654, 0.18309435, 0.040583257, 0.004108163
BELOW = 1.0, 1.6741180, 1.2019371, 0.46909676, 0.10173361, 0.010297518


@device
def _tail(x):
    """P(N(0, 1) > x) for x ≥ 0, in float32. The quotient is held beyond x = 15, where the density is 0."""
    real = type(x)
    y = real(15) if x > real(15) else x
    above = (real(ABOVE[4]) * y + real(ABOVE[3])) * y + real(ABOVE[2])
    above = (above * y + real(ABOVE[1])) * y + real(ABOVE[0])
    below = (real(BELOW[5]) * y + real(BELOW[4])) * y + real(BELOW[3])
    below = ((below * y + real(BELOW[2])) * y + real(BELOW[1])) * y + real(BELOW[0])
    return _single_bell(x) * (above / below)


_single_bell = _BELLS[types.float32]


def _single_normal_cdf(x):
    y = _tail(abs(x))
    return y if x < type(x)(0) else type(x)(1) - y


def _normal_cdf(x):
    if x == types.float32:
        return _single_normal_cdf
    return (lambda x: libdevice.normcdf(x)) if x == types.float64 else None


@device
def _single_normal_tail(x):
    return _tail(abs(x))


def _normal_tail(x):
    if x == types.float32:
        return lambda x: _single_normal_tail(x)
    return (lambda x: libdevice.normcdf(-abs(x))) if x == types.float64 else None


def install() -> None:
    """Let Numba compile calls of these functions, and of the marked ones of `scalar`, as ours."""
    chosen = {
        elementary.exp: _of_both(libdevice.expf, libdevice.exp),
        elementary.expm1: _of_both(libdevice.expm1f, libdevice.expm1),
        elementary.log: _of_both(libdevice.logf, libdevice.log),
        elementary.log1p: _of_both(libdevice.log1pf, libdevice.log1p),
        elementary.log1p_of_fraction: _of_both(libdevice.log1pf, libdevice.log1p),
        elementary.decay: _of_both(_decay(libdevice.expf), _decay(libdevice.exp)),
        elementary.tanh: _of_both(libdevice.tanhf, libdevice.tanh),
        elementary.normal_pdf: _normal_pdf,
        elementary.normal_cdf: _normal_cdf,
        elementary.normal_tail: _normal_tail,
    }
    for function, choose in chosen.items():
        overload(function, target="cuda", jit_options=INLINE)(choose)
    for function in functions():
        overload(function, target="cuda", jit_options=INLINE, strict=False)(_always(function))


def _always(function):
    return lambda *arguments: function
