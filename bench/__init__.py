"""Measurements: steps against the peers (``python -m bench``), products against the peak (``python -m bench.gemm``),
kernels on a GPU (``python -m bench.gpu``), and what their machine code needs of one (``python -m bench.static``).
"""
