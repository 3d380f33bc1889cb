"""Whether a product's operands are packed changes its time alone, as tools/packing.py measures it."""

import numpy as np
import pytest

from gdkernels.cpu.runtime.team import run
from tools import packing


def product_of(op, a, b):
    out = np.empty((len(a), b.shape[1]), a.dtype)
    run(op(a, b, out))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decision", "never"),
    [
        ("worth_packing_a", lambda n, k, rsa, csa, width: csa != 1),
        ("worth_packing_b", lambda m, n, rsb, csb, width: csb != 1),
    ],
)
def test_packed_and_unpacked_products_have_the_same_bits(decision, never, rng):
    always, never = packing.products(decision, never)
    for m, k, n in ((7, 5, 3), (100, 600, 70), (300, 1100, 40)):
        a, b = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
        for left, right in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b))):
            exact = left.astype("f8") @ right.astype("f8")
            found = product_of(always, left, right)
            np.testing.assert_array_equal(found, product_of(never, left, right))
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)
    assert packing.ratio(a, b, always, never) > 0
