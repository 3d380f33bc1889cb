"""The one comparison of results with the reference: every element keeps to the bound that rounding explains."""

import numpy as np


def assert_within(result, exact, bound, what="", dtype=None) -> None:
    """|result − exact| ≤ bound, a `reference.rounding.Bound`; NaN and infinities must be where they belong.

    `dtype` is that of the arithmetic, if it is not that of the result.
    """
    result, exact = np.asarray(result), np.asarray(exact)
    assert result.shape == exact.shape, what
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(result[~finite], exact[~finite], what)
    with np.errstate(all="ignore"):  # where exact is not finite
        allowed, error = bound.allowed(dtype or result.dtype), np.abs(result - exact)
        excess = finite & ~(error <= allowed)  # a NaN is one, too
        worst = (error / allowed)[excess].max(initial=0)
    assert not excess.any(), (
        f"{what}: {result[excess][:5]}, exact {exact[excess][:5]}, worst {worst:.3g} bounds"
    )
