"""The elementary functions of `scalar.elementary` for the CPU, so that LLVM vectorises the loops they stand in.

Both sides of a decision are computed and one is selected; nothing branches, nothing calls a library. One formula serves
float32 and float64, with constants of its own (`Format`).

Rounding to an integer adds and subtracts 1.5 · 2^(bits of the mantissa), which leaves the integer in the low bits. The
flags are therefore {contract} alone: reassociation would cancel the two.

The errors in the docstrings are the largest that were found, in units of the last place of the exact result, for
float32 and for float64: over all 2^32 numbers of the one, over 10^7 random ones of the other (the normal law:
10^5). `tests/cpu/test_elementary.py` takes a sample of them. Denormal numbers are neither flushed nor refused.

The coefficients are minimax fits of the relative error (Remez; for quotients Lawson's iteration). The reductions are
those of W. Cody and W. Waite, Software Manual for the Elementary Functions (1980).
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from ...scalar import elementary
from ...scalar import functions as functions_of_an_element
from .flags import EXACT_FLAGS
from .machine import HAS_FMA
from .simd import add, bits, copysign, fused, horner, shift_left, shift_right, sub

_inlined = register_jitable(**EXACT_FLAGS)


@dataclass(frozen=True)
class Format:
    """A floating-point format, and the constants that depend on its precision."""

    real: type
    integer: type
    mantissa: int  # bits behind the point
    bias: int  # of the exponent
    exp_range: tuple[float, float]  # below it e^x is 0, above it ∞
    exp_least_normal: float  # below it e^x may be no normal number
    lift: int  # times 2^lift it is one, down to the end of the range
    expm1_least: float  # below it e^x − 1 is −1
    ln2_high: float  # log 2 with so few bits that its product with an exponent is exact
    ln2_low: float
    exp: tuple[float, ...]  # (e^r − 1 − r) / r² for |r| ≤ log(2) / 2, also a little beyond
    log: tuple[float, ...]  # (log(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f < √2
    log_of_fraction: tuple[float, ...]  # (log(1 + f) − f) / f² for 0 ≤ f ≤ 1
    tail_above: tuple[float, ...]  # P(N(0, 1) > y) exp(y²/2), a quotient of polynomials of 0 ≤ y ≤ tail_end
    tail_below: tuple[float, ...]
    tail_end: float  # beyond it the density of N(0, 1) is 0
    tail_step: int  # multiples of 2^−tail_step up to tail_end have exact squares


FLOAT32 = Format(
    real=np.float32,
    integer=np.int32,
    mantissa=23,
    bias=127,
    exp_range=(-104.1, 88.72283),
    exp_least_normal=-87.0,
    lift=24,
    expm1_least=-25.0,
    ln2_high=0.693359375,
    ln2_low=-2.1219444005469057e-4,
    exp=(0.49999997, 0.16666543, 0.0416672, 0.0083665205, 0.0013882521),
    log=(0.3333333, -0.2500082, 0.20001227, -0.16623357, 0.14201757, -0.1316018, 0.12761581, -0.07634507),
    log_of_fraction=(
        -0.49999933,
        0.33330512,
        -0.2495859,
        0.19695412,
        -0.15355429,
        0.10680612,
        -0.057665004,
        0.020204887,
        -0.0033185405,
    ),
    tail_above=(0.5, 0.43811654, 0.18309435, 0.040583257, 0.004108163),
    tail_below=(1.0, 1.6741180, 1.2019371, 0.46909676, 0.10173361, 0.010297518),
    tail_end=14.40625,
    tail_step=7,
)
# fmt: off
FLOAT64 = Format(
    real=np.float64,
    integer=np.int64,
    mantissa=52,
    bias=1023,
    exp_range=(-746.0, 709.782712893384),
    exp_least_normal=-708.0,
    lift=54,
    expm1_least=-50.0,
    ln2_high=2977044471 / 2**32,
    ln2_low=1.9082149292705877e-10,
    exp=(
        0.5, 0.16666666666666677, 0.04166666666666651, 0.008333333333321691, 0.0013888888888962368,
        0.00019841269885966146, 2.480158717254469e-05, 2.7557244373969605e-06, 2.7557402637198735e-07,
        2.5108978957077615e-08, 2.087533171985187e-09,
    ),
    log=(
        0.3333333333333314, -0.24999999999987976, 0.20000000000066606, -0.16666666669825833, 0.14285714280093897,
        -0.12499999691447583, 0.11111111147426582, -0.1000001520604821, 0.09090923932990747, -0.08332913545893542,
        0.07691529800733134, -0.07149439435622247, 0.06684589290485728, -0.061966791183371124, 0.05668376834695524,
        -0.05677780299511294, 0.06503491506789366, -0.059817134506345536, 0.02615102129878042,
    ),
    log_of_fraction=(
        -0.499999999999999, 0.3333333333331395, -0.24999999998631994, 0.19999999950439248, -0.16666665578777484,
        0.14285698376867376, -0.12499835229453037, 0.11109850130966914, -0.09992646825803142, 0.09057473568832106,
        -0.08212639674337001, 0.07341412066148714, -0.06310934091009966, 0.05039057801783465, -0.03587724313630355,
        0.021808311565702627, -0.010807986859276404, 0.004139865425334472, -0.0011396546539660262,
        0.00019944895968980006, -1.6599044628112686e-05,
    ),
    tail_above=(
        0.5, 0.8280071206529867, 0.6797389751465744, 0.3574461645364077, 0.13209631415990217, 0.03568500229009159,
        0.007127097560933432, 0.0010404566867023171, 0.00010666284871622258, 6.982922790660284e-06,
        2.244469314096936e-07,
    ),
    tail_below=(
        1.0, 2.4538988021088386, 2.8174059182684292, 2.0018691319871316, 0.980392798336841, 0.34845223092961575,
        0.09202206697793673, 0.01813122315568784, 0.0026255417413269637, 0.0002679267174660473,
        1.7503591706663974e-05, 5.626050244255751e-07,
    ),
    tail_end=38.6,
    tail_step=20,
)
# fmt: on


def functions(c: Format) -> dict:
    """The functions for one format. What a Numba function uses of `c` must stand before it as a constant."""
    real, integer, places, bias = c.real, c.integer, c.integer(c.mantissa), c.integer(c.bias)
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    infinity, nan = real(math.inf), real(math.nan)

    # ------------------------------------------------------------------------------------------ exp, expm1, tanh
    log2_e, ln2_high, ln2_low, exp_coefficients = (
        real(math.log2(math.e)),
        real(c.ln2_high),
        real(c.ln2_low),
        c.exp,
    )
    rounder = real(1.5 * 2**c.mantissa)
    # Leave the bits of the exponent of 2^n, and of 2^(n + lift).
    biased_rounder = real(1.5 * 2**c.mantissa + c.bias)
    lifting_rounder = real(1.5 * 2**c.mantissa + c.bias + c.lift)
    exp_of_minus_coefficients = tuple((-1) ** i * coefficient for i, coefficient in enumerate(c.exp))
    ln2, tanh_most = real(math.log(2)), real(-c.expm1_least)
    exp_least, exp_most, expm1_least = real(c.exp_range[0]), real(c.exp_range[1]), real(c.expm1_least)
    decay_end = -exp_least
    exp_least_normal, expm1_most = real(c.exp_least_normal), real(math.ceil(c.exp_range[1]))
    lift, nothing, lowered = integer(c.lift), integer(0), real(2.0**-c.lift)
    tiny = real(2.0 ** (-c.mantissa - 2))

    @_inlined
    def polynomial(r):
        """e^r − 1 for |r| ≤ log(2) / 2."""
        return r * r * horner(r, exp_coefficients) + r

    @_inlined
    def reduce(x):
        """(n, e^r − 1) with x = n log 2 + r; n stands in the low bits of an integer, which is all that shifts leave."""
        rounded = x * log2_e + rounder
        n = rounded - rounder
        return bits(rounded), polynomial(x - n * ln2_high - n * ln2_low)

    @_inlined
    def power(n):
        """2^n, for the exponents of normal numbers."""
        return bits(shift_left(add(n, bias), places))

    @_inlined
    def lifted(rounded, e):
        """(1 + e) 2^(n + lift), where n was rounded by `lifting_rounder`."""
        scale = bits(shift_left(bits(rounded), places))
        return e * scale + scale

    @_inlined
    def lifted_exp_of_sum(x, low):
        """e^(x + low) 2^lift for x ≤ 0 in `exp_range`; `low` is what the rounding of x has lost."""
        rounded = x * log2_e + lifting_rounder
        n = rounded - lifting_rounder
        return lifted(rounded, polynomial(x - n * ln2_high - n * ln2_low + low))

    def lifted_exp(x):
        """e^x 2^lift for x ≤ 0: 1.3 + 0.03 |x| and 1.3 + 0.3 |x| ulp, less than 1.3 + |x| without fused multiply-add.

        One constant for log 2 is enough: the rounding of x = z − peak may already have cost as much.
        """
        x = exp_least if x < exp_least else x
        rounded = x * log2_e + lifting_rounder
        return lifted(rounded, polynomial(x - (rounded - lifting_rounder) * ln2))

    def scale_down(x):
        """x 2^−lift."""
        return x * lowered

    def exp(x):
        """e^x: 1.05 and 0.99 ulp. Where the result may be denormal, 2^lift as large a one is rounded once."""
        n, e = reduce(exp_least if x < exp_least else x)
        denormal = x < exp_least_normal
        n = add(n, lift if denormal else nothing)
        y = bits(add(bits(one + e), shift_left(n, places)))  # times 2^n, which itself may be ∞
        y = y * lowered if denormal else y
        return y if x <= exp_most else x + infinity

    def decay(x):
        """e^−|x|: 1.05 and 0.99 ulp. Nothing overflows, and every result is rounded once at 2^lift times its size."""
        y = abs(x)
        y = decay_end if y > decay_end else y
        rounded = lifting_rounder - y * log2_e
        n = rounded - lifting_rounder
        r = y + n * ln2_high + n * ln2_low
        return lifted(rounded, r * r * horner(r, exp_of_minus_coefficients) - r) * lowered

    def expm1(x):
        """e^x − 1: 1.60 and 1.84 ulp."""
        held = expm1_most if x > expm1_most else x
        n, e = reduce(expm1_least if held < expm1_least else held)
        scale = power(sub(n, integer(1)))  # 2^n itself may be ∞
        y = two * (e * scale + (scale - half))
        return x if abs(x) < tiny else y

    def tanh(x):
        """−e / (e + 2) with e = e^(−2|x|) − 1, and the sign of x: 2.50 and 2.53 ulp.

        One constant for log 2 is enough: its error counts n 2^n times, at most half.
        """
        z = two * abs(x)
        z = tanh_most if z > tanh_most else z
        rounded = biased_rounder - z * log2_e
        n = rounded - biased_rounder
        r, scale = z + n * ln2, bits(shift_left(bits(rounded), places))  # −z = n log 2 − r
        e = (r * r * horner(r, exp_of_minus_coefficients) - r) * scale + (scale - one)
        return copysign(e / (e + two), x)

    # ------------------------------------------------------------------------------------------ log, log1p
    log_coefficients = c.log
    root = integer(real(math.sqrt(0.5)).view(integer))
    least_normal = real(2.0 ** (1 - c.bias))
    rise, rise_exponent = real(2.0 ** (c.mantissa + 1)), real(c.mantissa + 1)

    @_inlined
    def exponent(x):
        """k with √½ ≤ 2^−k x < √2."""
        return shift_right(sub(bits(x), root), places)

    @_inlined
    def mantissa(x, k):
        """2^−k x."""
        return bits(sub(bits(x), shift_left(k, places)))

    @_inlined
    def log_of_product(f, k):
        """log(1 + f) + k log 2."""
        square = f * f
        y = square * (f * horner(f, log_coefficients) - half) + k * ln2_low
        return k * ln2_high + (f + y)

    def log(x):
        """The natural logarithm: 0.88 and 0.94 ulp."""
        denormal = x < least_normal
        normal = x * rise if denormal else x
        k = exponent(normal)
        y = log_of_product(mantissa(normal, k) - one, real(k) - (rise_exponent if denormal else zero))
        y = y if x < infinity else x
        return y if x > zero else (-infinity if x == zero else nan)

    def log1p(x):
        """log(1 + x): 1.56 and 1.52 ulp.

        The digits that 1 + x loses matter where |x| < 1: there the fraction comes from x.
        """
        u = one + x
        k = exponent(u)
        scale = power(sub(integer(0), k))
        f = x * scale + (scale - one) if x < one else mantissa(u, k) - one
        y = copysign(log_of_product(f, real(k)), x)
        y = y if x < infinity else x
        return y if x > -one else (-infinity if x == -one else nan)

    fraction_coefficients = c.log_of_fraction

    def log1p_of_fraction(x):
        """log(1 + x) for 0 ≤ x ≤ 1: 1.28 and 1.30 ulp."""
        return x * x * horner(x, fraction_coefficients) + x

    # ------------------------------------------------------------------------------------------ normal law
    tail_above, tail_end = c.tail_above, real(c.tail_end)
    lifted_tail_below = tuple(2.0**c.lift * coefficient for coefficient in c.tail_below)
    coarsener = real(1.5 * 2 ** (c.mantissa - c.tail_step))
    lowered_density = real(2.0**-c.lift / math.sqrt(2 * math.pi))

    @_inlined
    def size(x):
        """|x|, at most `tail_end`."""
        y = abs(x)
        return tail_end if y > tail_end else y

    # −y²/2 comes in two parts: its rounding error would be multiplied by y²/2.
    @_inlined
    def fused_gauss(y):
        """e^(−y²/2) 2^lift, with what the square loses by a fused multiply-add."""
        left = -half * y
        x = left * y
        return lifted_exp_of_sum(x, fused(left, y, -x))

    @_inlined
    def split_gauss(y):
        """e^(−y²/2) 2^lift, with a part of y whose square is exact."""
        coarse = (y + coarsener) - coarsener
        return lifted_exp_of_sum(-half * coarse * coarse, -half * (y - coarse) * (y + coarse))

    gauss = fused_gauss if HAS_FMA else split_gauss

    @_inlined
    def tail(y):
        """P(N(0, 1) > y) for 0 ≤ y ≤ `tail_end`; the quotient undoes the lift, so that it is rounded once."""
        return gauss(y) * horner(y, tail_above) / horner(y, lifted_tail_below)

    def normal_cdf(x):
        """P(N(0, 1) ≤ x): 6.3 and 7.5 ulp, both in the left tail."""
        y = tail(size(x))
        return y if x < zero else one - y

    def normal_tail(x):
        """P(N(0, 1) > |x|): 6.3 and 7.5 ulp."""
        return tail(size(x))

    def normal_pdf(x):
        """The density of N(0, 1): 2.13 and 2.14 ulp."""
        return gauss(size(x)) * lowered_density

    public = (
        exp, expm1, tanh, log, log1p, normal_cdf, normal_pdf, decay, log1p_of_fraction, normal_tail, lifted_exp,
        scale_down,
    )  # fmt: skip
    return {f.__name__: f for f in public}


FUNCTIONS = {types.float32: functions(FLOAT32), types.float64: functions(FLOAT64)}


def lifted_exp(x):
    """e^x 2^lift for x ≤ 0: never denormal, so that it takes one factor where `exp` takes two."""
    raise NotImplementedError


def scale_down(x):
    """x 2^−lift."""
    raise NotImplementedError


def install() -> None:
    """Let Numba compile calls of these functions, and of the marked ones of `scalar`, as ours."""
    own = {"lifted_exp": lifted_exp, "scale_down": scale_down}
    for name in FUNCTIONS[types.float32]:
        _install(own.get(name) or getattr(elementary, name))
    # nsz besides: the result of an element must not depend on where it stands.
    flags = EXACT_FLAGS | {"fastmath": {"contract", "nsz"}}
    for function in functions_of_an_element():
        overload(function, jit_options=flags, strict=False, target="cpu")(_always(function))


def _install(function) -> None:
    """Compile calls of a function as ours, by the type of the argument."""

    @overload(function, target="cpu", jit_options=EXACT_FLAGS)
    def choose(x):
        return FUNCTIONS[x][function.__name__] if x in FUNCTIONS else None


def _always(function):
    return lambda *arguments: function
