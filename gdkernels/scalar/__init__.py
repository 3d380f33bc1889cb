"""The mathematics of one element, written once and compiled for every target.

Functions here are plain Python on one number. They work for float32 and float64 alike and keep the type they are
given: constants are written ``type(z)(0.5)``, because a bare 0.5 would carry float32 arithmetic into float64.
"""

FUNCTIONS = []  # all of them; on the device the flags below would mean all of fast-math, with its disregard of NaN


def elementwise(function):
    """Let Numba compile a function into what calls it: here for the CPU, in `cuda.runtime.elementary` for the device."""
    from numba.extending import overload  # here, so that the schedules need no Numba

    FUNCTIONS.append(function)
    # contract (fused multiply-add) and nsz only: the result of an element must not depend on where it stands. The
    # NumPy error model divides without a check for zero, and what is inlined by force needs no call: either would
    # keep the loops around it from being vectorised.
    flags = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "forceinline": True}
    overload(function, jit_options=flags, strict=False, target="cpu")(lambda *arguments: function)
    return function
