"""The elementary functions of `scalar.elementary` for the CPU, so that LLVM vectorises the loops they stand in.

Both sides of a decision are computed and one is selected; nothing branches, nothing calls a library. float32 has all
of them; float64 has exp, expm1 and tanh, and takes the others from the C library, one element at a time.

Rounding to an integer adds and subtracts 1.5 · 2^(mantissa bits), which leaves the integer in the low bits. The
flags are therefore {contract} alone: reassociation would cancel the two. The ulp in the docstrings are the largest
errors found by `tests/cpu/test_vmath.py` and by a sweep of all 2^32 float32 (float64: 10^8 random points), against
the C library in float64 (float64: against long double), relative to the spacing of floats at the exact result.

The coefficients are minimax fits of the relative error (Remez; W. Cody, W. Waite, Software Manual for the
Elementary Functions, 1980, for the two-part reductions).
"""

import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from ..scalar import elementary
from .simd import add32, bits32, bits64, copysign, horner, sar32, shl32, sub32

FLAGS = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}

_inlined = register_jitable(**FLAGS)

f4, f8, i4, i8 = np.float32, np.float64, np.int32, np.int64


# ---------------------------------------------------------------------------------------------- exp, expm1, tanh

# x = n log 2 + r with |r| ≤ log(2) / 2. The high part of log 2 has few bits: its product with n is exact.
LOG2E_32, LN2_HIGH_32, LN2_LOW_32 = f4(math.log2(math.e)), f4(0.693359375), f4(math.log(2) - 0.693359375)
LOG2E_64, LN2_HIGH_64 = math.log2(math.e), float.fromhex("0x1.62e42feep-1")
LN2_LOW_64 = float.fromhex("0x1.a39ef35793c76p-33")
ROUND_32, ROUND_64 = f4(1.5 * 2**23), 1.5 * 2**52
ROUND_BITS_32, ROUND_BITS_64 = i4(ROUND_32.view(i4)), i8(f8(ROUND_64).view(i8))

# (e^r − 1 − r) / r²
EXP_32 = (0.49999997, 0.16666543, 0.0416672, 0.0083665205, 0.0013882521)
EXP_64 = (
    0.5,
    0.16666666666666677,
    0.04166666666666651,
    0.008333333333321691,
    0.0013888888888962368,
    0.00019841269885966146,
    2.480158717254469e-05,
    2.7557244373969605e-06,
    2.7557402637198735e-07,
    2.5108978957077615e-08,
    2.087533171985187e-09,
)


@_inlined
def _clamp(x, low, high):
    """x held in [low, high]; NaN stays NaN."""
    x = high if x > high else x
    return low if x < low else x


@_inlined
def _reduce32(x, low):
    """(n, e^r − 1) with x + low = n log 2 + r, where low is small: what the rounding of x has lost."""
    rounded = (x + low) * LOG2E_32 + ROUND_32
    n = rounded - ROUND_32
    r = x - n * LN2_HIGH_32 - n * LN2_LOW_32 + low
    return sub32(bits32(rounded), ROUND_BITS_32), r * r * horner(r, EXP_32) + r


@_inlined
def _reduce64(x):
    rounded = x * LOG2E_64 + ROUND_64
    n = rounded - ROUND_64
    r = x - n * LN2_HIGH_64 - n * LN2_LOW_64
    return bits64(rounded) - ROUND_BITS_64, r * r * horner(r, EXP_64) + r


@_inlined
def _power32(n):
    """2^n for a normal result."""
    return bits32(shl32(add32(n, i4(127)), i4(23)))


@_inlined
def _power64(n):
    return bits64((n + 1023) << 52)


@_inlined
def _exp_sum32(x, low):
    """exp(x + low), see `_reduce32`."""
    n, e = _reduce32(_clamp(x, f4(-104.1), f4(89.0)), low)
    half = sar32(n, i4(1))  # two factors: 2^n alone may be too large or too small for a normal number
    return (f4(1) + e) * _power32(half) * _power32(sub32(n, half))


def _exp32(x):
    return _exp_sum32(x, f4(0))


@_inlined
def _exp64(x):
    n, e = _reduce64(_clamp(x, -746.0, 710.0))
    half = n >> 1
    return (1.0 + e) * _power64(half) * _power64(n - half)


def _expm1_32(x):
    n, e = _reduce32(_clamp(x, f4(-25.0), f4(89.0)), f4(0))
    power = _power32(sub32(n, i4(1)))  # 2^n = 2 power, which alone could overflow
    y = f4(2) * (e * power + (power - f4(0.5)))
    return x if abs(x) < f4(2**-25) else y


def _expm1_64(x):
    n, e = _reduce64(_clamp(x, -50.0, 710.0))
    power = _power64(n - 1)
    y = 2.0 * (e * power + (power - 0.5))
    return x if abs(x) < 2**-54 else y


@_inlined
def _tanh32(x):
    n, e = _reduce32(_clamp(f4(-2) * abs(x), f4(-25.0), f4(0)), f4(0))
    power = _power32(n)
    e = e * power + (power - f4(1))  # exp(−2|x|) − 1
    return copysign(e / (e + f4(2)), x)


@_inlined
def _tanh64(x):
    n, e = _reduce64(_clamp(-2.0 * abs(x), -50.0, 0.0))
    power = _power64(n)
    e = e * power + (power - 1.0)
    return copysign(e / (e + 2.0), x)


# ---------------------------------------------------------------------------------------------- log, log1p

# (log(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f < √2
LOG_32 = (0.3333333, -0.2500082, 0.20001227, -0.16623357, 0.14201757, -0.1316018, 0.12761581, -0.07634507)
SQRT_HALF_BITS_32 = i4(f4(math.sqrt(0.5)).view(i4))
SMALLEST_NORMAL_32 = f4(2.0**-126)


@_inlined
def _exponent32(x):
    """k with √½ ≤ 2^−k x < √2 (with the float √½)."""
    return sar32(sub32(bits32(x), SQRT_HALF_BITS_32), i4(23))


@_inlined
def _log_sum32(f, k):
    """log(1 + f) + k log 2."""
    k = f4(k)
    square = f * f
    y = square * (f * horner(f, LOG_32) - f4(0.5)) + k * LN2_LOW_32
    return k * LN2_HIGH_32 + (f + y)


def _log32(x):
    small = x < SMALLEST_NORMAL_32
    scaled = x * f4(2**24) if small else x
    k = _exponent32(scaled)
    m = bits32(sub32(bits32(scaled), shl32(k, i4(23))))
    y = _log_sum32(m - f4(1), f4(k) - (f4(24) if small else f4(0)))
    y = x if x == f4(math.inf) else y
    y = f4(-math.inf) if x == f4(0) else y
    return f4(math.nan) if x < f4(0) or x != x else y


def _log1p32(x):
    u = x + f4(1)
    k = _exponent32(u)
    m = bits32(sub32(bits32(u), shl32(k, i4(23))))
    power = _power32(
        sub32(i4(0), k)
    )  # the rounding of 1 + x matters where log1p(x) is small: there take x itself
    y = _log_sum32(x * power + (power - f4(1)) if x < f4(1) else m - f4(1), k)
    y = x if abs(x) < f4(2**-25) or x == f4(math.inf) else y
    y = f4(-math.inf) if x == f4(-1) else y
    return f4(math.nan) if x < f4(-1) or x != x else y


# ---------------------------------------------------------------------------------------------- erf, the normal law

# erf(x) / x − 1 as a polynomial of x², for |x| ≤ 1
ERF_32 = (0.12837917, -0.37612626, 0.11283584, -0.026853766, 0.0051882318, -0.0008009269, 7.85053854e-05)
# P(N(0, 1) > y) exp(y²/2) as a quotient of polynomials of y, for 0 ≤ y ≤ 14.5
TAIL_P_32 = (0.5, 0.43811654584584037, 0.1830943471588755, 0.040583257482104146, 0.0041081631075683194)
TAIL_Q_32 = (
    1.0,
    1.674118045361545,
    1.201937062898452,
    0.4690967544704895,
    0.1017336131387091,
    0.01029751757746039,
)
COARSE_32 = f4(1.5 * 2**16)  # adding and subtracting it rounds to a multiple of 2^-7


@_inlined
def _gauss32(y):
    """exp(−y²/2) for 0 ≤ y ≤ 15: y² in two parts, as its rounding error would be multiplied by y²/2."""
    coarse = (y + COARSE_32) - COARSE_32  # its square is exact
    return _exp_sum32(f4(-0.5) * coarse * coarse, f4(-0.5) * (y - coarse) * (y + coarse))


@_inlined
def _size32(x):
    """|x|, at most 15, where the density and the tail are 0."""
    y = abs(x)
    return f4(15) if y > f4(15) else y


@_inlined
def _tail32(y):
    """P(N(0, 1) > y) for 0 ≤ y ≤ 15."""
    return _gauss32(y) * horner(y, TAIL_P_32) / horner(y, TAIL_Q_32)


def _erf32(x):
    near = x + x * horner(x * x, ERF_32)
    far = copysign(f4(1) - f4(2) * _tail32(_size32(x * f4(math.sqrt(2)))), x)
    return near if abs(x) < f4(1) else far


def _normal_cdf32(x):
    tail = _tail32(_size32(x))
    return tail if x < f4(0) else f4(1) - tail


def _normal_pdf32(x):
    return _gauss32(_size32(x)) * f4(1 / math.sqrt(2 * math.pi))


def _normal_pdf64(x):
    return _exp64(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


# ---------------------------------------------------------------------------------------------- the C library's


def _log64(x):
    return math.log(x)


def _log1p64(x):
    return math.log1p(x)


def _erf64(x):
    return math.erf(x)


def _normal_cdf64(x):
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def _install(function, for_float32, for_float64):
    """Compile calls of `function` as one of these, by the type of the argument."""

    @overload(function, target="cpu", jit_options=FLAGS)
    def choose(x):
        return {types.float32: for_float32, types.float64: for_float64}.get(x)


_install(elementary.exp, _exp32, _exp64)
_install(elementary.expm1, _expm1_32, _expm1_64)
_install(elementary.tanh, _tanh32, _tanh64)
_install(elementary.log, _log32, _log64)
_install(elementary.log1p, _log1p32, _log1p64)
_install(elementary.erf, _erf32, _erf64)
_install(elementary.normal_cdf, _normal_cdf32, _normal_cdf64)
_install(elementary.normal_pdf, _normal_pdf32, _normal_pdf64)
