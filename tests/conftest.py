"""What holds for every test, and what most of them take."""

import numpy as np
import pytest
from hypothesis import settings

# The first example of a kernel compiles it, which says nothing about the next: no time limit on an example.
settings.register_profile("gdkernels", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("gdkernels")

DTYPES = ("float32", "float64")


@pytest.fixture(params=DTYPES)
def dtype(request) -> str:
    """An element type: the test runs for each."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20240607)
