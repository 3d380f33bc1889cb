"""The matrix product on CUDA: on ordinary units (`simt`), on tensor cores (`tensorcore`), by cuBLAS (`vendor`)."""
