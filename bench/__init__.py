"""Benchmarks: steps against the peers (``python -m bench``), products against the peak (``python -m bench.gemm``)."""
