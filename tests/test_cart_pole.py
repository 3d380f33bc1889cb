"""A policy that is trained inside one compiled function keeps the pole up."""

from examples.cart_pole import LONGEST, main


def test_the_pole_learns_to_stand():
    before, after = main()
    assert before < 0.1 * LONGEST
    assert after > 0.8 * LONGEST
