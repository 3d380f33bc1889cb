"""The precision of products, which can be set and asked for; products are NumPy's in any case."""

import numpy as np

COMPUTE_TYPE_DEFAULT, COMPUTE_TYPE_TF32 = 1, 7
types = {}


def get_compute_type(dtype):
    return types.get(np.dtype(dtype), COMPUTE_TYPE_DEFAULT)


def set_compute_type(dtype, compute_type):
    types[np.dtype(dtype)] = compute_type
