"""What Numba is told when it compiles: which liberties with floating-point numbers it may take.

nnan and ninf are never among them: NaN and infinity mean what IEEE 754 says. The NumPy error model divides without a check
for zero; with the check no loop would be vectorised.
"""

# contract and nsz keep every element's bits independent of where it stands in a vector, a tail or a thread's range.
FLAGS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}

# For sums that may be reordered, over ranges that do not depend on the threads.
SUM_FLAGS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}

# Of what is only called from compiled code: Numba makes and optimises no second function with a C interface.
WITHIN = {"forceinline": True, "no_cfunc_wrapper": True}

# For functions that round by adding and subtracting a constant, and stand in loops that must be vectorised: what is inlined
# by force needs no call.
EXACT_FLAGS = {"fastmath": {"contract"}, "error_model": "numpy", **WITHIN}
