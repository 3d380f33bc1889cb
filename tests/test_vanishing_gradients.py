"""The gradient vanishes in 30 sigmoid layers, and the cures cure it."""

import pytest

from examples.vanishing_gradients import NETWORKS, gradient_norms

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_the_gradient_vanishes_in_thirty_sigmoid_layers():
    norms = gradient_norms(**NETWORKS["sigmoid, Xavier"])
    assert norms[-1] / norms[0] >= 1e6


@pytest.mark.parametrize("cure", ["ReLU, He", "sigmoid, residual + LayerNorm"])
def test_the_gradient_keeps_its_size_with_a_cure(cure):
    norms = gradient_norms(**NETWORKS[cure])
    assert norms.max() / norms.min() <= 1e2
