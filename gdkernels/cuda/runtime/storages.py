"""The types that elements are stored in, by their names, and the groups of them that kernels are made for."""

REALS = ("float32", "float64")  # are computed with as they are stored
HALVES = ("bfloat16", "float16")  # have 16 bits, and are computed with in float32
EVERY = (*REALS, *HALVES)
NETWORKS = (*REALS, "bfloat16")  # what a network's matrices are stored in
SINGLES = ("float32", "bfloat16")  # of these, what is computed with in float32
